-- Images that stand out, at most 8 of each kind: largest, grown (most since the last complete day) and unused (on most
-- observed days, the older image first; preset images are not the user's to delete).
--
-- Reads image_costs, image_usage, image_changes and images of one day, and report_limits (one row: shown_text:
-- characters).
-- The ranking reads only the columns that it needs; all columns are read for the shown images only.
WITH came AS (
    SELECT DISTINCT id
    FROM image_changes
    WHERE field = 'outcome'
        AND change IN ('added', 'reappeared')
),

largest AS (
    SELECT 'largest' AS kind, id, ROW_NUMBER() OVER (ORDER BY size_bytes DESC, id) AS position
    FROM (
        SELECT id, size_bytes
        FROM image_costs
        WHERE size_bytes > 0
        ORDER BY size_bytes DESC, id
        LIMIT 8
    )
),

grown AS (
    SELECT 'grown' AS kind, id, ROW_NUMBER() OVER (ORDER BY growth_bytes DESC, id) AS position
    FROM (
        SELECT id, growth_bytes
        FROM image_costs
        WHERE growth_bytes > 0
        ORDER BY growth_bytes DESC, id
        LIMIT 8
    )
),

unused AS (
    SELECT
        'unused' AS kind,
        id,
        ROW_NUMBER() OVER (
            ORDER BY unused_days DESC, created NULLS LAST, size_bytes DESC NULLS LAST, id
        ) AS position
    FROM (
        SELECT
            image_costs.id,
            image_costs.unused_days,
            image_costs.size_bytes,
            CAST(images.create_at AS DATE) AS created
        FROM image_costs
        LEFT JOIN images
            ON images.id = image_costs.id
        WHERE image_costs.unused_days > 0
            AND COALESCE(UPPER(image_costs.type), '') <> 'BUILD_IN'
        ORDER BY
            image_costs.unused_days DESC,
            created NULLS LAST,
            image_costs.size_bytes DESC NULLS LAST,
            image_costs.id
        LIMIT 8
    )
),

shown AS (
    SELECT * FROM largest
    UNION ALL
    SELECT * FROM grown
    UNION ALL
    SELECT * FROM unused
)

SELECT
    shown.kind,
    shown.id,
    SUBSTRING(image_costs.name, 1, report_limits.shown_text) AS name,
    SUBSTRING(image_costs.namespace, 1, report_limits.shown_text) AS namespace,
    SUBSTRING(image_costs.owner, 1, report_limits.shown_text) AS owner,
    image_costs.size_bytes,
    image_costs.growth_bytes,
    came.id IS NOT NULL AS is_new,
    CASE WHEN UPPER(image_costs.type) = 'BUILD_IN' THEN NULL ELSE image_usage.unused_days END AS unused_days,
    image_usage.last_used_date,
    CAST(images.create_at AS DATE) AS created
FROM shown
INNER JOIN image_costs
    ON image_costs.id = shown.id
LEFT JOIN image_usage
    ON image_usage.id = shown.id
LEFT JOIN images
    ON images.id = shown.id
LEFT JOIN came
    ON came.id = shown.id
CROSS JOIN report_limits
ORDER BY
    shown.kind,
    shown.position
