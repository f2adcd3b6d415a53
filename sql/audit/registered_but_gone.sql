-- id: registered_but_gone
-- title: Registered, but gone
-- severity: medium
-- why: The inventory names an image that the API says is gone: the register is wrong, or somebody deleted what others
--   count on.
-- do: Ask who deleted it; remove it from the inventory, or build it again.
SELECT
    id,
    outcome,
    namespace,
    swr_path
FROM image_reconciliation
WHERE kind = 'registered_but_gone'
