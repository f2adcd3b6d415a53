-- The estimated costs under the column names of FOCUS, the FinOps open cost and usage specification: one row for each
-- image and day. FOCUS-shaped but not conformant, because there is no bill: BilledCost is 0, and all other costs are
-- the estimate. Columns are in alphabetical order, with those outside FOCUS (x_...) last. Unknown values are null, such
-- as the costs of an image without a price or a size.
--
-- Reads image_costs, and the one row of focus_parameters (is_sandbox: the images are invented). Keeps the order of the
-- rows, without ORDER BY, because an export may cover years.
WITH quantities AS (
    SELECT
        image_costs.*,
        CAST(size_bytes AS DOUBLE) / 1073741824 AS size_gib,
        CASE
            WHEN registry LIKE 'swr.%.otc.t-systems.com' THEN 'Open Telekom Cloud'
            WHEN registry LIKE 'swr.%.myhuaweicloud.com' THEN 'Huawei Cloud'
        END AS provider
    FROM image_costs
)

SELECT
    CAST(0 AS DECIMAL(28, 12)) AS BilledCost,
    CAST(NULL AS VARCHAR) AS BillingAccountId,
    CAST(NULL AS VARCHAR) AS BillingAccountName,
    currency AS BillingCurrency,
    CAST(DATE_TRUNC('month', snapshot_date) + INTERVAL '1' MONTH AS TIMESTAMP) AT TIME ZONE 'UTC' AS BillingPeriodEnd,
    CAST(DATE_TRUNC('month', snapshot_date) AS TIMESTAMP) AT TIME ZONE 'UTC' AS BillingPeriodStart,
    'Usage' AS ChargeCategory,
    CAST(NULL AS VARCHAR) AS ChargeClass,
    CASE
        WHEN unit_price IS NULL THEN 'Storage of a container image for a day; the price book states no price for it'
        WHEN size_bytes IS NULL THEN 'Storage of a container image for a day; its size is not known'
        ELSE 'Storage of a container image for a day; an estimate by the price book, not a bill'
    END AS ChargeDescription,
    'Usage-Based' AS ChargeFrequency,
    CAST(snapshot_date + INTERVAL '1' DAY AS TIMESTAMP) AT TIME ZONE 'UTC' AS ChargePeriodEnd,
    CAST(snapshot_date AS TIMESTAMP) AT TIME ZONE 'UTC' AS ChargePeriodStart,
    CAST(size_gib AS DECIMAL(28, 12)) AS ConsumedQuantity,
    'GiB-Days' AS ConsumedUnit,
    CAST(estimated_cost AS DECIMAL(28, 12)) AS ContractedCost,
    CAST(unit_price AS DECIMAL(28, 12)) AS ContractedUnitPrice,
    CAST(estimated_cost AS DECIMAL(28, 12)) AS EffectiveCost,
    provider AS InvoiceIssuerName,
    CAST(estimated_cost AS DECIMAL(28, 12)) AS ListCost,
    CAST(unit_price AS DECIMAL(28, 12)) AS ListUnitPrice,
    'Standard' AS PricingCategory,
    CAST(size_gib / DAY(LAST_DAY(snapshot_date)) AS DECIMAL(28, 12)) AS PricingQuantity,
    'GiB-Months' AS PricingUnit,
    provider AS ProviderName,
    provider AS PublisherName,
    -- The host of a registry names its region: swr.<region>.<domain of the cloud>.
    CASE WHEN provider IS NOT NULL THEN SPLIT_PART(registry, '.', 2) END AS RegionId,
    CASE WHEN provider IS NOT NULL THEN SPLIT_PART(registry, '.', 2) END AS RegionName,
    id AS ResourceId,
    name AS ResourceName,
    'Container Image' AS ResourceType,
    'Storage' AS ServiceCategory,
    'Software Repository for Container' AS ServiceName,
    'Other (Storage)' AS ServiceSubcategory,
    project_id AS SubAccountId,
    CASE
        WHEN COALESCE(owner, cost_center, environment) IS NOT NULL
        THEN CAST(TO_JSON({'cost_center': cost_center, 'environment': environment, 'owner': owner}) AS VARCHAR)
    END AS Tags,
    cost_center AS x_CostCenter,
    environment AS x_Environment,
    growth_bytes AS x_GrowthBytes,
    type AS x_ImageType,
    is_carried AS x_IsCarried,
    TRUE AS x_IsEstimate,
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
