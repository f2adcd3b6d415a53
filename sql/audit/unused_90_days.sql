-- id: unused_90_days
-- title: Unused for 90 days
-- severity: medium
-- why: The image takes up space, and an image that nobody has needed for months is not patched, either. Only complete
--   days on which all notebooks were read are counted; uses other than notebooks are not seen.
-- do: Ask the owner whether it is still needed, and delete it if not.
-- needs: usage
SELECT
    id,
    unused_days,
    observed_days,
    last_used_date
FROM image_usage
WHERE is_observed
    AND unused_days >= 90
