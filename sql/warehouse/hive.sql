-- Hive and Spark SQL: external tables over the lake's Parquet files.
-- Replace s3://bucket/lake by the lake's root, and make the database `image_snapshots`. Timestamps are UTC. The
-- MSCK statements make new days known: run them after each day.

CREATE EXTERNAL TABLE IF NOT EXISTS image_snapshots.inventory (
    `snapshot_date` DATE COMMENT 'Day (UTC) on which the API was asked.',
    `project_key` STRING COMMENT 'Partition key of the project.',
    `id` STRING COMMENT 'Image id, trimmed and in lower case.',
    `id_as_read` STRING COMMENT 'The id exactly as the source has it.',
    `is_valid` BOOLEAN COMMENT 'Whether the id is a UUID; others are never put into a URL.',
    `owner` STRING COMMENT 'Owner stated by the inventory.',
    `cost_center` STRING COMMENT 'Cost centre stated by the inventory.',
    `environment` STRING COMMENT 'Environment stated by the inventory.',
    `attributes` STRING COMMENT 'Further columns of the source, as a JSON object.',
    `id_source` STRING COMMENT 'inventory; or last_complete_day: the source did not show this id, and was not whole, so the id is asked for all the same, with what the inventory of that day said of it.'
)
PARTITIONED BY (`dt` DATE, `project` STRING)
STORED AS PARQUET
LOCATION 's3://bucket/lake/inventory/';
MSCK REPAIR TABLE image_snapshots.inventory;

CREATE EXTERNAL TABLE IF NOT EXISTS image_snapshots.images (
    `snapshot_date` DATE COMMENT 'Day (UTC) on which the API was asked.',
    `project_id` STRING COMMENT 'Project id in the cloud, as used in the URL.',
    `id` STRING COMMENT 'Image id in lower case.',
    `name` STRING COMMENT 'Image name.',
    `namespace` STRING COMMENT 'Registry (SWR) organisation the image belongs to.',
    `swr_path` STRING COMMENT 'Registry address, host/namespace/repository:tag.',
    `tag` STRING COMMENT 'Image tag.',
    `arch` STRING COMMENT 'Processor architecture as sent; letter case varies (see `arch_normalised`).',
    `type` STRING COMMENT 'BUILD_IN (preset) or DEDICATED (saved by a user).',
    `origin` STRING COMMENT 'CUSTOMIZE, or IMAGE_SAVE (saved from a notebook).',
    `service_type` STRING COMMENT 'COMMON, INFERENCE, TRAIN, DEV or UNKNOWN.',
    `status` STRING COMMENT 'INIT, CREATING, CREATE_FAILED, ERROR, DELETED or ACTIVE.',
    `status_message` STRING COMMENT 'Build information.',
    `visibility` STRING COMMENT 'PRIVATE, or PUBLIC (any user may read the image by its id).',
    `workspace_id` STRING COMMENT 'Workspace; \'0\' is the default one.',
    `flavor_type` STRING COMMENT 'Resource type; free text.',
    `description` STRING COMMENT 'Free text.',
    `size` BIGINT COMMENT 'Image size in KB, as sent.',
    `create_at` TIMESTAMP COMMENT 'When the image was created (UTC).',
    `update_at` TIMESTAMP COMMENT 'When the image was last updated (UTC).',
    `dev_services` STRING COMMENT 'Sorted, de-duplicated, joined with \'|\': \'\' for an empty list, null for none.',
    `resource_categories` STRING COMMENT 'Resources the image may use, flattened like `dev_services`.',
    `support_res_categories` STRING COMMENT 'Resources the image supports, flattened like `dev_services`.',
    `size_bytes` BIGINT COMMENT '`size` x 1024.',
    `supports_notebook` BOOLEAN COMMENT '`dev_services` has NOTEBOOK; null when there was no list.',
    `supports_ssh` BOOLEAN COMMENT '`dev_services` has SSH; null when there was no list.',
    `supports_cpu` BOOLEAN COMMENT 'A category list has CPU; null when there was neither list.',
    `supports_gpu` BOOLEAN COMMENT 'A category list has GPU; null when there was neither list.',
    `supports_ascend` BOOLEAN COMMENT 'A category list has ASCEND; null when there was neither list.',
    `arch_normalised` STRING COMMENT '`arch` in lower case.',
    `registry` STRING COMMENT 'Host part of `swr_path`.',
    `repository` STRING COMMENT 'Repository part of `swr_path`, without registry, namespace and tag.',
    `age_days` BIGINT COMMENT 'Whole days from `create_at` to `snapshot_date` (both as UTC dates).',
    `days_since_update` BIGINT COMMENT 'Whole days from `update_at` to `snapshot_date`.',
    `observed_at` TIMESTAMP COMMENT 'When the API gave this answer (UTC).',
    `response_sha256` STRING COMMENT '`body_sha256` of the row in `responses`.',
    `content_hash` STRING COMMENT 'SHA-256 of the API\'s content; does not depend on the order of keys or list elements.',
    `extra` STRING COMMENT 'JSON object of fields outside the contract; null when none.',
    `anomalies` STRING COMMENT '\'|\'-joined field:problem names of what was repaired or could not be read; null when none.'
)
PARTITIONED BY (`dt` DATE, `project` STRING)
STORED AS PARQUET
LOCATION 's3://bucket/lake/images/';
MSCK REPAIR TABLE image_snapshots.images;

