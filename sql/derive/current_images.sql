-- The known content of each living image on a day.
-- Reads parameters, responses, images, image_history, image_owners.
-- The content is today's response. Without a usable one (forbidden, failed) it is the last version from a complete day,
-- marked as carried. An image is left out if the API reports it as gone or, on a complete day, if it is missing from an
-- inventory that is whole.
WITH today AS (
    SELECT images.*
    FROM images
    INNER JOIN responses ON responses.id = images.id
    WHERE responses.outcome = 'ok'
),
carried AS (
    SELECT image_history.*
    FROM image_history
    CROSS JOIN parameters
    LEFT JOIN responses ON responses.id = image_history.id
    WHERE image_history.valid_from <= parameters.snapshot_date
        AND (image_history.valid_to IS NULL OR image_history.valid_to > parameters.snapshot_date)
        AND NOT image_history.is_deleted
        AND COALESCE(responses.outcome, 'failed') IN ('failed', 'forbidden', 'invalid_id')
),
known AS (
    SELECT
        id, name, namespace, swr_path, tag, arch, type, origin, service_type, status, status_message, visibility,
        workspace_id, flavor_type, description, size, create_at, update_at, dev_services, resource_categories,
        support_res_categories, show_name, show_tag, swr_instance_id, tags, extra, size_bytes, arch_normalised, registry,
        repository, FALSE AS is_carried
    FROM today
    UNION ALL
    SELECT
        id, name, namespace, swr_path, tag, arch, type, origin, service_type, status, status_message, visibility,
        workspace_id, flavor_type, description, size, create_at, update_at, dev_services, resource_categories,
        support_res_categories, show_name, show_tag, swr_instance_id, tags, extra, size_bytes, arch_normalised, registry,
        repository, TRUE AS is_carried
    FROM carried
)
SELECT
    parameters.snapshot_date,
    parameters.project_id,
    known.id,
    known.name,
    known.namespace,
    known.swr_path,
    known.tag,
    known.arch,
    known.type,
    known.origin,
    known.service_type,
    known.status,
    known.status_message,
    known.visibility,
    known.workspace_id,
    known.flavor_type,
    known.description,
    known.size,
    known.create_at,
    known.update_at,
    known.dev_services,
    known.resource_categories,
    known.support_res_categories,
    known.show_name,
    known.show_tag,
    known.swr_instance_id,
    known.tags,
    known.extra,
    known.size_bytes,
    known.arch_normalised,
    known.registry,
    known.repository,
    DATE_DIFF('day', CAST(known.create_at AS DATE), parameters.snapshot_date) AS age_days,
    DATE_DIFF('day', CAST(known.update_at AS DATE), parameters.snapshot_date) AS days_since_update,
    image_owners.owner,
    image_owners.cost_center,
    image_owners.environment,
    COALESCE(image_owners.owner_source, 'none') AS owner_source,
    COALESCE(image_owners.is_registered, FALSE) AS is_registered,
    known.is_carried
FROM known
CROSS JOIN parameters
LEFT JOIN image_owners ON image_owners.id = known.id
