-- The living images as of a day, as the complete days up to it know them: images_as_of('2026-11-01').
--
-- Reads image_history. `as_of_date` stands for the day: put it there to run this elsewhere. A day between two complete
-- days shows the earlier one, a day after the last one the last, and a day before the first has no rows.
SELECT image_history.*
FROM image_history
WHERE image_history.valid_from <= CAST(as_of_date AS DATE)
    AND (image_history.valid_to IS NULL OR image_history.valid_to > CAST(as_of_date AS DATE))
    AND NOT image_history.is_deleted
