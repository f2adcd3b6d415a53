-- What deleting the unused images would free, by owner: an UPPER BOUND, because images share layers and the registry
-- frees a layer only when the last image with it is gone. Likewise the estimated cost of a month, which is no bill.
-- Where the registry is read, sql/cost/reclaimable.sql says it exactly, and this has no rows.
-- Unused means that no resource of observed_kinds uses them. Without rows for a day that did not read all of these.
--
-- Reads image_costs; only the last day of each project counts.
WITH last_days AS (
    SELECT
        project_id,
        MAX(snapshot_date) AS snapshot_date
    FROM image_costs
    GROUP BY project_id
)

SELECT
    image_costs.snapshot_date,
    image_costs.project_id,
    image_costs.owner,
    image_costs.cost_center,
    COUNT(*) AS unused_images,
    SUM(image_costs.reclaimable_bytes) AS reclaimable_bytes_upper_bound,
    SUM(CAST(image_costs.reclaimable_bytes AS DOUBLE) / 1073741824 * image_costs.unit_price)
        AS estimated_month_cost_upper_bound,
    image_costs.currency,
    image_costs.observed_kinds
FROM image_costs
INNER JOIN last_days
    ON last_days.project_id = image_costs.project_id
    AND last_days.snapshot_date = image_costs.snapshot_date
WHERE image_costs.reclaimable_bytes > 0
    AND image_costs.reclaimable_by = 'size'
GROUP BY
    image_costs.snapshot_date,
    image_costs.project_id,
    image_costs.owner,
    image_costs.cost_center,
    image_costs.currency,
    image_costs.observed_kinds
ORDER BY
    reclaimable_bytes_upper_bound DESC,
    image_costs.project_id,
    image_costs.owner,
    image_costs.cost_center
