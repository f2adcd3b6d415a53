-- What deleting each of some sets of tags frees together: the bytes of each layer that no other tag of the registry has.
-- A layer counts once, however many tags of the set have it.
--
-- Reads set_tags (dimension, name, digest; tags: how many tags of that manifest are in the set), registry_layers and
-- layer_tags (see layer_tags.sql).
WITH set_layers AS (
    SELECT
        set_tags.dimension,
        set_tags.name,
        registry_layers.layer_digest,
        SUM(set_tags.tags) AS tags
    FROM set_tags
    INNER JOIN registry_layers
        ON registry_layers.digest = set_tags.digest
    GROUP BY
        set_tags.dimension,
        set_tags.name,
        registry_layers.layer_digest
)

SELECT
    set_layers.dimension,
    set_layers.name,
    CAST(SUM(layer_tags.size_bytes) AS BIGINT) AS bytes
FROM set_layers
INNER JOIN layer_tags
    ON layer_tags.layer_digest = set_layers.layer_digest
    AND layer_tags.tags = set_layers.tags
GROUP BY
    set_layers.dimension,
    set_layers.name
