-- How many tags of the registry have each layer, so that it is known when a layer is freed: when none is left.
-- Two tags of one manifest are two tags with all its layers.
--
-- Reads registry_tags and registry_layers, which has only manifests that a tag points to.
WITH named_again AS (
    SELECT
        digest,
        COUNT(*) - 1 AS further_tags
    FROM registry_tags
    WHERE digest IS NOT NULL
    GROUP BY digest
    HAVING COUNT(*) > 1
)

-- Most manifests have one tag: only the others are looked up.
SELECT
    registry_layers.layer_digest,
    MAX(registry_layers.size_bytes) AS size_bytes,
    CAST(COUNT(*) + COALESCE(SUM(named_again.further_tags), 0) AS BIGINT) AS tags
FROM registry_layers
LEFT JOIN named_again
    ON named_again.digest = registry_layers.digest
GROUP BY registry_layers.layer_digest