CREATE EXTERNAL TABLE IF NOT EXISTS image_snapshots.image_values (
    `snapshot_date` DATE COMMENT 'Day (UTC) on which the API was asked.',
    `project_id` STRING COMMENT 'Project id in the cloud, as used in the URL.',
    `id` STRING COMMENT 'Image id in lower case.',
    `field` STRING COMMENT 'Name of the list field.',
    `position` INT COMMENT 'Position in the list, from 0.',
    `value` STRING COMMENT 'The element; JSON text where the element is no string.'
)
PARTITIONED BY (`dt` DATE, `project` STRING)
STORED AS PARQUET
LOCATION 's3://bucket/lake/image_values/';
MSCK REPAIR TABLE image_snapshots.image_values;

CREATE EXTERNAL TABLE IF NOT EXISTS image_snapshots.image_history (
    `project_id` STRING COMMENT 'Project id in the cloud, as used in the URL.',
    `id` STRING COMMENT 'Image id in lower case.',
    `valid_from` DATE COMMENT 'Complete day on which this version was first seen.',
    `valid_to` DATE COMMENT 'Complete day on which it was first seen no more; null for the last version.',
    `is_current` BOOLEAN COMMENT 'Whether this is the last version of the image.',
    `is_deleted` BOOLEAN COMMENT 'Whether the image is gone; content is the last that was known.',
    `deleted_reason` STRING COMMENT 'deleted or not_found (the API said so), or not_in_inventory.',
    `name` STRING COMMENT 'Image name.',
    `namespace` STRING COMMENT 'Registry (SWR) organisation the image belongs to.',
    `swr_path` STRING COMMENT 'Registry address, host/namespace/repository:tag.',
    `tag` STRING COMMENT 'Image tag.',
    `arch` STRING COMMENT 'Processor architecture as sent; letter case varies (see `arch_normalised`).',
    `type` STRING COMMENT 'BUILD_IN (preset) or DEDICATED (saved by a user).',
    `origin` STRING COMMENT 'CUSTOMIZE, or IMAGE_SAVE (saved from a notebook).',
    `service_type` STRING COMMENT 'COMMON, INFERENCE, TRAIN, DEV or UNKNOWN.',
    `status` STRING COMMENT 'INIT, CREATING, CREATE_FAILED, ERROR, DELETED or ACTIVE.',
    `status_message` STRING COMMENT 'Build information.',
    `visibility` STRING COMMENT 'PRIVATE, or PUBLIC (any user may read the image by its id).',
    `workspace_id` STRING COMMENT 'Workspace; \'0\' is the default one.',
    `flavor_type` STRING COMMENT 'Resource type; free text.',
    `description` STRING COMMENT 'Free text.',
    `size` BIGINT COMMENT 'Image size in KB, as sent.',
    `create_at` TIMESTAMP COMMENT 'When the image was created (UTC).',
    `update_at` TIMESTAMP COMMENT 'When the image was last updated (UTC).',
    `dev_services` STRING COMMENT 'Sorted, de-duplicated, joined with \'|\': \'\' for an empty list, null for none.',
    `resource_categories` STRING COMMENT 'Resources the image may use, flattened like `dev_services`.',
    `support_res_categories` STRING COMMENT 'Resources the image supports, flattened like `dev_services`.',
    `extra` STRING COMMENT 'JSON object of fields outside the contract; null when none.',
    `size_bytes` BIGINT COMMENT '`size` x 1024.',
    `arch_normalised` STRING COMMENT '`arch` in lower case.',
    `registry` STRING COMMENT 'Host part of `swr_path`.',
    `repository` STRING COMMENT 'Repository part of `swr_path`, without registry, namespace and tag.',
    `content_hash` STRING COMMENT 'SHA-256 of the API\'s content; does not depend on the order of keys or list elements.'
)
PARTITIONED BY (`project` STRING)
STORED AS PARQUET
LOCATION 's3://bucket/lake/image_history/';
MSCK REPAIR TABLE image_snapshots.image_history;

