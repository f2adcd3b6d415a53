-- id: public_without_description
-- title: Public image without a description
-- severity: low
-- why: Others may use the image, but nothing says what it is for.
-- do: Describe the image, or make it private.
SELECT
    id,
    type,
    visibility,
    namespace,
    description
FROM current_images
WHERE UPPER(visibility) = 'PUBLIC'
    AND TRIM(COALESCE(description, '')) = ''
