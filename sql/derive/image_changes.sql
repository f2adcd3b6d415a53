-- The changes from one complete day to the next, one row for each changed field.
-- Reads parameters, image_history, image_owners, image_traces, image_storage, current_images.
-- Compares the versions that begin on the day with those that end on it, so an image without a response has no changes.
-- The digest of an image's tag is that of the registry, compared with the one that was last read.
WITH begun AS (
    SELECT image_history.*
    FROM image_history
    INNER JOIN parameters ON image_history.valid_from = parameters.snapshot_date
),
ended AS (
    SELECT image_history.*
    FROM image_history
    INNER JOIN parameters ON image_history.valid_to = parameters.snapshot_date
),
fields AS (
    SELECT *
    FROM (
        VALUES
            ('visibility', 'access'),
            ('namespace', 'access'),
            ('workspace_id', 'access'),
            ('status', 'lifecycle'),
            ('status_message', 'lifecycle'),
            ('create_at', 'lifecycle'),
            ('swr_path', 'content'),
            ('tag', 'content'),
            ('arch', 'content'),
            ('size', 'content'),
            ('update_at', 'content'),
            ('name', 'metadata'),
            ('type', 'metadata'),
            ('origin', 'metadata'),
            ('service_type', 'metadata'),
            ('flavor_type', 'metadata'),
            ('description', 'metadata'),
            ('dev_services', 'metadata'),
            ('resource_categories', 'metadata'),
            ('support_res_categories', 'metadata'),
            ('show_name', 'metadata'),
            ('show_tag', 'metadata'),
            ('swr_instance_id', 'metadata'),
            ('tags', 'metadata'),
            ('extra', 'metadata')
    ) AS listed (field, change_class)
),
came_or_went AS (
    SELECT
        begun.id,
        CASE WHEN begun.is_deleted THEN 'removed' WHEN ended.id IS NULL THEN 'added' ELSE 'reappeared' END AS change,
        CASE WHEN ended.is_deleted THEN ended.deleted_reason WHEN ended.id IS NOT NULL THEN 'ok' END AS old_value,
        CASE WHEN begun.is_deleted THEN begun.deleted_reason ELSE 'ok' END AS new_value
    FROM begun
    LEFT JOIN ended ON ended.id = begun.id
    WHERE (begun.is_deleted AND ended.id IS NOT NULL)
        OR (NOT begun.is_deleted AND (ended.id IS NULL OR ended.is_deleted))
),
field_values AS (
    SELECT
        begun.id,
        fields.field,
        fields.change_class,
        CASE fields.field
            WHEN 'visibility' THEN ended.visibility
            WHEN 'namespace' THEN ended.namespace
            WHEN 'workspace_id' THEN ended.workspace_id
            WHEN 'status' THEN ended.status
            WHEN 'status_message' THEN ended.status_message
            WHEN 'create_at' THEN STRFTIME(ended.create_at, '%Y-%m-%dT%H:%M:%S.%fZ')
            WHEN 'swr_path' THEN ended.swr_path
            WHEN 'tag' THEN ended.tag
            WHEN 'arch' THEN ended.arch
            WHEN 'size' THEN CAST(ended.size AS VARCHAR)
            WHEN 'update_at' THEN STRFTIME(ended.update_at, '%Y-%m-%dT%H:%M:%S.%fZ')
            WHEN 'name' THEN ended.name
            WHEN 'type' THEN ended.type
            WHEN 'origin' THEN ended.origin
            WHEN 'service_type' THEN ended.service_type
            WHEN 'flavor_type' THEN ended.flavor_type
            WHEN 'description' THEN ended.description
            WHEN 'dev_services' THEN ended.dev_services
            WHEN 'resource_categories' THEN ended.resource_categories
            WHEN 'support_res_categories' THEN ended.support_res_categories
            WHEN 'show_name' THEN ended.show_name
            WHEN 'show_tag' THEN ended.show_tag
            WHEN 'swr_instance_id' THEN ended.swr_instance_id
            WHEN 'tags' THEN ended.tags
            WHEN 'extra' THEN ended.extra
        END AS old_value,
        CASE fields.field
            WHEN 'visibility' THEN begun.visibility
            WHEN 'namespace' THEN begun.namespace
            WHEN 'workspace_id' THEN begun.workspace_id
            WHEN 'status' THEN begun.status
            WHEN 'status_message' THEN begun.status_message
            WHEN 'create_at' THEN STRFTIME(begun.create_at, '%Y-%m-%dT%H:%M:%S.%fZ')
            WHEN 'swr_path' THEN begun.swr_path
            WHEN 'tag' THEN begun.tag
            WHEN 'arch' THEN begun.arch
            WHEN 'size' THEN CAST(begun.size AS VARCHAR)
            WHEN 'update_at' THEN STRFTIME(begun.update_at, '%Y-%m-%dT%H:%M:%S.%fZ')
            WHEN 'name' THEN begun.name
            WHEN 'type' THEN begun.type
            WHEN 'origin' THEN begun.origin
            WHEN 'service_type' THEN begun.service_type
            WHEN 'flavor_type' THEN begun.flavor_type
            WHEN 'description' THEN begun.description
            WHEN 'dev_services' THEN begun.dev_services
            WHEN 'resource_categories' THEN begun.resource_categories
            WHEN 'support_res_categories' THEN begun.support_res_categories
            WHEN 'show_name' THEN begun.show_name
            WHEN 'show_tag' THEN begun.show_tag
            WHEN 'swr_instance_id' THEN begun.swr_instance_id
            WHEN 'tags' THEN begun.tags
            WHEN 'extra' THEN begun.extra
        END AS new_value
    FROM begun
    INNER JOIN ended ON ended.id = begun.id
    CROSS JOIN fields
    WHERE NOT begun.is_deleted
),
changes AS (
    SELECT id, change, 'outcome' AS field, old_value, new_value, 'lifecycle' AS change_class
    FROM came_or_went
    UNION ALL
    SELECT id, 'changed' AS change, field, old_value, new_value, change_class
    FROM field_values
    WHERE old_value IS DISTINCT FROM new_value
    UNION ALL
    SELECT
        image_storage.id,
        'changed' AS change,
        'digest' AS field,
        image_storage.digest_before AS old_value,
        image_storage.digest AS new_value,
        'content' AS change_class
    FROM image_storage
    CROSS JOIN parameters
    WHERE parameters.is_complete
        AND image_storage.digest <> image_storage.digest_before
),
-- What was done to each image between the two days, as far as it succeeded.
done AS (
    SELECT
        image_traces.resource_id AS id,
        COUNT(*) AS traces,
        MIN(image_traces.user) AS actor,
        MIN(image_traces.source_ip) AS source_ip,
        MIN(image_traces.trace_id) AS trace_id
    FROM image_traces
    CROSS JOIN parameters
    WHERE image_traces.time >= parameters.traces_from
        AND image_traces.time < parameters.traces_until
        AND COALESCE(LOWER(image_traces.rating), 'normal') = 'normal'
    GROUP BY image_traces.resource_id
)
SELECT
    parameters.snapshot_date,
    parameters.project_id,
    changes.id,
    changes.change,
    changes.field,
    changes.old_value,
    changes.new_value,
    changes.change_class,
    parameters.compared_with,
    COALESCE(begun.name, current_images.name) AS name,
    image_owners.owner,
    image_owners.cost_center,
    image_owners.environment,
    -- Only a trace that nothing else competes with says who it was.
    CASE WHEN parameters.traces_are_whole AND done.traces = 1 THEN done.actor END AS actor,
    CASE WHEN parameters.traces_are_whole AND done.traces = 1 THEN done.source_ip END AS actor_source_ip,
    CASE WHEN parameters.traces_are_whole AND done.traces = 1 THEN done.trace_id END AS trace_id,
    CASE
        WHEN NOT parameters.traces_are_whole THEN 'traces_not_read'
        WHEN done.id IS NULL THEN 'no_trace'
        WHEN done.traces > 1 THEN 'several_traces'
    END AS actor_unknown
FROM changes
CROSS JOIN parameters
LEFT JOIN begun ON begun.id = changes.id
LEFT JOIN current_images ON current_images.id = changes.id
LEFT JOIN image_owners ON image_owners.id = changes.id
LEFT JOIN done ON done.id = changes.id
WHERE parameters.compared_with IS NOT NULL
ORDER BY changes.id, changes.change, changes.field
