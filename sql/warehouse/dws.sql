-- Data Warehouse Service (DWS, GaussDB): foreign tables over the lake's Parquet files in OBS.
-- Replace /bucket/lake by the lake's root, and make a server `image_snapshots` with the wrapper DFS_FDW. Set
-- IMAGE_SNAPSHOTS_PARQUET_COMPRESSION=snappy before the first day.

CREATE FOREIGN TABLE "inventory" (
    "snapshot_date" DATE,
    "project_key" TEXT,
    "id" TEXT,
    "id_as_read" TEXT,
    "is_valid" BOOLEAN,
    "owner" TEXT,
    "cost_center" TEXT,
    "environment" TEXT,
    "attributes" TEXT,
    "id_source" TEXT,
    "dt" DATE,
    "project" TEXT
)
SERVER image_snapshots
OPTIONS (format 'parquet', encoding 'utf8', foldername '/bucket/lake/inventory/')
READ ONLY
DISTRIBUTE BY ROUNDROBIN
PARTITION BY ("dt", "project") AUTOMAPPED;

CREATE FOREIGN TABLE "images" (
    "snapshot_date" DATE,
    "project_id" TEXT,
    "id" TEXT,
    "name" TEXT,
    "namespace" TEXT,
    "swr_path" TEXT,
    "tag" TEXT,
    "arch" TEXT,
    "type" TEXT,
    "origin" TEXT,
    "service_type" TEXT,
    "status" TEXT,
    "status_message" TEXT,
    "visibility" TEXT,
    "workspace_id" TEXT,
    "flavor_type" TEXT,
    "description" TEXT,
    "size" BIGINT,
    "create_at" TIMESTAMP WITH TIME ZONE,
    "update_at" TIMESTAMP WITH TIME ZONE,
    "dev_services" TEXT,
    "resource_categories" TEXT,
    "support_res_categories" TEXT,
    "size_bytes" BIGINT,
    "supports_notebook" BOOLEAN,
    "supports_ssh" BOOLEAN,
    "supports_cpu" BOOLEAN,
    "supports_gpu" BOOLEAN,
    "supports_ascend" BOOLEAN,
    "arch_normalised" TEXT,
    "registry" TEXT,
    "repository" TEXT,
    "age_days" BIGINT,
    "days_since_update" BIGINT,
    "observed_at" TIMESTAMP WITH TIME ZONE,
    "response_sha256" TEXT,
    "content_hash" TEXT,
    "extra" TEXT,
    "anomalies" TEXT,
    "dt" DATE,
    "project" TEXT
)
SERVER image_snapshots
OPTIONS (format 'parquet', encoding 'utf8', foldername '/bucket/lake/images/')
READ ONLY
DISTRIBUTE BY ROUNDROBIN
PARTITION BY ("dt", "project") AUTOMAPPED;

CREATE FOREIGN TABLE "image_values" (
    "snapshot_date" DATE,
    "project_id" TEXT,
    "id" TEXT,
    "field" TEXT,
    "position" INTEGER,
    "value" TEXT,
    "dt" DATE,
    "project" TEXT
)
SERVER image_snapshots
OPTIONS (format 'parquet', encoding 'utf8', foldername '/bucket/lake/image_values/')
READ ONLY
DISTRIBUTE BY ROUNDROBIN
PARTITION BY ("dt", "project") AUTOMAPPED;

CREATE FOREIGN TABLE "image_history" (
    "project_id" TEXT,
    "id" TEXT,
    "valid_from" DATE,
    "valid_to" DATE,
    "is_current" BOOLEAN,
    "is_deleted" BOOLEAN,
    "deleted_reason" TEXT,
    "name" TEXT,
    "namespace" TEXT,
    "swr_path" TEXT,
    "tag" TEXT,
    "arch" TEXT,
    "type" TEXT,
    "origin" TEXT,
    "service_type" TEXT,
    "status" TEXT,
    "status_message" TEXT,
    "visibility" TEXT,
    "workspace_id" TEXT,
    "flavor_type" TEXT,
    "description" TEXT,
    "size" BIGINT,
    "create_at" TIMESTAMP WITH TIME ZONE,
    "update_at" TIMESTAMP WITH TIME ZONE,
    "dev_services" TEXT,
    "resource_categories" TEXT,
    "support_res_categories" TEXT,
    "extra" TEXT,
    "size_bytes" BIGINT,
    "arch_normalised" TEXT,
    "registry" TEXT,
    "repository" TEXT,
    "content_hash" TEXT,
    "project" TEXT
)
SERVER image_snapshots
OPTIONS (format 'parquet', encoding 'utf8', foldername '/bucket/lake/image_history/')
READ ONLY
DISTRIBUTE BY ROUNDROBIN
PARTITION BY ("project") AUTOMAPPED;

