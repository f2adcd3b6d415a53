-- id: namespace_not_allowed
-- title: Namespace is not allowed
-- severity: high
-- why: The image comes from a registry organisation that IMAGE_SNAPSHOTS_ALLOWED_NAMESPACES does not approve. If that
--   setting is unset, this rule finds nothing.
-- do: Replace the image by one of an approved organisation, or have the organisation approved.
SELECT
    current_images.id,
    current_images.namespace,
    current_images.swr_path,
    current_images.type
FROM current_images
LEFT JOIN allowed_namespaces ON allowed_namespaces.namespace = current_images.namespace
WHERE current_images.namespace <> ''
    AND allowed_namespaces.namespace IS NULL
    -- An allow-list has at least one entry; without any, none was stated.
    AND EXISTS (SELECT 1 FROM allowed_namespaces)
