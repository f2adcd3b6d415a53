-- The inventory query: one row for each image that the pipeline asks the API about. Used when the setting
-- IMAGE_SNAPSHOTS_INVENTORY is a database URL; runs unchanged on SQLite and PostgreSQL, in a read-only transaction.
--
-- To read ids from a table of your own, copy this file, change it, and name the copy in
-- IMAGE_SNAPSHOTS_INVENTORY_QUERY. It must be one SELECT (WITH ... SELECT is one) that returns
--
--   id (or image_id)                  the image id; needed
--   project                           partition key of the project; a row without one belongs to every project
--   owner, cost_center, environment   text; each may be left out
--
-- and any further column, which is kept as JSON in `attributes`. Name columns with AS where yours are called
-- otherwise. Where one table serves many projects, let the database do the choosing, with the parameter :project:
--
--   WHERE project = :project
--
-- The pipeline then cannot count the rows of a project that is not configured, which it reports otherwise.
SELECT
    id,
    project,
    owner,
    cost_center,
    environment
FROM image_inventory
ORDER BY id  -- of several rows with one id the first is kept
