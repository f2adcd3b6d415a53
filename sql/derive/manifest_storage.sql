-- What the registry stores for each manifest that tags point to, by its layers.
-- unique_bytes: of layers that one tag alone has. shared_bytes: of all others; shared_bytes_share divides each of these
-- among the tags that have it. A manifest with two tags has no unique layer.
--
-- Reads registry_layers and layer_tags (see layer_tags.sql).
WITH whole AS (
    SELECT
        digest,
        COUNT(*) AS layers,
        CAST(SUM(size_bytes) AS BIGINT) AS size_bytes
    FROM registry_layers
    GROUP BY digest
),

unique_layers AS (
    SELECT
        digest,
        CAST(SUM(size_bytes) AS BIGINT) AS size_bytes
    FROM layer_tags
    WHERE tags = 1
    GROUP BY digest
),

-- Most layers belong to one tag: only the others are looked up.
shared_layers AS (
    SELECT
        registry_layers.digest,
        -- Whole bytes and the rest apart: neither sum depends on the order of the rows, as a sum of floats does.
        CAST(
            SUM(CAST((layer_tags.size_bytes - MOD(layer_tags.size_bytes, layer_tags.tags)) / layer_tags.tags AS BIGINT))
            AS DOUBLE
        )
        + CAST(
            SUM(
                CAST(
                    CAST(MOD(layer_tags.size_bytes, layer_tags.tags) AS DOUBLE) / layer_tags.tags AS DECIMAL(28, 9)
                )
            )
            AS DOUBLE
        ) AS share
    FROM registry_layers
    INNER JOIN layer_tags
        ON layer_tags.layer_digest = registry_layers.layer_digest
    WHERE layer_tags.tags > 1
    GROUP BY registry_layers.digest
)

SELECT
    whole.digest,
    whole.layers,
    whole.size_bytes,
    COALESCE(unique_layers.size_bytes, 0) AS unique_bytes,
    whole.size_bytes - COALESCE(unique_layers.size_bytes, 0) AS shared_bytes,
    COALESCE(shared_layers.share, 0) AS shared_bytes_share
FROM whole
LEFT JOIN unique_layers
    ON unique_layers.digest = whole.digest
LEFT JOIN shared_layers
    ON shared_layers.digest = whole.digest
