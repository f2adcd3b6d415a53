-- Who answers for each image on a day: what the inventory states, and what a cloud tag states where that is silent.
-- An image in the inventory is registered.
-- An image that neither says anything of may be missing here.
--
-- Reads inventory, image_tags, past_tags (id, key, value: the tags that history knows of images that the day does not
-- describe) and tag_keys (field: owner, cost_center or environment; key: of the tag, in any letter case).
WITH known_tags AS (
    SELECT
        id,
        key,
        value
    FROM image_tags
    UNION ALL
    SELECT
        id,
        key,
        value
    FROM past_tags
),

chosen AS (
    -- Keys may differ in letter case alone: the first that states something counts.
    SELECT
        known_tags.id,
        tag_keys.field,
        known_tags.value
    FROM known_tags
    INNER JOIN tag_keys
        ON LOWER(tag_keys.key) = LOWER(known_tags.key)
    WHERE TRIM(COALESCE(known_tags.value, '')) <> ''
    QUALIFY ROW_NUMBER() OVER (PARTITION BY known_tags.id, tag_keys.field ORDER BY known_tags.key) = 1
),

tagged AS (
    SELECT
        id,
        MAX(CASE WHEN field = 'owner' THEN value END) AS owner,
        MAX(CASE WHEN field = 'cost_center' THEN value END) AS cost_center,
        MAX(CASE WHEN field = 'environment' THEN value END) AS environment
    FROM chosen
    GROUP BY id
),

registered AS (
    SELECT
        id,
        CASE WHEN TRIM(owner) <> '' THEN owner END AS owner,
        CASE WHEN TRIM(cost_center) <> '' THEN cost_center END AS cost_center,
        CASE WHEN TRIM(environment) <> '' THEN environment END AS environment
    FROM inventory
)

SELECT
    COALESCE(registered.id, tagged.id) AS id,
    COALESCE(registered.owner, tagged.owner) AS owner,
    COALESCE(registered.cost_center, tagged.cost_center) AS cost_center,
    COALESCE(registered.environment, tagged.environment) AS environment,
    CASE
        WHEN registered.owner IS NOT NULL THEN 'inventory'
        WHEN tagged.owner IS NOT NULL THEN 'tag'
        ELSE 'none'
    END AS owner_source,
    registered.id IS NOT NULL AS is_registered
FROM registered
FULL OUTER JOIN tagged
    ON tagged.id = registered.id
