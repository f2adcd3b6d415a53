-- Sums of floats depend on their order, so estimated costs may differ by a millionth.
WITH both_sides AS (
    SELECT
        project,
        snapshot_date,
        owner,
        cost_center,
        environment,
        currency,
        1 AS images,
        CASE WHEN estimated_cost IS NULL THEN 1 ELSE 0 END AS images_without_cost,
        size_bytes,
        growth_bytes,
        estimated_cost,
        CASE WHEN reclaimable_by = 'size' THEN reclaimable_bytes END AS reclaimable_bytes,
        CASE WHEN reclaimable_by = 'layers' THEN reclaimable_bytes END AS reclaimable_bytes_at_least,
        billed_cost,
        billed_registry_cost
    FROM {{ ref('image_costs_daily') }}
    UNION ALL
    SELECT
        project,
        snapshot_date,
        owner,
        cost_center,
        environment,
        currency,
        -images,
        -images_without_cost,
        -size_bytes,
        -growth_bytes,
        -estimated_cost,
        -reclaimable_bytes,
        -reclaimable_bytes_at_least,
        -billed_cost,
        -billed_registry_cost
    FROM {{ source('image_snapshots', 'daily_costs') }}
)

SELECT
    project,
    snapshot_date,
    owner,
    cost_center,
    environment,
    currency,
    SUM(images) AS images
FROM both_sides
GROUP BY
    project,
    snapshot_date,
    owner,
    cost_center,
    environment,
    currency
HAVING
    SUM(images) <> 0
    OR SUM(images_without_cost) <> 0
    OR SUM(size_bytes) <> 0
    OR SUM(growth_bytes) <> 0
    OR ABS(SUM(estimated_cost)) > 0.000001
    OR SUM(reclaimable_bytes) <> 0
    OR SUM(reclaimable_bytes_at_least) <> 0
    OR SUM(billed_cost) <> 0
    OR SUM(billed_registry_cost) <> 0
