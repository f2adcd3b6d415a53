-- The periods in which each image was public, by complete days: one row for each uninterrupted period.
--
-- Reads image_history and days. `public_since` is the first complete day on which the image was public; `public_until`
-- is the first one on which it was not, or null while it is public. `is_start_known` is true if the image was seen and
-- not public on the complete day before. Otherwise, such as on the first snapshot, it may have been public earlier.
-- `end_reason`: visibility (it became private), deleted or not_found (according to the API), or not_in_inventory (it was
-- not requested). Names are the last ones of the period.
WITH complete_days AS (
    SELECT
        project,
        snapshot_date,
        LAG(published_at) OVER (PARTITION BY project ORDER BY snapshot_date) AS looked_before
    FROM days
    WHERE is_complete
),

versions AS (
    SELECT
        project,
        id,
        name,
        namespace,
        swr_path,
        type,
        create_at,
        valid_from,
        valid_to,
        is_deleted,
        deleted_reason,
        CASE WHEN UPPER(visibility) = 'PUBLIC' AND NOT is_deleted THEN 1 ELSE 0 END AS is_public
    FROM image_history
),

neighbours AS (
    SELECT
        versions.*,
        LAG(is_public) OVER (PARTITION BY project, id ORDER BY valid_from) AS public_before,
        LAG(valid_to) OVER (PARTITION BY project, id ORDER BY valid_from) AS valid_to_before,
        LAG(deleted_reason) OVER (PARTITION BY project, id ORDER BY valid_from) AS reason_before,
        LEAD(deleted_reason) OVER (PARTITION BY project, id ORDER BY valid_from) AS reason_after
    FROM versions
),

public_versions AS (
    SELECT
        neighbours.*,
        CASE WHEN public_before = 1 AND valid_to_before = valid_from THEN 0 ELSE 1 END AS is_first
    FROM neighbours
    WHERE is_public = 1
),

numbered AS (
    SELECT
        public_versions.*,
        SUM(is_first) OVER (PARTITION BY project, id ORDER BY valid_from ROWS UNBOUNDED PRECEDING) AS period
    FROM public_versions
),

periods AS (
    SELECT
        project,
        id,
        period,
        MIN(valid_from) AS first_from,
        MAX(valid_from) AS last_from
    FROM numbered
    GROUP BY
        project,
        id,
        period
)

SELECT
    periods.project,
    periods.id,
    last_one.name,
    last_one.namespace,
    last_one.swr_path,
    last_one.type,
    periods.first_from AS public_since,
    CASE
        WHEN first_one.public_before IS NOT NULL AND COALESCE(first_one.reason_before, '') <> 'not_in_inventory'
        THEN TRUE
        WHEN first_one.create_at > complete_days.looked_before
        THEN TRUE
        ELSE FALSE
    END AS is_start_known,
    last_one.valid_to AS public_until,
    CASE WHEN last_one.valid_to IS NOT NULL THEN COALESCE(last_one.reason_after, 'visibility') END AS end_reason
FROM periods
INNER JOIN numbered AS first_one
    ON first_one.project = periods.project
    AND first_one.id = periods.id
    AND first_one.valid_from = periods.first_from
INNER JOIN numbered AS last_one
    ON last_one.project = periods.project
    AND last_one.id = periods.id
    AND last_one.valid_from = periods.last_from
LEFT JOIN complete_days
    ON complete_days.project = periods.project
    AND complete_days.snapshot_date = periods.first_from
