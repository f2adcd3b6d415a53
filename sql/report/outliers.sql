-- Images that stand out, at most shown_outliers of each kind: largest, grown (most since the last complete day) and
-- unused (longest without a notebook, the older image first; preset images are not the user's to delete).
--
-- Reads image_costs, image_usage, image_changes and images of one day, and report_limits (one row: shown_outliers,
-- shown_text: characters).
WITH came AS (
    SELECT DISTINCT id
    FROM image_changes
    WHERE field = 'outcome'
        AND change IN ('added', 'reappeared')
),

described AS (
    SELECT
        image_costs.id,
        image_costs.name,
        image_costs.namespace,
        image_costs.owner,
        image_costs.size_bytes,
        image_costs.growth_bytes,
        came.id IS NOT NULL AS is_new,
        CASE WHEN UPPER(image_costs.type) = 'BUILD_IN' THEN NULL ELSE image_usage.unused_days END AS unused_days,
        image_usage.last_used_date,
        CAST(images.create_at AS DATE) AS created
    FROM image_costs
    LEFT JOIN image_usage
        ON image_usage.id = image_costs.id
    LEFT JOIN images
        ON images.id = image_costs.id
    LEFT JOIN came
        ON came.id = image_costs.id
),

ranked AS (
    SELECT
        'largest' AS kind,
        described.*,
        ROW_NUMBER() OVER (ORDER BY size_bytes DESC, id) AS position
    FROM described
    WHERE size_bytes > 0
    UNION ALL
    SELECT
        'grown' AS kind,
        described.*,
        ROW_NUMBER() OVER (ORDER BY growth_bytes DESC, id) AS position
    FROM described
    WHERE growth_bytes > 0
    UNION ALL
    SELECT
        'unused' AS kind,
        described.*,
        ROW_NUMBER() OVER (ORDER BY unused_days DESC, created NULLS LAST, size_bytes DESC NULLS LAST, id) AS position
    FROM described
    WHERE unused_days > 0
)

SELECT
    ranked.kind,
    ranked.id,
    SUBSTRING(ranked.name, 1, report_limits.shown_text) AS name,
    SUBSTRING(ranked.namespace, 1, report_limits.shown_text) AS namespace,
    SUBSTRING(ranked.owner, 1, report_limits.shown_text) AS owner,
    ranked.size_bytes,
    ranked.growth_bytes,
    ranked.is_new,
    ranked.unused_days,
    ranked.last_used_date,
    ranked.created
FROM ranked
CROSS JOIN report_limits
WHERE ranked.position <= report_limits.shown_outliers
ORDER BY
    ranked.kind,
    ranked.position
