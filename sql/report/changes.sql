-- The changes that the report shows, at most shown_changes of each class. In the class content, the time of the last
-- update comes after all other fields.
--
-- Reads image_changes of one day and report_limits (one row: shown_changes, shown_text: characters).
-- The ranking reads only the columns that it needs; all columns are read for the shown changes only.
WITH ranked AS (
    SELECT
        change_class,
        change,
        field,
        id,
        ROW_NUMBER() OVER (
            PARTITION BY change_class
            ORDER BY CASE WHEN field = 'update_at' THEN 1 ELSE 0 END, change, field, id
        ) AS position
    FROM image_changes
),

shown AS (
    SELECT ranked.*
    FROM ranked
    CROSS JOIN report_limits
    WHERE ranked.position <= report_limits.shown_changes
),

counted AS (
    SELECT
        change_class,
        COUNT(*) AS class_changes
    FROM image_changes
    GROUP BY change_class
)

SELECT
    shown.change_class,
    counted.class_changes,
    shown.change,
    shown.field,
    shown.id,
    SUBSTRING(image_changes.name, 1, report_limits.shown_text) AS name,
    SUBSTRING(image_changes.owner, 1, report_limits.shown_text) AS owner,
    SUBSTRING(image_changes.old_value, 1, report_limits.shown_text) AS old_value,
    SUBSTRING(image_changes.new_value, 1, report_limits.shown_text) AS new_value
FROM shown
CROSS JOIN report_limits
INNER JOIN counted
    ON counted.change_class = shown.change_class
INNER JOIN image_changes
    ON image_changes.id = shown.id
    AND image_changes.change = shown.change
    AND image_changes.field = shown.field
ORDER BY
    shown.change_class,
    shown.position
