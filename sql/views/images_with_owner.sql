-- The images of all complete days, each with what the inventory of that day says: owner, cost centre, environment.
--
-- Reads days, images and inventory. Columns of the inventory come first, so that new ones of images can follow.
SELECT
    v.owner,
    v.cost_center,
    v.environment,
    v.attributes,
    i.*
FROM images AS i
INNER JOIN days AS d
    ON d.project = i.project
    AND d.snapshot_date = i.snapshot_date
LEFT JOIN inventory AS v
    ON v.project = i.project
    AND v.snapshot_date = i.snapshot_date
    AND v.id = i.id
WHERE d.is_complete
