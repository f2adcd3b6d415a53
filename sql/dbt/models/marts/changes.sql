-- The view changes_by_class counts these rows; a test compares them. Name, type and visibility are those after the
-- change; of an image that is gone, the last known.
SELECT
    c.*,
    h.namespace,
    h.type,
    h.visibility
FROM {{ ref('stg_image_snapshots__image_changes') }} AS c
LEFT JOIN {{ ref('stg_image_snapshots__image_history') }} AS h
    ON h.project = c.project
    AND h.id = c.id
    AND h.valid_from <= c.snapshot_date
    AND (h.valid_to IS NULL OR h.valid_to > c.snapshot_date)
