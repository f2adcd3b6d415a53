-- Estimates and bills under the column names of FOCUS, the FinOps open cost and usage specification: one row for each
-- image and day, then what is billed of these days and belongs to none of these images. BilledCost and EffectiveCost are
-- the image's part of the bill; while a day's bill is not known, BilledCost is 0 and EffectiveCost the estimate
-- (x_IsEstimate). ListCost and ContractedCost are the estimate by the price book or, without one, BilledCost of a known
-- bill. The columns are those of FOCUS 1.2; FOCUS-shaped but not conformant.
-- Columns are in alphabetical order, with those outside FOCUS (x_...) last. Unknown values are null, such as the costs of
-- an image without a price or a size.
--
-- Reads image_costs, image_bills (the newest bill of each of these days; one row for each image and currency) and the one
-- row of focus_parameters (is_sandbox: the images are invented). Keeps the order of the images, without ORDER BY, because
-- an export may cover years.
WITH first_bills AS (
    SELECT image_bills.*
    FROM image_bills
    WHERE allocation = 'image'
    QUALIFY ROW_NUMBER() OVER (PARTITION BY project_id, charge_date, id ORDER BY currency) = 1
),

billed_days AS (
    SELECT DISTINCT
        project_id,
        charge_date
    FROM image_bills
),

joined AS (
    SELECT
        image_costs.snapshot_date,
        image_costs.project_id,
        image_costs.id,
        image_costs.name,
        image_costs.namespace,
        image_costs.registry,
        image_costs.type,
        image_costs.owner,
        image_costs.cost_center,
        image_costs.environment,
        image_costs.size_bytes,
        image_costs.growth_bytes,
        image_costs.is_carried,
        image_costs.price_valid_from,
        image_costs.unused_days,
        image_costs.reclaimable_bytes,
        image_costs.reclaimable_by,
        image_costs.observed_kinds,
        COALESCE(first_bills.currency, image_costs.currency) AS currency,
        -- An estimate in another currency cannot stand in this row.
        CASE
            WHEN COALESCE(first_bills.currency, image_costs.currency) = image_costs.currency THEN image_costs.unit_price
        END AS unit_price,
        CASE
            WHEN COALESCE(first_bills.currency, image_costs.currency) = image_costs.currency
            THEN CAST(image_costs.estimated_cost AS DECIMAL(28, 12))
        END AS estimated_cost,
        first_bills.allocation,
        first_bills.billed_cost,
        first_bills.billed_registry_cost,
        billed_days.charge_date IS NOT NULL AS is_billed,
        CASE
            WHEN image_costs.unit_price IS NULL THEN 'the price book states no price for it'
            WHEN image_costs.size_bytes IS NULL THEN 'its size is not known'
            WHEN first_bills.id IS NOT NULL THEN 'its part of the bill'
            -- Its part is in the row of what is not allocated.
            WHEN billed_days.charge_date IS NOT NULL THEN 'its part of the bill is not known'
            ELSE 'an estimate by the price book, not a bill'
        END AS remark
    FROM image_costs
    LEFT JOIN first_bills
        ON first_bills.project_id = image_costs.project_id
        AND first_bills.charge_date = image_costs.snapshot_date
        AND first_bills.id = image_costs.id
    LEFT JOIN billed_days
        ON billed_days.project_id = image_costs.project_id
        AND billed_days.charge_date = image_costs.snapshot_date
    UNION ALL BY NAME
    SELECT
        image_bills.charge_date AS snapshot_date,
        image_bills.project_id,
        NULLIF(image_bills.id, '') AS id,
        image_bills.namespace,
        image_bills.owner,
        image_bills.cost_center,
        image_bills.environment,
        FALSE AS is_carried,
        image_bills.currency,
        image_bills.allocation,
        image_bills.billed_cost,
        image_bills.billed_registry_cost,
        TRUE AS is_billed
    FROM image_bills
    LEFT JOIN first_bills
        ON first_bills.project_id = image_bills.project_id
        AND first_bills.charge_date = image_bills.charge_date
        AND first_bills.id = image_bills.id
        AND first_bills.currency = image_bills.currency
    WHERE first_bills.id IS NULL
),

quantities AS (
    SELECT
        joined.*,
        CAST(size_bytes AS DOUBLE) / 1073741824 AS size_gib,
        CASE
            WHEN registry LIKE 'swr.%.otc.t-systems.com' THEN 'Open Telekom Cloud'
            WHEN registry LIKE 'swr.%.myhuaweicloud.com' THEN 'Huawei Cloud'
        END AS provider
    FROM joined
)

