-- How many tags of each set have each shared layer. Several rows of a set and layer add up.
--
-- Reads set_tags (see set_tags.sql) and shared_layers (see shared_layers.sql).
SELECT
    set_tags.set_number,
    shared_layers.layer,
    MAX(shared_layers.size_bytes) AS size_bytes,
    MAX(shared_layers.tags) AS tags,
    COUNT(*) AS tags_of_set
FROM shared_layers
INNER JOIN set_tags
    ON set_tags.manifest = shared_layers.manifest
GROUP BY
    set_tags.set_number,
    shared_layers.layer
