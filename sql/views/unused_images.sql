-- The images of the last complete day of each project that no notebook has used for 30 observed days, with their costs.
--
-- Reads latest_days and image_costs. Empty if usage is not read.
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
    c.currency
FROM image_costs AS c
INNER JOIN latest_days AS latest
    ON latest.project = c.project
    AND latest.snapshot_date = c.snapshot_date
WHERE c.unused_days >= 30
