-- The number of images that have changed since the last complete day, by class, kind of change and field.
--
-- Reads image_changes of one day. An image may count in several rows, so do not add up the rows.
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
