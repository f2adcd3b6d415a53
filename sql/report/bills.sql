-- The newest billed days, estimate beside bill; the newest first.
--
-- Reads bill_days of one day, and report_limits (one row: shown_bill_days).
SELECT
    charge_date,
    currency,
    CASE WHEN estimate_currency = currency THEN estimated_cost END AS estimated_cost,
    billed_registry_cost,
    CASE WHEN estimate_currency = currency THEN billed_registry_cost - estimated_cost END AS difference,
    billed_cost - billed_registry_cost AS billed_modelarts_cost,
    billed_cost,
    not_allocated_cost,
    known_since,
    time_zone
FROM bill_days
QUALIFY ROW_NUMBER() OVER (ORDER BY charge_date DESC, currency) <= (SELECT MAX(shown_bill_days) FROM report_limits)
ORDER BY
    charge_date DESC,
    currency
