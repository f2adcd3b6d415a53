-- The manifest of each known image's tag, by its number; tags without layers are left out, because they free nothing.
--
-- Reads image_storage and manifest_storage (see manifest_storage.sql).
SELECT
    image_storage.id,
    image_storage.namespace,
    image_storage.repository,
    image_storage.tag,
    image_storage.images_of_tag,
    manifest_storage.manifest,
    manifest_storage.unique_bytes
FROM image_storage
INNER JOIN manifest_storage
    ON manifest_storage.digest = image_storage.digest
WHERE image_storage.state = 'known'
