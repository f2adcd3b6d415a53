-- The living images on a day, from the last complete day up to it: images_as_of('2026-11-01'), or for one project
-- images_as_of('2026-11-01', 'default'). It fails for a day that no complete day covers.
--
-- Reads image_history and history_days (project, snapshot_date: the complete days that it was made from).
-- `as_of_date` is the day, and `of_project` the project or NULL: replace them to run this query elsewhere. A day between
-- two complete days shows the earlier one, which `rests_on` names. Nothing is known before a project's first complete
-- day and after its last.
WITH known AS (
    SELECT
        history_days.project,
        MIN(history_days.snapshot_date) AS first_day,
        MAX(history_days.snapshot_date) AS last_day,
        MAX(
            CASE WHEN history_days.snapshot_date <= CAST(as_of_date AS DATE) THEN history_days.snapshot_date END
        ) AS rests_on
    FROM history_days
    WHERE of_project IS NULL
        OR history_days.project = of_project
    GROUP BY history_days.project
),

checked AS (
    SELECT
        CASE
            WHEN COUNT(*) = 0
            THEN ERROR(CONCAT('The lake has no project ', of_project, ', so nothing is known of its images.'))
            WHEN
                COALESCE(
                    BOOL_AND(known.rests_on IS NOT NULL AND CAST(as_of_date AS DATE) <= known.last_day), FALSE
                )
            THEN TRUE
            ELSE ERROR(
                CONCAT(
                    'What images there were as of ', COALESCE(CAST(as_of_date AS VARCHAR), 'NULL'),
                    ' is not known: complete days speak for ',
                    STRING_AGG(
                        CONCAT(
                            known.project,
                            CASE
                                WHEN known.last_day IS NULL THEN ' on no day'
                                ELSE CONCAT(' from ', known.first_day, ' to ', known.last_day)
                            END
                        ),
                        ', ' ORDER BY known.project
                    ),
                    '. Ask for such a day, or for one project: images_as_of(''2026-11-01'', ''project'').'
                )
            )
        END AS is_known
    FROM known
)

SELECT
    image_history.*,
    known.rests_on
FROM known
CROSS JOIN checked
INNER JOIN image_history
    ON image_history.project = known.project
    AND image_history.valid_from <= known.rests_on
    AND (image_history.valid_to IS NULL OR image_history.valid_to > known.rests_on)
WHERE checked.is_known
    AND NOT image_history.is_deleted
UNION ALL
-- This part returns no rows. It makes the check also if there is no history at all.
SELECT
    image_history.*,
    NULL AS rests_on
FROM checked
LEFT JOIN image_history ON FALSE
WHERE NOT checked.is_known