CREATE FOREIGN TABLE "image_changes" (
    "snapshot_date" DATE,
    "project_id" TEXT,
    "id" TEXT,
    "change" TEXT,
    "field" TEXT,
    "old_value" TEXT,
    "new_value" TEXT,
    "change_class" TEXT,
    "compared_with" DATE,
    "name" TEXT,
    "owner" TEXT,
    "cost_center" TEXT,
    "environment" TEXT,
    "dt" DATE,
    "project" TEXT
)
SERVER image_snapshots
OPTIONS (format 'parquet', encoding 'utf8', foldername '/bucket/lake/image_changes/')
READ ONLY
DISTRIBUTE BY ROUNDROBIN
PARTITION BY ("dt", "project") AUTOMAPPED;

CREATE FOREIGN TABLE "image_reconciliation" (
    "snapshot_date" DATE,
    "project_id" TEXT,
    "id" TEXT,
    "kind" TEXT,
    "outcome" TEXT,
    "name" TEXT,
    "namespace" TEXT,
    "swr_path" TEXT,
    "visibility" TEXT,
    "size_bytes" BIGINT,
    "owner" TEXT,
    "cost_center" TEXT,
    "environment" TEXT,
    "likely_owner" TEXT,
    "dt" DATE,
    "project" TEXT
)
SERVER image_snapshots
OPTIONS (format 'parquet', encoding 'utf8', foldername '/bucket/lake/image_reconciliation/')
READ ONLY
DISTRIBUTE BY ROUNDROBIN
PARTITION BY ("dt", "project") AUTOMAPPED;

CREATE FOREIGN TABLE "image_usage" (
    "snapshot_date" DATE,
    "project_id" TEXT,
    "id" TEXT,
    "notebooks" BIGINT,
    "running_notebooks" BIGINT,
    "is_observed" BOOLEAN,
    "last_used_date" DATE,
    "observed_days" BIGINT,
    "unused_days" BIGINT,
    "dt" DATE,
    "project" TEXT
)
SERVER image_snapshots
OPTIONS (format 'parquet', encoding 'utf8', foldername '/bucket/lake/image_usage/')
READ ONLY
DISTRIBUTE BY ROUNDROBIN
PARTITION BY ("dt", "project") AUTOMAPPED;

CREATE FOREIGN TABLE "audit_rules" (
    "snapshot_date" DATE,
    "project_id" TEXT,
    "rule" TEXT,
    "title" TEXT,
    "severity" TEXT,
    "why" TEXT,
    "what_to_do" TEXT,
    "findings" BIGINT,
    "error" TEXT,
    "sql_sha256" TEXT,
    "dt" DATE,
    "project" TEXT
)
SERVER image_snapshots
OPTIONS (format 'parquet', encoding 'utf8', foldername '/bucket/lake/audit_rules/')
READ ONLY
DISTRIBUTE BY ROUNDROBIN
PARTITION BY ("dt", "project") AUTOMAPPED;

CREATE FOREIGN TABLE "audit_findings" (
    "snapshot_date" DATE,
    "project_id" TEXT,
    "finding_id" TEXT,
    "rule" TEXT,
    "severity" TEXT,
    "title" TEXT,
    "id" TEXT,
    "name" TEXT,
    "owner" TEXT,
    "cost_center" TEXT,
    "environment" TEXT,
    "state" TEXT,
    "first_seen" DATE,
    "days_open" BIGINT,
    "evidence" TEXT,
    "suppressed_until" DATE,
    "suppression_reason" TEXT,
    "dt" DATE,
    "project" TEXT
)
SERVER image_snapshots
OPTIONS (format 'parquet', encoding 'utf8', foldername '/bucket/lake/audit_findings/')
READ ONLY
DISTRIBUTE BY ROUNDROBIN
PARTITION BY ("dt", "project") AUTOMAPPED;

CREATE FOREIGN TABLE "image_costs" (
    "snapshot_date" DATE,
    "project_id" TEXT,
    "id" TEXT,
    "name" TEXT,
    "namespace" TEXT,
    "registry" TEXT,
    "type" TEXT,
    "owner" TEXT,
    "cost_center" TEXT,
    "environment" TEXT,
    "size_bytes" BIGINT,
    "growth_bytes" BIGINT,
    "is_carried" BOOLEAN,
    "unit_price" DOUBLE PRECISION,
    "currency" TEXT,
    "price_valid_from" DATE,
    "estimated_cost" DOUBLE PRECISION,
    "unused_days" BIGINT,
    "reclaimable_bytes" BIGINT,
    "dt" DATE,
    "project" TEXT
)
SERVER image_snapshots
OPTIONS (format 'parquet', encoding 'utf8', foldername '/bucket/lake/image_costs/')
READ ONLY
DISTRIBUTE BY ROUNDROBIN
PARTITION BY ("dt", "project") AUTOMAPPED;
