-- The changes that the report shows, at most shown_changes of each class; of content, other fields than the time of
-- the last update come first.
--
-- Reads image_changes of one day and report_limits (one row: shown_changes, shown_text: characters).
WITH shown AS (
    SELECT
        image_changes.*,
        ROW_NUMBER() OVER (
            PARTITION BY change_class
            ORDER BY CASE WHEN field = 'update_at' THEN 1 ELSE 0 END, change, field, id
        ) AS position,
        COUNT(*) OVER (PARTITION BY change_class) AS class_changes
    FROM image_changes
)

SELECT
    shown.change_class,
    shown.class_changes,
    shown.change,
    shown.field,
    shown.id,
    SUBSTRING(shown.name, 1, report_limits.shown_text) AS name,
    SUBSTRING(shown.owner, 1, report_limits.shown_text) AS owner,
    SUBSTRING(shown.old_value, 1, report_limits.shown_text) AS old_value,
    SUBSTRING(shown.new_value, 1, report_limits.shown_text) AS new_value
FROM shown
CROSS JOIN report_limits
WHERE shown.position <= report_limits.shown_changes
ORDER BY
    shown.change_class,
    shown.position
