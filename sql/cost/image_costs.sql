-- The size of each known image, and its estimated cost for the day by the price book; not a bill.
-- Cost of a day = GB (1024^3 bytes) x price per GB-month / days of the month.
--
-- Reads parameters, current_images, image_usage, image_storage, previous_costs (image_costs of the last complete day), prices
-- (registry, namespace, type: selectors, null for any; valid_from, per_gb_month, currency) and cost_parameters (one
-- row: has_previous_costs, unused_after_days).
WITH valid_prices AS (
    SELECT
        prices.registry,
        prices.namespace,
        prices.type,
        prices.valid_from,
        prices.per_gb_month
    FROM prices
    CROSS JOIN parameters
    WHERE prices.valid_from <= parameters.snapshot_date
    QUALIFY ROW_NUMBER() OVER (
        PARTITION BY prices.registry, prices.namespace, prices.type
        ORDER BY prices.valid_from DESC
    ) = 1
),

-- Prices are chosen for each kind of image, not for each image: there are far fewer kinds.
kinds AS (
    SELECT DISTINCT
        registry,
        namespace,
        type
    FROM current_images
),

kind_prices AS (
    SELECT
        kinds.registry,
        kinds.namespace,
        kinds.type,
        valid_prices.valid_from,
        valid_prices.per_gb_month
    FROM kinds
    INNER JOIN valid_prices
        ON (valid_prices.registry IS NULL OR valid_prices.registry = LOWER(kinds.registry))
        AND (valid_prices.namespace IS NULL OR valid_prices.namespace = kinds.namespace)
        AND (valid_prices.type IS NULL OR valid_prices.type = UPPER(kinds.type))
    QUALIFY ROW_NUMBER() OVER (
        PARTITION BY kinds.registry, kinds.namespace, kinds.type
        ORDER BY
            CASE WHEN valid_prices.registry IS NULL THEN 0 ELSE 1 END
            + CASE WHEN valid_prices.namespace IS NULL THEN 0 ELSE 1 END
            + CASE WHEN valid_prices.type IS NULL THEN 0 ELSE 1 END DESC,
            CASE WHEN valid_prices.namespace IS NULL THEN 0 ELSE 1 END DESC,
            CASE WHEN valid_prices.registry IS NULL THEN 0 ELSE 1 END DESC
    ) = 1
)

SELECT
    current_images.snapshot_date,
    current_images.project_id,
    current_images.id,
    current_images.name,
    current_images.namespace,
    current_images.registry,
    current_images.type,
    current_images.owner,
    current_images.cost_center,
    current_images.environment,
    current_images.size_bytes,
    CASE
        WHEN NOT cost_parameters.has_previous_costs THEN NULL
        WHEN previous_costs.id IS NULL THEN current_images.size_bytes
        ELSE current_images.size_bytes - previous_costs.size_bytes
    END AS growth_bytes,
    current_images.is_carried,
    kind_prices.per_gb_month AS unit_price,
    (SELECT MAX(currency) FROM prices) AS currency,
    kind_prices.valid_from AS price_valid_from,
    CAST(current_images.size_bytes AS DOUBLE) / 1073741824 * kind_prices.per_gb_month
    / DAY(LAST_DAY(current_images.snapshot_date)) AS estimated_cost,
    image_usage.unused_days,
    CASE
        -- What was not looked at may use it.
        WHEN NOT parameters.usage_is_observed OR image_usage.id IS NULL THEN NULL
        -- Users cannot delete preset images.
        WHEN UPPER(current_images.type) = 'BUILD_IN' THEN 0
        -- However long nobody did, something needs it now.
        WHEN image_usage.running > 0 OR image_usage.required > 0 THEN 0
        WHEN image_usage.unused_days < cost_parameters.unused_after_days THEN 0
        WHEN NOT parameters.registry_was_wanted THEN current_images.size_bytes
        -- Where nothing is left of it, or another image needs the tag, deleting it frees nothing.
        WHEN image_storage.state = 'tag_gone' OR image_storage.images_of_tag > 1 THEN 0
        ELSE image_storage.unique_bytes
    END AS reclaimable_bytes,
    CASE
        WHEN parameters.usage_is_observed AND image_usage.id IS NOT NULL THEN parameters.usage_kinds
    END AS observed_kinds,
    current_images.owner_source,
    CASE
        WHEN NOT parameters.usage_is_observed OR image_usage.id IS NULL THEN NULL
        WHEN parameters.registry_was_wanted THEN 'layers'
        ELSE 'size'
    END AS reclaimable_by
FROM current_images
CROSS JOIN parameters
CROSS JOIN cost_parameters
LEFT JOIN previous_costs
    ON previous_costs.id = current_images.id
LEFT JOIN image_usage
    ON image_usage.id = current_images.id
LEFT JOIN image_storage
    ON image_storage.id = current_images.id
LEFT JOIN kind_prices
    ON kind_prices.registry IS NOT DISTINCT FROM current_images.registry
    AND kind_prices.namespace IS NOT DISTINCT FROM current_images.namespace
    AND kind_prices.type IS NOT DISTINCT FROM current_images.type
ORDER BY current_images.id
