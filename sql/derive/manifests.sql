-- Each manifest with layers: its number, how many layers it has, and their bytes.
--
-- Reads registry_layers.
WITH whole AS (
    SELECT
        digest,
        COUNT(*) AS layers,
        CAST(SUM(size_bytes) AS BIGINT) AS size_bytes
    FROM registry_layers
    GROUP BY digest
)

SELECT
    ROW_NUMBER() OVER (ORDER BY digest) AS manifest,
    digest,
    layers,
    size_bytes
FROM whole
