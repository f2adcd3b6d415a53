-- id: large_registry_only
-- title: Over 10 GiB in the registry, and no image registers it
-- severity: medium
-- why: The tag is paid for, and no image of this project uses it through ModelArts. Images of other projects of the
--   account, and pulls from elsewhere (downloads), are not seen.
-- do: Ask the owner of the namespace. Register the tag as an image, or delete it. Deleting it frees unique_bytes; other
--   tags share the rest.
-- needs: registry, list
SELECT
    CONCAT(namespace, '/', repository, ':', tag) AS id,
    size_bytes,
    unique_bytes,
    digest,
    downloads,
    updated
FROM registry_only
WHERE size_bytes > 10737418240
    AND is_certain
