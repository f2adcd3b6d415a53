-- What deleting each of some sets of tags frees together: the bytes of each layer that no other tag of the registry has.
-- A layer counts once, however many tags of the set have it.
--
-- Reads sets (see sets.sql), set_tags (see set_tags.sql) and set_layers (see set_layers.sql).
WITH unique_layers AS (
    SELECT
        set_number,
        SUM(unique_bytes) AS bytes
    FROM set_tags
    GROUP BY set_number
),

freed_layers AS (
    SELECT
        set_number,
        MAX(size_bytes) AS size_bytes
    FROM set_layers
    GROUP BY
        set_number,
        layer
    HAVING SUM(tags_of_set) = MAX(tags)
),

freed AS (
    SELECT
        set_number,
        SUM(size_bytes) AS bytes
    FROM freed_layers
    GROUP BY set_number
)

SELECT
    sets.dimension,
    sets.name,
    CAST(unique_layers.bytes + COALESCE(freed.bytes, 0) AS BIGINT) AS bytes
FROM sets
INNER JOIN unique_layers
    ON unique_layers.set_number = sets.set_number
LEFT JOIN freed
    ON freed.set_number = sets.set_number
WHERE unique_layers.bytes + COALESCE(freed.bytes, 0) > 0
