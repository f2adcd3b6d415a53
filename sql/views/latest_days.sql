-- The last complete day of each project, to be joined with any table.
--
-- Reads days.
SELECT
    d.project,
    MAX(d.snapshot_date) AS snapshot_date
FROM days AS d
WHERE d.is_complete
GROUP BY d.project
