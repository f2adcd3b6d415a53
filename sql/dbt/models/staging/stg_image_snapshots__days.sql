SELECT d.*
FROM {{ source('image_snapshots', 'days') }} AS d
WHERE d.is_complete
