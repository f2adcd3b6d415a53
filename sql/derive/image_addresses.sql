-- Where each known image lies in the registry: namespace, repository and tag of its address, without the host, because
-- hosts differ inside and outside of the cloud's network. An address without a tag is that of the tag latest. Images
-- without such an address, or in a registry instance of their own, have none.
--
-- Reads known_addresses (id, swr_path, swr_instance_id).
WITH named AS (
    SELECT
        id,
        CASE
            -- A host has a dot or a port, and namespace and repository come after it.
            WHEN swr_path LIKE '%/%/%' AND REPLACE(SPLIT_PART(swr_path, '/', 1), ':', '.') LIKE '%.%'
            THEN SUBSTRING(swr_path, LENGTH(SPLIT_PART(swr_path, '/', 1)) + 2)
            ELSE swr_path
        END AS address
    FROM known_addresses
    WHERE COALESCE(swr_path, '') <> ''
        AND COALESCE(swr_instance_id, '') = ''
),

parts AS (
    SELECT
        id,
        SPLIT_PART(SPLIT_PART(address, '@', 1), ':', 1) AS path,
        SPLIT_PART(SPLIT_PART(address, '@', 1), ':', 2) AS tag,
        address LIKE '%@%' AS has_digest
    FROM named
)

SELECT
    id,
    SPLIT_PART(path, '/', 1) AS namespace,
    SUBSTRING(path, LENGTH(SPLIT_PART(path, '/', 1)) + 2) AS repository,
    CASE WHEN tag = '' THEN 'latest' ELSE tag END AS tag
FROM parts
WHERE path LIKE '%_/_%'
    -- A digest alone may be that of several tags.
    AND (tag <> '' OR NOT has_digest)
