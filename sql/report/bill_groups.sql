-- The newest bill, estimate beside bill, by owner and by namespace of the charge day: the shown_groups groups with the
-- largest parts, all others in one row, and then what is not allocated to images, by its reason. The rows of a dimension
-- add up to the bill. No rows if an earlier day divided that bill: its report has them.
--
-- Reads bill_days and image_bills of one day, and report_limits (one row: shown_groups, shown_text: characters).
WITH newest AS (
    SELECT
        charge_date,
        currency,
        estimated_cost,
        estimate_currency
    FROM bill_days
    WHERE known_since = snapshot_date
        AND charge_date = (SELECT MAX(charge_date) FROM bill_days)
    QUALIFY ROW_NUMBER() OVER (ORDER BY currency) = 1
),

parts AS (
    SELECT
        image_bills.allocation,
        image_bills.owner,
        image_bills.namespace,
        CASE
            WHEN image_bills.estimate_currency = image_bills.currency
            THEN CAST(image_bills.estimated_cost AS DECIMAL(28, 12))
        END AS estimated_cost,
        image_bills.billed_registry_cost,
        image_bills.billed_cost
    FROM image_bills
    INNER JOIN newest
        ON newest.charge_date = image_bills.charge_date
        AND newest.currency = image_bills.currency
),

grouped AS (
    SELECT
        'owner' AS dimension,
        owner AS name,
        COUNT(*) AS images,
        SUM(estimated_cost) AS estimated_cost,
        SUM(billed_registry_cost) AS billed_registry_cost,
        SUM(billed_cost) AS billed_cost
    FROM parts
    WHERE allocation = 'image'
    GROUP BY owner
    UNION ALL
    SELECT
        'namespace' AS dimension,
        namespace AS name,
        COUNT(*) AS images,
        SUM(estimated_cost) AS estimated_cost,
        SUM(billed_registry_cost) AS billed_registry_cost,
        SUM(billed_cost) AS billed_cost
    FROM parts
    WHERE allocation = 'image'
    GROUP BY namespace
),

ranked AS (
    SELECT
        grouped.*,
        ROW_NUMBER() OVER (
            PARTITION BY dimension
            ORDER BY billed_registry_cost DESC, billed_cost DESC, estimated_cost DESC NULLS LAST, name
        ) AS position
    FROM grouped
),

labelled AS (
    SELECT
        ranked.dimension,
        CASE WHEN ranked.position <= report_limits.shown_groups THEN 'group' ELSE 'rest' END AS kind,
        CASE
            WHEN ranked.position <= report_limits.shown_groups
            THEN SUBSTRING(ranked.name, 1, report_limits.shown_text)
        END AS name,
        LEAST(ranked.position, report_limits.shown_groups + 1) AS position,
        ranked.images,
        ranked.estimated_cost,
        ranked.billed_registry_cost,
        ranked.billed_cost
    FROM ranked
    CROSS JOIN report_limits
),

not_allocated AS (
    SELECT
        dimensions.dimension,
        parts.allocation,
        SUM(parts.billed_registry_cost) AS billed_registry_cost,
        SUM(parts.billed_cost) AS billed_cost
    FROM parts
    CROSS JOIN (VALUES ('owner'), ('namespace')) AS dimensions (dimension)
    WHERE parts.allocation <> 'image'
    GROUP BY
        dimensions.dimension,
        parts.allocation
),

-- The estimate of images that have no part of the bill is what the others leave of the day's.
allocated_estimate AS (
    SELECT SUM(estimated_cost) AS estimated_cost
    FROM parts
    WHERE allocation = 'image'
),

rows_of_the_bill AS (
    SELECT
        dimension,
        kind,
        name,
        CAST(COUNT(*) AS BIGINT) AS groups_together,
        CAST(SUM(images) AS BIGINT) AS images,
        SUM(estimated_cost) AS estimated_cost,
        SUM(billed_registry_cost) AS billed_registry_cost,
        SUM(billed_cost) AS billed_cost,
        position
    FROM labelled
    GROUP BY
        dimension,
        kind,
        name,
        position
    UNION ALL
    SELECT
        not_allocated.dimension,
        'not_allocated' AS kind,
        not_allocated.allocation AS name,
        1 AS groups_together,
        NULL AS images,
        CASE
            WHEN newest.estimate_currency <> newest.currency THEN NULL
            -- An estimate is of images.
            WHEN not_allocated.allocation IN ('registry_only', 'long_period') THEN 0
            ELSE newest.estimated_cost - COALESCE(allocated_estimate.estimated_cost, 0)
        END AS estimated_cost,
        not_allocated.billed_registry_cost,
        not_allocated.billed_cost,
        NULL AS position
    FROM not_allocated
    CROSS JOIN newest
    CROSS JOIN allocated_estimate
)

SELECT
    dimension,
    kind,
    name,
    groups_together,
    images,
    estimated_cost,
    billed_registry_cost,
    billed_registry_cost - estimated_cost AS difference,
    billed_cost - billed_registry_cost AS billed_modelarts_cost,
    billed_cost
FROM rows_of_the_bill
ORDER BY
    dimension DESC,
    position NULLS LAST,
    name
