-- The findings that the report shows, by rule and kind: open, suppressed or resolved. If there are more than
-- shown_findings in total, the last ones of every rule are dropped, so that no rule hides another.
--
-- Reads audit_findings of one day, and report_limits (one row: shown_findings, shown_text: characters).
-- The ranking reads only the columns that it needs; all columns are read for the shown findings only.
WITH kinds AS (
    SELECT
        rule,
        severity,
        id,
        name,
        state,
        days_open,
        CASE
            WHEN state = 'resolved' THEN 'resolved'
            WHEN suppressed_until IS NOT NULL THEN 'suppressed'
            ELSE 'open'
        END AS kind
    FROM audit_findings
),

ranked AS (
    SELECT
        rule,
        severity,
        id,
        kind,
        ROW_NUMBER() OVER (
            PARTITION BY rule, severity, kind
            ORDER BY CASE WHEN state = 'new' THEN 0 ELSE 1 END, days_open DESC, name, id
        ) AS rank_in_rule
    FROM kinds
),

shown AS (
    SELECT ranked.*
    FROM ranked
    CROSS JOIN report_limits
    -- Those beyond cannot be among the first of all, and need not be sorted with them.
    WHERE ranked.rank_in_rule <= report_limits.shown_findings
    QUALIFY ROW_NUMBER() OVER (
        ORDER BY ranked.rank_in_rule, ranked.kind, ranked.rule, ranked.severity
    ) <= report_limits.shown_findings
)

SELECT
    shown.rule,
    shown.severity,
    shown.kind,
    audit_findings.title,
    shown.id,
    SUBSTRING(audit_findings.name, 1, report_limits.shown_text) AS name,
    SUBSTRING(audit_findings.owner, 1, report_limits.shown_text) AS owner,
    SUBSTRING(audit_findings.cost_center, 1, report_limits.shown_text) AS cost_center,
    SUBSTRING(audit_findings.environment, 1, report_limits.shown_text) AS environment,
    audit_findings.state,
    audit_findings.first_seen,
    audit_findings.days_open,
    -- A JSON object cannot be cut off, so a long one is only in the table.
    CASE
        WHEN LENGTH(audit_findings.evidence) <= 10 * report_limits.shown_text THEN audit_findings.evidence
    END AS evidence,
    audit_findings.suppressed_until,
    SUBSTRING(audit_findings.suppression_reason, 1, 2 * report_limits.shown_text) AS suppression_reason
FROM shown
INNER JOIN audit_findings
    ON audit_findings.rule = shown.rule
    AND audit_findings.id = shown.id
CROSS JOIN report_limits
ORDER BY
    shown.kind,
    shown.rule,
    shown.rank_in_rule
