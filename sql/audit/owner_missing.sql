-- id: owner_missing
-- title: No owner or no cost centre
-- severity: medium
-- why: Without an owner nobody is responsible for the image, and without a cost centre nobody pays for it.
-- do: State both in the inventory, or as cloud tags of the image.
SELECT
    inventory.id,
    current_images.owner,
    current_images.cost_center,
    current_images.namespace,
    current_images.create_at
FROM inventory
INNER JOIN current_images ON current_images.id = inventory.id
WHERE current_images.owner IS NULL
    OR current_images.cost_center IS NULL
