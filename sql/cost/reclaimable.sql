-- What deleting the unused images would free, by owner, namespace and audit rule: EXACT, over distinct layers, on the
-- last day of each project. A null is unknown, because bytes of unknown_images are not known: the others free
-- known_bytes. Sets overlap, and images of two sets may share layers: do not add up the rows.
--
-- Reads reclaimable. Without rows for a project whose registry is not read, or whose usage was not observed.
WITH last_days AS (
    SELECT
        project_id,
        MAX(snapshot_date) AS snapshot_date
    FROM reclaimable
    GROUP BY project_id
)

SELECT
    reclaimable.snapshot_date,
    reclaimable.project_id,
    reclaimable.dimension,
    reclaimable.name,
    reclaimable.images,
    reclaimable.unknown_images,
    reclaimable.reclaimable_bytes,
    reclaimable.known_bytes,
    reclaimable.image_bytes AS bytes_upper_bound
FROM reclaimable
INNER JOIN last_days
    ON last_days.project_id = reclaimable.project_id
    AND last_days.snapshot_date = reclaimable.snapshot_date
ORDER BY
    reclaimable.project_id,
    reclaimable.dimension,
    reclaimable.known_bytes DESC,
    reclaimable.name
