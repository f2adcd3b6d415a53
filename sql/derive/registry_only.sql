-- The tags of the registry that no known image of the project registers, listed images among them. On a day that did
-- not read the image list as a whole, or with an inventory that is not, an unknown image may register them.
--
-- Reads parameters, tag_storage (see tag_storage.sql), tag_images (namespace, repository, tag, images) and
-- listed_addresses (as image_addresses, see image_addresses.sql, of listed images that nobody registered or that the API
-- did not describe).
WITH registered AS (
    SELECT
        namespace,
        repository,
        tag
    FROM tag_images
    UNION
    SELECT
        namespace,
        repository,
        tag
    FROM listed_addresses
)

SELECT
    parameters.snapshot_date,
    parameters.project_id,
    tag_storage.namespace,
    tag_storage.repository,
    tag_storage.tag,
    tag_storage.digest,
    tag_storage.layers,
    tag_storage.size_bytes,
    tag_storage.unique_bytes,
    tag_storage.shared_bytes,
    tag_storage.shared_bytes_share,
    tag_storage.tag_type,
    tag_storage.downloads,
    tag_storage.created,
    tag_storage.updated,
    parameters.images_are_whole AS is_certain
FROM tag_storage
CROSS JOIN parameters
LEFT JOIN registered
    ON registered.namespace = tag_storage.namespace
    AND registered.repository = tag_storage.repository
    AND registered.tag = tag_storage.tag
WHERE registered.tag IS NULL
ORDER BY
    tag_storage.namespace,
    tag_storage.repository,
    tag_storage.tag
