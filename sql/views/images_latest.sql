-- The images of each project's last day, as `latest_days` says which that is.
--
-- Reads images and latest_days.
SELECT images.*
FROM images
INNER JOIN latest_days
    ON latest_days.project = images.project
    AND latest_days.snapshot_date = images.snapshot_date
