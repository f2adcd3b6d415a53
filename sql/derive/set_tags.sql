-- The tags that a set of images deletes: those whose images are all in the set. A set names an image once.
-- Tags without layers are left out: they free nothing. Sets are numbered, as manifests are.
--
-- Reads unused_sets (see unused_sets.sql), image_storage and manifest_storage (see manifest_storage.sql).
WITH set_numbers AS (
    SELECT
        ROW_NUMBER() OVER (ORDER BY dimension, name) AS set_number,
        dimension,
        name
    FROM (SELECT DISTINCT dimension, name FROM unused_sets) AS sets
),

stored AS (
    SELECT
        image_storage.id,
        image_storage.namespace,
        image_storage.repository,
        image_storage.tag,
        image_storage.images_of_tag,
        manifest_storage.manifest,
        manifest_storage.unique_bytes
    FROM image_storage
    INNER JOIN manifest_storage
        ON manifest_storage.digest = image_storage.digest
    WHERE image_storage.state = 'known'
),

members AS (
    SELECT
        set_numbers.set_number,
        unused_sets.dimension,
        unused_sets.name,
        stored.namespace,
        stored.repository,
        stored.tag,
        stored.images_of_tag,
        stored.manifest,
        stored.unique_bytes
    FROM unused_sets
    INNER JOIN set_numbers
        ON set_numbers.dimension = unused_sets.dimension
        AND set_numbers.name = unused_sets.name
    INNER JOIN stored
        ON stored.id = unused_sets.id
)

SELECT
    set_number,
    dimension,
    name,
    manifest,
    unique_bytes
FROM members
WHERE images_of_tag = 1
UNION ALL
SELECT
    set_number,
    MAX(dimension) AS dimension,
    MAX(name) AS name,
    MAX(manifest) AS manifest,
    MAX(unique_bytes) AS unique_bytes
FROM members
WHERE images_of_tag > 1
GROUP BY
    set_number,
    namespace,
    repository,
    tag
HAVING COUNT(*) = MAX(images_of_tag)
