-- The positions in the image list of images that nobody registered, in the list's order.
--
-- Reads listed_ids (id, position in the list, see Analysis.load_unregistered_rows), inventory and parameters.
SELECT listed_ids.position
FROM listed_ids
CROSS JOIN parameters
LEFT JOIN inventory
    ON listed_ids.id = inventory.id
WHERE parameters.list_was_read
    AND parameters.inventory_is_whole
    AND inventory.id IS NULL
ORDER BY listed_ids.position
