-- id: not_registered
-- title: Present, but not registered
-- severity: medium
-- why: Nobody answers for an image that is in no inventory, and nothing else here looks at it.
-- do: Add it to the inventory with an owner, or delete it. The likely owner is the only one of its namespace.
-- needs: list
SELECT
    id,
    namespace,
    swr_path,
    visibility,
    size_bytes,
    likely_owner
FROM image_reconciliation
WHERE kind = 'not_registered'
