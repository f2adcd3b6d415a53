-- id: public_dedicated_image
-- title: Dedicated image is public
-- severity: high
-- why: Anyone who knows the id of a public image may read it, and a dedicated image holds what a user of this
--   project put into it: code, data, at times credentials.
-- do: Make the image private, or have its publication approved and suppress the finding until the approval ends.
SELECT
    id,
    visibility,
    type,
    namespace,
    swr_path
FROM current_images
WHERE UPPER(visibility) = 'PUBLIC'
    AND UPPER(type) = 'DEDICATED'
