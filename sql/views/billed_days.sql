-- Estimate and bill of each day, by the newest statement: one row for each project, billed day and currency.
--
-- Reads bill_days. The estimate is what the registry's part of the bill compares with; the difference is null where
-- currencies differ.
SELECT
    b.project,
    b.charge_date,
    b.currency,
    b.estimated_cost,
    b.estimate_currency,
    b.billed_cost,
    b.billed_registry_cost,
    CASE WHEN b.estimate_currency = b.currency THEN b.billed_registry_cost - b.estimated_cost END AS difference,
    b.list_cost,
    b.contracted_cost,
    b.allocated_cost,
    b.not_allocated_cost,
    b.lines,
    b.time_zone,
    b.known_since,
    b.version
FROM bill_days AS b
INNER JOIN (
    SELECT
        project,
        charge_date,
        MAX(snapshot_date) AS snapshot_date
    FROM bill_days
    GROUP BY
        project,
        charge_date
) AS newest
    ON newest.project = b.project
    AND newest.charge_date = b.charge_date
    AND newest.snapshot_date = b.snapshot_date
