{# Each value is one of these, which are in upper case, whatever its letter case. #}
{% test documented_values(model, column_name, values) %}
WITH found AS (
    SELECT * FROM {{ model }}
)

SELECT
    {{ column_name }},
    COUNT(*) AS rows_of_the_value
FROM found
WHERE UPPER({{ column_name }}) NOT IN ('{{ values | join("', '") }}')
GROUP BY {{ column_name }}
{% endtest %}
