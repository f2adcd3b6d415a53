-- id: owner_missing
-- title: No owner or no cost centre
-- severity: medium
-- why: Without an owner nobody is responsible for the image, and without a cost centre nobody pays for it.
-- do: State both in the inventory, or as cloud tags of the image.
SELECT
    id,
    owner,
    cost_center,
    namespace,
    create_at
FROM current_images
WHERE is_registered
    AND (owner IS NULL OR cost_center IS NULL)
