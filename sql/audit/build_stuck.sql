-- id: build_stuck
-- title: Build does not end
-- severity: medium
-- why: A build takes minutes to hours. This one has not changed for more than a day, so it will probably never end.
-- do: Cancel and start it again, or delete the image.
SELECT
    id,
    status,
    status_message,
    create_at,
    update_at,
    COALESCE(days_since_update, age_days) AS days_without_update
FROM current_images
WHERE UPPER(status) IN ('INIT', 'CREATING')
    AND COALESCE(days_since_update, age_days) > 1
