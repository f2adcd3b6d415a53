-- Images, bytes and estimated cost of each complete day, by project, owner, cost centre, environment and currency.
--
-- Reads days and image_costs. Sums leave out images of unknown size or price; `images_without_cost` counts them.
-- `reclaimable_bytes` is an upper bound, by sizes, where the registry is not read; where it is,
-- `reclaimable_bytes_at_least` is a lower bound, because images that are deleted together free their common layers, too.
SELECT
    c.project,
    c.snapshot_date,
    c.owner,
    c.cost_center,
    c.environment,
    c.currency,
    COUNT(*) AS images,
    CAST(SUM(CASE WHEN c.estimated_cost IS NULL THEN 1 ELSE 0 END) AS BIGINT) AS images_without_cost,
    CAST(SUM(c.size_bytes) AS BIGINT) AS size_bytes,
    CAST(SUM(c.growth_bytes) AS BIGINT) AS growth_bytes,
    SUM(c.estimated_cost) AS estimated_cost,
    CAST(SUM(CASE WHEN c.reclaimable_by = 'size' THEN c.reclaimable_bytes END) AS BIGINT) AS reclaimable_bytes,
    CAST(SUM(CASE WHEN c.reclaimable_by = 'layers' THEN c.reclaimable_bytes END) AS BIGINT)
        AS reclaimable_bytes_at_least
FROM image_costs AS c
INNER JOIN days AS d
    ON d.project = c.project
    AND d.snapshot_date = c.snapshot_date
WHERE d.is_complete
GROUP BY
    c.project,
    c.snapshot_date,
    c.owner,
    c.cost_center,
    c.environment,
    c.currency
