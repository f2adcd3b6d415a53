-- The inventory query: one row for each image that the pipeline requests from the API. It is used if the setting
-- IMAGE_SNAPSHOTS_INVENTORY is a database URL. It runs unchanged on SQLite and PostgreSQL, in a read-only transaction.
--
-- To read ids from a table of your own, copy this file, change it, and name the copy in
-- IMAGE_SNAPSHOTS_INVENTORY_QUERY. It must be one SELECT (or WITH ... SELECT) that returns
--
--   id (or image_id)                  the image id; required
--   project                           key of the project; a row without one belongs to every project
--   owner, cost_center, environment   text; optional
--
-- Further columns are kept as JSON in `attributes`. If your columns have other names, rename them with AS. If one table
-- serves many projects, let the database select the rows, with the parameter :project:
--
--   WHERE project = :project
--
-- Then the pipeline cannot count and report the rows of projects that are not configured.
SELECT
    id,
    project,
    owner,
    cost_center,
    environment
FROM image_inventory
ORDER BY id  -- if several rows have the same id, the first is kept
