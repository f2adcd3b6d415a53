-- Redshift Spectrum: external tables over the lake's Parquet files.
-- Replace s3://bucket/lake by the lake's root, and make the external schema `image_snapshots`. The ALTER TABLE
-- statements show how a day is added: one for each day and project. Timestamps are UTC.

CREATE EXTERNAL TABLE image_snapshots.inventory (
    "snapshot_date" DATE,
    "project_key" VARCHAR(65535),
    "id" VARCHAR(65535),
    "id_as_read" VARCHAR(65535),
    "is_valid" BOOLEAN,
    "owner" VARCHAR(65535),
    "cost_center" VARCHAR(65535),
    "environment" VARCHAR(65535),
    "attributes" VARCHAR(65535),
    "id_source" VARCHAR(65535)
)
PARTITIONED BY ("dt" DATE, "project" VARCHAR(65535))
STORED AS PARQUET
LOCATION 's3://bucket/lake/inventory/';
ALTER TABLE image_snapshots.inventory ADD IF NOT EXISTS PARTITION (dt = '2026-01-01', project = 'default')
LOCATION 's3://bucket/lake/inventory/dt=2026-01-01/project=default/';

CREATE EXTERNAL TABLE image_snapshots.images (
    "snapshot_date" DATE,
    "project_id" VARCHAR(65535),
    "id" VARCHAR(65535),
    "name" VARCHAR(65535),
    "namespace" VARCHAR(65535),
    "swr_path" VARCHAR(65535),
    "tag" VARCHAR(65535),
    "arch" VARCHAR(65535),
    "type" VARCHAR(65535),
    "origin" VARCHAR(65535),
    "service_type" VARCHAR(65535),
    "status" VARCHAR(65535),
    "status_message" VARCHAR(65535),
    "visibility" VARCHAR(65535),
    "workspace_id" VARCHAR(65535),
    "flavor_type" VARCHAR(65535),
    "description" VARCHAR(65535),
    "size" BIGINT,
    "create_at" TIMESTAMP,
    "update_at" TIMESTAMP,
    "dev_services" VARCHAR(65535),
    "resource_categories" VARCHAR(65535),
    "support_res_categories" VARCHAR(65535),
    "size_bytes" BIGINT,
    "supports_notebook" BOOLEAN,
    "supports_ssh" BOOLEAN,
    "supports_cpu" BOOLEAN,
    "supports_gpu" BOOLEAN,
    "supports_ascend" BOOLEAN,
    "arch_normalised" VARCHAR(65535),
    "registry" VARCHAR(65535),
    "repository" VARCHAR(65535),
    "age_days" BIGINT,
    "days_since_update" BIGINT,
    "observed_at" TIMESTAMP,
    "response_sha256" VARCHAR(65535),
    "content_hash" VARCHAR(65535),
    "extra" VARCHAR(65535),
    "anomalies" VARCHAR(65535)
)
PARTITIONED BY ("dt" DATE, "project" VARCHAR(65535))
STORED AS PARQUET
LOCATION 's3://bucket/lake/images/';
ALTER TABLE image_snapshots.images ADD IF NOT EXISTS PARTITION (dt = '2026-01-01', project = 'default')
LOCATION 's3://bucket/lake/images/dt=2026-01-01/project=default/';

CREATE EXTERNAL TABLE image_snapshots.image_values (
    "snapshot_date" DATE,
    "project_id" VARCHAR(65535),
    "id" VARCHAR(65535),
    "field" VARCHAR(65535),
    "position" INTEGER,
    "value" VARCHAR(65535)
)
PARTITIONED BY ("dt" DATE, "project" VARCHAR(65535))
STORED AS PARQUET
LOCATION 's3://bucket/lake/image_values/';
ALTER TABLE image_snapshots.image_values ADD IF NOT EXISTS PARTITION (dt = '2026-01-01', project = 'default')
LOCATION 's3://bucket/lake/image_values/dt=2026-01-01/project=default/';

