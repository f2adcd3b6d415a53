-- BigQuery: external tables over the lake's Parquet files.
-- Replace gs://bucket/lake by the lake's root, and make the dataset `image_snapshots`. New days show by
-- themselves.

CREATE OR REPLACE EXTERNAL TABLE `image_snapshots.inventory` (
    `snapshot_date` DATE,
    `project_key` STRING,
    `id` STRING,
    `id_as_read` STRING,
    `is_valid` BOOL,
    `owner` STRING,
    `cost_center` STRING,
    `environment` STRING,
    `attributes` STRING,
    `id_source` STRING
)
WITH PARTITION COLUMNS (`dt` DATE, `project` STRING)
OPTIONS (
    format = 'PARQUET',
    uris = ['gs://bucket/lake/inventory/*'],
    hive_partition_uri_prefix = 'gs://bucket/lake/inventory'
);

CREATE OR REPLACE EXTERNAL TABLE `image_snapshots.images` (
    `snapshot_date` DATE,
    `project_id` STRING,
    `id` STRING,
    `name` STRING,
    `namespace` STRING,
    `swr_path` STRING,
    `tag` STRING,
    `arch` STRING,
    `type` STRING,
    `origin` STRING,
    `service_type` STRING,
    `status` STRING,
    `status_message` STRING,
    `visibility` STRING,
    `workspace_id` STRING,
    `flavor_type` STRING,
    `description` STRING,
    `size` INT64,
    `create_at` TIMESTAMP,
    `update_at` TIMESTAMP,
    `dev_services` STRING,
    `resource_categories` STRING,
    `support_res_categories` STRING,
    `size_bytes` INT64,
    `supports_notebook` BOOL,
    `supports_ssh` BOOL,
    `supports_cpu` BOOL,
    `supports_gpu` BOOL,
    `supports_ascend` BOOL,
    `arch_normalised` STRING,
    `registry` STRING,
    `repository` STRING,
    `age_days` INT64,
    `days_since_update` INT64,
    `observed_at` TIMESTAMP,
    `response_sha256` STRING,
    `content_hash` STRING,
    `extra` STRING,
    `anomalies` STRING
)
WITH PARTITION COLUMNS (`dt` DATE, `project` STRING)
OPTIONS (
    format = 'PARQUET',
    uris = ['gs://bucket/lake/images/*'],
    hive_partition_uri_prefix = 'gs://bucket/lake/images'
);

CREATE OR REPLACE EXTERNAL TABLE `image_snapshots.image_values` (
    `snapshot_date` DATE,
    `project_id` STRING,
    `id` STRING,
    `field` STRING,
    `position` INT64,
    `value` STRING
)
WITH PARTITION COLUMNS (`dt` DATE, `project` STRING)
OPTIONS (
    format = 'PARQUET',
    uris = ['gs://bucket/lake/image_values/*'],
    hive_partition_uri_prefix = 'gs://bucket/lake/image_values'
);

CREATE OR REPLACE EXTERNAL TABLE `image_snapshots.image_history` (
    `project_id` STRING,
    `id` STRING,
    `valid_from` DATE,
    `valid_to` DATE,
    `is_current` BOOL,
    `is_deleted` BOOL,
    `deleted_reason` STRING,
    `name` STRING,
    `namespace` STRING,
    `swr_path` STRING,
    `tag` STRING,
    `arch` STRING,
    `type` STRING,
    `origin` STRING,
    `service_type` STRING,
    `status` STRING,
    `status_message` STRING,
    `visibility` STRING,
    `workspace_id` STRING,
    `flavor_type` STRING,
    `description` STRING,
    `size` INT64,
    `create_at` TIMESTAMP,
    `update_at` TIMESTAMP,
    `dev_services` STRING,
    `resource_categories` STRING,
    `support_res_categories` STRING,
    `extra` STRING,
    `size_bytes` INT64,
    `arch_normalised` STRING,
    `registry` STRING,
    `repository` STRING,
    `content_hash` STRING
)
WITH PARTITION COLUMNS (`project` STRING)
OPTIONS (
    format = 'PARQUET',
    uris = ['gs://bucket/lake/image_history/*'],
    hive_partition_uri_prefix = 'gs://bucket/lake/image_history'
);

