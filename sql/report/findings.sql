-- The findings that the report shows, by rule and kind: open, suppressed or resolved. When there are more than
-- shown_findings in all, every rule gives up those it ranks last, so that no rule hides another.
--
-- Reads audit_findings of one day, and report_limits (one row: shown_findings, shown_text: characters).
WITH kinds AS (
    SELECT
        audit_findings.*,
        CASE
            WHEN state = 'resolved' THEN 'resolved'
            WHEN suppressed_until IS NOT NULL THEN 'suppressed'
            ELSE 'open'
        END AS kind
    FROM audit_findings
),

ranked AS (
    SELECT
        kinds.*,
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
    QUALIFY ROW_NUMBER() OVER (
        ORDER BY ranked.rank_in_rule, ranked.kind, ranked.rule, ranked.severity
    ) <= report_limits.shown_findings
)

SELECT
    shown.rule,
    shown.severity,
    shown.kind,
    shown.title,
    shown.id,
    SUBSTRING(shown.name, 1, report_limits.shown_text) AS name,
    SUBSTRING(shown.owner, 1, report_limits.shown_text) AS owner,
    SUBSTRING(shown.cost_center, 1, report_limits.shown_text) AS cost_center,
    SUBSTRING(shown.environment, 1, report_limits.shown_text) AS environment,
    shown.state,
    shown.first_seen,
    shown.days_open,
    -- A JSON object cannot be cut: a long one is in the table alone.
    CASE WHEN LENGTH(shown.evidence) <= 10 * report_limits.shown_text THEN shown.evidence END AS evidence,
    shown.suppressed_until,
    SUBSTRING(shown.suppression_reason, 1, 2 * report_limits.shown_text) AS suppression_reason
FROM shown
CROSS JOIN report_limits
ORDER BY
    shown.kind,
    shown.rule,
    shown.rank_in_rule
