-- The largest number of days for which notebooks have been observed; null before the first one.
--
-- Reads image_usage of one day.
SELECT MAX(observed_days) AS observed_days
FROM image_usage
