-- The tags that history knows, on a day, of images that the day does not describe: one JSON object each.
--
-- Reads parameters, images and image_history.
SELECT
    image_history.id,
    image_history.tags
FROM image_history
CROSS JOIN parameters
LEFT JOIN images
    ON images.id = image_history.id
WHERE image_history.valid_from <= parameters.snapshot_date
    AND (image_history.valid_to IS NULL OR image_history.valid_to > parameters.snapshot_date)
    AND image_history.tags <> '{}'
    AND images.id IS NULL
