-- id: build_failed
-- title: Build failed
-- severity: medium
-- why: The image cannot be used, and the people who wait for it may not know.
-- do: Read the status message, and build the image again or delete it.
SELECT
    id,
    status,
    status_message,
    update_at
FROM current_images
WHERE UPPER(status) IN ('CREATE_FAILED', 'ERROR')
