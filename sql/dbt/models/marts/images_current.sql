-- The rows are those of the view images_latest, which decides what exists. An image has at most one row in each other
-- table on a day. Where the tables behind the view fail their tests, this is not built:
-- depends_on: {{ ref('stg_image_snapshots__images') }}
-- depends_on: {{ ref('stg_image_snapshots__responses') }}
SELECT
    i.*,
    c.owner,
    c.cost_center,
    c.environment,
    c.owner_source,
    c.growth_bytes,
    c.estimated_cost,
    c.currency,
    c.reclaimable_bytes,
    c.reclaimable_by,
    u.is_observed,
    u.last_used_date,
    u.unused_days,
    s.state AS storage_state,
    s.unique_bytes,
    s.shared_bytes,
    COALESCE(f.open_findings, 0) AS open_findings
FROM {{ source('image_snapshots', 'images_latest') }} AS i
LEFT JOIN {{ ref('stg_image_snapshots__image_costs') }} AS c
    ON c.project = i.project
    AND c.snapshot_date = i.snapshot_date
    AND c.id = i.id
LEFT JOIN {{ ref('stg_image_snapshots__image_usage') }} AS u
    ON u.project = i.project
    AND u.snapshot_date = i.snapshot_date
    AND u.id = i.id
LEFT JOIN {{ ref('stg_image_snapshots__image_storage') }} AS s
    ON s.project = i.project
    AND s.snapshot_date = i.snapshot_date
    AND s.id = i.id
LEFT JOIN (
    SELECT
        project,
        id,
        COUNT(*) AS open_findings
    FROM {{ ref('findings_open') }}
    GROUP BY
        project,
        id
) AS f
    ON f.project = i.project
    AND f.id = i.id
