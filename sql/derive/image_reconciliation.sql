-- The inventory of a day against the API's own list: listed images that nobody registered, and registered ids whose
-- image is gone by the API's own answer. Rows of the first kind exist only for days on which the list was read and the
-- inventory is whole: another one says nothing by what it lacks. An id that was asked for because it is not in such an
-- inventory is not registered by it.
--
-- Reads parameters, listed_images, inventory, responses, images, image_history and current_images.
WITH unregistered AS (
    SELECT
        listed.id,
        'not_registered' AS kind,
        CAST(NULL AS VARCHAR) AS outcome,
        listed.name,
        listed.namespace,
        listed.swr_path,
        listed.visibility,
        listed.size_bytes,
        CAST(NULL AS VARCHAR) AS owner,
        CAST(NULL AS VARCHAR) AS cost_center,
        CAST(NULL AS VARCHAR) AS environment
    FROM listed_images AS listed
    CROSS JOIN parameters
    LEFT JOIN inventory
        ON listed.id = inventory.id
    WHERE parameters.list_was_read
        AND parameters.inventory_is_whole
        AND inventory.id IS NULL
        -- Preset images are the platform's: nobody registers them.
        AND COALESCE(UPPER(listed.type), '') <> 'BUILD_IN'
),

-- History may be ahead when an old day is derived again: what came after that day does not count.
last_versions AS (
    SELECT history.*
    FROM image_history AS history
    CROSS JOIN parameters
    WHERE history.valid_from <= parameters.snapshot_date
    QUALIFY ROW_NUMBER() OVER (PARTITION BY history.id ORDER BY history.valid_from DESC) = 1
),

gone AS (
    SELECT
        inventory.id,
        'registered_but_gone' AS kind,
        responses.outcome,
        -- The API may describe a deleted image in part or not at all.
        COALESCE(images.name, last_versions.name) AS name,
        COALESCE(images.namespace, last_versions.namespace) AS namespace,
        COALESCE(images.swr_path, last_versions.swr_path) AS swr_path,
        COALESCE(images.visibility, last_versions.visibility) AS visibility,
        COALESCE(images.size_bytes, last_versions.size_bytes) AS size_bytes,
        inventory.owner,
        inventory.cost_center,
        inventory.environment
    FROM inventory
    INNER JOIN responses
        ON inventory.id = responses.id
    LEFT JOIN images
        ON inventory.id = images.id
    LEFT JOIN last_versions
        ON inventory.id = last_versions.id
    WHERE responses.outcome IN ('deleted', 'not_found')
        AND inventory.id_source = 'inventory'
),

both_kinds AS (
    SELECT * FROM unregistered
    UNION ALL
    SELECT * FROM gone
),

-- A registered image has an owner whether it lives or is gone.
owned AS (
    SELECT
        namespace,
        owner
    FROM current_images
    UNION ALL
    SELECT
        namespace,
        owner
    FROM gone
),

sole_owners AS (
    SELECT
        namespace,
        MIN(owner) AS owner
    FROM owned
    WHERE namespace <> ''
    GROUP BY namespace
    HAVING COUNT(DISTINCT owner) = 1
)

SELECT
    parameters.snapshot_date,
    parameters.project_id,
    both_kinds.id,
    both_kinds.kind,
    both_kinds.outcome,
    both_kinds.name,
    both_kinds.namespace,
    both_kinds.swr_path,
    both_kinds.visibility,
    both_kinds.size_bytes,
    both_kinds.owner,
    both_kinds.cost_center,
    both_kinds.environment,
    CASE
        WHEN both_kinds.owner IS NULL THEN sole_owners.owner
    END AS likely_owner
FROM both_kinds
CROSS JOIN parameters
LEFT JOIN sole_owners
    ON both_kinds.namespace = sole_owners.namespace
ORDER BY both_kinds.id
