-- The last day of each project: its last complete day or, when incomplete days are asked for, its last day.
--
-- Reads days, and parameters (one row: include_incomplete). Join it to any table with USING (project, snapshot_date).
SELECT
    days.project,
    MAX(days.snapshot_date) AS snapshot_date
FROM days
CROSS JOIN parameters
WHERE days.is_complete
    OR parameters.include_incomplete
GROUP BY days.project