CREATE EXTERNAL TABLE IF NOT EXISTS image_snapshots.image_changes (
    `snapshot_date` DATE COMMENT 'Day (UTC) on which the API was asked.',
    `project_id` STRING COMMENT 'Project id in the cloud, as used in the URL.',
    `id` STRING COMMENT 'Image id in lower case.',
    `change` STRING COMMENT 'added, changed, removed or reappeared.',
    `field` STRING COMMENT 'Name of the changed column of `images`; `outcome` where the whole image came or went.',
    `old_value` STRING COMMENT 'Value before, as text; timestamps in ISO 8601 (UTC).',
    `new_value` STRING COMMENT 'Value since; for `outcome` it is ok, or why the image is gone: deleted, not_found, not_in_inventory.',
    `change_class` STRING COMMENT 'lifecycle, access, content or metadata.',
    `compared_with` DATE COMMENT 'The complete day that was compared with.',
    `name` STRING COMMENT 'Image name since the change, or last known.',
    `owner` STRING COMMENT 'Owner stated by the inventory of that day.',
    `cost_center` STRING COMMENT 'Cost centre stated by the inventory of that day.',
    `environment` STRING COMMENT 'Environment stated by the inventory of that day.'
)
PARTITIONED BY (`dt` DATE, `project` STRING)
STORED AS PARQUET
LOCATION 's3://bucket/lake/image_changes/';
MSCK REPAIR TABLE image_snapshots.image_changes;

CREATE EXTERNAL TABLE IF NOT EXISTS image_snapshots.image_reconciliation (
    `snapshot_date` DATE COMMENT 'Day (UTC) on which the API was asked.',
    `project_id` STRING COMMENT 'Project id in the cloud, as used in the URL.',
    `id` STRING COMMENT 'Image id in lower case.',
    `kind` STRING COMMENT 'not_registered, or registered_but_gone.',
    `outcome` STRING COMMENT 'What the API answered for a registered id: deleted or not_found.',
    `name` STRING COMMENT 'Image name, as listed or last known.',
    `namespace` STRING COMMENT 'Registry organisation, as listed or last known.',
    `swr_path` STRING COMMENT 'Registry address, as listed or last known.',
    `visibility` STRING COMMENT 'Visibility, as listed or last known.',
    `size_bytes` BIGINT COMMENT 'Size in bytes, as listed or last known.',
    `owner` STRING COMMENT 'Owner stated by the inventory of that day.',
    `cost_center` STRING COMMENT 'Cost centre stated by the inventory of that day.',
    `environment` STRING COMMENT 'Environment stated by the inventory of that day.',
    `likely_owner` STRING COMMENT 'The one owner of all registered images of the namespace; null otherwise.'
)
PARTITIONED BY (`dt` DATE, `project` STRING)
STORED AS PARQUET
LOCATION 's3://bucket/lake/image_reconciliation/';
MSCK REPAIR TABLE image_snapshots.image_reconciliation;

CREATE EXTERNAL TABLE IF NOT EXISTS image_snapshots.image_usage (
    `snapshot_date` DATE COMMENT 'Day (UTC) on which the API was asked.',
    `project_id` STRING COMMENT 'Project id in the cloud, as used in the URL.',
    `id` STRING COMMENT 'Image id in lower case.',
    `notebooks` BIGINT COMMENT 'Notebooks of that image, whatever their status; null when not observed.',
    `running_notebooks` BIGINT COMMENT 'Those with status RUNNING; null when not observed.',
    `is_observed` BOOLEAN COMMENT 'Whether the day is complete and all notebooks were read.',
    `last_used_date` DATE COMMENT 'Last observed day with a notebook; null when there was none.',
    `observed_days` BIGINT COMMENT 'Observed days since the image was first known, or came back after a complete day without it.',
    `unused_days` BIGINT COMMENT 'Those of the observed days that came after the last one with a notebook.'
)
PARTITIONED BY (`dt` DATE, `project` STRING)
STORED AS PARQUET
LOCATION 's3://bucket/lake/image_usage/';
MSCK REPAIR TABLE image_snapshots.image_usage;

