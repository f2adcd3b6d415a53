-- id: older_than_a_year
-- title: Older than a year
-- severity: low
-- why: Software that was built into an image a year ago has known vulnerabilities by now.
-- do: Build the image again from a maintained base, or delete it.
SELECT
    id,
    create_at,
    update_at,
    age_days
FROM current_images
WHERE age_days > 365
