-- id: not_registered
-- title: Present, but not registered
-- severity: medium
-- why: Nobody is responsible for an image that is not in the inventory, and no other rule checks it.
-- do: Add it to the inventory with an owner, or delete it. The likely owner is the only owner in its namespace.
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
