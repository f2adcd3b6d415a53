-- id: large_and_unused
-- title: Over 100 GiB and unused for a week
-- severity: medium
-- why: So large an image costs every day that nobody needs it. The evidence says which kinds of resources were looked
--   at on each of these days (observed_kinds), and in how many workspaces: other uses are not seen.
-- do: Ask the owner now rather than after months; delete it, or build it smaller.
-- needs: usage
SELECT
    current_images.id,
    current_images.size_bytes,
    image_usage.unused_days,
    image_usage.observed_days,
    image_usage.last_used_date,
    image_usage.observed_kinds,
    image_usage.workspaces
FROM image_usage
INNER JOIN current_images ON current_images.id = image_usage.id
WHERE image_usage.is_observed
    AND image_usage.unused_days >= 7
    AND current_images.size_bytes > 107374182400
    AND COALESCE(UPPER(current_images.type), '') <> 'BUILD_IN'
