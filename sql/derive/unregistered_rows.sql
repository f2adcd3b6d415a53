-- Rows of the API's list whose image nobody registered.
--
-- Reads listed_rows (what the list shows, see DayAnalysis.load_listed_rows), inventory and parameters.
SELECT listed_rows.*
FROM listed_rows
CROSS JOIN parameters
LEFT JOIN inventory
    ON listed_rows.id = inventory.id
WHERE parameters.list_was_read
    AND parameters.inventory_is_whole
    AND inventory.id IS NULL
