-- id: tag_gone
-- title: Tag is gone from the registry
-- severity: high
-- why: ModelArts still knows the image, but the registry says that its tag does not exist. Whatever starts from the
--   image next will fail.
-- do: Ask who removed the tag. Push it again, or delete the image and everything that names it.
-- needs: registry
SELECT
    image_storage.id,
    current_images.swr_path,
    image_storage.digest_before,
    image_storage.digest_before_date,
    image_usage.running,
    image_usage.required
FROM image_storage
INNER JOIN current_images ON current_images.id = image_storage.id
LEFT JOIN image_usage ON image_usage.id = image_storage.id
WHERE image_storage.state = 'tag_gone'
    -- An image that is being built has no tag yet.
    AND COALESCE(UPPER(current_images.status), '') NOT IN ('INIT', 'CREATING', 'CREATE_FAILED')
