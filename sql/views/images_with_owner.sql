-- The images of all complete days, each with its owner, cost centre and environment: those of the inventory of that day,
-- or of a cloud tag where it states none.
--
-- Reads days, images, inventory and image_costs, which has what tags say and `owner_source`; a deleted image has what the
-- inventory says. Columns of the inventory come first, so that new ones of images can follow.
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
