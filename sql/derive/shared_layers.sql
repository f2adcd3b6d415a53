-- The layers of each manifest that several tags have.
--
-- Reads registry_layers, numbered_layers (see numbered_layers.sql) and manifests (see manifests.sql).
SELECT
    manifests.manifest,
    numbered_layers.layer,
    numbered_layers.size_bytes,
    numbered_layers.tags
FROM registry_layers
INNER JOIN numbered_layers
    ON numbered_layers.layer_digest = registry_layers.layer_digest
INNER JOIN manifests
    ON manifests.digest = registry_layers.digest
