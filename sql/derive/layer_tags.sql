-- How many tags of the registry have each layer, so that it is known when a layer is freed: when none is left.
-- Two tags of one manifest are two tags with all its layers. `manifests` counts manifests, `digest` is one of them.
--
-- Reads registry_tags and registry_layers.
WITH digest_tags AS (
    SELECT
        digest,
        COUNT(*) AS tags
    FROM registry_tags
    WHERE digest IS NOT NULL
    GROUP BY digest
)

SELECT
    registry_layers.layer_digest,
    MAX(registry_layers.size_bytes) AS size_bytes,
    CAST(SUM(digest_tags.tags) AS BIGINT) AS tags,
    MIN(registry_layers.digest) AS digest
FROM registry_layers
INNER JOIN digest_tags
    ON digest_tags.digest = registry_layers.digest
GROUP BY registry_layers.layer_digest
