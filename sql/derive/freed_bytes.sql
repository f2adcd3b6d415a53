-- What deleting each of some sets of tags frees together: the bytes of each layer that no other tag of the registry has.
-- A layer counts once, however many tags of the set have it.
--
-- Reads set_tags (set_number, dimension, name; manifest, unique_bytes: one row for each tag of the set, see set_tags.sql)
-- and shared_layers (see shared_layers.sql).
WITH unique_layers AS (
    SELECT
        set_number,
        dimension,
        name,
        SUM(unique_bytes) AS bytes
    FROM set_tags
    GROUP BY
        set_number,
        dimension,
        name
),

set_layers AS (
    SELECT
        set_tags.set_number,
        MAX(shared_layers.size_bytes) AS size_bytes
    FROM shared_layers
    INNER JOIN set_tags
        ON set_tags.manifest = shared_layers.manifest
    GROUP BY
        set_tags.set_number,
        shared_layers.layer
    HAVING COUNT(*) = MAX(shared_layers.tags)
),

freed_layers AS (
    SELECT
        set_number,
        SUM(size_bytes) AS bytes
    FROM set_layers
    GROUP BY set_number
)

SELECT
    unique_layers.dimension,
    unique_layers.name,
    CAST(unique_layers.bytes + COALESCE(freed_layers.bytes, 0) AS BIGINT) AS bytes
FROM unique_layers
LEFT JOIN freed_layers
    ON freed_layers.set_number = unique_layers.set_number
WHERE unique_layers.bytes + COALESCE(freed_layers.bytes, 0) > 0
