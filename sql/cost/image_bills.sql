-- Divides the amounts of one charge day and currency among the images of that day, by the bytes that are theirs: the
-- layers that only they have, and an equal share of each shared layer. Tags that no image registers, and images whose
-- storage is not known, have their part, too: it is shown as not allocated.
--
-- The parts add up to the amounts exactly. In the order of the ids, each part is what the images up to this one have
-- together, without what those before it have; both are rounded down to 12 places.
--
-- Reads image_costs, image_storage and registry_only of the charge day, and the one row of charge (snapshot_date,
-- project_id, charge_date, currency, version; registry_units and modelarts_units: amounts in units of 12 places).
WITH weighed AS (
    SELECT
        image_costs.id,
        image_costs.owner,
        image_costs.cost_center,
        image_costs.environment,
        image_costs.namespace,
        image_costs.estimated_cost,
        image_costs.currency AS estimate_currency,
        CASE
            WHEN image_storage.state = 'known' THEN 'image'
            -- These have nothing in this registry that this project pays for.
            WHEN image_storage.state IN ('tag_gone', 'elsewhere') OR UPPER(image_costs.type) = 'BUILD_IN' THEN 'image'
            ELSE 'storage_unknown'
        END AS allocation,
        CASE
            WHEN image_storage.state = 'known'
            THEN CAST(
                FLOOR((image_storage.unique_bytes + image_storage.shared_bytes_share) / image_storage.images_of_tag)
                AS BIGINT
            )
            WHEN image_storage.state IN ('tag_gone', 'elsewhere') OR UPPER(image_costs.type) = 'BUILD_IN' THEN 0
            -- An upper bound, so that the known images do not pay for it.
            ELSE COALESCE(image_costs.size_bytes, 0)
        END AS weight_bytes
    FROM image_costs
    LEFT JOIN image_storage
        ON image_storage.id = image_costs.id
),

parts AS (
    SELECT
        allocation,
        id,
        owner,
        cost_center,
        environment,
        namespace,
        weight_bytes,
        estimated_cost,
        estimate_currency
    FROM weighed
    WHERE allocation = 'image'
    UNION ALL
    SELECT
        'registry_only' AS allocation,
        '' AS id,
        NULL AS owner,
        NULL AS cost_center,
        NULL AS environment,
        NULL AS namespace,
        CAST(SUM(CAST(FLOOR(COALESCE(unique_bytes + shared_bytes_share, size_bytes, 0)) AS BIGINT)) AS BIGINT)
            AS weight_bytes,
        NULL AS estimated_cost,
        NULL AS estimate_currency
    FROM registry_only
    HAVING COUNT(*) > 0
    UNION ALL
    SELECT
        'storage_unknown' AS allocation,
        '' AS id,
        NULL AS owner,
        NULL AS cost_center,
        NULL AS environment,
        NULL AS namespace,
        CAST(SUM(weight_bytes) AS BIGINT) AS weight_bytes,
        NULL AS estimated_cost,
        NULL AS estimate_currency
    FROM weighed
    WHERE allocation = 'storage_unknown'
    HAVING COUNT(*) > 0
    UNION ALL
    -- Where nothing is stored, nothing can be divided.
    SELECT
        'nothing_stored' AS allocation,
        '' AS id,
        NULL AS owner,
        NULL AS cost_center,
        NULL AS environment,
        NULL AS namespace,
        0 AS weight_bytes,
        NULL AS estimated_cost,
        NULL AS estimate_currency
),

summed AS (
    SELECT
        parts.*,
        CAST(SUM(weight_bytes) OVER () AS HUGEINT) AS all_bytes,
        CAST(SUM(weight_bytes) OVER (
            ORDER BY allocation, id
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS HUGEINT) AS bytes_so_far
    FROM parts
),

-- Both amounts as units a byte and the rest of that division, so that no product is too large for its type.
rates AS (
    SELECT
        summed.*,
        CASE WHEN all_bytes > 0 THEN all_bytes ELSE 1 END AS divisor,
        CAST(charge.registry_units AS HUGEINT) AS registry,
        CAST(charge.modelarts_units AS HUGEINT) AS modelarts
    FROM summed
    CROSS JOIN charge
),

divided AS (
    SELECT
        rates.*,
        CASE
            WHEN all_bytes > 0
            THEN registry // divisor * weight_bytes
                + (registry % divisor) * bytes_so_far // divisor
                - (registry % divisor) * (bytes_so_far - weight_bytes) // divisor
            WHEN allocation = 'nothing_stored' THEN registry
            ELSE 0
        END AS registry_units,
        CASE
            WHEN all_bytes > 0
            THEN modelarts // divisor * weight_bytes
                + (modelarts % divisor) * bytes_so_far // divisor
                - (modelarts % divisor) * (bytes_so_far - weight_bytes) // divisor
            WHEN allocation = 'nothing_stored' THEN modelarts
            ELSE 0
        END AS modelarts_units
    FROM rates
),

whole AS (
    SELECT
        divided.*,
        registry_units + modelarts_units AS all_units
    FROM divided
)

SELECT
    charge.snapshot_date,
    charge.project_id,
    charge.charge_date,
    charge.currency,
    whole.allocation,
    whole.id,
    whole.owner,
    whole.cost_center,
    whole.environment,
    whole.namespace,
    whole.weight_bytes,
    whole.estimated_cost,
    whole.estimate_currency,
    CAST(
        CAST(whole.all_units // 1000000000000 AS DECIMAL(16, 0))
        + CAST(whole.all_units % 1000000000000 AS DECIMAL(12, 0)) * CAST('0.000000000001' AS DECIMAL(13, 12))
        AS DECIMAL(28, 12)
    ) AS billed_cost,
    CAST(
        CAST(whole.registry_units // 1000000000000 AS DECIMAL(16, 0))
        + CAST(whole.registry_units % 1000000000000 AS DECIMAL(12, 0)) * CAST('0.000000000001' AS DECIMAL(13, 12))
        AS DECIMAL(28, 12)
    ) AS billed_registry_cost,
    charge.version
FROM whole
CROSS JOIN charge
WHERE whole.allocation <> 'nothing_stored' OR whole.all_bytes = 0
ORDER BY
    whole.allocation,
    whole.id