CREATE EXTERNAL TABLE image_snapshots.image_history (
    "project_id" VARCHAR(65535),
    "id" VARCHAR(65535),
    "valid_from" DATE,
    "valid_to" DATE,
    "is_current" BOOLEAN,
    "is_deleted" BOOLEAN,
    "deleted_reason" VARCHAR(65535),
    "name" VARCHAR(65535),
    "namespace" VARCHAR(65535),
    "swr_path" VARCHAR(65535),
    "tag" VARCHAR(65535),
    "arch" VARCHAR(65535),
    "type" VARCHAR(65535),
    "origin" VARCHAR(65535),
    "service_type" VARCHAR(65535),
    "status" VARCHAR(65535),
    "status_message" VARCHAR(65535),
    "visibility" VARCHAR(65535),
    "workspace_id" VARCHAR(65535),
    "flavor_type" VARCHAR(65535),
    "description" VARCHAR(65535),
    "size" BIGINT,
    "create_at" TIMESTAMP,
    "update_at" TIMESTAMP,
    "dev_services" VARCHAR(65535),
    "resource_categories" VARCHAR(65535),
    "support_res_categories" VARCHAR(65535),
    "extra" VARCHAR(65535),
    "size_bytes" BIGINT,
    "arch_normalised" VARCHAR(65535),
    "registry" VARCHAR(65535),
    "repository" VARCHAR(65535),
    "content_hash" VARCHAR(65535)
)
PARTITIONED BY ("project" VARCHAR(65535))
STORED AS PARQUET
LOCATION 's3://bucket/lake/image_history/';
ALTER TABLE image_snapshots.image_history ADD IF NOT EXISTS PARTITION (project = 'default')
LOCATION 's3://bucket/lake/image_history/project=default/';

CREATE EXTERNAL TABLE image_snapshots.image_changes (
    "snapshot_date" DATE,
    "project_id" VARCHAR(65535),
    "id" VARCHAR(65535),
    "change" VARCHAR(65535),
    "field" VARCHAR(65535),
    "old_value" VARCHAR(65535),
    "new_value" VARCHAR(65535),
    "change_class" VARCHAR(65535),
    "compared_with" DATE,
    "name" VARCHAR(65535),
    "owner" VARCHAR(65535),
    "cost_center" VARCHAR(65535),
    "environment" VARCHAR(65535)
)
PARTITIONED BY ("dt" DATE, "project" VARCHAR(65535))
STORED AS PARQUET
LOCATION 's3://bucket/lake/image_changes/';
ALTER TABLE image_snapshots.image_changes ADD IF NOT EXISTS PARTITION (dt = '2026-01-01', project = 'default')
LOCATION 's3://bucket/lake/image_changes/dt=2026-01-01/project=default/';

CREATE EXTERNAL TABLE image_snapshots.image_reconciliation (
    "snapshot_date" DATE,
    "project_id" VARCHAR(65535),
    "id" VARCHAR(65535),
    "kind" VARCHAR(65535),
    "outcome" VARCHAR(65535),
    "name" VARCHAR(65535),
    "namespace" VARCHAR(65535),
    "swr_path" VARCHAR(65535),
    "visibility" VARCHAR(65535),
    "size_bytes" BIGINT,
    "owner" VARCHAR(65535),
    "cost_center" VARCHAR(65535),
    "environment" VARCHAR(65535),
    "likely_owner" VARCHAR(65535)
)
PARTITIONED BY ("dt" DATE, "project" VARCHAR(65535))
STORED AS PARQUET
LOCATION 's3://bucket/lake/image_reconciliation/';
ALTER TABLE image_snapshots.image_reconciliation ADD IF NOT EXISTS PARTITION (dt = '2026-01-01', project = 'default')
LOCATION 's3://bucket/lake/image_reconciliation/dt=2026-01-01/project=default/';

