-- Which known image each reference means, for everything that asks who uses an image: one row for a reference and each
-- image that it may mean, and one without an image (id is null) for a reference that matches none.
--
-- A reference means the image of its id. If it states none, or one that is not known, it means every image of its
-- address: namespace/repository:tag, in lower case and without the host, because hosts differ inside and outside of the
-- cloud's network. An address without a tag is that of the tag latest. A digest alone may be any image of its
-- repository, and counts for all of them: better to call an image used than to call it unused by mistake.
--
-- Reads current_images and image_references.
WITH by_id AS (
    SELECT
        image_references.kind,
        image_references.resource_id,
        image_references.position,
        current_images.id
    FROM image_references
    INNER JOIN current_images
        ON current_images.id = image_references.image_id
),

addresses AS (
    SELECT
        id,
        SUBSTRING(swr_path, LENGTH(registry) + 2) AS address
    FROM current_images
    WHERE registry <> ''
    UNION ALL
    -- What stands first in a path without a host may look like one.
    SELECT
        id,
        swr_path AS address
    FROM current_images
    WHERE swr_path <> ''
),

named AS (
    SELECT
        id,
        LOWER(TRIM(SPLIT_PART(address, '@', 1))) AS name,
        address LIKE '%@%' AS has_digest
    FROM addresses
),

image_paths AS (
    SELECT
        id,
        SPLIT_PART(name, ':', 1) AS path,
        CASE
            WHEN SPLIT_PART(name, ':', 2) <> '' THEN SPLIT_PART(name, ':', 2)
            WHEN NOT has_digest THEN 'latest'
        END AS tag
    FROM named
),

by_path AS (
    SELECT DISTINCT
        image_references.kind,
        image_references.resource_id,
        image_references.position,
        image_paths.id
    FROM image_references
    LEFT JOIN by_id
        ON by_id.kind = image_references.kind
        AND by_id.resource_id = image_references.resource_id
        AND by_id.position = image_references.position
    INNER JOIN image_paths
        ON image_paths.path = image_references.image_path
        AND (
            image_paths.tag = image_references.image_tag
            OR image_paths.tag IS NULL
            OR image_references.image_tag IS NULL
        )
    WHERE by_id.id IS NULL
),

matched AS (
    SELECT
        by_id.*,
        'id' AS matched_by
    FROM by_id
    UNION ALL
    SELECT
        by_path.*,
        'path' AS matched_by
    FROM by_path
)

SELECT
    matched.id,
    matched.matched_by,
    image_references.kind,
    image_references.resource_id,
    image_references.position,
    image_references.strength,
    image_references.last_active_at
FROM image_references
LEFT JOIN matched
    ON matched.kind = image_references.kind
    AND matched.resource_id = image_references.resource_id
    AND matched.position = image_references.position
