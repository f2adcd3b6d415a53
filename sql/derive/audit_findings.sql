-- The findings of a day, each continued from the last published day.
-- Reads parameters, found (rule, id, evidence: the rows of the rules), rules (rule, severity, title, is_decided),
-- previous_findings (audit_findings of the last published day), suppressions (rule, id, namespace, until, reason),
-- image_owners, responses, current_images, image_reconciliation, image_storage, registry_namespaces (namespace,
-- is_whole, list_was_read), unread_repositories (namespace, repository), image_history.
-- An open finding that is not found now is resolved, unless this day cannot decide it: the day is incomplete, the rule
-- could not decide (it failed, or its input was not read), the image had no usable response, or it was not requested
-- because the inventory is not whole, or the rule needs a repository of the registry that was not read or may be on a
-- list that was not read. Then the finding stays open unchanged. A finding about a tag that no image registers has namespace/repository:tag as id.
WITH previous AS (
    SELECT rule, severity, title, id, name, first_seen, evidence
    FROM previous_findings
    WHERE state IN ('new', 'open')
),
found_today AS (
    SELECT
        found.rule,
        rules.severity,
        rules.title,
        found.id,
        previous.name AS previous_name,
        CASE WHEN previous.id IS NULL THEN 'new' ELSE 'open' END AS state,
        COALESCE(previous.first_seen, parameters.snapshot_date) AS first_seen,
        found.evidence
    FROM found
    CROSS JOIN parameters
    INNER JOIN rules ON rules.rule = found.rule
    LEFT JOIN previous ON previous.rule = found.rule AND previous.id = found.id
),
not_found_today AS (
    SELECT
        previous.rule,
        previous.severity,
        previous.title,
        previous.id,
        previous.name AS previous_name,
        CASE
            WHEN NOT parameters.is_complete THEN 'open'
            WHEN NOT rules.is_decided THEN 'open'
            WHEN current_images.is_carried THEN 'open'
            WHEN rules.needs_registry AND image_storage.state = 'unread' THEN 'open'
            WHEN rules.needs_registry AND previous.id LIKE '%/%' AND (
                unread_repositories.repository IS NOT NULL OR NOT COALESCE(registry_namespaces.list_was_read, FALSE)
            ) THEN 'open'
            WHEN responses.id IS NULL AND NOT parameters.inventory_is_whole AND previous.id NOT LIKE '%/%' THEN 'open'
            ELSE 'resolved'
        END AS state,
        previous.first_seen,
        previous.evidence
    FROM previous
    CROSS JOIN parameters
    LEFT JOIN found ON found.rule = previous.rule AND found.id = previous.id
    LEFT JOIN rules ON rules.rule = previous.rule
    LEFT JOIN current_images ON current_images.id = previous.id
    LEFT JOIN responses ON responses.id = previous.id
    LEFT JOIN image_storage ON image_storage.id = previous.id
    LEFT JOIN registry_namespaces ON registry_namespaces.namespace = SPLIT_PART(previous.id, '/', 1)
    LEFT JOIN unread_repositories
        ON CONCAT(unread_repositories.namespace, '/', unread_repositories.repository) = SPLIT_PART(previous.id, ':', 1)
    WHERE found.id IS NULL
),
last_versions AS (
    -- The history may be newer than a day that is derived again.
    SELECT image_history.id, image_history.name, image_history.namespace
    FROM image_history
    CROSS JOIN parameters
    WHERE image_history.valid_from <= parameters.snapshot_date
        AND (image_history.valid_to IS NULL OR image_history.valid_to > parameters.snapshot_date)
),
findings AS (
    SELECT
        either.rule,
        either.severity,
        either.title,
        either.id,
        either.state,
        either.first_seen,
        either.evidence,
        COALESCE(
            current_images.name,
            image_reconciliation.name,
            last_versions.name,
            either.previous_name,
            CASE WHEN either.id LIKE '%/%' THEN either.id END
        ) AS name,
        COALESCE(
            current_images.namespace,
            image_reconciliation.namespace,
            last_versions.namespace,
            CASE WHEN either.id LIKE '%/%' THEN SPLIT_PART(either.id, '/', 1) END
        ) AS namespace
    FROM (
        SELECT * FROM found_today
        UNION ALL
        SELECT * FROM not_found_today
    ) AS either
    LEFT JOIN current_images ON current_images.id = either.id
    LEFT JOIN image_reconciliation ON image_reconciliation.id = either.id
    LEFT JOIN last_versions ON last_versions.id = either.id
),
in_force AS (
    -- The one that ends last, of several for the same image or namespace.
    SELECT suppressions.rule, suppressions.id, suppressions.namespace, suppressions.until, suppressions.reason
    FROM suppressions
    CROSS JOIN parameters
    WHERE suppressions.until >= parameters.snapshot_date
    QUALIFY ROW_NUMBER() OVER (
        PARTITION BY suppressions.rule, suppressions.id, suppressions.namespace
        ORDER BY suppressions.until DESC, suppressions.reason
    ) = 1
),
judged AS (
    SELECT
        findings.*,
        of_image.until AS image_until,
        of_image.reason AS image_reason,
        of_namespace.until AS namespace_until,
        of_namespace.reason AS namespace_reason,
        COALESCE(
            of_image.until > of_namespace.until
            OR (of_image.until = of_namespace.until AND of_image.reason <= of_namespace.reason),
            of_namespace.until IS NULL
        ) AS is_by_image
    FROM findings
    LEFT JOIN in_force AS of_image ON of_image.rule = findings.rule AND of_image.id = findings.id
    LEFT JOIN in_force AS of_namespace
        ON of_namespace.rule = findings.rule AND of_namespace.namespace = findings.namespace
)
SELECT
    parameters.snapshot_date,
    parameters.project_id,
    SUBSTRING(SHA256(CONCAT(parameters.project_id, '/', judged.rule, '/', judged.id)), 1, 32) AS finding_id,
    judged.rule,
    judged.severity,
    judged.title,
    judged.id,
    judged.name,
    image_owners.owner,
    image_owners.cost_center,
    image_owners.environment,
    judged.state,
    judged.first_seen,
    DATE_DIFF('day', judged.first_seen, parameters.snapshot_date) AS days_open,
    judged.evidence,
    CASE WHEN judged.is_by_image THEN judged.image_until ELSE judged.namespace_until END AS suppressed_until,
    CASE WHEN judged.is_by_image THEN judged.image_reason ELSE judged.namespace_reason END AS suppression_reason
FROM judged
CROSS JOIN parameters
LEFT JOIN image_owners ON image_owners.id = judged.id
ORDER BY judged.rule, judged.id
