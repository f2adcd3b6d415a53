-- What the registry stores for each manifest that tags point to, by its layers.
-- unique_bytes: of layers that one tag alone has. shared_bytes: of all others; shared_bytes_share divides each of these
-- among the tags that have it. A manifest with two tags has no unique layer.
--
-- Reads manifests (see manifests.sql) and shared_layers (see shared_layers.sql).
WITH shared AS (
    SELECT
        manifest,
        CAST(SUM(size_bytes) AS BIGINT) AS size_bytes,
        -- Whole bytes and the rest apart: neither sum depends on the order of the rows, as a sum of floats does.
        CAST(SUM(CAST((size_bytes - MOD(size_bytes, tags)) / tags AS BIGINT)) AS DOUBLE)
        + CAST(SUM(CAST(CAST(MOD(size_bytes, tags) AS DOUBLE) / tags AS DECIMAL(28, 9))) AS DOUBLE) AS share
    FROM shared_layers
    GROUP BY manifest
)

SELECT
    manifests.manifest,
    manifests.digest,
    manifests.layers,
    manifests.size_bytes,
    manifests.size_bytes - COALESCE(shared.size_bytes, 0) AS unique_bytes,
    COALESCE(shared.size_bytes, 0) AS shared_bytes,
    COALESCE(shared.share, 0) AS shared_bytes_share
FROM manifests
LEFT JOIN shared
    ON shared.manifest = manifests.manifest
