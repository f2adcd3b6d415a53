-- Snowflake: external tables over the lake's Parquet files.
-- First make a stage `image_snapshots` on the lake's root. After each day: ALTER EXTERNAL TABLE <name> REFRESH.

CREATE OR REPLACE EXTERNAL TABLE inventory (
    dt DATE AS (CAST(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'dt=', 2), '/', 1) AS DATE)),
    project VARCHAR AS (CAST(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'project=', 2), '/', 1) AS VARCHAR)),
    snapshot_date DATE AS (CAST(VALUE:snapshot_date AS DATE)),
    project_key VARCHAR AS (CAST(VALUE:project_key AS VARCHAR)),
    id VARCHAR AS (CAST(VALUE:id AS VARCHAR)),
    id_as_read VARCHAR AS (CAST(VALUE:id_as_read AS VARCHAR)),
    is_valid BOOLEAN AS (CAST(VALUE:is_valid AS BOOLEAN)),
    owner VARCHAR AS (CAST(VALUE:owner AS VARCHAR)),
    cost_center VARCHAR AS (CAST(VALUE:cost_center AS VARCHAR)),
    environment VARCHAR AS (CAST(VALUE:environment AS VARCHAR)),
    attributes VARCHAR AS (CAST(VALUE:attributes AS VARCHAR)),
    id_source VARCHAR AS (CAST(VALUE:id_source AS VARCHAR))
)
PARTITION BY (dt, project)
LOCATION = @image_snapshots/inventory/
PATTERN = '.*/inventory[.]parquet'
AUTO_REFRESH = FALSE
FILE_FORMAT = (TYPE = PARQUET);

CREATE OR REPLACE EXTERNAL TABLE images (
    dt DATE AS (CAST(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'dt=', 2), '/', 1) AS DATE)),
    project VARCHAR AS (CAST(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'project=', 2), '/', 1) AS VARCHAR)),
    snapshot_date DATE AS (CAST(VALUE:snapshot_date AS DATE)),
    project_id VARCHAR AS (CAST(VALUE:project_id AS VARCHAR)),
    id VARCHAR AS (CAST(VALUE:id AS VARCHAR)),
    name VARCHAR AS (CAST(VALUE:name AS VARCHAR)),
    namespace VARCHAR AS (CAST(VALUE:namespace AS VARCHAR)),
    swr_path VARCHAR AS (CAST(VALUE:swr_path AS VARCHAR)),
    tag VARCHAR AS (CAST(VALUE:tag AS VARCHAR)),
    arch VARCHAR AS (CAST(VALUE:arch AS VARCHAR)),
    type VARCHAR AS (CAST(VALUE:type AS VARCHAR)),
    origin VARCHAR AS (CAST(VALUE:origin AS VARCHAR)),
    service_type VARCHAR AS (CAST(VALUE:service_type AS VARCHAR)),
    status VARCHAR AS (CAST(VALUE:status AS VARCHAR)),
    status_message VARCHAR AS (CAST(VALUE:status_message AS VARCHAR)),
    visibility VARCHAR AS (CAST(VALUE:visibility AS VARCHAR)),
    workspace_id VARCHAR AS (CAST(VALUE:workspace_id AS VARCHAR)),
    flavor_type VARCHAR AS (CAST(VALUE:flavor_type AS VARCHAR)),
    description VARCHAR AS (CAST(VALUE:description AS VARCHAR)),
    size BIGINT AS (CAST(VALUE:size AS BIGINT)),
    create_at TIMESTAMP_TZ AS (CAST(VALUE:create_at AS TIMESTAMP_TZ)),
    update_at TIMESTAMP_TZ AS (CAST(VALUE:update_at AS TIMESTAMP_TZ)),
    dev_services VARCHAR AS (CAST(VALUE:dev_services AS VARCHAR)),
    resource_categories VARCHAR AS (CAST(VALUE:resource_categories AS VARCHAR)),
    support_res_categories VARCHAR AS (CAST(VALUE:support_res_categories AS VARCHAR)),
    size_bytes BIGINT AS (CAST(VALUE:size_bytes AS BIGINT)),
    supports_notebook BOOLEAN AS (CAST(VALUE:supports_notebook AS BOOLEAN)),
    supports_ssh BOOLEAN AS (CAST(VALUE:supports_ssh AS BOOLEAN)),
    supports_cpu BOOLEAN AS (CAST(VALUE:supports_cpu AS BOOLEAN)),
    supports_gpu BOOLEAN AS (CAST(VALUE:supports_gpu AS BOOLEAN)),
    supports_ascend BOOLEAN AS (CAST(VALUE:supports_ascend AS BOOLEAN)),
    arch_normalised VARCHAR AS (CAST(VALUE:arch_normalised AS VARCHAR)),
    registry VARCHAR AS (CAST(VALUE:registry AS VARCHAR)),
    repository VARCHAR AS (CAST(VALUE:repository AS VARCHAR)),
    age_days BIGINT AS (CAST(VALUE:age_days AS BIGINT)),
    days_since_update BIGINT AS (CAST(VALUE:days_since_update AS BIGINT)),
    observed_at TIMESTAMP_TZ AS (CAST(VALUE:observed_at AS TIMESTAMP_TZ)),
    response_sha256 VARCHAR AS (CAST(VALUE:response_sha256 AS VARCHAR)),
    content_hash VARCHAR AS (CAST(VALUE:content_hash AS VARCHAR)),
    extra VARCHAR AS (CAST(VALUE:extra AS VARCHAR)),
    anomalies VARCHAR AS (CAST(VALUE:anomalies AS VARCHAR))
)
PARTITION BY (dt, project)
LOCATION = @image_snapshots/images/
PATTERN = '.*/images[.]parquet'
AUTO_REFRESH = FALSE
FILE_FORMAT = (TYPE = PARQUET);

