-- The images that the API described on the last day of each project, without deleted ones.
--
-- Reads latest_days, images and responses.
SELECT i.*
FROM images AS i
INNER JOIN latest_days AS latest
    ON latest.project = i.project
    AND latest.snapshot_date = i.snapshot_date
INNER JOIN responses AS r
    ON r.project = i.project
    AND r.snapshot_date = i.snapshot_date
    AND r.id = i.id
WHERE r.outcome = 'ok'
