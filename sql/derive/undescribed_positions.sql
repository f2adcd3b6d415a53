-- The positions in the image list of requested images that the API did not describe and of which nothing is known, such
-- as those that may not be read, in the list's order.
--
-- Reads listed_ids (id, position in the list, see Analysis.load_undescribed_rows), responses and current_images.
WITH undescribed AS (
    SELECT responses.id
    FROM responses
    LEFT JOIN current_images
        ON current_images.id = responses.id
    WHERE responses.outcome <> 'ok'
        AND current_images.id IS NULL
)

SELECT listed_ids.position
FROM listed_ids
INNER JOIN undescribed
    ON undescribed.id = listed_ids.id
ORDER BY listed_ids.position