CREATE OR REPLACE EXTERNAL TABLE image_values (
    dt DATE AS (CAST(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'dt=', 2), '/', 1) AS DATE)),
    project VARCHAR AS (CAST(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'project=', 2), '/', 1) AS VARCHAR)),
    snapshot_date DATE AS (CAST(VALUE:snapshot_date AS DATE)),
    project_id VARCHAR AS (CAST(VALUE:project_id AS VARCHAR)),
    id VARCHAR AS (CAST(VALUE:id AS VARCHAR)),
    field VARCHAR AS (CAST(VALUE:field AS VARCHAR)),
    position INTEGER AS (CAST(VALUE:position AS INTEGER)),
    value VARCHAR AS (CAST(VALUE:value AS VARCHAR))
)
PARTITION BY (dt, project)
LOCATION = @image_snapshots/image_values/
PATTERN = '.*/image_values[.]parquet'
AUTO_REFRESH = FALSE
FILE_FORMAT = (TYPE = PARQUET);

CREATE OR REPLACE EXTERNAL TABLE image_history (
    project VARCHAR AS (CAST(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'project=', 2), '/', 1) AS VARCHAR)),
    project_id VARCHAR AS (CAST(VALUE:project_id AS VARCHAR)),
    id VARCHAR AS (CAST(VALUE:id AS VARCHAR)),
    valid_from DATE AS (CAST(VALUE:valid_from AS DATE)),
    valid_to DATE AS (CAST(VALUE:valid_to AS DATE)),
    is_current BOOLEAN AS (CAST(VALUE:is_current AS BOOLEAN)),
    is_deleted BOOLEAN AS (CAST(VALUE:is_deleted AS BOOLEAN)),
    deleted_reason VARCHAR AS (CAST(VALUE:deleted_reason AS VARCHAR)),
    name VARCHAR AS (CAST(VALUE:name AS VARCHAR)),
    namespace VARCHAR AS (CAST(VALUE:namespace AS VARCHAR)),
    swr_path VARCHAR AS (CAST(VALUE:swr_path AS VARCHAR)),
    tag VARCHAR AS (CAST(VALUE:tag AS VARCHAR)),
    arch VARCHAR AS (CAST(VALUE:arch AS VARCHAR)),
    type VARCHAR AS (CAST(VALUE:type AS VARCHAR)),
    origin VARCHAR AS (CAST(VALUE:origin AS VARCHAR)),
    service_type VARCHAR AS (CAST(VALUE:service_type AS VARCHAR)),
    status VARCHAR AS (CAST(VALUE:status AS VARCHAR)),
    status_message VARCHAR AS (CAST(VALUE:status_message AS VARCHAR)),
    visibility VARCHAR AS (CAST(VALUE:visibility AS VARCHAR)),
    workspace_id VARCHAR AS (CAST(VALUE:workspace_id AS VARCHAR)),
    flavor_type VARCHAR AS (CAST(VALUE:flavor_type AS VARCHAR)),
    description VARCHAR AS (CAST(VALUE:description AS VARCHAR)),
    size BIGINT AS (CAST(VALUE:size AS BIGINT)),
    create_at TIMESTAMP_TZ AS (CAST(VALUE:create_at AS TIMESTAMP_TZ)),
    update_at TIMESTAMP_TZ AS (CAST(VALUE:update_at AS TIMESTAMP_TZ)),
    dev_services VARCHAR AS (CAST(VALUE:dev_services AS VARCHAR)),
    resource_categories VARCHAR AS (CAST(VALUE:resource_categories AS VARCHAR)),
    support_res_categories VARCHAR AS (CAST(VALUE:support_res_categories AS VARCHAR)),
    extra VARCHAR AS (CAST(VALUE:extra AS VARCHAR)),
    size_bytes BIGINT AS (CAST(VALUE:size_bytes AS BIGINT)),
    arch_normalised VARCHAR AS (CAST(VALUE:arch_normalised AS VARCHAR)),
    registry VARCHAR AS (CAST(VALUE:registry AS VARCHAR)),
    repository VARCHAR AS (CAST(VALUE:repository AS VARCHAR)),
    content_hash VARCHAR AS (CAST(VALUE:content_hash AS VARCHAR))
)
PARTITION BY (project)
LOCATION = @image_snapshots/image_history/
PATTERN = '.*/image_history[.]parquet'
AUTO_REFRESH = FALSE
FILE_FORMAT = (TYPE = PARQUET);