CREATE EXTERNAL TABLE IF NOT EXISTS image_snapshots.audit_rules (
    `snapshot_date` DATE COMMENT 'Day (UTC) on which the API was asked.',
    `project_id` STRING COMMENT 'Project id in the cloud, as used in the URL.',
    `rule` STRING COMMENT 'Id of the rule; directory and file where another has that id.',
    `title` STRING COMMENT 'What it finds, in a few words.',
    `severity` STRING COMMENT 'critical, high, medium, low or info.',
    `why` STRING COMMENT 'Why it matters.',
    `what_to_do` STRING COMMENT 'What to do about a finding.',
    `findings` BIGINT COMMENT 'Open findings, suppressed ones included; null when the rule failed.',
    `error` STRING COMMENT 'Why the rule could not be applied; null when it was.',
    `sql_sha256` STRING COMMENT 'SHA-256 of the rule\'s file; null when it could not be read.'
)
PARTITIONED BY (`dt` DATE, `project` STRING)
STORED AS PARQUET
LOCATION 's3://bucket/lake/audit_rules/';
MSCK REPAIR TABLE image_snapshots.audit_rules;

CREATE EXTERNAL TABLE IF NOT EXISTS image_snapshots.audit_findings (
    `snapshot_date` DATE COMMENT 'Day (UTC) on which the API was asked.',
    `project_id` STRING COMMENT 'Project id in the cloud, as used in the URL.',
    `finding_id` STRING COMMENT 'The same on all days, for project, rule and image.',
    `rule` STRING COMMENT 'Id of the rule.',
    `severity` STRING COMMENT 'critical, high, medium, low or info.',
    `title` STRING COMMENT 'What the rule finds, in a few words.',
    `id` STRING COMMENT 'Image id in lower case.',
    `name` STRING COMMENT 'Image name, as last known.',
    `owner` STRING COMMENT 'Owner stated by the inventory of that day.',
    `cost_center` STRING COMMENT 'Cost centre stated by the inventory of that day.',
    `environment` STRING COMMENT 'Environment stated by the inventory of that day.',
    `state` STRING COMMENT 'new, open, or resolved (found on the last published day, and no more).',
    `first_seen` DATE COMMENT 'First day of the uninterrupted time it was found.',
    `days_open` BIGINT COMMENT 'Days from `first_seen` to the day, or to the day it was resolved.',
    `evidence` STRING COMMENT 'What the rule shows for it, as a JSON object.',
    `suppressed_until` DATE COMMENT 'Last day of a suppression that holds; null when none does.',
    `suppression_reason` STRING COMMENT 'Why it is suppressed.'
)
PARTITIONED BY (`dt` DATE, `project` STRING)
STORED AS PARQUET
LOCATION 's3://bucket/lake/audit_findings/';
MSCK REPAIR TABLE image_snapshots.audit_findings;

CREATE EXTERNAL TABLE IF NOT EXISTS image_snapshots.image_costs (
    `snapshot_date` DATE COMMENT 'Day (UTC) on which the API was asked.',
    `project_id` STRING COMMENT 'Project id in the cloud, as used in the URL.',
    `id` STRING COMMENT 'Image id in lower case.',
    `name` STRING COMMENT 'Image name.',
    `namespace` STRING COMMENT 'Registry organisation.',
    `registry` STRING COMMENT 'Host part of the registry address.',
    `type` STRING COMMENT 'BUILD_IN or DEDICATED.',
    `owner` STRING COMMENT 'Owner stated by the inventory of that day.',
    `cost_center` STRING COMMENT 'Cost centre stated by the inventory of that day.',
    `environment` STRING COMMENT 'Environment stated by the inventory of that day.',
    `size_bytes` BIGINT COMMENT 'Size in bytes; null when the API states none.',
    `growth_bytes` BIGINT COMMENT 'Against the last complete day; the whole size for an image that is new; null when there is no such day, or a size is unknown.',
    `is_carried` BOOLEAN COMMENT 'Whether content is that of an earlier day, for lack of an answer.',
    `unit_price` DOUBLE COMMENT 'Price per GB-month (GB = 1024^3 bytes); null when the price book states none for the image.',
    `currency` STRING COMMENT 'ISO 4217 code.',
    `price_valid_from` DATE COMMENT 'The day from which the price book states that price.',
    `estimated_cost` DOUBLE COMMENT 'Estimated cost of the day: GB x unit price / days of the month; null without a price or a size.',
    `unused_days` BIGINT COMMENT 'As in `image_usage`; null when usage is not read.',
    `reclaimable_bytes` BIGINT COMMENT 'Upper bound of what deleting it would free (layers are shared): the size of an image unused for 30 days, 0 of others and of preset ones; null when usage is not read.'
)
PARTITIONED BY (`dt` DATE, `project` STRING)
STORED AS PARQUET
LOCATION 's3://bucket/lake/image_costs/';
MSCK REPAIR TABLE image_snapshots.image_costs;
