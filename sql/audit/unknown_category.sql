-- id: unknown_category
-- title: Resource category is not documented
-- severity: low
-- why: Tools that choose machines by category may refuse the image, or choose the wrong machine.
-- do: Correct the categories of the image, or ask the vendor what the new value means.
SELECT
    image_values.id,
    MIN(image_values.value) AS unknown_value,
    COUNT(DISTINCT image_values.value) AS unknown_values,
    MAX(current_images.resource_categories) AS resource_categories,
    MAX(current_images.support_res_categories) AS support_res_categories
FROM image_values
INNER JOIN current_images ON current_images.id = image_values.id
LEFT JOIN known_values
    ON known_values.field = image_values.field
    AND known_values.value = UPPER(image_values.value)
WHERE image_values.field IN ('resource_categories', 'support_res_categories')
    AND known_values.value IS NULL
GROUP BY image_values.id
