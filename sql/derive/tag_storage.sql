-- What the registry stores for each tag. Where a tag of the same namespace could not be read, or its layers are not
-- known, it may share any layer: then bytes are known only if no layer is unique even so.
--
-- Reads registry_tags, manifest_storage (see manifest_storage.sql) and registry_namespaces (namespace, is_whole,
-- list_was_read).
SELECT
    registry_tags.namespace,
    registry_tags.repository,
    registry_tags.tag,
    registry_tags.digest,
    registry_tags.tag_type,
    registry_tags.downloads,
    registry_tags.created,
    registry_tags.updated,
    -- A manifest without layers has no row of layers.
    COALESCE(manifest_storage.layers, registry_tags.layers) AS layers,
    CASE WHEN registry_tags.layers = 0 THEN 0 ELSE manifest_storage.size_bytes END AS size_bytes,
    registry_namespaces.is_whole AND registry_tags.layers IS NOT NULL AS is_known,
    CASE
        WHEN registry_tags.layers = 0 OR manifest_storage.unique_bytes = 0 THEN 0
        WHEN registry_namespaces.is_whole THEN manifest_storage.unique_bytes
    END AS unique_bytes,
    CASE
        WHEN registry_tags.layers = 0 THEN 0
        WHEN registry_namespaces.is_whole OR manifest_storage.unique_bytes = 0 THEN manifest_storage.shared_bytes
    END AS shared_bytes,
    CASE
        WHEN registry_tags.layers = 0 THEN 0
        WHEN registry_namespaces.is_whole THEN manifest_storage.shared_bytes_share
    END AS shared_bytes_share
FROM registry_tags
INNER JOIN registry_namespaces
    ON registry_namespaces.namespace = registry_tags.namespace
LEFT JOIN manifest_storage
    ON manifest_storage.digest = registry_tags.digest