CREATE OR REPLACE EXTERNAL TABLE image_changes (
    dt DATE AS (CAST(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'dt=', 2), '/', 1) AS DATE)),
    project VARCHAR AS (CAST(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'project=', 2), '/', 1) AS VARCHAR)),
    snapshot_date DATE AS (CAST(VALUE:snapshot_date AS DATE)),
    project_id VARCHAR AS (CAST(VALUE:project_id AS VARCHAR)),
    id VARCHAR AS (CAST(VALUE:id AS VARCHAR)),
    change VARCHAR AS (CAST(VALUE:change AS VARCHAR)),
    field VARCHAR AS (CAST(VALUE:field AS VARCHAR)),
    old_value VARCHAR AS (CAST(VALUE:old_value AS VARCHAR)),
    new_value VARCHAR AS (CAST(VALUE:new_value AS VARCHAR)),
    change_class VARCHAR AS (CAST(VALUE:change_class AS VARCHAR)),
    compared_with DATE AS (CAST(VALUE:compared_with AS DATE)),
    name VARCHAR AS (CAST(VALUE:name AS VARCHAR)),
    owner VARCHAR AS (CAST(VALUE:owner AS VARCHAR)),
    cost_center VARCHAR AS (CAST(VALUE:cost_center AS VARCHAR)),
    environment VARCHAR AS (CAST(VALUE:environment AS VARCHAR))
)
PARTITION BY (dt, project)
LOCATION = @image_snapshots/image_changes/
PATTERN = '.*/image_changes[.]parquet'
AUTO_REFRESH = FALSE
FILE_FORMAT = (TYPE = PARQUET);

