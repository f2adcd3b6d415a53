-- Bytes, estimated costs and parts of the newest bill of a day by owner and by namespace: the largest shown_groups
-- groups of each, and all others in one row. A null name means that the images have none; a null sum is unknown.
--
-- Reads image_costs of one day, and report_limits (one row: shown_groups, shown_text: characters).
WITH grouped AS (
    SELECT
        'owner' AS dimension,
        owner AS name,
        COUNT(*) AS images,
        SUM(size_bytes) AS size_bytes,
        SUM(estimated_cost) AS estimated_cost,
        SUM(reclaimable_bytes) AS reclaimable_bytes,
        SUM(billed_cost) AS billed_cost
    FROM image_costs
    GROUP BY owner
    UNION ALL
    SELECT
        'namespace' AS dimension,
        namespace AS name,
        COUNT(*) AS images,
        SUM(size_bytes) AS size_bytes,
        SUM(estimated_cost) AS estimated_cost,
        SUM(reclaimable_bytes) AS reclaimable_bytes,
        SUM(billed_cost) AS billed_cost
    FROM image_costs
    GROUP BY namespace
),

ranked AS (
    SELECT
        grouped.*,
        ROW_NUMBER() OVER (PARTITION BY dimension ORDER BY size_bytes DESC NULLS LAST, name) AS position
    FROM grouped
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
        ranked.billed_cost
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
    CAST(SUM(reclaimable_bytes) AS BIGINT) AS reclaimable_bytes,
    SUM(billed_cost) AS billed_cost
FROM labelled
GROUP BY
    dimension,
    name,
    is_rest,
    position
ORDER BY
    dimension DESC,
    position
