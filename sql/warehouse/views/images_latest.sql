-- The images that exist: what the API described on the last complete day of each project, deleted ones left out.
-- From days, images and responses.
SELECT
    i.*
FROM images AS i
INNER JOIN (
    SELECT
        d.project,
        MAX(d.snapshot_date) AS snapshot_date
    FROM days AS d
    WHERE d.is_complete
    GROUP BY d.project
) AS latest
    ON latest.project = i.project
    AND latest.snapshot_date = i.snapshot_date
INNER JOIN responses AS r
    ON r.project = i.project
    AND r.snapshot_date = i.snapshot_date
    AND r.id = i.id
WHERE r.outcome = 'ok'
