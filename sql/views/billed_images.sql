-- Estimate and bill side by side: the newest bill of each day, divided among its images, and what is not allocated.
--
-- Reads image_bills. `charge_date` is the day that is billed; `snapshot_date` the day on which this became known. The
-- estimate is what the registry's lines compare with; the difference is null where currencies differ.
SELECT
    b.project,
    b.charge_date,
    b.currency,
    b.allocation,
    b.id,
    b.owner,
    b.cost_center,
    b.environment,
    b.namespace,
    b.weight_bytes,
    b.estimated_cost,
    b.estimate_currency,
    b.billed_cost,
    b.billed_registry_cost,
    CASE
        WHEN b.estimate_currency = b.currency
        THEN CAST(b.billed_registry_cost AS DOUBLE PRECISION) - b.estimated_cost
    END AS difference,
    b.snapshot_date
FROM image_bills AS b
INNER JOIN (
    SELECT
        project,
        charge_date,
        MAX(snapshot_date) AS snapshot_date
    FROM image_bills
    GROUP BY
        project,
        charge_date
) AS newest
    ON newest.project = b.project
    AND newest.charge_date = b.charge_date
    AND newest.snapshot_date = b.snapshot_date
