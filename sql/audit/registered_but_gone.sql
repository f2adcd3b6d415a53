-- id: registered_but_gone
-- title: Registered, but gone
-- severity: medium
-- why: The inventory names an image that the API reports as gone. The inventory is outdated, or somebody deleted an
--   image that others need.
-- do: Ask who deleted it. Remove it from the inventory, or build it again.
SELECT
    id,
    outcome,
    namespace,
    swr_path
FROM image_reconciliation
WHERE kind = 'registered_but_gone'
