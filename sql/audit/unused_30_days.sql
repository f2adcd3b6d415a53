-- id: unused_30_days
-- title: Unused for 30 days
-- severity: low
-- why: The image takes up space, and nobody seems to need it. Only complete days on which all notebooks were read are
--   counted; uses other than notebooks are not seen.
-- do: Ask the owner whether it is still needed, and delete it if not.
-- needs: usage
SELECT
    id,
    unused_days,
    observed_days,
    last_used_date
FROM image_usage
WHERE is_observed
    AND unused_days >= 30
