-- The images of all complete days, each with owner, cost centre and environment from that day's inventory.
--
-- Reads days, images and inventory. The inventory's columns come first, so that new columns of images can be appended.
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
