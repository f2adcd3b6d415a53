-- For how many days at most notebooks have been observed; null before there was one.
--
-- Reads image_usage of one day.
SELECT MAX(observed_days) AS observed_days
FROM image_usage
