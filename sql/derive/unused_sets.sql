-- The sets of unused images whose bytes are of interest: all, those of each owner and namespace, and those that each
-- audit rule finds. Unused: nothing was seen to use it for so many observed days; of a rule: nothing needs it now.
-- Preset images are in no set, and there is no set on a day that is not observed.
--
-- Reads parameters, current_images, image_usage, findings (audit_findings of the day), cost_parameters (one row:
-- unused_after_days).
WITH deletable AS (
    SELECT
        current_images.id,
        current_images.owner,
        current_images.namespace,
        image_usage.unused_days >= cost_parameters.unused_after_days AS is_unused
    FROM current_images
    CROSS JOIN parameters
    CROSS JOIN cost_parameters
    INNER JOIN image_usage
        ON image_usage.id = current_images.id
    WHERE parameters.usage_is_observed
        AND parameters.registry_was_wanted
        AND COALESCE(UPPER(current_images.type), '') <> 'BUILD_IN'
        AND COALESCE(image_usage.running, 0) = 0
        AND COALESCE(image_usage.required, 0) = 0
)

SELECT 'all' AS dimension, '' AS name, id
FROM deletable
WHERE is_unused
UNION ALL
SELECT 'owner' AS dimension, COALESCE(owner, '') AS name, id
FROM deletable
WHERE is_unused
UNION ALL
SELECT 'namespace' AS dimension, COALESCE(namespace, '') AS name, id
FROM deletable
WHERE is_unused
UNION ALL
SELECT 'rule' AS dimension, findings.rule AS name, deletable.id
FROM deletable
INNER JOIN findings
    ON findings.id = deletable.id
WHERE findings.state IN ('new', 'open')
