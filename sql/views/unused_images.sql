-- The images of the last complete day of each project that nothing was seen to use for 30 observed days.
--
-- Reads latest_days, image_costs and image_usage. `observed_kinds` are the sources that were looked at on all these
-- days, in so many `workspaces`: other uses are not seen. Empty for a project whose last complete day did not read all
-- that it was to read.
SELECT
    c.project,
    c.snapshot_date,
    c.id,
    c.name,
    c.namespace,
    c.owner,
    c.cost_center,
    c.environment,
    c.unused_days,
    c.reclaimable_bytes,
    c.estimated_cost,
    c.currency,
    u.observed_kinds,
    u.workspaces,
    c.owner_source
FROM image_costs AS c
INNER JOIN latest_days AS latest
    ON latest.project = c.project
    AND latest.snapshot_date = c.snapshot_date
INNER JOIN image_usage AS u
    ON u.project = c.project
    AND u.snapshot_date = c.snapshot_date
    AND u.id = c.id
WHERE u.is_observed
    AND u.unused_days >= 30
