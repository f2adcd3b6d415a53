-- How many notebooks use each known image, and for how many observed days none did. A day is observed if it is complete
-- and all notebooks were read; other days repeat the state of the last complete day. An image that is not in that day's
-- table starts at 0: it is new or has come back. There are no rows until notebooks have been read once.
--
-- Reads parameters, current_images, notebooks, previous_usage (image_usage of the last complete day) and usage_parameters
-- (one row: has_previous_usage).
WITH observation AS (
    SELECT
        parameters.snapshot_date,
        parameters.project_id,
        parameters.is_complete AND parameters.usage_was_read AS is_observed
    FROM parameters
    CROSS JOIN usage_parameters
    WHERE parameters.usage_was_read
        OR usage_parameters.has_previous_usage
),

counted AS (
    SELECT
        image_id,
        COUNT(*) AS notebooks,
        COUNT(CASE WHEN UPPER(status) = 'RUNNING' THEN 1 END) AS running_notebooks
    FROM notebooks
    GROUP BY image_id
),

state AS (
    SELECT
        current_images.id,
        COALESCE(counted.notebooks, 0) AS notebooks,
        COALESCE(counted.running_notebooks, 0) AS running_notebooks,
        previous_usage.last_used_date,
        COALESCE(previous_usage.observed_days, 0) AS observed_days,
        COALESCE(previous_usage.unused_days, 0) AS unused_days
    FROM current_images
    LEFT JOIN counted
        ON current_images.id = counted.image_id
    LEFT JOIN previous_usage
        ON current_images.id = previous_usage.id
)

SELECT
    observation.snapshot_date,
    observation.project_id,
    state.id,
    CASE
        WHEN observation.is_observed THEN state.notebooks
    END AS notebooks,
    CASE
        WHEN observation.is_observed THEN state.running_notebooks
    END AS running_notebooks,
    observation.is_observed,
    CASE
        WHEN observation.is_observed AND state.notebooks > 0 THEN observation.snapshot_date
        ELSE state.last_used_date
    END AS last_used_date,
    CASE
        WHEN observation.is_observed THEN state.observed_days + 1
        ELSE state.observed_days
    END AS observed_days,
    CASE
        WHEN NOT observation.is_observed THEN state.unused_days
        WHEN state.notebooks > 0 THEN 0
        ELSE state.unused_days + 1
    END AS unused_days
FROM state
CROSS JOIN observation
ORDER BY state.id
