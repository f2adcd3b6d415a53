-- Trino (Hive connector, catalog `hive`): external tables over the lake's Parquet files.
-- Replace s3://bucket/lake by the lake's root, and make the schema `image_snapshots`. Timestamps are UTC, and
-- need hive.timestamp-precision=MICROSECONDS. The CALL statements make new days known: run them after each day.

CREATE TABLE hive.image_snapshots.inventory (
    "snapshot_date" DATE,
    "project_key" VARCHAR,
    "id" VARCHAR,
    "id_as_read" VARCHAR,
    "is_valid" BOOLEAN,
    "owner" VARCHAR,
    "cost_center" VARCHAR,
    "environment" VARCHAR,
    "attributes" VARCHAR,
    "id_source" VARCHAR,
    "dt" DATE,
    "project" VARCHAR
)
WITH (
    external_location = 's3://bucket/lake/inventory/',
    format = 'PARQUET',
    partitioned_by = ARRAY['dt', 'project']
);
CALL hive.system.sync_partition_metadata('image_snapshots', 'inventory', 'FULL');

CREATE TABLE hive.image_snapshots.images (
    "snapshot_date" DATE,
    "project_id" VARCHAR,
    "id" VARCHAR,
    "name" VARCHAR,
    "namespace" VARCHAR,
    "swr_path" VARCHAR,
    "tag" VARCHAR,
    "arch" VARCHAR,
    "type" VARCHAR,
    "origin" VARCHAR,
    "service_type" VARCHAR,
    "status" VARCHAR,
    "status_message" VARCHAR,
    "visibility" VARCHAR,
    "workspace_id" VARCHAR,
    "flavor_type" VARCHAR,
    "description" VARCHAR,
    "size" BIGINT,
    "create_at" TIMESTAMP(6),
    "update_at" TIMESTAMP(6),
    "dev_services" VARCHAR,
    "resource_categories" VARCHAR,
    "support_res_categories" VARCHAR,
    "size_bytes" BIGINT,
    "supports_notebook" BOOLEAN,
    "supports_ssh" BOOLEAN,
    "supports_cpu" BOOLEAN,
    "supports_gpu" BOOLEAN,
    "supports_ascend" BOOLEAN,
    "arch_normalised" VARCHAR,
    "registry" VARCHAR,
    "repository" VARCHAR,
    "age_days" BIGINT,
    "days_since_update" BIGINT,
    "observed_at" TIMESTAMP(6),
    "response_sha256" VARCHAR,
    "content_hash" VARCHAR,
    "extra" VARCHAR,
    "anomalies" VARCHAR,
    "dt" DATE,
    "project" VARCHAR
)
WITH (
    external_location = 's3://bucket/lake/images/',
    format = 'PARQUET',
    partitioned_by = ARRAY['dt', 'project']
);
CALL hive.system.sync_partition_metadata('image_snapshots', 'images', 'FULL');

CREATE TABLE hive.image_snapshots.image_values (
    "snapshot_date" DATE,
    "project_id" VARCHAR,
    "id" VARCHAR,
    "field" VARCHAR,
    "position" INTEGER,
    "value" VARCHAR,
    "dt" DATE,
    "project" VARCHAR
)
WITH (
    external_location = 's3://bucket/lake/image_values/',
    format = 'PARQUET',
    partitioned_by = ARRAY['dt', 'project']
);
CALL hive.system.sync_partition_metadata('image_snapshots', 'image_values', 'FULL');

CREATE TABLE hive.image_snapshots.image_history (
    "project_id" VARCHAR,
    "id" VARCHAR,
    "valid_from" DATE,
    "valid_to" DATE,
    "is_current" BOOLEAN,
    "is_deleted" BOOLEAN,
    "deleted_reason" VARCHAR,
    "name" VARCHAR,
    "namespace" VARCHAR,
    "swr_path" VARCHAR,
    "tag" VARCHAR,
    "arch" VARCHAR,
    "type" VARCHAR,
    "origin" VARCHAR,
    "service_type" VARCHAR,
    "status" VARCHAR,
    "status_message" VARCHAR,
    "visibility" VARCHAR,
    "workspace_id" VARCHAR,
    "flavor_type" VARCHAR,
    "description" VARCHAR,
    "size" BIGINT,
    "create_at" TIMESTAMP(6),
    "update_at" TIMESTAMP(6),
    "dev_services" VARCHAR,
    "resource_categories" VARCHAR,
    "support_res_categories" VARCHAR,
    "extra" VARCHAR,
    "size_bytes" BIGINT,
    "arch_normalised" VARCHAR,
    "registry" VARCHAR,
    "repository" VARCHAR,
    "content_hash" VARCHAR,
    "project" VARCHAR
)
WITH (
    external_location = 's3://bucket/lake/image_history/',
    format = 'PARQUET',
    partitioned_by = ARRAY['project']
);
CALL hive.system.sync_partition_metadata('image_snapshots', 'image_history', 'FULL');