SELECT
    CAST(COALESCE(billed_cost, 0) AS DECIMAL(28, 12)) AS BilledCost,
    CAST(NULL AS VARCHAR) AS BillingAccountId,
    CAST(NULL AS VARCHAR) AS BillingAccountName,
    currency AS BillingCurrency,
    CAST(DATE_TRUNC('month', snapshot_date) + INTERVAL '1' MONTH AS TIMESTAMP) AT TIME ZONE 'UTC' AS BillingPeriodEnd,
    CAST(DATE_TRUNC('month', snapshot_date) AS TIMESTAMP) AT TIME ZONE 'UTC' AS BillingPeriodStart,
    'Usage' AS ChargeCategory,
    CAST(NULL AS VARCHAR) AS ChargeClass,
    CASE
        WHEN remark IS NULL THEN 'Part of the bill of a day that belongs to no known image: ' || allocation
        ELSE 'Storage of a container image for a day; ' || remark
    END AS ChargeDescription,
    'Usage-Based' AS ChargeFrequency,
    CAST(snapshot_date + INTERVAL '1' DAY AS TIMESTAMP) AT TIME ZONE 'UTC' AS ChargePeriodEnd,
    CAST(snapshot_date AS TIMESTAMP) AT TIME ZONE 'UTC' AS ChargePeriodStart,
    CAST(size_gib AS DECIMAL(28, 12)) AS ConsumedQuantity,
    CASE WHEN size_gib IS NOT NULL THEN 'GiB-Days' END AS ConsumedUnit,
    CAST(COALESCE(estimated_cost, billed_cost) AS DECIMAL(28, 12)) AS ContractedCost,
    CAST(unit_price AS DECIMAL(28, 12)) AS ContractedUnitPrice,
    CAST(COALESCE(billed_cost, CASE WHEN is_billed THEN 0 ELSE estimated_cost END) AS DECIMAL(28, 12)) AS EffectiveCost,
    provider AS InvoiceIssuerName,
    CAST(COALESCE(estimated_cost, billed_cost) AS DECIMAL(28, 12)) AS ListCost,
    CAST(unit_price AS DECIMAL(28, 12)) AS ListUnitPrice,
    'Standard' AS PricingCategory,
    CAST(size_gib / DAY(LAST_DAY(snapshot_date)) AS DECIMAL(28, 12)) AS PricingQuantity,
    CASE WHEN size_gib IS NOT NULL THEN 'GiB-Months' END AS PricingUnit,
    provider AS ProviderName,
    provider AS PublisherName,
    -- The host of a registry names its region: swr.<region>.<domain of the cloud>.
    CASE WHEN provider IS NOT NULL THEN SPLIT_PART(registry, '.', 2) END AS RegionId,
    CASE WHEN provider IS NOT NULL THEN SPLIT_PART(registry, '.', 2) END AS RegionName,
    id AS ResourceId,
    name AS ResourceName,
    CASE WHEN id IS NOT NULL THEN 'Container Image' END AS ResourceType,
    'Storage' AS ServiceCategory,
    'Software Repository for Container' AS ServiceName,
    'Other (Storage)' AS ServiceSubcategory,
    project_id AS SubAccountId,
    CASE
        WHEN COALESCE(owner, cost_center, environment) IS NOT NULL
        THEN CAST(TO_JSON({'cost_center': cost_center, 'environment': environment, 'owner': owner}) AS VARCHAR)
    END AS Tags,
    allocation AS x_Allocation,
    CAST(billed_registry_cost AS DECIMAL(28, 12)) AS x_BilledRegistryCost,
    cost_center AS x_CostCenter,
    CAST(billed_registry_cost - estimated_cost AS DECIMAL(28, 12)) AS x_Difference,
    environment AS x_Environment,
    CAST(estimated_cost AS DECIMAL(28, 12)) AS x_EstimatedCost,
    growth_bytes AS x_GrowthBytes,
    type AS x_ImageType,
    is_carried AS x_IsCarried,
    NOT is_billed AS x_IsEstimate,
    focus_parameters.is_sandbox AS x_IsSandbox,
    namespace AS x_Namespace,
    observed_kinds AS x_ObservedKinds,
    owner AS x_Owner,
    price_valid_from AS x_PriceValidFrom,
    -- By layers, it is exact for one image, and no upper bound of a sum.
    CASE WHEN reclaimable_by = 'size' THEN reclaimable_bytes END AS x_ReclaimableBytesUpperBound,
    registry AS x_Registry,
    size_bytes AS x_SizeBytes,
    unused_days AS x_UnusedDays
FROM quantities, focus_parameters
