-- How many images and fields changed on each complete day, by project, class and kind of change.
--
-- Reads days and image_changes. Days on which nothing changed have no row.
SELECT
    c.project,
    c.snapshot_date,
    c.change_class,
    c.change,
    COUNT(DISTINCT c.id) AS images,
    COUNT(*) AS fields
FROM image_changes AS c
INNER JOIN days AS d
    ON d.project = c.project
    AND d.snapshot_date = c.snapshot_date
WHERE d.is_complete
GROUP BY
    c.project,
    c.snapshot_date,
    c.change_class,
    c.change
