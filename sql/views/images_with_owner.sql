-- The images of all complete days, each with owner, cost centre and environment from that day's inventory, or from a cloud
-- tag where the inventory states none.
--
-- Reads days, images, inventory and image_costs, which knows the tags and has `owner_source`; a deleted image has no row
-- there. The inventory's columns come first, so that new columns of images can be appended.
SELECT
    COALESCE(c.owner, v.owner) AS owner,
    COALESCE(c.cost_center, v.cost_center) AS cost_center,
    COALESCE(c.environment, v.environment) AS environment,
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
LEFT JOIN image_costs AS c
    ON c.project = i.project
    AND c.snapshot_date = i.snapshot_date
    AND c.id = i.id
WHERE d.is_complete
