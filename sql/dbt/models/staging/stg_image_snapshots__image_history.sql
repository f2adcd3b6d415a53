-- Made from complete days alone, so no row is left out.
SELECT h.*
FROM {{ source('image_snapshots', 'image_history') }} AS h
