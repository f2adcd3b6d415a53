{# These columns have the same rows as in the relation `other`, each as often. #}
{% test same_rows(model, columns, other) %}
{%- set listed = columns | join(', ') %}
WITH here AS (
    SELECT {{ listed }} FROM {{ model }}
),

there AS (
    SELECT {{ listed }} FROM {{ other }}
)

SELECT 'only here' AS side, only_here.* FROM (SELECT * FROM here EXCEPT ALL SELECT * FROM there) AS only_here
UNION ALL
SELECT 'only there' AS side, only_there.* FROM (SELECT * FROM there EXCEPT ALL SELECT * FROM here) AS only_there
{% endtest %}
