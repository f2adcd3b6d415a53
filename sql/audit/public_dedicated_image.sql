-- id: public_dedicated_image
-- title: Dedicated image is public
-- severity: high
-- why: Anyone who knows the id of a public image may read it. A dedicated image holds whatever a user of this project
--   has put into it: code, data, sometimes credentials.
-- do: Make the image private. Or get its publication approved, and suppress the finding until the approval ends.
SELECT
    id,
    visibility,
    type,
    namespace,
    swr_path
FROM current_images
WHERE UPPER(visibility) = 'PUBLIC'
    AND UPPER(type) = 'DEDICATED'
