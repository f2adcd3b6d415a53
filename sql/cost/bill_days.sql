-- The bill of each charge day as known on a day: the statements that it brings, and the others as they were before.
--
-- Reads new_statements (those of sql/cost/bill_statements.sql that the day brings, and the keys of the day), image_bills
-- of the day, estimates (of charge days: charge_date, estimated_cost, estimate_currency), previous_bill_days (bill_days of
-- the last published day) and bill_parameters (one row: snapshot_date, first_charge_date).
WITH allocated AS (
    SELECT
        charge_date,
        currency,
        CAST(SUM(CASE WHEN allocation = 'image' THEN billed_cost ELSE 0 END) AS DECIMAL(28, 12)) AS allocated_cost
    FROM image_bills
    GROUP BY
        charge_date,
        currency
)

SELECT
    new_statements.snapshot_date,
    new_statements.project_id,
    new_statements.charge_date,
    new_statements.currency,
    estimates.estimated_cost,
    estimates.estimate_currency,
    new_statements.billed_cost,
    new_statements.billed_registry_cost,
    new_statements.list_cost,
    new_statements.contracted_cost,
    allocated.allocated_cost,
    CAST(new_statements.billed_cost - allocated.allocated_cost AS DECIMAL(28, 12)) AS not_allocated_cost,
    new_statements.lines,
    new_statements.time_zone,
    new_statements.snapshot_date AS known_since,
    new_statements.version
FROM new_statements
INNER JOIN allocated
    ON allocated.charge_date = new_statements.charge_date
    AND allocated.currency = new_statements.currency
LEFT JOIN estimates
    ON estimates.charge_date = new_statements.charge_date
UNION ALL
SELECT
    bill_parameters.snapshot_date,
    previous_bill_days.project_id,
    previous_bill_days.charge_date,
    previous_bill_days.currency,
    previous_bill_days.estimated_cost,
    previous_bill_days.estimate_currency,
    previous_bill_days.billed_cost,
    previous_bill_days.billed_registry_cost,
    previous_bill_days.list_cost,
    previous_bill_days.contracted_cost,
    previous_bill_days.allocated_cost,
    previous_bill_days.not_allocated_cost,
    previous_bill_days.lines,
    previous_bill_days.time_zone,
    previous_bill_days.known_since,
    previous_bill_days.version
FROM previous_bill_days
CROSS JOIN bill_parameters
WHERE
    previous_bill_days.charge_date NOT IN (SELECT new_statements.charge_date FROM new_statements)
    AND previous_bill_days.charge_date >= bill_parameters.first_charge_date
ORDER BY
    charge_date,
    currency
