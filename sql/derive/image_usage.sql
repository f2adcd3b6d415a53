-- Who uses each known image, and for how many observed days nobody did. A day is observed when it is complete and every
-- wanted source of usage was read as a whole, in every workspace that is known. No rows until a source was read once.
--
-- An image is used on a day when something runs it or would break without it, and when something ran it since the
-- observed day before; a copy of it is no use. Evidence of use counts on every day, its absence on observed days alone.
-- So a day that is not observed keeps the counts of days, except for an image that it shows in use, which begins at 0.
--
-- The state continues that of the last published day or, for an image that this day lacks, that of the last complete
-- day. An image that is in neither starts at 0: it is new, or it came back.
--
-- Reads parameters, current_images, referenced_images (see referenced_images.sql), previous_usage (image_usage of the
-- last complete day), later_usage (that of the last published day, when it is a later one), observed_dates
-- (snapshot_date: the observed days up to this one that looked at no less than this one does) and usage_parameters (one
-- row: was_read; has_previous_usage; looked_at: when the last of observed_dates before this day began to read; and for
-- each source whether it was read).
WITH observation AS (
    SELECT
        parameters.snapshot_date,
        parameters.project_id,
        parameters.is_complete AND parameters.usage_is_observed AS is_observed,
        parameters.usage_kinds,
        parameters.workspaces,
        usage_parameters.*
    FROM parameters
    CROSS JOIN usage_parameters
    WHERE usage_parameters.was_read
        OR usage_parameters.has_previous_usage
),

counted AS (
    SELECT
        id,
        COUNT(CASE WHEN kind = 'notebook' THEN 1 END) AS notebooks,
        COUNT(CASE WHEN kind = 'training_job' THEN 1 END) AS training_jobs,
        COUNT(CASE WHEN kind = 'algorithm' THEN 1 END) AS algorithms,
        COUNT(CASE WHEN kind = 'model' THEN 1 END) AS models,
        COUNT(CASE WHEN kind = 'service' THEN 1 END) AS services,
        COUNT(CASE WHEN kind = 'workflow' THEN 1 END) AS workflows,
        COUNT(CASE WHEN strength = 'running' THEN 1 END) AS running,
        COUNT(CASE WHEN strength = 'required' THEN 1 END) AS required,
        COUNT(CASE WHEN strength = 'copied' THEN 1 END) AS copied,
        MAX(CASE WHEN strength = 'past' THEN last_active_at END) AS last_active_at
    FROM referenced_images
    GROUP BY id
),

state AS (
    SELECT
        current_images.id,
        COALESCE(counted.notebooks, 0) AS notebooks,
        COALESCE(counted.training_jobs, 0) AS training_jobs,
        COALESCE(counted.algorithms, 0) AS algorithms,
        COALESCE(counted.models, 0) AS models,
        COALESCE(counted.services, 0) AS services,
        COALESCE(counted.workflows, 0) AS workflows,
        COALESCE(counted.running, 0) AS running,
        COALESCE(counted.required, 0) AS required,
        COALESCE(counted.copied, 0) AS copied,
        CASE
            WHEN counted.running + counted.required > 0 THEN observation.snapshot_date
            -- Clocks differ, and nothing was used after the day.
            WHEN CAST(counted.last_active_at AS DATE) > observation.snapshot_date THEN observation.snapshot_date
            ELSE CAST(counted.last_active_at AS DATE)
        END AS used_date,
        COALESCE(counted.last_active_at > observation.looked_at, FALSE) AS was_active_since,
        COALESCE(later_usage.last_used_date, previous_usage.last_used_date) AS last_used_date,
        COALESCE(later_usage.observed_days, previous_usage.observed_days, 0) AS observed_days,
        COALESCE(later_usage.unused_days, previous_usage.unused_days, 0) AS unused_days
    FROM current_images
    CROSS JOIN observation
    LEFT JOIN counted
        ON counted.id = current_images.id
    LEFT JOIN previous_usage
        ON previous_usage.id = current_images.id
    LEFT JOIN later_usage
        ON later_usage.id = current_images.id
),

known AS (
    SELECT
        state.*,
        COALESCE(state.used_date = observation.snapshot_date, FALSE) OR state.was_active_since AS is_used,
        CASE
            WHEN state.last_used_date IS NULL OR state.used_date > state.last_used_date THEN state.used_date
            ELSE state.last_used_date
        END AS known_used_date
    FROM state
    CROSS JOIN observation
),

used_dates AS (
    SELECT DISTINCT known_used_date
    FROM known
),

days_since AS (
    SELECT
        used_dates.known_used_date,
        COUNT(observed_dates.snapshot_date) AS days
    FROM used_dates
    LEFT JOIN observed_dates
        ON used_dates.known_used_date IS NULL
        OR observed_dates.snapshot_date > used_dates.known_used_date
    GROUP BY used_dates.known_used_date
)

SELECT
    observation.snapshot_date,
    observation.project_id,
    known.id,
    CASE WHEN observation.notebooks_were_read THEN known.notebooks END AS notebooks,
    CASE WHEN observation.training_jobs_were_read THEN known.training_jobs END AS training_jobs,
    CASE WHEN observation.algorithms_were_read THEN known.algorithms END AS algorithms,
    CASE WHEN observation.models_were_read THEN known.models END AS models,
    CASE WHEN observation.services_were_read THEN known.services END AS services,
    CASE WHEN observation.workflows_were_read THEN known.workflows END AS workflows,
    CASE WHEN observation.was_read THEN known.running END AS running,
    CASE WHEN observation.was_read THEN known.required END AS required,
    CASE WHEN observation.was_read THEN known.copied END AS copied,
    observation.is_observed,
    CASE WHEN observation.is_observed THEN observation.usage_kinds END AS observed_kinds,
    CASE WHEN observation.is_observed THEN observation.workspaces END AS workspaces,
    known.known_used_date AS last_used_date,
    known.observed_days + CASE WHEN observation.is_observed THEN 1 ELSE 0 END AS observed_days,
    CASE
        WHEN known.is_used THEN 0
        -- A source that is read for the first time may know of a use between two observed days.
        ELSE LEAST(known.unused_days + CASE WHEN observation.is_observed THEN 1 ELSE 0 END, days_since.days)
    END AS unused_days
FROM known
CROSS JOIN observation
LEFT JOIN days_since
    ON days_since.known_used_date IS NOT DISTINCT FROM known.known_used_date
ORDER BY known.id
