-- PostgreSQL: the tables that are loaded. The loader creates them, and adds the columns of later versions, by
-- itself; run this beforehand, and the SELECTs of views/ as views, to see what it will make.

CREATE TABLE "inventory" (
    "project" TEXT NOT NULL,
    "snapshot_date" DATE NOT NULL,
    "project_key" TEXT NOT NULL,
    "id" TEXT NOT NULL,
    "id_as_read" TEXT NOT NULL,
    "is_valid" BOOLEAN NOT NULL,
    "owner" TEXT,
    "cost_center" TEXT,
    "environment" TEXT,
    "attributes" TEXT,
    "id_source" TEXT NOT NULL,
    PRIMARY KEY ("project", "snapshot_date", "id")
);
COMMENT ON TABLE "inventory" IS 'The ids the pipeline was told to ask for, as read from the inventory source on that day.';
COMMENT ON COLUMN "inventory"."project" IS 'Partition key of the project.';
COMMENT ON COLUMN "inventory"."snapshot_date" IS 'Day (UTC) on which the API was asked.';
COMMENT ON COLUMN "inventory"."project_key" IS 'Partition key of the project.';
COMMENT ON COLUMN "inventory"."id" IS 'Image id, trimmed and in lower case.';
COMMENT ON COLUMN "inventory"."id_as_read" IS 'The id exactly as the source has it.';
COMMENT ON COLUMN "inventory"."is_valid" IS 'Whether the id is a UUID; others are never put into a URL.';
COMMENT ON COLUMN "inventory"."owner" IS 'Owner stated by the inventory.';
COMMENT ON COLUMN "inventory"."cost_center" IS 'Cost centre stated by the inventory.';
COMMENT ON COLUMN "inventory"."environment" IS 'Environment stated by the inventory.';
COMMENT ON COLUMN "inventory"."attributes" IS 'Further columns of the source, as a JSON object.';
COMMENT ON COLUMN "inventory"."id_source" IS 'inventory; or last_complete_day: the source did not show this id, and was not whole, so the id is asked for all the same, with what the inventory of that day said of it.';
CREATE TABLE "responses" (
    "project" TEXT NOT NULL,
    "snapshot_date" DATE NOT NULL,
    "project_id" TEXT NOT NULL,
    "id" TEXT NOT NULL,
    "outcome" TEXT NOT NULL,
    "http_status" INTEGER,
    "error_code" TEXT,
    "error_msg" TEXT,
    "attempts" INTEGER NOT NULL,
    "elapsed_ms" BIGINT NOT NULL,
    "observed_at" TIMESTAMP WITH TIME ZONE NOT NULL,
    "body_sha256" TEXT,
    "fetched_at" TIMESTAMP WITH TIME ZONE,
    "confirmed_at" TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY ("project", "snapshot_date", "id")
);
COMMENT ON TABLE "responses" IS 'Evidence: what the API answered for each inventory id, errors included.';
COMMENT ON COLUMN "responses"."project" IS 'Partition key of the project.';
COMMENT ON COLUMN "responses"."snapshot_date" IS 'Day (UTC) on which the API was asked.';
COMMENT ON COLUMN "responses"."project_id" IS 'Project id in the cloud, as used in the URL.';
COMMENT ON COLUMN "responses"."id" IS 'Image id in lower case.';
COMMENT ON COLUMN "responses"."outcome" IS 'ok; deleted (answered with status DELETED); not_found; forbidden; failed; invalid_id (never sent).';
COMMENT ON COLUMN "responses"."http_status" IS 'HTTP status of the last answer; null when none came.';
COMMENT ON COLUMN "responses"."error_code" IS 'Error code of the API, or ours for what is no answer.';
COMMENT ON COLUMN "responses"."error_msg" IS 'Error message that goes with `error_code`.';
COMMENT ON COLUMN "responses"."attempts" IS 'Requests sent for this id.';
COMMENT ON COLUMN "responses"."elapsed_ms" IS 'First request to last answer, in milliseconds.';
COMMENT ON COLUMN "responses"."observed_at" IS 'When the last answer (or its absence) was observed.';
COMMENT ON COLUMN "responses"."body_sha256" IS 'SHA-256 of `body`, in hexadecimal.';
COMMENT ON COLUMN "responses"."fetched_at" IS 'When this answer was fetched; null when nothing was sent.';
COMMENT ON COLUMN "responses"."confirmed_at" IS 'Set on an answer of an earlier day that was carried forward: when a page of the API''s list confirmed it.';
CREATE TABLE "images" (
    "project" TEXT NOT NULL,
    "snapshot_date" DATE NOT NULL,
    "project_id" TEXT NOT NULL,
    "id" TEXT NOT NULL,
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
    "observed_at" TIMESTAMP WITH TIME ZONE NOT NULL,
    "response_sha256" TEXT NOT NULL,
    "content_hash" TEXT NOT NULL,
    "extra" TEXT,
    "anomalies" TEXT,
    PRIMARY KEY ("project", "snapshot_date", "id")
);
COMMENT ON TABLE "images" IS 'The snapshot: one row per id that the API described on that day.';
COMMENT ON COLUMN "images"."project" IS 'Partition key of the project.';
COMMENT ON COLUMN "images"."snapshot_date" IS 'Day (UTC) on which the API was asked.';
COMMENT ON COLUMN "images"."project_id" IS 'Project id in the cloud, as used in the URL.';
COMMENT ON COLUMN "images"."id" IS 'Image id in lower case.';
COMMENT ON COLUMN "images"."name" IS 'Image name.';
COMMENT ON COLUMN "images"."namespace" IS 'Registry (SWR) organisation the image belongs to.';
COMMENT ON COLUMN "images"."swr_path" IS 'Registry address, host/namespace/repository:tag.';
COMMENT ON COLUMN "images"."tag" IS 'Image tag.';
COMMENT ON COLUMN "images"."arch" IS 'Processor architecture as sent; letter case varies (see `arch_normalised`).';
COMMENT ON COLUMN "images"."type" IS 'BUILD_IN (preset) or DEDICATED (saved by a user).';
COMMENT ON COLUMN "images"."origin" IS 'CUSTOMIZE, or IMAGE_SAVE (saved from a notebook).';
COMMENT ON COLUMN "images"."service_type" IS 'COMMON, INFERENCE, TRAIN, DEV or UNKNOWN.';
COMMENT ON COLUMN "images"."status" IS 'INIT, CREATING, CREATE_FAILED, ERROR, DELETED or ACTIVE.';
COMMENT ON COLUMN "images"."status_message" IS 'Build information.';
COMMENT ON COLUMN "images"."visibility" IS 'PRIVATE, or PUBLIC (any user may read the image by its id).';
COMMENT ON COLUMN "images"."workspace_id" IS 'Workspace; ''0'' is the default one.';
COMMENT ON COLUMN "images"."flavor_type" IS 'Resource type; free text.';
COMMENT ON COLUMN "images"."description" IS 'Free text.';
COMMENT ON COLUMN "images"."size" IS 'Image size in KB, as sent.';
COMMENT ON COLUMN "images"."create_at" IS 'When the image was created (UTC).';
COMMENT ON COLUMN "images"."update_at" IS 'When the image was last updated (UTC).';
COMMENT ON COLUMN "images"."dev_services" IS 'Sorted, de-duplicated, joined with ''|'': '''' for an empty list, null for none.';
COMMENT ON COLUMN "images"."resource_categories" IS 'Resources the image may use, flattened like `dev_services`.';
COMMENT ON COLUMN "images"."support_res_categories" IS 'Resources the image supports, flattened like `dev_services`.';
COMMENT ON COLUMN "images"."size_bytes" IS '`size` x 1024.';
COMMENT ON COLUMN "images"."supports_notebook" IS '`dev_services` has NOTEBOOK; null when there was no list.';
COMMENT ON COLUMN "images"."supports_ssh" IS '`dev_services` has SSH; null when there was no list.';
COMMENT ON COLUMN "images"."supports_cpu" IS 'A category list has CPU; null when there was neither list.';
COMMENT ON COLUMN "images"."supports_gpu" IS 'A category list has GPU; null when there was neither list.';
COMMENT ON COLUMN "images"."supports_ascend" IS 'A category list has ASCEND; null when there was neither list.';
COMMENT ON COLUMN "images"."arch_normalised" IS '`arch` in lower case.';
COMMENT ON COLUMN "images"."registry" IS 'Host part of `swr_path`.';
COMMENT ON COLUMN "images"."repository" IS 'Repository part of `swr_path`, without registry, namespace and tag.';
COMMENT ON COLUMN "images"."age_days" IS 'Whole days from `create_at` to `snapshot_date` (both as UTC dates).';
COMMENT ON COLUMN "images"."days_since_update" IS 'Whole days from `update_at` to `snapshot_date`.';
COMMENT ON COLUMN "images"."observed_at" IS 'When the API gave this answer (UTC).';
COMMENT ON COLUMN "images"."response_sha256" IS '`body_sha256` of the row in `responses`.';
COMMENT ON COLUMN "images"."content_hash" IS 'SHA-256 of the API''s content; does not depend on the order of keys or list elements.';
COMMENT ON COLUMN "images"."extra" IS 'JSON object of fields outside the contract; null when none.';
COMMENT ON COLUMN "images"."anomalies" IS '''|''-joined field:problem names of what was repaired or could not be read; null when none.';
CREATE TABLE "image_values" (
    "project" TEXT NOT NULL,
    "snapshot_date" DATE NOT NULL,
    "project_id" TEXT NOT NULL,
    "id" TEXT NOT NULL,
    "field" TEXT NOT NULL,
    "position" INTEGER NOT NULL,
    "value" TEXT NOT NULL,
    PRIMARY KEY ("project", "snapshot_date", "id", "field", "position")
);
COMMENT ON TABLE "image_values" IS 'The list fields of `images`, one row per element, in the order of the API.';
COMMENT ON COLUMN "image_values"."project" IS 'Partition key of the project.';
COMMENT ON COLUMN "image_values"."snapshot_date" IS 'Day (UTC) on which the API was asked.';
COMMENT ON COLUMN "image_values"."project_id" IS 'Project id in the cloud, as used in the URL.';
COMMENT ON COLUMN "image_values"."id" IS 'Image id in lower case.';
COMMENT ON COLUMN "image_values"."field" IS 'Name of the list field.';
COMMENT ON COLUMN "image_values"."position" IS 'Position in the list, from 0.';
COMMENT ON COLUMN "image_values"."value" IS 'The element; JSON text where the element is no string.';
CREATE TABLE "image_changes" (
    "project" TEXT NOT NULL,
    "snapshot_date" DATE NOT NULL,
    "project_id" TEXT NOT NULL,
    "id" TEXT NOT NULL,
    "change" TEXT NOT NULL,
    "field" TEXT NOT NULL,
    "old_value" TEXT,
    "new_value" TEXT,
    "change_class" TEXT NOT NULL,
    "compared_with" DATE NOT NULL,
    "name" TEXT,
    "owner" TEXT,
    "cost_center" TEXT,
    "environment" TEXT,
    PRIMARY KEY ("project", "snapshot_date", "id", "change", "field")
);
COMMENT ON TABLE "image_changes" IS 'What changed against the project''s last complete day, one row per changed field; empty for a day that is not complete, whose changes show on the next complete one.';
COMMENT ON COLUMN "image_changes"."project" IS 'Partition key of the project.';
COMMENT ON COLUMN "image_changes"."snapshot_date" IS 'Day (UTC) on which the API was asked.';
COMMENT ON COLUMN "image_changes"."project_id" IS 'Project id in the cloud, as used in the URL.';
COMMENT ON COLUMN "image_changes"."id" IS 'Image id in lower case.';
COMMENT ON COLUMN "image_changes"."change" IS 'added, changed, removed or reappeared.';
COMMENT ON COLUMN "image_changes"."field" IS 'Name of the changed column of `images`; `outcome` where the whole image came or went.';
COMMENT ON COLUMN "image_changes"."old_value" IS 'Value before, as text; timestamps in ISO 8601 (UTC).';
COMMENT ON COLUMN "image_changes"."new_value" IS 'Value since; for `outcome` it is ok, or why the image is gone: deleted, not_found, not_in_inventory.';
COMMENT ON COLUMN "image_changes"."change_class" IS 'lifecycle, access, content or metadata.';
COMMENT ON COLUMN "image_changes"."compared_with" IS 'The complete day that was compared with.';
COMMENT ON COLUMN "image_changes"."name" IS 'Image name since the change, or last known.';
COMMENT ON COLUMN "image_changes"."owner" IS 'Owner stated by the inventory of that day.';
COMMENT ON COLUMN "image_changes"."cost_center" IS 'Cost centre stated by the inventory of that day.';
COMMENT ON COLUMN "image_changes"."environment" IS 'Environment stated by the inventory of that day.';
CREATE TABLE "image_reconciliation" (
    "project" TEXT NOT NULL,
    "snapshot_date" DATE NOT NULL,
    "project_id" TEXT NOT NULL,
    "id" TEXT NOT NULL,
    "kind" TEXT NOT NULL,
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
    PRIMARY KEY ("project", "snapshot_date", "id")
);
COMMENT ON TABLE "image_reconciliation" IS 'The inventory against the API''s own list: images that nobody registered, and registrations without an image.';
COMMENT ON COLUMN "image_reconciliation"."project" IS 'Partition key of the project.';
COMMENT ON COLUMN "image_reconciliation"."snapshot_date" IS 'Day (UTC) on which the API was asked.';
COMMENT ON COLUMN "image_reconciliation"."project_id" IS 'Project id in the cloud, as used in the URL.';
COMMENT ON COLUMN "image_reconciliation"."id" IS 'Image id in lower case.';
COMMENT ON COLUMN "image_reconciliation"."kind" IS 'not_registered, or registered_but_gone.';
COMMENT ON COLUMN "image_reconciliation"."outcome" IS 'What the API answered for a registered id: deleted or not_found.';
COMMENT ON COLUMN "image_reconciliation"."name" IS 'Image name, as listed or last known.';
COMMENT ON COLUMN "image_reconciliation"."namespace" IS 'Registry organisation, as listed or last known.';
COMMENT ON COLUMN "image_reconciliation"."swr_path" IS 'Registry address, as listed or last known.';
COMMENT ON COLUMN "image_reconciliation"."visibility" IS 'Visibility, as listed or last known.';
COMMENT ON COLUMN "image_reconciliation"."size_bytes" IS 'Size in bytes, as listed or last known.';
COMMENT ON COLUMN "image_reconciliation"."owner" IS 'Owner stated by the inventory of that day.';
COMMENT ON COLUMN "image_reconciliation"."cost_center" IS 'Cost centre stated by the inventory of that day.';
COMMENT ON COLUMN "image_reconciliation"."environment" IS 'Environment stated by the inventory of that day.';
COMMENT ON COLUMN "image_reconciliation"."likely_owner" IS 'The one owner of all registered images of the namespace; null otherwise.';
CREATE TABLE "image_usage" (
    "project" TEXT NOT NULL,
    "snapshot_date" DATE NOT NULL,
    "project_id" TEXT NOT NULL,
    "id" TEXT NOT NULL,
    "notebooks" BIGINT,
    "running_notebooks" BIGINT,
    "is_observed" BOOLEAN NOT NULL,
    "last_used_date" DATE,
    "observed_days" BIGINT NOT NULL,
    "unused_days" BIGINT NOT NULL,
    PRIMARY KEY ("project", "snapshot_date", "id")
);
COMMENT ON TABLE "image_usage" IS 'How many notebooks run each known image, and for how many complete days none did; empty while usage is not read.';
COMMENT ON COLUMN "image_usage"."project" IS 'Partition key of the project.';
COMMENT ON COLUMN "image_usage"."snapshot_date" IS 'Day (UTC) on which the API was asked.';
COMMENT ON COLUMN "image_usage"."project_id" IS 'Project id in the cloud, as used in the URL.';
COMMENT ON COLUMN "image_usage"."id" IS 'Image id in lower case.';
COMMENT ON COLUMN "image_usage"."notebooks" IS 'Notebooks of that image, whatever their status; null when not observed.';
COMMENT ON COLUMN "image_usage"."running_notebooks" IS 'Those with status RUNNING; null when not observed.';
COMMENT ON COLUMN "image_usage"."is_observed" IS 'Whether the day is complete and all notebooks were read.';
COMMENT ON COLUMN "image_usage"."last_used_date" IS 'Last observed day with a notebook; null when there was none.';
COMMENT ON COLUMN "image_usage"."observed_days" IS 'Observed days since the image was first known, or came back after a complete day without it.';
COMMENT ON COLUMN "image_usage"."unused_days" IS 'Those of the observed days that came after the last one with a notebook.';
CREATE TABLE "audit_rules" (
    "project" TEXT NOT NULL,
    "snapshot_date" DATE NOT NULL,
    "project_id" TEXT NOT NULL,
    "rule" TEXT NOT NULL,
    "title" TEXT,
    "severity" TEXT,
    "why" TEXT,
    "what_to_do" TEXT,
    "findings" BIGINT,
    "error" TEXT,
    "sql_sha256" TEXT,
    PRIMARY KEY ("project", "snapshot_date", "rule")
);
COMMENT ON TABLE "audit_rules" IS 'The audit rules that were applied, and what became of each.';
COMMENT ON COLUMN "audit_rules"."project" IS 'Partition key of the project.';
COMMENT ON COLUMN "audit_rules"."snapshot_date" IS 'Day (UTC) on which the API was asked.';
COMMENT ON COLUMN "audit_rules"."project_id" IS 'Project id in the cloud, as used in the URL.';
COMMENT ON COLUMN "audit_rules"."rule" IS 'Id of the rule; directory and file where another has that id.';
COMMENT ON COLUMN "audit_rules"."title" IS 'What it finds, in a few words.';
COMMENT ON COLUMN "audit_rules"."severity" IS 'critical, high, medium, low or info.';
COMMENT ON COLUMN "audit_rules"."why" IS 'Why it matters.';
COMMENT ON COLUMN "audit_rules"."what_to_do" IS 'What to do about a finding.';
COMMENT ON COLUMN "audit_rules"."findings" IS 'Open findings, suppressed ones included; null when the rule failed.';
COMMENT ON COLUMN "audit_rules"."error" IS 'Why the rule could not be applied; null when it was.';
COMMENT ON COLUMN "audit_rules"."sql_sha256" IS 'SHA-256 of the rule''s file; null when it could not be read.';
CREATE TABLE "audit_findings" (
    "project" TEXT NOT NULL,
    "snapshot_date" DATE NOT NULL,
    "project_id" TEXT NOT NULL,
    "finding_id" TEXT NOT NULL,
    "rule" TEXT NOT NULL,
    "severity" TEXT NOT NULL,
    "title" TEXT NOT NULL,
    "id" TEXT NOT NULL,
    "name" TEXT,
    "owner" TEXT,
    "cost_center" TEXT,
    "environment" TEXT,
    "state" TEXT NOT NULL,
    "first_seen" DATE NOT NULL,
    "days_open" BIGINT NOT NULL,
    "evidence" TEXT NOT NULL,
    "suppressed_until" DATE,
    "suppression_reason" TEXT,
    PRIMARY KEY ("project", "snapshot_date", "finding_id")
);
COMMENT ON TABLE "audit_findings" IS 'What the audit rules found, and what they found on the last published day and no more.';
COMMENT ON COLUMN "audit_findings"."project" IS 'Partition key of the project.';
COMMENT ON COLUMN "audit_findings"."snapshot_date" IS 'Day (UTC) on which the API was asked.';
COMMENT ON COLUMN "audit_findings"."project_id" IS 'Project id in the cloud, as used in the URL.';
COMMENT ON COLUMN "audit_findings"."finding_id" IS 'The same on all days, for project, rule and image.';
COMMENT ON COLUMN "audit_findings"."rule" IS 'Id of the rule.';
COMMENT ON COLUMN "audit_findings"."severity" IS 'critical, high, medium, low or info.';
COMMENT ON COLUMN "audit_findings"."title" IS 'What the rule finds, in a few words.';
COMMENT ON COLUMN "audit_findings"."id" IS 'Image id in lower case.';
COMMENT ON COLUMN "audit_findings"."name" IS 'Image name, as last known.';
COMMENT ON COLUMN "audit_findings"."owner" IS 'Owner stated by the inventory of that day.';
COMMENT ON COLUMN "audit_findings"."cost_center" IS 'Cost centre stated by the inventory of that day.';
COMMENT ON COLUMN "audit_findings"."environment" IS 'Environment stated by the inventory of that day.';
COMMENT ON COLUMN "audit_findings"."state" IS 'new, open, or resolved (found on the last published day, and no more).';
COMMENT ON COLUMN "audit_findings"."first_seen" IS 'First day of the uninterrupted time it was found.';
COMMENT ON COLUMN "audit_findings"."days_open" IS 'Days from `first_seen` to the day, or to the day it was resolved.';
COMMENT ON COLUMN "audit_findings"."evidence" IS 'What the rule shows for it, as a JSON object.';
COMMENT ON COLUMN "audit_findings"."suppressed_until" IS 'Last day of a suppression that holds; null when none does.';
COMMENT ON COLUMN "audit_findings"."suppression_reason" IS 'Why it is suppressed.';
CREATE TABLE "image_costs" (
    "project" TEXT NOT NULL,
    "snapshot_date" DATE NOT NULL,
    "project_id" TEXT NOT NULL,
    "id" TEXT NOT NULL,
    "name" TEXT,
    "namespace" TEXT,
    "registry" TEXT,
    "type" TEXT,
    "owner" TEXT,
    "cost_center" TEXT,
    "environment" TEXT,
    "size_bytes" BIGINT,
    "growth_bytes" BIGINT,
    "is_carried" BOOLEAN NOT NULL,
    "unit_price" DOUBLE PRECISION,
    "currency" TEXT NOT NULL,
    "price_valid_from" DATE,
    "estimated_cost" DOUBLE PRECISION,
    "unused_days" BIGINT,
    "reclaimable_bytes" BIGINT,
    PRIMARY KEY ("project", "snapshot_date", "id")
);
COMMENT ON TABLE "image_costs" IS 'What each known image weighs and what that would cost on that day by the price book: an estimate, no bill.';
COMMENT ON COLUMN "image_costs"."project" IS 'Partition key of the project.';
COMMENT ON COLUMN "image_costs"."snapshot_date" IS 'Day (UTC) on which the API was asked.';
COMMENT ON COLUMN "image_costs"."project_id" IS 'Project id in the cloud, as used in the URL.';
COMMENT ON COLUMN "image_costs"."id" IS 'Image id in lower case.';
COMMENT ON COLUMN "image_costs"."name" IS 'Image name.';
COMMENT ON COLUMN "image_costs"."namespace" IS 'Registry organisation.';
COMMENT ON COLUMN "image_costs"."registry" IS 'Host part of the registry address.';
COMMENT ON COLUMN "image_costs"."type" IS 'BUILD_IN or DEDICATED.';
COMMENT ON COLUMN "image_costs"."owner" IS 'Owner stated by the inventory of that day.';
COMMENT ON COLUMN "image_costs"."cost_center" IS 'Cost centre stated by the inventory of that day.';
COMMENT ON COLUMN "image_costs"."environment" IS 'Environment stated by the inventory of that day.';
COMMENT ON COLUMN "image_costs"."size_bytes" IS 'Size in bytes; null when the API states none.';
COMMENT ON COLUMN "image_costs"."growth_bytes" IS 'Against the last complete day; the whole size for an image that is new; null when there is no such day, or a size is unknown.';
COMMENT ON COLUMN "image_costs"."is_carried" IS 'Whether content is that of an earlier day, for lack of an answer.';
COMMENT ON COLUMN "image_costs"."unit_price" IS 'Price per GB-month (GB = 1024^3 bytes); null when the price book states none for the image.';
COMMENT ON COLUMN "image_costs"."currency" IS 'ISO 4217 code.';
COMMENT ON COLUMN "image_costs"."price_valid_from" IS 'The day from which the price book states that price.';
COMMENT ON COLUMN "image_costs"."estimated_cost" IS 'Estimated cost of the day: GB x unit price / days of the month; null without a price or a size.';
COMMENT ON COLUMN "image_costs"."unused_days" IS 'As in `image_usage`; null when usage is not read.';
COMMENT ON COLUMN "image_costs"."reclaimable_bytes" IS 'Upper bound of what deleting it would free (layers are shared): the size of an image unused for 30 days, 0 of others and of preset ones; null when usage is not read.';
CREATE TABLE "image_history" (
    "project" TEXT NOT NULL,
    "project_id" TEXT NOT NULL,
    "id" TEXT NOT NULL,
    "valid_from" DATE NOT NULL,
    "valid_to" DATE,
    "is_current" BOOLEAN NOT NULL,
    "is_deleted" BOOLEAN NOT NULL,
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
    "content_hash" TEXT NOT NULL,
    PRIMARY KEY ("project", "id", "valid_from")
);
COMMENT ON TABLE "image_history" IS 'Every version of every image of a project (slowly changing dimension, type 2), from its complete days: a version holds from `valid_from` until the day before `valid_to`.';
COMMENT ON COLUMN "image_history"."project" IS 'Partition key of the project.';
COMMENT ON COLUMN "image_history"."project_id" IS 'Project id in the cloud, as used in the URL.';
COMMENT ON COLUMN "image_history"."id" IS 'Image id in lower case.';
COMMENT ON COLUMN "image_history"."valid_from" IS 'Complete day on which this version was first seen.';
COMMENT ON COLUMN "image_history"."valid_to" IS 'Complete day on which it was first seen no more; null for the last version.';
COMMENT ON COLUMN "image_history"."is_current" IS 'Whether this is the last version of the image.';
COMMENT ON COLUMN "image_history"."is_deleted" IS 'Whether the image is gone; content is the last that was known.';
COMMENT ON COLUMN "image_history"."deleted_reason" IS 'deleted or not_found (the API said so), or not_in_inventory.';
COMMENT ON COLUMN "image_history"."name" IS 'Image name.';
COMMENT ON COLUMN "image_history"."namespace" IS 'Registry (SWR) organisation the image belongs to.';
COMMENT ON COLUMN "image_history"."swr_path" IS 'Registry address, host/namespace/repository:tag.';
COMMENT ON COLUMN "image_history"."tag" IS 'Image tag.';
COMMENT ON COLUMN "image_history"."arch" IS 'Processor architecture as sent; letter case varies (see `arch_normalised`).';
COMMENT ON COLUMN "image_history"."type" IS 'BUILD_IN (preset) or DEDICATED (saved by a user).';
COMMENT ON COLUMN "image_history"."origin" IS 'CUSTOMIZE, or IMAGE_SAVE (saved from a notebook).';
COMMENT ON COLUMN "image_history"."service_type" IS 'COMMON, INFERENCE, TRAIN, DEV or UNKNOWN.';
COMMENT ON COLUMN "image_history"."status" IS 'INIT, CREATING, CREATE_FAILED, ERROR, DELETED or ACTIVE.';
COMMENT ON COLUMN "image_history"."status_message" IS 'Build information.';
COMMENT ON COLUMN "image_history"."visibility" IS 'PRIVATE, or PUBLIC (any user may read the image by its id).';
COMMENT ON COLUMN "image_history"."workspace_id" IS 'Workspace; ''0'' is the default one.';
COMMENT ON COLUMN "image_history"."flavor_type" IS 'Resource type; free text.';
COMMENT ON COLUMN "image_history"."description" IS 'Free text.';
COMMENT ON COLUMN "image_history"."size" IS 'Image size in KB, as sent.';
COMMENT ON COLUMN "image_history"."create_at" IS 'When the image was created (UTC).';
COMMENT ON COLUMN "image_history"."update_at" IS 'When the image was last updated (UTC).';
COMMENT ON COLUMN "image_history"."dev_services" IS 'Sorted, de-duplicated, joined with ''|'': '''' for an empty list, null for none.';
COMMENT ON COLUMN "image_history"."resource_categories" IS 'Resources the image may use, flattened like `dev_services`.';
COMMENT ON COLUMN "image_history"."support_res_categories" IS 'Resources the image supports, flattened like `dev_services`.';
COMMENT ON COLUMN "image_history"."extra" IS 'JSON object of fields outside the contract; null when none.';
COMMENT ON COLUMN "image_history"."size_bytes" IS '`size` x 1024.';
COMMENT ON COLUMN "image_history"."arch_normalised" IS '`arch` in lower case.';
COMMENT ON COLUMN "image_history"."registry" IS 'Host part of `swr_path`.';
COMMENT ON COLUMN "image_history"."repository" IS 'Repository part of `swr_path`, without registry, namespace and tag.';
COMMENT ON COLUMN "image_history"."content_hash" IS 'SHA-256 of the API''s content; does not depend on the order of keys or list elements.';
CREATE TABLE "days" (
    "project" TEXT NOT NULL,
    "snapshot_date" DATE NOT NULL,
    "project_id" TEXT NOT NULL,
    "is_complete" BOOLEAN NOT NULL,
    "is_sandbox" BOOLEAN NOT NULL,
    "mode" TEXT NOT NULL,
    "run_id" TEXT NOT NULL,
    "published_at" TIMESTAMP WITH TIME ZONE NOT NULL,
    "ok" BIGINT NOT NULL,
    "deleted" BIGINT NOT NULL,
    "not_found" BIGINT NOT NULL,
    "forbidden" BIGINT NOT NULL,
    "failed" BIGINT NOT NULL,
    "invalid_id" BIGINT NOT NULL,
    "manifest_sha256" TEXT NOT NULL,
    "basis" TEXT NOT NULL,
    "inventory_is_whole" BOOLEAN NOT NULL,
    PRIMARY KEY ("project", "snapshot_date")
);
COMMENT ON TABLE "days" IS 'The days that are loaded, one row for each day and project, from the manifest.';
COMMENT ON COLUMN "days"."project" IS 'Partition key of the project.';
COMMENT ON COLUMN "days"."snapshot_date" IS 'Day (UTC) on which the API was asked.';
COMMENT ON COLUMN "days"."project_id" IS 'Project id in the cloud, as used in the URL.';
COMMENT ON COLUMN "days"."is_complete" IS 'Whether every id got an answer.';
COMMENT ON COLUMN "days"."is_sandbox" IS 'Whether the embedded sandbox stood in for a cloud.';
COMMENT ON COLUMN "days"."mode" IS 'full, or changed (unchanged answers were carried forward).';
COMMENT ON COLUMN "days"."run_id" IS 'Run that published the day.';
COMMENT ON COLUMN "days"."published_at" IS 'When the day was published (UTC).';
COMMENT ON COLUMN "days"."ok" IS 'Ids of the inventory with the outcome ok.';
COMMENT ON COLUMN "days"."deleted" IS 'Ids of the inventory with the outcome deleted.';
COMMENT ON COLUMN "days"."not_found" IS 'Ids of the inventory with the outcome not_found.';
COMMENT ON COLUMN "days"."forbidden" IS 'Ids of the inventory with the outcome forbidden.';
COMMENT ON COLUMN "days"."failed" IS 'Ids of the inventory with the outcome failed.';
COMMENT ON COLUMN "days"."invalid_id" IS 'Ids of the inventory with the outcome invalid_id.';
COMMENT ON COLUMN "days"."manifest_sha256" IS 'SHA-256 of the day''s manifest.';
COMMENT ON COLUMN "days"."basis" IS 'Hash over the manifests that the derived tables come from.';
COMMENT ON COLUMN "days"."inventory_is_whole" IS 'Whether what the inventory of the day lacks counts as gone.';
