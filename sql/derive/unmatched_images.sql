-- A day's listed images that nobody registered, and registered ids whose image is gone according to the API. Rows of the
-- first kind exist only for days on which the list was read.
--
-- Reads parameters, unregistered_rows (see Analysis.load_unregistered_rows), inventory, image_owners,
-- responses, images and image_history.
WITH first_rows AS (
    -- The image list may show an image twice.
    SELECT unregistered_rows.*
    FROM unregistered_rows
    QUALIFY ROW_NUMBER() OVER (PARTITION BY unregistered_rows.id ORDER BY unregistered_rows.position) = 1
),

unregistered AS (
    SELECT
        listed.id,
        'not_registered' AS kind,
        CAST(NULL AS VARCHAR) AS outcome,
        listed.name,
        listed.namespace,
        listed.swr_path,
        listed.visibility,
        listed.size_bytes,
        -- By a tag of its last known version.
        image_owners.owner,
        image_owners.cost_center,
        image_owners.environment
    FROM first_rows AS listed
    LEFT JOIN image_owners
        ON listed.id = image_owners.id
    -- Preset images belong to the platform; nobody registers them.
    WHERE COALESCE(UPPER(listed.type), '') <> 'BUILD_IN'
),

-- The history may be newer than an old day that is derived again; later versions are ignored.
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
        -- The API may describe a deleted image partly or not at all.
        COALESCE(images.name, last_versions.name) AS name,
        COALESCE(images.namespace, last_versions.namespace) AS namespace,
        COALESCE(images.swr_path, last_versions.swr_path) AS swr_path,
        COALESCE(images.visibility, last_versions.visibility) AS visibility,
        COALESCE(images.size_bytes, last_versions.size_bytes) AS size_bytes,
        image_owners.owner,
        image_owners.cost_center,
        image_owners.environment
    FROM inventory
    INNER JOIN responses
        ON inventory.id = responses.id
    LEFT JOIN images
        ON inventory.id = images.id
    LEFT JOIN last_versions
        ON inventory.id = last_versions.id
    LEFT JOIN image_owners
        ON inventory.id = image_owners.id
    WHERE responses.outcome IN ('deleted', 'not_found')
        AND inventory.id_source = 'inventory'
)

SELECT * FROM unregistered
UNION ALL
SELECT * FROM gone
