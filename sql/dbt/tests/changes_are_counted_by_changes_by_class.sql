WITH counted AS (
    SELECT
        project,
        snapshot_date,
        change_class,
        change,
        COUNT(DISTINCT id) AS images,
        COUNT(*) AS fields
    FROM {{ ref('changes') }}
    GROUP BY
        project,
        snapshot_date,
        change_class,
        change
)

(
    SELECT * FROM counted
    EXCEPT
    SELECT project, snapshot_date, change_class, change, images, fields
    FROM {{ source('image_snapshots', 'changes_by_class') }}
)
UNION ALL
(
    SELECT project, snapshot_date, change_class, change, images, fields
    FROM {{ source('image_snapshots', 'changes_by_class') }}
    EXCEPT
    SELECT * FROM counted
)
