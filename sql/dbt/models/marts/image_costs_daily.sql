-- The view daily_costs has the sums of these rows; a test compares them. The bill is that of the day itself, by the
-- newest statement. What was known on the day (billed_date and so on) stays in image_costs. Where the table behind the
-- view billed_images fails its tests, this is not built:
-- depends_on: {{ source('image_snapshots', 'image_bills') }}
SELECT
    c.project,
    c.snapshot_date,
    c.project_id,
    c.id,
    c.name,
    c.namespace,
    c.registry,
    c.type,
    c.owner,
    c.cost_center,
    c.environment,
    c.owner_source,
    c.size_bytes,
    c.growth_bytes,
    c.is_carried,
    c.unit_price,
    c.currency,
    c.estimated_cost,
    c.unused_days,
    c.reclaimable_bytes,
    c.reclaimable_by,
    b.billed_cost,
    b.billed_registry_cost
FROM {{ ref('stg_image_snapshots__image_costs') }} AS c
LEFT JOIN {{ source('image_snapshots', 'billed_images') }} AS b
    ON b.project = c.project
    AND b.charge_date = c.snapshot_date
    AND b.id = c.id
    AND b.currency = c.currency
    AND b.allocation = 'image'
