-- The audit rules of a day with their numbers of open findings (without suppressed ones), new ones among them,
-- suppressed ones, and resolved ones. A rule whose file was removed stays as long as it has findings. A rule whose
-- severity was changed may appear with both severities until all its findings have been decided again.
--
-- Reads audit_rules and audit_findings of one day.
WITH counted AS (
    SELECT
        rule,
        severity,
        MAX(title) AS title,
        COUNT(CASE WHEN state <> 'resolved' AND suppressed_until IS NULL THEN 1 END) AS open_findings,
        COUNT(CASE WHEN state = 'new' AND suppressed_until IS NULL THEN 1 END) AS new_findings,
        COUNT(CASE WHEN state <> 'resolved' AND suppressed_until IS NOT NULL THEN 1 END) AS suppressed_findings,
        COUNT(CASE WHEN state = 'resolved' THEN 1 END) AS resolved_findings
    FROM audit_findings
    GROUP BY
        rule,
        severity
)

SELECT
    COALESCE(audit_rules.rule, counted.rule) AS rule,
    COALESCE(audit_rules.title, counted.title) AS title,
    COALESCE(counted.severity, audit_rules.severity) AS severity,
    audit_rules.why,
    audit_rules.what_to_do,
    audit_rules.error,
    audit_rules.rule IS NOT NULL AS has_file,
    COALESCE(counted.open_findings, 0) AS open_findings,
    COALESCE(counted.new_findings, 0) AS new_findings,
    COALESCE(counted.suppressed_findings, 0) AS suppressed_findings,
    COALESCE(counted.resolved_findings, 0) AS resolved_findings
FROM audit_rules
FULL OUTER JOIN counted
    ON counted.rule = audit_rules.rule
ORDER BY
    open_findings DESC,
    rule,
    severity
