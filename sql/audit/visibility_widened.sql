-- id: visibility_widened
-- title: Image became public
-- severity: high
-- why: Since the last complete day somebody has opened the image to everyone who knows its id. The finding appears only
--   on the day of the change.
-- do: Ask who changed it and why. Make the image private if this was not intended.
SELECT
    id,
    old_value AS visibility_before,
    new_value AS visibility_now,
    compared_with,
    actor,
    actor_source_ip,
    actor_unknown
FROM image_changes
WHERE change = 'changed'
    AND field = 'visibility'
    AND UPPER(new_value) = 'PUBLIC'
    AND UPPER(COALESCE(old_value, '')) <> 'PUBLIC'
