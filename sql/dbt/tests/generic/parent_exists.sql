{# For each row there is a row of `parent` with the same values in these columns. #}
{% test parent_exists(model, columns, parent) %}
WITH children AS (
    SELECT * FROM {{ model }}
)

SELECT
    {{ columns | join(', ') }},
    COUNT(*) AS rows_without_a_parent
FROM children
WHERE NOT EXISTS (
    SELECT 1
    FROM {{ parent }} AS parents
    WHERE
        {%- for name in columns %}
        {% if not loop.first %}AND {% endif %}parents.{{ name }} = children.{{ name }}
        {%- endfor %}
)
GROUP BY {{ columns | join(', ') }}
{% endtest %}
