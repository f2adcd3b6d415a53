-- The tags that a set of images deletes: those whose images are all in the set. A set names an image once.
--
-- Reads set_members (see set_members.sql).
SELECT
    set_number,
    manifest,
    unique_bytes
FROM set_members
WHERE images_of_tag = 1
UNION ALL
SELECT
    set_number,
    MAX(manifest) AS manifest,
    MAX(unique_bytes) AS unique_bytes
FROM set_members
WHERE images_of_tag > 1
GROUP BY
    set_number,
    namespace,
    repository,
    tag
HAVING COUNT(*) = MAX(images_of_tag)
