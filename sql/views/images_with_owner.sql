-- The images of all days, each with what the inventory of that day says of it: owner, cost centre, environment.
--
-- Reads images and inventory.
SELECT
    images.*,
    inventory.owner,
    inventory.cost_center,
    inventory.environment,
    inventory.attributes
FROM images
LEFT JOIN inventory
    ON inventory.project = images.project
    AND inventory.snapshot_date = images.snapshot_date
    AND inventory.id = images.id
