-- Each layer that several tags have, with a number: there are many more rows than layers, and numbers are compared faster
-- than digests.
--
-- Reads layer_tags (see layer_tags.sql).
SELECT
    ROW_NUMBER() OVER (ORDER BY layer_digest) AS layer,
    layer_digest,
    size_bytes,
    tags
FROM layer_tags
WHERE tags > 1
