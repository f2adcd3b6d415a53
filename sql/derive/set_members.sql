-- The images of each set with their tags.
--
-- Reads unused_sets (see unused_sets.sql), sets (see sets.sql) and stored_tags (see stored_tags.sql).
SELECT
    sets.set_number,
    stored_tags.namespace,
    stored_tags.repository,
    stored_tags.tag,
    stored_tags.images_of_tag,
    stored_tags.manifest,
    stored_tags.unique_bytes
FROM unused_sets
INNER JOIN sets
    ON sets.dimension = unused_sets.dimension
    AND sets.name = unused_sets.name
INNER JOIN stored_tags
    ON stored_tags.id = unused_sets.id