CREATE TABLE hive.image_snapshots.image_changes (
    "snapshot_date" DATE,
    "project_id" VARCHAR,
    "id" VARCHAR,
    "change" VARCHAR,
    "field" VARCHAR,
    "old_value" VARCHAR,
    "new_value" VARCHAR,
    "change_class" VARCHAR,
    "compared_with" DATE,
    "name" VARCHAR,
    "owner" VARCHAR,
    "cost_center" VARCHAR,
    "environment" VARCHAR,
    "dt" DATE,
    "project" VARCHAR
)
WITH (
    external_location = 's3://bucket/lake/image_changes/',
    format = 'PARQUET',
    partitioned_by = ARRAY['dt', 'project']
);
CALL hive.system.sync_partition_metadata('image_snapshots', 'image_changes', 'FULL');

CREATE TABLE hive.image_snapshots.image_reconciliation (
    "snapshot_date" DATE,
    "project_id" VARCHAR,
    "id" VARCHAR,
    "kind" VARCHAR,
    "outcome" VARCHAR,
    "name" VARCHAR,
    "namespace" VARCHAR,
    "swr_path" VARCHAR,
    "visibility" VARCHAR,
    "size_bytes" BIGINT,
    "owner" VARCHAR,
    "cost_center" VARCHAR,
    "environment" VARCHAR,
    "likely_owner" VARCHAR,
    "dt" DATE,
    "project" VARCHAR
)
WITH (
    external_location = 's3://bucket/lake/image_reconciliation/',
    format = 'PARQUET',
    partitioned_by = ARRAY['dt', 'project']
);
CALL hive.system.sync_partition_metadata('image_snapshots', 'image_reconciliation', 'FULL');

CREATE TABLE hive.image_snapshots.image_usage (
    "snapshot_date" DATE,
    "project_id" VARCHAR,
    "id" VARCHAR,
    "notebooks" BIGINT,
    "running_notebooks" BIGINT,
    "is_observed" BOOLEAN,
    "last_used_date" DATE,
    "observed_days" BIGINT,
    "unused_days" BIGINT,
    "dt" DATE,
    "project" VARCHAR
)
WITH (
    external_location = 's3://bucket/lake/image_usage/',
    format = 'PARQUET',
    partitioned_by = ARRAY['dt', 'project']
);
CALL hive.system.sync_partition_metadata('image_snapshots', 'image_usage', 'FULL');

CREATE TABLE hive.image_snapshots.audit_rules (
    "snapshot_date" DATE,
    "project_id" VARCHAR,
    "rule" VARCHAR,
    "title" VARCHAR,
    "severity" VARCHAR,
    "why" VARCHAR,
    "what_to_do" VARCHAR,
    "findings" BIGINT,
    "error" VARCHAR,
    "sql_sha256" VARCHAR,
    "dt" DATE,
    "project" VARCHAR
)
WITH (
    external_location = 's3://bucket/lake/audit_rules/',
    format = 'PARQUET',
    partitioned_by = ARRAY['dt', 'project']
);
CALL hive.system.sync_partition_metadata('image_snapshots', 'audit_rules', 'FULL');

CREATE TABLE hive.image_snapshots.audit_findings (
    "snapshot_date" DATE,
    "project_id" VARCHAR,
    "finding_id" VARCHAR,
    "rule" VARCHAR,
    "severity" VARCHAR,
    "title" VARCHAR,
    "id" VARCHAR,
    "name" VARCHAR,
    "owner" VARCHAR,
    "cost_center" VARCHAR,
    "environment" VARCHAR,
    "state" VARCHAR,
    "first_seen" DATE,
    "days_open" BIGINT,
    "evidence" VARCHAR,
    "suppressed_until" DATE,
    "suppression_reason" VARCHAR,
    "dt" DATE,
    "project" VARCHAR
)
WITH (
    external_location = 's3://bucket/lake/audit_findings/',
    format = 'PARQUET',
    partitioned_by = ARRAY['dt', 'project']
);
CALL hive.system.sync_partition_metadata('image_snapshots', 'audit_findings', 'FULL');

CREATE TABLE hive.image_snapshots.image_costs (
    "snapshot_date" DATE,
    "project_id" VARCHAR,
    "id" VARCHAR,
    "name" VARCHAR,
    "namespace" VARCHAR,
    "registry" VARCHAR,
    "type" VARCHAR,
    "owner" VARCHAR,
    "cost_center" VARCHAR,
    "environment" VARCHAR,
    "size_bytes" BIGINT,
    "growth_bytes" BIGINT,
    "is_carried" BOOLEAN,
    "unit_price" DOUBLE,
    "currency" VARCHAR,
    "price_valid_from" DATE,
    "estimated_cost" DOUBLE,
    "unused_days" BIGINT,
    "reclaimable_bytes" BIGINT,
    "dt" DATE,
    "project" VARCHAR
)
WITH (
    external_location = 's3://bucket/lake/image_costs/',
    format = 'PARQUET',
    partitioned_by = ARRAY['dt', 'project']
);
CALL hive.system.sync_partition_metadata('image_snapshots', 'image_costs', 'FULL');
