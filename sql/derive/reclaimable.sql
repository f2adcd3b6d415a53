-- What deleting each set of unused images frees together, over distinct layers.
--
-- Reads parameters, unused_sets (see unused_sets.sql), image_storage, current_images and freed_bytes (see
-- freed_bytes.sql).
WITH counted AS (
    SELECT
        unused_sets.dimension,
        unused_sets.name,
        COUNT(*) AS images,
        COUNT(CASE WHEN image_storage.state IN ('known', 'tag_gone') THEN NULL ELSE 1 END) AS unknown_images,
        CAST(SUM(current_images.size_bytes) AS BIGINT) AS image_bytes
    FROM unused_sets
    INNER JOIN current_images
        ON current_images.id = unused_sets.id
    LEFT JOIN image_storage
        ON image_storage.id = unused_sets.id
    GROUP BY
        unused_sets.dimension,
        unused_sets.name
)

SELECT
    parameters.snapshot_date,
    parameters.project_id,
    counted.dimension,
    counted.name,
    counted.images,
    counted.unknown_images,
    counted.image_bytes,
    COALESCE(freed_bytes.bytes, 0) AS known_bytes,
    CASE WHEN counted.unknown_images = 0 THEN COALESCE(freed_bytes.bytes, 0) END AS reclaimable_bytes
FROM counted
CROSS JOIN parameters
LEFT JOIN freed_bytes
    ON freed_bytes.dimension = counted.dimension
    AND freed_bytes.name = counted.name
ORDER BY
    counted.dimension,
    counted.name
