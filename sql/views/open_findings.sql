-- The open findings of the last complete day of each project, without suppressed ones, with the advice of their rules.
--
-- Reads latest_days, audit_findings and audit_rules.
SELECT
    f.project,
    f.snapshot_date,
    f.finding_id,
    f.rule,
    f.severity,
    f.title,
    f.id,
    f.name,
    f.owner,
    f.cost_center,
    f.environment,
    f.state,
    f.first_seen,
    f.days_open,
    f.evidence,
    a.why,
    a.what_to_do
FROM audit_findings AS f
INNER JOIN latest_days AS latest
    ON latest.project = f.project
    AND latest.snapshot_date = f.snapshot_date
LEFT JOIN audit_rules AS a
    ON a.project = f.project
    AND a.snapshot_date = f.snapshot_date
    AND a.rule = f.rule
WHERE
    f.state <> 'resolved'
    AND f.suppressed_until IS NULL
