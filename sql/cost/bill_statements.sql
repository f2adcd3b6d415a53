-- The sums of the statement of each charge day that a day has read, by currency. Amounts for longer than a day belong to
-- no single day, so they are summed apart.
--
-- Reads billed_costs of one day. A day of 25 hours is a day.
WITH lines AS (
    SELECT
        billed_costs.*,
        charge_period_end - charge_period_start > INTERVAL '25' HOUR AS is_long
    FROM billed_costs
)

SELECT
    charge_date,
    currency,
    CAST(SUM(billed_cost) AS DECIMAL(28, 12)) AS billed_cost,
    CAST(COALESCE(SUM(billed_cost) FILTER (WHERE kind = 'registry'), 0) AS DECIMAL(28, 12)) AS billed_registry_cost,
    CAST(COALESCE(SUM(billed_cost) FILTER (WHERE is_long), 0) AS DECIMAL(28, 12)) AS long_cost,
    CAST(COALESCE(SUM(billed_cost) FILTER (WHERE is_long AND kind = 'registry'), 0) AS DECIMAL(28, 12))
        AS long_registry_cost,
    CAST(CASE WHEN COUNT(list_cost) = COUNT(*) THEN SUM(list_cost) END AS DECIMAL(28, 12)) AS list_cost,
    CAST(CASE WHEN COUNT(contracted_cost) = COUNT(*) THEN SUM(contracted_cost) END AS DECIMAL(28, 12))
        AS contracted_cost,
    COUNT(*) AS lines,
    MIN(time_zone) AS time_zone,
    MIN(version) AS version
FROM lines
GROUP BY
    charge_date,
    currency
ORDER BY
    charge_date,
    currency
