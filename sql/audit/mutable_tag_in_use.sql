-- id: mutable_tag_in_use
-- title: Service runs a tag that changes
-- severity: medium
-- why: A service that is started again gets whatever the tag points to then. The tag is latest, or was seen to be pushed
--   again (digest_changes).
-- do: Let the service use a tag that is pushed once and names its version.
-- needs: usage
SELECT
    current_images.id,
    current_images.swr_path,
    image_usage.services,
    image_storage.digest,
    image_storage.digest_changes
FROM image_usage
INNER JOIN current_images ON current_images.id = image_usage.id
LEFT JOIN image_storage ON image_storage.id = image_usage.id
WHERE image_usage.services > 0
    -- A service of a model that has a copy does not need the tag.
    AND image_usage.running + image_usage.required > 0
    AND (LOWER(current_images.tag) = 'latest' OR image_storage.tag = 'latest' OR image_storage.digest_changes > 0)
