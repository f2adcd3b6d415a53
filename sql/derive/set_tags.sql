-- The tags that a set of images deletes: those whose images are all in the set. A set names an image once.
--
-- Reads unused_sets (see unused_sets.sql) and image_storage.
WITH tags AS (
    SELECT
        unused_sets.dimension,
        unused_sets.name,
        image_storage.namespace,
        image_storage.repository,
        image_storage.tag,
        MAX(image_storage.digest) AS digest
    FROM unused_sets
    INNER JOIN image_storage
        ON image_storage.id = unused_sets.id
    WHERE image_storage.state = 'known'
    GROUP BY
        unused_sets.dimension,
        unused_sets.name,
        image_storage.namespace,
        image_storage.repository,
        image_storage.tag
    HAVING COUNT(*) = MAX(image_storage.images_of_tag)
)

SELECT
    dimension,
    name,
    digest,
    COUNT(*) AS tags
FROM tags
GROUP BY
    dimension,
    name,
    digest
