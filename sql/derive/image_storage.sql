-- What the registry stores for each known image, and whether its tag was pushed again since it was last read.
--
-- What was known stays known on a day that is not to read the registry: no rows only until it is read once.
--
-- Reads parameters, current_images, image_addresses (see image_addresses.sql), tag_images (namespace, repository, tag,
-- images), tag_storage (see tag_storage.sql), registry_namespaces (namespace, is_whole, list_was_read),
-- unread_repositories (namespace, repository) and previous_storage (image_storage of the last complete day).
WITH seen_repositories AS (
    SELECT DISTINCT
        tag_storage.namespace,
        tag_storage.repository
    FROM tag_storage
    INNER JOIN registry_namespaces
        ON registry_namespaces.namespace = tag_storage.namespace
    WHERE NOT registry_namespaces.list_was_read
),

found AS (
    SELECT
        current_images.id,
        image_addresses.namespace,
        image_addresses.repository,
        image_addresses.tag,
        CASE
            WHEN image_addresses.id IS NULL THEN 'elsewhere'
            WHEN tag_storage.is_known THEN 'known'
            WHEN tag_storage.tag IS NOT NULL THEN 'partial'
            WHEN unread_repositories.repository IS NOT NULL THEN 'unread'
            -- Without the list of repositories it is not known which were asked for.
            WHEN registry_namespaces.list_was_read OR seen_repositories.repository IS NOT NULL THEN 'tag_gone'
            ELSE 'unread'
        END AS state,
        tag_storage.digest,
        tag_storage.layers,
        tag_storage.size_bytes,
        tag_storage.unique_bytes,
        tag_storage.shared_bytes,
        tag_storage.shared_bytes_share,
        tag_images.images AS images_of_tag,
        tag_storage.downloads
    FROM current_images
    LEFT JOIN image_addresses
        ON image_addresses.id = current_images.id
    LEFT JOIN tag_images
        ON tag_images.namespace = image_addresses.namespace
        AND tag_images.repository = image_addresses.repository
        AND tag_images.tag = image_addresses.tag
    LEFT JOIN tag_storage
        ON tag_storage.namespace = image_addresses.namespace
        AND tag_storage.repository = image_addresses.repository
        AND tag_storage.tag = image_addresses.tag
    LEFT JOIN registry_namespaces
        ON registry_namespaces.namespace = image_addresses.namespace
    LEFT JOIN unread_repositories
        ON unread_repositories.namespace = image_addresses.namespace
        AND unread_repositories.repository = image_addresses.repository
    LEFT JOIN seen_repositories
        ON seen_repositories.namespace = image_addresses.namespace
        AND seen_repositories.repository = image_addresses.repository
),

earlier AS (
    SELECT
        id,
        namespace,
        repository,
        tag,
        digest_changes,
        COALESCE(digest, digest_before) AS digest,
        CASE WHEN digest IS NULL THEN digest_before_date ELSE snapshot_date END AS digest_date,
        COALESCE(downloads, downloads_before) AS downloads,
        CASE WHEN downloads IS NULL THEN downloads_before_date ELSE snapshot_date END AS downloads_date
    FROM previous_storage
),

compared AS (
    SELECT
        found.*,
        -- Handed on for the same address alone, so that the digests of two tags are never taken for a push.
        CASE
            WHEN found.digest IS NOT NULL OR (
                earlier.namespace = found.namespace
                AND earlier.repository = found.repository
                AND earlier.tag = found.tag
            ) THEN earlier.digest
        END AS digest_before,
        earlier.digest_date,
        COALESCE(earlier.digest_changes, 0) AS changes_before,
        earlier.namespace = found.namespace
            AND earlier.repository = found.repository
            AND earlier.tag = found.tag AS is_same_address,
        CASE
            WHEN earlier.namespace = found.namespace AND earlier.repository = found.repository THEN earlier.downloads
        END AS downloads_before,
        earlier.downloads_date
    FROM found
    LEFT JOIN earlier
        ON earlier.id = found.id
)

SELECT
    parameters.snapshot_date,
    parameters.project_id,
    compared.id,
    compared.namespace,
    compared.repository,
    compared.tag,
    compared.state,
    compared.digest,
    compared.digest_before,
    CASE WHEN compared.digest_before IS NOT NULL THEN compared.digest_date END AS digest_before_date,
    compared.changes_before
    + CASE WHEN compared.is_same_address AND compared.digest <> compared.digest_before THEN 1 ELSE 0 END
        AS digest_changes,
    compared.layers,
    compared.size_bytes,
    compared.unique_bytes,
    compared.shared_bytes,
    compared.shared_bytes_share,
    compared.images_of_tag,
    compared.downloads,
    compared.downloads_before,
    CASE WHEN compared.downloads_before IS NOT NULL THEN compared.downloads_date END AS downloads_before_date,
    CASE
        WHEN compared.downloads >= compared.downloads_before THEN compared.downloads - compared.downloads_before
    END AS pulls_since
FROM compared
CROSS JOIN parameters
WHERE parameters.registry_was_wanted
    OR EXISTS (SELECT previous_storage.id FROM previous_storage)
ORDER BY compared.id
