{# The rows of a table of the warehouse on complete days. #}
{% macro complete_days(table) %}
SELECT loaded.*
FROM {{ source('image_snapshots', table) }} AS loaded
INNER JOIN {{ source('image_snapshots', 'days') }} AS d
    ON d.project = loaded.project
    AND d.snapshot_date = loaded.snapshot_date
WHERE d.is_complete
{% endmacro %}
