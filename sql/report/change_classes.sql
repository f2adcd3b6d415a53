-- What changed since the last complete day, counted: images of each class, kind of change and field.
--
-- Reads image_changes of one day. An image counts in each row that it belongs to, so images do not add up over rows.
SELECT
    change_class,
    change,
    field,
    COUNT(DISTINCT id) AS images
FROM image_changes
GROUP BY
    change_class,
    change,
    field
ORDER BY
    change_class,
    CASE WHEN field = 'outcome' THEN 0 ELSE 1 END,
    images DESC,
    change,
    field
