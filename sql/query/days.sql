-- The published days: the run that published each, whether it is complete, and the number of ids for each outcome.
--
-- Reads manifests (one row for each manifest in the lake, as written).
SELECT
    manifests.project,
    manifests.snapshot_date,
    manifests.is_complete,
    manifests.run_id,
    manifests.published_at,
    manifests.started_at,
    manifests.rebuilt,
    manifests.fetch.project_id AS project_id,
    manifests.fetch.endpoint_host AS endpoint_host,
    manifests.fetch.is_sandbox AS is_sandbox,
    manifests.fetch.mode AS mode,
    manifests.inventory.source AS inventory_source,
    manifests.inventory.ids AS ids,
    COALESCE(manifests.fetch.outcomes.ok, 0) AS ok,
    COALESCE(manifests.fetch.outcomes.deleted, 0) AS deleted,
    COALESCE(manifests.fetch.outcomes.not_found, 0) AS not_found,
    COALESCE(manifests.fetch.outcomes.forbidden, 0) AS forbidden,
    COALESCE(manifests.fetch.outcomes.failed, 0) AS failed,
    COALESCE(manifests.fetch.outcomes.invalid_id, 0) AS invalid_id,
    manifests.inventory.is_whole AS inventory_is_whole
FROM manifests