CREATE OR REPLACE EXTERNAL TABLE image_reconciliation (
    dt DATE AS (CAST(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'dt=', 2), '/', 1) AS DATE)),
    project VARCHAR AS (CAST(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'project=', 2), '/', 1) AS VARCHAR)),
    snapshot_date DATE AS (CAST(VALUE:snapshot_date AS DATE)),
    project_id VARCHAR AS (CAST(VALUE:project_id AS VARCHAR)),
    id VARCHAR AS (CAST(VALUE:id AS VARCHAR)),
    kind VARCHAR AS (CAST(VALUE:kind AS VARCHAR)),
    outcome VARCHAR AS (CAST(VALUE:outcome AS VARCHAR)),
    name VARCHAR AS (CAST(VALUE:name AS VARCHAR)),
    namespace VARCHAR AS (CAST(VALUE:namespace AS VARCHAR)),
    swr_path VARCHAR AS (CAST(VALUE:swr_path AS VARCHAR)),
    visibility VARCHAR AS (CAST(VALUE:visibility AS VARCHAR)),
    size_bytes BIGINT AS (CAST(VALUE:size_bytes AS BIGINT)),
    owner VARCHAR AS (CAST(VALUE:owner AS VARCHAR)),
    cost_center VARCHAR AS (CAST(VALUE:cost_center AS VARCHAR)),
    environment VARCHAR AS (CAST(VALUE:environment AS VARCHAR)),
    likely_owner VARCHAR AS (CAST(VALUE:likely_owner AS VARCHAR))
)
PARTITION BY (dt, project)
LOCATION = @image_snapshots/image_reconciliation/
PATTERN = '.*/image_reconciliation[.]parquet'
AUTO_REFRESH = FALSE
FILE_FORMAT = (TYPE = PARQUET);

CREATE OR REPLACE EXTERNAL TABLE image_usage (
    dt DATE AS (CAST(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'dt=', 2), '/', 1) AS DATE)),
    project VARCHAR AS (CAST(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'project=', 2), '/', 1) AS VARCHAR)),
    snapshot_date DATE AS (CAST(VALUE:snapshot_date AS DATE)),
    project_id VARCHAR AS (CAST(VALUE:project_id AS VARCHAR)),
    id VARCHAR AS (CAST(VALUE:id AS VARCHAR)),
    notebooks BIGINT AS (CAST(VALUE:notebooks AS BIGINT)),
    running_notebooks BIGINT AS (CAST(VALUE:running_notebooks AS BIGINT)),
    is_observed BOOLEAN AS (CAST(VALUE:is_observed AS BOOLEAN)),
    last_used_date DATE AS (CAST(VALUE:last_used_date AS DATE)),
    observed_days BIGINT AS (CAST(VALUE:observed_days AS BIGINT)),
    unused_days BIGINT AS (CAST(VALUE:unused_days AS BIGINT))
)
PARTITION BY (dt, project)
LOCATION = @image_snapshots/image_usage/
PATTERN = '.*/image_usage[.]parquet'
AUTO_REFRESH = FALSE
FILE_FORMAT = (TYPE = PARQUET);

CREATE OR REPLACE EXTERNAL TABLE audit_rules (
    dt DATE AS (CAST(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'dt=', 2), '/', 1) AS DATE)),
    project VARCHAR AS (CAST(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'project=', 2), '/', 1) AS VARCHAR)),
    snapshot_date DATE AS (CAST(VALUE:snapshot_date AS DATE)),
    project_id VARCHAR AS (CAST(VALUE:project_id AS VARCHAR)),
    rule VARCHAR AS (CAST(VALUE:rule AS VARCHAR)),
    title VARCHAR AS (CAST(VALUE:title AS VARCHAR)),
    severity VARCHAR AS (CAST(VALUE:severity AS VARCHAR)),
    why VARCHAR AS (CAST(VALUE:why AS VARCHAR)),
    what_to_do VARCHAR AS (CAST(VALUE:what_to_do AS VARCHAR)),
    findings BIGINT AS (CAST(VALUE:findings AS BIGINT)),
    error VARCHAR AS (CAST(VALUE:error AS VARCHAR)),
    sql_sha256 VARCHAR AS (CAST(VALUE:sql_sha256 AS VARCHAR))
)
PARTITION BY (dt, project)
LOCATION = @image_snapshots/audit_rules/
PATTERN = '.*/audit_rules[.]parquet'
AUTO_REFRESH = FALSE
FILE_FORMAT = (TYPE = PARQUET);

