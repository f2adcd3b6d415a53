-- id: unused_90_days
-- title: Unused for 90 days
-- severity: medium
-- why: The image takes up space, and what nobody has needed for months is not patched either. The evidence says which
--   kinds of resources were looked at on each of these days (observed_kinds), and in how many workspaces: other uses
--   are not seen.
-- do: Ask the owner whether it is still needed, and delete it if not.
-- needs: usage
SELECT
    id,
    unused_days,
    observed_days,
    last_used_date,
    observed_kinds,
    workspaces
FROM image_usage
WHERE is_observed
    AND unused_days >= 90
