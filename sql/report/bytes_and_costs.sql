-- Bytes and estimated costs of a day by owner and by namespace: the largest shown_groups groups of each, and all others in
-- one row. A null name means that the images have none; a null sum is unknown. By
-- layers, what a group frees is no sum: it is that of its set, and of all others together it is not known.
--
-- Reads image_costs and reclaimable of one day, and report_limits (one row: shown_groups, shown_text: characters).
WITH grouped AS (
    SELECT
        'owner' AS dimension,
        owner AS name,
        COUNT(*) AS images,
        SUM(size_bytes) AS size_bytes,
        SUM(estimated_cost) AS estimated_cost,
        MAX(reclaimable_by) AS reclaimable_by,
        SUM(reclaimable_bytes) AS reclaimable_bytes
    FROM image_costs
    GROUP BY owner
    UNION ALL
    SELECT
        'namespace' AS dimension,
        namespace AS name,
        COUNT(*) AS images,
        SUM(size_bytes) AS size_bytes,
        SUM(estimated_cost) AS estimated_cost,
        MAX(reclaimable_by) AS reclaimable_by,
        SUM(reclaimable_bytes) AS reclaimable_bytes
    FROM image_costs
    GROUP BY namespace
),

freed AS (
    SELECT
        grouped.dimension,
        grouped.name,
        grouped.images,
        grouped.size_bytes,
        grouped.estimated_cost,
        CASE
            WHEN grouped.reclaimable_by = 'size' THEN grouped.reclaimable_bytes
            WHEN grouped.reclaimable_by = 'layers' AND reclaimable.images IS NULL THEN 0
            ELSE reclaimable.reclaimable_bytes
        END AS reclaimable_bytes,
        COALESCE(reclaimable.known_bytes, 0) AS known_bytes,
        COALESCE(reclaimable.unknown_images, 0) AS unknown_images
    FROM grouped
    LEFT JOIN reclaimable
        ON reclaimable.dimension = grouped.dimension
        AND reclaimable.name = COALESCE(grouped.name, '')
),

ranked AS (
    SELECT
        freed.*,
        ROW_NUMBER() OVER (PARTITION BY dimension ORDER BY size_bytes DESC NULLS LAST, name) AS position
    FROM freed
),

labelled AS (
    SELECT
        ranked.dimension,
        ranked.position > report_limits.shown_groups AS is_rest,
        CASE
            WHEN ranked.position <= report_limits.shown_groups
            THEN SUBSTRING(ranked.name, 1, report_limits.shown_text)
        END AS name,
        LEAST(ranked.position, report_limits.shown_groups + 1) AS position,
        ranked.images,
        ranked.size_bytes,
        ranked.estimated_cost,
        ranked.reclaimable_bytes,
        ranked.known_bytes,
        ranked.unknown_images
    FROM ranked
    CROSS JOIN report_limits
)

SELECT
    dimension,
    name,
    is_rest,
    COUNT(*) AS groups_together,
    CAST(SUM(images) AS BIGINT) AS images,
    CAST(SUM(size_bytes) AS BIGINT) AS size_bytes,
    SUM(estimated_cost) AS estimated_cost,
    CAST(CASE WHEN COUNT(reclaimable_bytes) = COUNT(*) THEN SUM(reclaimable_bytes) END AS BIGINT) AS reclaimable_bytes,
    CAST(SUM(known_bytes) AS BIGINT) AS known_bytes,
    CAST(SUM(unknown_images) AS BIGINT) AS unknown_images
FROM labelled
GROUP BY
    dimension,
    name,
    is_rest,
    position
ORDER BY
    dimension DESC,
    position
