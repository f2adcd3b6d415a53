-- The audit rules of a day, and the result of each.
-- Reads parameters, rules (rule, title, severity, why, what_to_do, error, sql_sha256), findings (audit_findings of the
-- day).
WITH open_findings AS (
    SELECT rule, COUNT(*) AS findings
    FROM findings
    WHERE state IN ('new', 'open')
    GROUP BY rule
)
SELECT
    parameters.snapshot_date,
    parameters.project_id,
    rules.rule,
    rules.title,
    rules.severity,
    rules.why,
    rules.what_to_do,
    CASE WHEN rules.error IS NULL THEN COALESCE(open_findings.findings, 0) END AS findings,
    rules.error,
    rules.sql_sha256
FROM rules
CROSS JOIN parameters
LEFT JOIN open_findings ON open_findings.rule = rules.rule
ORDER BY rules.rule
