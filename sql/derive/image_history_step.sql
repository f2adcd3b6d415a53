-- Advances the history by one complete day.
-- Reads day (one row: snapshot_date, project_id, inventory_is_whole), versions (the current version of each image),
-- day_responses (id, outcome) and day_images (content) of that day.
-- Returns all versions that are current after the day, and those that end on it (is_current is false).
WITH described AS (
    SELECT day_images.*, day_responses.outcome
    FROM day_images
    INNER JOIN day_responses ON day_responses.id = day_images.id
),
begun AS (
    -- Images that are new, have come back, or have changed.
    SELECT described.*, FALSE AS is_deleted, NULL AS deleted_reason
    FROM described
    LEFT JOIN versions ON versions.id = described.id
    WHERE described.outcome = 'ok'
        AND (versions.id IS NULL OR versions.is_deleted OR versions.content_hash <> described.content_hash)
    UNION ALL
    -- Images that are gone, but described a last time.
    SELECT described.*, TRUE AS is_deleted, 'deleted' AS deleted_reason
    FROM described
    LEFT JOIN versions ON versions.id = described.id
    WHERE described.outcome = 'deleted'
        AND (versions.id IS NULL OR NOT versions.is_deleted)
),
gone AS (
    -- Images that are gone without a description: the last known content is kept. A response such as `forbidden` does
    -- not count, nor does absence from an inventory that is not whole.
    SELECT versions.id, COALESCE(day_responses.outcome, 'not_in_inventory') AS deleted_reason
    FROM versions
    CROSS JOIN day
    LEFT JOIN day_responses ON day_responses.id = versions.id
    WHERE NOT versions.is_deleted
        AND ((day_responses.id IS NULL AND day.inventory_is_whole) OR day_responses.outcome = 'not_found')
),
ended AS (
    SELECT id FROM begun
    UNION ALL
    SELECT id FROM gone
)
SELECT
    versions.project_id, versions.id, versions.valid_from,
    CASE WHEN ended.id IS NULL THEN NULL ELSE day.snapshot_date END AS valid_to,
    ended.id IS NULL AS is_current,
    versions.is_deleted, versions.deleted_reason,
    versions.name, versions.namespace, versions.swr_path, versions.tag, versions.arch, versions.type, versions.origin,
    versions.service_type, versions.status, versions.status_message, versions.visibility, versions.workspace_id,
    versions.flavor_type, versions.description, versions.size, versions.create_at, versions.update_at,
    versions.dev_services, versions.resource_categories, versions.support_res_categories, versions.show_name, versions.show_tag,
    versions.swr_instance_id, versions.tags, versions.extra,
    versions.size_bytes, versions.arch_normalised, versions.registry, versions.repository, versions.content_hash
FROM versions
CROSS JOIN day
LEFT JOIN ended ON ended.id = versions.id
UNION ALL
SELECT
    day.project_id, begun.id, day.snapshot_date, NULL, TRUE, begun.is_deleted, begun.deleted_reason,
    begun.name, begun.namespace, begun.swr_path, begun.tag, begun.arch, begun.type, begun.origin,
    begun.service_type, begun.status, begun.status_message, begun.visibility, begun.workspace_id,
    begun.flavor_type, begun.description, begun.size, begun.create_at, begun.update_at,
    begun.dev_services, begun.resource_categories, begun.support_res_categories, begun.show_name, begun.show_tag,
    begun.swr_instance_id, begun.tags, begun.extra,
    begun.size_bytes, begun.arch_normalised, begun.registry, begun.repository, begun.content_hash
FROM begun
CROSS JOIN day
UNION ALL
SELECT
    day.project_id, versions.id, day.snapshot_date, NULL, TRUE, TRUE, gone.deleted_reason,
    versions.name, versions.namespace, versions.swr_path, versions.tag, versions.arch, versions.type, versions.origin,
    versions.service_type, versions.status, versions.status_message, versions.visibility, versions.workspace_id,
    versions.flavor_type, versions.description, versions.size, versions.create_at, versions.update_at,
    versions.dev_services, versions.resource_categories, versions.support_res_categories, versions.show_name, versions.show_tag,
    versions.swr_instance_id, versions.tags, versions.extra,
    versions.size_bytes, versions.arch_normalised, versions.registry, versions.repository, versions.content_hash
FROM gone
INNER JOIN versions ON versions.id = gone.id
CROSS JOIN day
