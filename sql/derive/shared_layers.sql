-- The layers of each manifest that several tags have. Layers and manifests are numbered, because there are many more rows
-- than layers, and numbers are compared faster than digests.
--
-- Reads registry_layers, layer_tags (see layer_tags.sql) and manifests (see manifests.sql).
WITH numbered AS (
    SELECT
        ROW_NUMBER() OVER (ORDER BY layer_digest) AS layer,
        layer_digest,
        size_bytes,
        tags
    FROM layer_tags
    WHERE tags > 1
)

SELECT
    manifests.manifest,
    numbered.layer,
    numbered.size_bytes,
    numbered.tags
FROM registry_layers
INNER JOIN numbered
    ON numbered.layer_digest = registry_layers.layer_digest
INNER JOIN manifests
    ON manifests.digest = registry_layers.digest