CREATE EXTERNAL TABLE image_snapshots.image_usage (
    "snapshot_date" DATE,
    "project_id" VARCHAR(65535),
    "id" VARCHAR(65535),
    "notebooks" BIGINT,
    "running_notebooks" BIGINT,
    "is_observed" BOOLEAN,
    "last_used_date" DATE,
    "observed_days" BIGINT,
    "unused_days" BIGINT
)
PARTITIONED BY ("dt" DATE, "project" VARCHAR(65535))
STORED AS PARQUET
LOCATION 's3://bucket/lake/image_usage/';
ALTER TABLE image_snapshots.image_usage ADD IF NOT EXISTS PARTITION (dt = '2026-01-01', project = 'default')
LOCATION 's3://bucket/lake/image_usage/dt=2026-01-01/project=default/';

CREATE EXTERNAL TABLE image_snapshots.audit_rules (
    "snapshot_date" DATE,
    "project_id" VARCHAR(65535),
    "rule" VARCHAR(65535),
    "title" VARCHAR(65535),
    "severity" VARCHAR(65535),
    "why" VARCHAR(65535),
    "what_to_do" VARCHAR(65535),
    "findings" BIGINT,
    "error" VARCHAR(65535),
    "sql_sha256" VARCHAR(65535)
)
PARTITIONED BY ("dt" DATE, "project" VARCHAR(65535))
STORED AS PARQUET
LOCATION 's3://bucket/lake/audit_rules/';
ALTER TABLE image_snapshots.audit_rules ADD IF NOT EXISTS PARTITION (dt = '2026-01-01', project = 'default')
LOCATION 's3://bucket/lake/audit_rules/dt=2026-01-01/project=default/';

CREATE EXTERNAL TABLE image_snapshots.audit_findings (
    "snapshot_date" DATE,
    "project_id" VARCHAR(65535),
    "finding_id" VARCHAR(65535),
    "rule" VARCHAR(65535),
    "severity" VARCHAR(65535),
    "title" VARCHAR(65535),
    "id" VARCHAR(65535),
    "name" VARCHAR(65535),
    "owner" VARCHAR(65535),
    "cost_center" VARCHAR(65535),
    "environment" VARCHAR(65535),
    "state" VARCHAR(65535),
    "first_seen" DATE,
    "days_open" BIGINT,
    "evidence" VARCHAR(65535),
    "suppressed_until" DATE,
    "suppression_reason" VARCHAR(65535)
)
PARTITIONED BY ("dt" DATE, "project" VARCHAR(65535))
STORED AS PARQUET
LOCATION 's3://bucket/lake/audit_findings/';
ALTER TABLE image_snapshots.audit_findings ADD IF NOT EXISTS PARTITION (dt = '2026-01-01', project = 'default')
LOCATION 's3://bucket/lake/audit_findings/dt=2026-01-01/project=default/';

CREATE EXTERNAL TABLE image_snapshots.image_costs (
    "snapshot_date" DATE,
    "project_id" VARCHAR(65535),
    "id" VARCHAR(65535),
    "name" VARCHAR(65535),
    "namespace" VARCHAR(65535),
    "registry" VARCHAR(65535),
    "type" VARCHAR(65535),
    "owner" VARCHAR(65535),
    "cost_center" VARCHAR(65535),
    "environment" VARCHAR(65535),
    "size_bytes" BIGINT,
    "growth_bytes" BIGINT,
    "is_carried" BOOLEAN,
    "unit_price" DOUBLE PRECISION,
    "currency" VARCHAR(65535),
    "price_valid_from" DATE,
    "estimated_cost" DOUBLE PRECISION,
    "unused_days" BIGINT,
    "reclaimable_bytes" BIGINT
)
PARTITIONED BY ("dt" DATE, "project" VARCHAR(65535))
STORED AS PARQUET
LOCATION 's3://bucket/lake/image_costs/';
ALTER TABLE image_snapshots.image_costs ADD IF NOT EXISTS PARTITION (dt = '2026-01-01', project = 'default')
LOCATION 's3://bucket/lake/image_costs/dt=2026-01-01/project=default/';
