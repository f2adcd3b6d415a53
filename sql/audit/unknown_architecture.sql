-- id: unknown_architecture
-- title: Architecture is not documented
-- severity: low
-- why: Tools that choose machines by architecture may refuse the image, or choose the wrong machine.
-- do: Correct the architecture of the image, or ask the vendor what the new value means.
SELECT
    current_images.id,
    current_images.arch
FROM current_images
LEFT JOIN known_values
    ON known_values.field = 'arch'
    AND known_values.value = UPPER(current_images.arch)
WHERE current_images.arch <> ''
    AND known_values.value IS NULL
