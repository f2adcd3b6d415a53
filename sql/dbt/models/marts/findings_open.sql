-- The view decides which findings are open. Where the tables behind it fail their tests, this is not built:
-- depends_on: {{ ref('stg_image_snapshots__audit_findings') }}
-- depends_on: {{ ref('stg_image_snapshots__audit_rules') }}
SELECT f.*
FROM {{ source('image_snapshots', 'open_findings') }} AS f