CREATE OR REPLACE EXTERNAL TABLE audit_findings (
    dt DATE AS (CAST(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'dt=', 2), '/', 1) AS DATE)),
    project VARCHAR AS (CAST(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'project=', 2), '/', 1) AS VARCHAR)),
    snapshot_date DATE AS (CAST(VALUE:snapshot_date AS DATE)),
    project_id VARCHAR AS (CAST(VALUE:project_id AS VARCHAR)),
    finding_id VARCHAR AS (CAST(VALUE:finding_id AS VARCHAR)),
    rule VARCHAR AS (CAST(VALUE:rule AS VARCHAR)),
    severity VARCHAR AS (CAST(VALUE:severity AS VARCHAR)),
    title VARCHAR AS (CAST(VALUE:title AS VARCHAR)),
    id VARCHAR AS (CAST(VALUE:id AS VARCHAR)),
    name VARCHAR AS (CAST(VALUE:name AS VARCHAR)),
    owner VARCHAR AS (CAST(VALUE:owner AS VARCHAR)),
    cost_center VARCHAR AS (CAST(VALUE:cost_center AS VARCHAR)),
    environment VARCHAR AS (CAST(VALUE:environment AS VARCHAR)),
    state VARCHAR AS (CAST(VALUE:state AS VARCHAR)),
    first_seen DATE AS (CAST(VALUE:first_seen AS DATE)),
    days_open BIGINT AS (CAST(VALUE:days_open AS BIGINT)),
    evidence VARCHAR AS (CAST(VALUE:evidence AS VARCHAR)),
    suppressed_until DATE AS (CAST(VALUE:suppressed_until AS DATE)),
    suppression_reason VARCHAR AS (CAST(VALUE:suppression_reason AS VARCHAR))
)
PARTITION BY (dt, project)
LOCATION = @image_snapshots/audit_findings/
PATTERN = '.*/audit_findings[.]parquet'
AUTO_REFRESH = FALSE
FILE_FORMAT = (TYPE = PARQUET);

CREATE OR REPLACE EXTERNAL TABLE image_costs (
    dt DATE AS (CAST(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'dt=', 2), '/', 1) AS DATE)),
    project VARCHAR AS (CAST(SPLIT_PART(SPLIT_PART(METADATA$FILENAME, 'project=', 2), '/', 1) AS VARCHAR)),
    snapshot_date DATE AS (CAST(VALUE:snapshot_date AS DATE)),
    project_id VARCHAR AS (CAST(VALUE:project_id AS VARCHAR)),
    id VARCHAR AS (CAST(VALUE:id AS VARCHAR)),
    name VARCHAR AS (CAST(VALUE:name AS VARCHAR)),
    namespace VARCHAR AS (CAST(VALUE:namespace AS VARCHAR)),
    registry VARCHAR AS (CAST(VALUE:registry AS VARCHAR)),
    type VARCHAR AS (CAST(VALUE:type AS VARCHAR)),
    owner VARCHAR AS (CAST(VALUE:owner AS VARCHAR)),
    cost_center VARCHAR AS (CAST(VALUE:cost_center AS VARCHAR)),
    environment VARCHAR AS (CAST(VALUE:environment AS VARCHAR)),
    size_bytes BIGINT AS (CAST(VALUE:size_bytes AS BIGINT)),
    growth_bytes BIGINT AS (CAST(VALUE:growth_bytes AS BIGINT)),
    is_carried BOOLEAN AS (CAST(VALUE:is_carried AS BOOLEAN)),
    unit_price DOUBLE AS (CAST(VALUE:unit_price AS DOUBLE)),
    currency VARCHAR AS (CAST(VALUE:currency AS VARCHAR)),
    price_valid_from DATE AS (CAST(VALUE:price_valid_from AS DATE)),
    estimated_cost DOUBLE AS (CAST(VALUE:estimated_cost AS DOUBLE)),
    unused_days BIGINT AS (CAST(VALUE:unused_days AS BIGINT)),
    reclaimable_bytes BIGINT AS (CAST(VALUE:reclaimable_bytes AS BIGINT))
)
PARTITION BY (dt, project)
LOCATION = @image_snapshots/image_costs/
PATTERN = '.*/image_costs[.]parquet'
AUTO_REFRESH = FALSE
FILE_FORMAT = (TYPE = PARQUET);
