-- The sets of unused images, numbered, because numbers are compared faster than names.
--
-- Reads unused_sets (see unused_sets.sql).
SELECT
    ROW_NUMBER() OVER (ORDER BY dimension, name) AS set_number,
    dimension,
    name
FROM (SELECT DISTINCT dimension, name FROM unused_sets) AS named
