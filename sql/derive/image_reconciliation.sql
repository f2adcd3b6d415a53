-- The inventory of a day compared with the image list: listed images that nobody registered, and registered ids whose
-- image is gone according to the API. Rows of the first kind exist only for days on which the list was read and the
-- inventory is whole: absence from another inventory proves nothing. An id that was requested only because such an
-- inventory lacked it does not count as registered.
--
-- Reads parameters, unmatched_images (see unmatched_images.sql) and current_images.
WITH owned AS (
    -- Owners of registered images count whether the image exists or is gone.
    SELECT
        namespace,
        owner
    FROM current_images
    UNION ALL
    SELECT
        namespace,
        owner
    FROM unmatched_images
    WHERE kind = 'registered_but_gone'
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
    unmatched_images.id,
    unmatched_images.kind,
    unmatched_images.outcome,
    unmatched_images.name,
    unmatched_images.namespace,
    unmatched_images.swr_path,
    unmatched_images.visibility,
    unmatched_images.size_bytes,
    unmatched_images.owner,
    unmatched_images.cost_center,
    unmatched_images.environment,
    CASE
        WHEN unmatched_images.owner IS NULL THEN sole_owners.owner
    END AS likely_owner
FROM unmatched_images
CROSS JOIN parameters
LEFT JOIN sole_owners
    ON unmatched_images.namespace = sole_owners.namespace
ORDER BY unmatched_images.id
