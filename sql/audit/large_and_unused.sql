-- id: large_and_unused
-- title: Over 100 GiB and unused for a week
-- severity: medium
-- why: Such a large image costs money every day, even if nobody needs it. Only complete days on which all notebooks
--   were read are counted; uses other than notebooks are not seen.
-- do: Ask the owner now rather than after months. Delete the image, or build a smaller one.
-- needs: usage
SELECT
    current_images.id,
    current_images.size_bytes,
    image_usage.unused_days,
    image_usage.observed_days,
    image_usage.last_used_date
FROM image_usage
INNER JOIN current_images ON current_images.id = image_usage.id
WHERE image_usage.is_observed
    AND image_usage.unused_days >= 7
    AND current_images.size_bytes > 107374182400
    AND COALESCE(UPPER(current_images.type), '') <> 'BUILD_IN'
