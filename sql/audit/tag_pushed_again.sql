-- id: tag_pushed_again
-- title: Tag was pushed again
-- severity: medium
-- why: The registry address has not changed since the last complete day, but the content has. Users of the tag now run
--   content that may not have been reviewed. The finding appears only on the day of the change. The evidence says how it
--   was found: by the digest of the registry, which proves it, or else by size and time, which may be mistaken.
-- do: Ask the owner what was pushed. Prefer a new tag for each version.
WITH changes AS (
    SELECT
        id,
        compared_with,
        COUNT(*) AS changed_fields,
        MAX(CASE WHEN field = 'swr_path' THEN 1 ELSE 0 END) AS swr_path_changed,
        MAX(CASE WHEN field = 'size' THEN old_value END) AS size_before,
        MAX(CASE WHEN field = 'size' THEN new_value END) AS size_now,
        MAX(CASE WHEN field = 'update_at' THEN old_value END) AS update_at_before,
        MAX(CASE WHEN field = 'update_at' THEN new_value END) AS update_at_now,
        MAX(CASE WHEN field = 'digest' THEN old_value END) AS digest_before,
        MAX(CASE WHEN field = 'digest' THEN new_value END) AS digest_now,
        MAX(actor) AS actor,
        MAX(actor_source_ip) AS actor_source_ip,
        MAX(actor_unknown) AS actor_unknown,
        MAX(CASE WHEN field = 'status' AND UPPER(old_value) IN ('INIT', 'CREATING') THEN 1 ELSE 0 END) AS build_ended
    FROM image_changes
    WHERE change = 'changed'
    GROUP BY id, compared_with
)
SELECT
    current_images.id,
    current_images.swr_path,
    CASE WHEN changes.digest_now IS NOT NULL THEN 'digest' ELSE 'size and time' END AS found_by,
    changes.digest_before,
    changes.digest_now,
    changes.size_before,
    changes.size_now,
    changes.update_at_before,
    changes.update_at_now,
    changes.compared_with,
    changes.actor,
    changes.actor_source_ip,
    changes.actor_unknown
FROM current_images
INNER JOIN changes ON changes.id = current_images.id
LEFT JOIN image_storage ON image_storage.id = current_images.id
WHERE current_images.swr_path <> ''
    AND changes.swr_path_changed = 0
    AND (
        changes.digest_now IS NOT NULL
        OR (
            -- Where the registry showed the same digest on both days, nothing was pushed.
            (image_storage.digest IS NULL OR image_storage.digest_before IS NULL)
            -- A build that ends states its size and update for the first time.
            AND changes.build_ended = 0
            AND (
                (changes.size_before IS NOT NULL AND changes.size_now IS NOT NULL)
                -- Nothing else explains the update.
                OR (changes.update_at_now IS NOT NULL AND changes.changed_fields = 1)
            )
        )
    )
