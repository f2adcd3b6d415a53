{# No two rows have the same values in all of these columns. #}
{% test unique_key(model, columns) %}
{%- set key = columns | join(', ') %}
SELECT
    {{ key }},
    COUNT(*) AS rows_of_the_key
FROM {{ model }}
GROUP BY {{ key }}
HAVING COUNT(*) > 1
{% endtest %}