CREATE OR REPLACE EXTERNAL TABLE `image_snapshots.image_changes` (
    `snapshot_date` DATE,
    `project_id` STRING,
    `id` STRING,
    `change` STRING,
    `field` STRING,
    `old_value` STRING,
    `new_value` STRING,
    `change_class` STRING,
    `compared_with` DATE,
    `name` STRING,
    `owner` STRING,
    `cost_center` STRING,
    `environment` STRING
)
WITH PARTITION COLUMNS (`dt` DATE, `project` STRING)
OPTIONS (
    format = 'PARQUET',
    uris = ['gs://bucket/lake/image_changes/*'],
    hive_partition_uri_prefix = 'gs://bucket/lake/image_changes'
);

CREATE OR REPLACE EXTERNAL TABLE `image_snapshots.image_reconciliation` (
    `snapshot_date` DATE,
    `project_id` STRING,
    `id` STRING,
    `kind` STRING,
    `outcome` STRING,
    `name` STRING,
    `namespace` STRING,
    `swr_path` STRING,
    `visibility` STRING,
    `size_bytes` INT64,
    `owner` STRING,
    `cost_center` STRING,
    `environment` STRING,
    `likely_owner` STRING
)
WITH PARTITION COLUMNS (`dt` DATE, `project` STRING)
OPTIONS (
    format = 'PARQUET',
    uris = ['gs://bucket/lake/image_reconciliation/*'],
    hive_partition_uri_prefix = 'gs://bucket/lake/image_reconciliation'
);

CREATE OR REPLACE EXTERNAL TABLE `image_snapshots.image_usage` (
    `snapshot_date` DATE,
    `project_id` STRING,
    `id` STRING,
    `notebooks` INT64,
    `running_notebooks` INT64,
    `is_observed` BOOL,
    `last_used_date` DATE,
    `observed_days` INT64,
    `unused_days` INT64
)
WITH PARTITION COLUMNS (`dt` DATE, `project` STRING)
OPTIONS (
    format = 'PARQUET',
    uris = ['gs://bucket/lake/image_usage/*'],
    hive_partition_uri_prefix = 'gs://bucket/lake/image_usage'
);

CREATE OR REPLACE EXTERNAL TABLE `image_snapshots.audit_rules` (
    `snapshot_date` DATE,
    `project_id` STRING,
    `rule` STRING,
    `title` STRING,
    `severity` STRING,
    `why` STRING,
    `what_to_do` STRING,
    `findings` INT64,
    `error` STRING,
    `sql_sha256` STRING
)
WITH PARTITION COLUMNS (`dt` DATE, `project` STRING)
OPTIONS (
    format = 'PARQUET',
    uris = ['gs://bucket/lake/audit_rules/*'],
    hive_partition_uri_prefix = 'gs://bucket/lake/audit_rules'
);

CREATE OR REPLACE EXTERNAL TABLE `image_snapshots.audit_findings` (
    `snapshot_date` DATE,
    `project_id` STRING,
    `finding_id` STRING,
    `rule` STRING,
    `severity` STRING,
    `title` STRING,
    `id` STRING,
    `name` STRING,
    `owner` STRING,
    `cost_center` STRING,
    `environment` STRING,
    `state` STRING,
    `first_seen` DATE,
    `days_open` INT64,
    `evidence` STRING,
    `suppressed_until` DATE,
    `suppression_reason` STRING
)
WITH PARTITION COLUMNS (`dt` DATE, `project` STRING)
OPTIONS (
    format = 'PARQUET',
    uris = ['gs://bucket/lake/audit_findings/*'],
    hive_partition_uri_prefix = 'gs://bucket/lake/audit_findings'
);

CREATE OR REPLACE EXTERNAL TABLE `image_snapshots.image_costs` (
    `snapshot_date` DATE,
    `project_id` STRING,
    `id` STRING,
    `name` STRING,
    `namespace` STRING,
    `registry` STRING,
    `type` STRING,
    `owner` STRING,
    `cost_center` STRING,
    `environment` STRING,
    `size_bytes` INT64,
    `growth_bytes` INT64,
    `is_carried` BOOL,
    `unit_price` FLOAT64,
    `currency` STRING,
    `price_valid_from` DATE,
    `estimated_cost` FLOAT64,
    `unused_days` INT64,
    `reclaimable_bytes` INT64
)
WITH PARTITION COLUMNS (`dt` DATE, `project` STRING)
OPTIONS (
    format = 'PARQUET',
    uris = ['gs://bucket/lake/image_costs/*'],
    hive_partition_uri_prefix = 'gs://bucket/lake/image_costs'
);
