"""Defines all tables of the lake: name, Arrow type, origin and meaning of each column; and the outcomes.

Arrow schemas, Dagster's column metadata, the data dictionary and warehouse DDL are generated from here. Add new columns
at the end of their table, and raise `SCHEMA_VERSION`. Code that computes columns does not belong here.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import pyarrow as pa

SCHEMA_VERSION = 4

Origin = Literal["key", "inventory", "api", "derived", "provenance"]

TIMESTAMP = pa.timestamp("us", tz="UTC")


class Outcome(StrEnum):
    """The result of the request for one inventory id."""

    OK = "ok"
    DELETED = "deleted"
    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    FAILED = "failed"
    INVALID_ID = "invalid_id"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `origin` is the source of its values; a `required` column is never null."""

    name: str
    type: pa.DataType
    origin: Origin
    meaning: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the lake. `key` identifies a row over all days and projects."""

    name: str
    meaning: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema, in column order."""
        return pa.schema([pa.field(c.name, c.type, nullable=not c.required) for c in self.columns])


_SNAPSHOT_DATE = Column("snapshot_date", pa.date32(), "key", "Day (UTC) of the snapshot.", True)
_PROJECT_ID = Column("project_id", pa.string(), "key", "Project id in the cloud, as used in the URL.", True)
_ID = Column("id", pa.string(), "key", "Image id in lower case.", True)


def _api(name: str, meaning: str, type_: pa.DataType | None = None) -> Column:
    return Column(name, type_ or pa.string(), "api", meaning)


def _derived(name: str, type_: pa.DataType, meaning: str) -> Column:
    return Column(name, type_, "derived", meaning)


INVENTORY = Table(
    "inventory",
    "The image ids of the day's inventory, as read from its source.",
    ("snapshot_date", "project_key", "id"),
    (
        _SNAPSHOT_DATE,
        Column("project_key", pa.string(), "key", "Key of the project (half of the partition key).", True),
        Column("id", pa.string(), "key", "Image id, trimmed and in lower case.", True),
        Column("id_as_read", pa.string(), "inventory", "The id exactly as the source has it.", True),
        Column(
            "is_valid",
            pa.bool_(),
            "derived",
            "Whether the id is a UUID; other ids are never sent.",
            True,
        ),
        Column("owner", pa.string(), "inventory", "Owner stated by the inventory."),
        Column("cost_center", pa.string(), "inventory", "Cost centre stated by the inventory."),
        Column("environment", pa.string(), "inventory", "Environment stated by the inventory."),
        Column("attributes", pa.string(), "inventory", "Further columns of the source, as a JSON object."),
        Column(
            "id_source",
            pa.string(),
            "provenance",
            "inventory; or last_complete_day: the inventory was not whole and lacked this id, so it was taken from the "
            "last complete day's inventory, with its owner and attributes.",
            True,
        ),
    ),
)

RESPONSES = Table(
    "responses",
    "Evidence: the API's response for each inventory id, including errors.",
    ("snapshot_date", "project_id", "id"),
    (
        _SNAPSHOT_DATE,
        _PROJECT_ID,
        _ID,
        Column(
            "outcome",
            pa.string(),
            "provenance",
            "ok; deleted (the API reports status DELETED); not_found; forbidden; failed; invalid_id (never sent).",
            True,
        ),
        Column("http_status", pa.int32(), "provenance", "HTTP status of the last response; null if none came."),
        Column(
            "error_code", pa.string(), "provenance", "Error code of the API; or our own (`client.*`) if there is none."
        ),
        Column("error_msg", pa.string(), "provenance", "Error message for `error_code`."),
        Column("attempts", pa.int32(), "provenance", "Requests sent for this id.", True),
        Column(
            "elapsed_ms",
            pa.int64(),
            "provenance",
            "Time from the first request to the last response, in milliseconds.",
            True,
        ),
        Column(
            "observed_at",
            TIMESTAMP,
            "provenance",
            "When the last response came, or the last request failed.",
            True,
        ),
        Column(
            "body",
            pa.binary(),
            "provenance",
            "Body of the last response, byte for byte after transfer decoding.",
        ),
        Column("body_sha256", pa.string(), "provenance", "SHA-256 of `body`, in hexadecimal."),
        Column("fetched_at", TIMESTAMP, "provenance", "When this response was fetched; null if nothing was sent."),
        Column(
            "confirmed_at",
            TIMESTAMP,
            "provenance",
            "For a response carried over from an earlier day: when a page of the image list confirmed it.",
        ),
    ),
)

LIST_PAGES = Table(
    "list_pages",
    "Evidence: the pages of the image list. The inventory is compared with them, and on an incremental day they "
    "confirm responses of earlier days. Empty if the list was not read.",
    ("snapshot_date", "project_id", "page"),
    (
        _SNAPSHOT_DATE,
        _PROJECT_ID,
        Column("page", pa.int32(), "key", "Position of the page, from 0.", True),
        Column("observed_at", TIMESTAMP, "provenance", "When the page was received.", True),
        Column("body", pa.binary(), "provenance", "Body of the page, byte for byte after transfer decoding.", True),
        Column("body_sha256", pa.string(), "provenance", "SHA-256 of `body`, in hexadecimal.", True),
    ),
)

IMAGES = Table(
    "images",
    "The snapshot: one row per id that the API described on that day.",
    ("snapshot_date", "project_id", "id"),
    (
        _SNAPSHOT_DATE,
        _PROJECT_ID,
        _ID,
        _api("name", "Image name."),
        _api("namespace", "Registry (SWR) organisation of the image."),
        _api("swr_path", "Registry address, host/namespace/repository:tag."),
        _api("tag", "Image tag."),
        _api("arch", "Processor architecture as sent; letter case varies (see `arch_normalised`)."),
        _api("type", "BUILD_IN (preset) or DEDICATED (saved by a user)."),
        _api("origin", "CUSTOMIZE, or IMAGE_SAVE (saved from a notebook)."),
        _api("service_type", "COMMON, INFERENCE, TRAIN, DEV or UNKNOWN."),
        _api("status", "INIT, CREATING, CREATE_FAILED, ERROR, DELETED or ACTIVE."),
        _api("status_message", "Build information."),
        _api("visibility", "PRIVATE, or PUBLIC (any user may read the image by its id)."),
        _api("workspace_id", "Workspace; '0' is the default workspace."),
        _api("flavor_type", "Resource type; free text."),
        _api("description", "Free text."),
        _api("size", "Image size in KB, as sent.", pa.int64()),
        _api("create_at", "When the image was created (UTC).", TIMESTAMP),
        _api("update_at", "When the image was last updated (UTC).", TIMESTAMP),
        _api("dev_services", "Sorted, de-duplicated, joined with '|'; '' for an empty list, null for no list."),
        _api("resource_categories", "Resources the image may use, flattened like `dev_services`."),
        _api("support_res_categories", "Resources the image supports, flattened like `dev_services`."),
        _api("show_name", "Name that the console shows."),
        _api("show_tag", "Tag that the console shows."),
        _api("swr_instance_id", "Enterprise registry (SWR) instance that holds the image."),
        _api("tags", "Cloud tags as a JSON object, key -> value: '{}' for an empty list, null for none."),
        _derived("size_bytes", pa.int64(), "`size` x 1024."),
        _derived("supports_notebook", pa.bool_(), "`dev_services` has NOTEBOOK; null without a list."),
        _derived("supports_ssh", pa.bool_(), "`dev_services` has SSH; null without a list."),
        _derived("supports_cpu", pa.bool_(), "A category list has CPU; null without both lists."),
        _derived("supports_gpu", pa.bool_(), "A category list has GPU; null without both lists."),
        _derived("supports_ascend", pa.bool_(), "A category list has ASCEND; null without both lists."),
        _derived("arch_normalised", pa.string(), "`arch` in lower case."),
        _derived("registry", pa.string(), "Host part of `swr_path`."),
        _derived("repository", pa.string(), "Repository part of `swr_path`, without registry, namespace and tag."),
        _derived("age_days", pa.int64(), "Whole days from `create_at` to `snapshot_date` (both as UTC dates)."),
        _derived("days_since_update", pa.int64(), "Whole days from `update_at` to `snapshot_date`."),
        Column("observed_at", TIMESTAMP, "provenance", "When the API sent this response (UTC).", True),
        Column("response_sha256", pa.string(), "provenance", "`body_sha256` of the row in `responses`.", True),
        Column(
            "content_hash",
            pa.string(),
            "provenance",
            "SHA-256 of the API's content; does not depend on the order of keys or list elements.",
            True,
        ),
        Column("extra", pa.string(), "provenance", "JSON object of undocumented fields; null if there are none."),
        Column(
            "anomalies",
            pa.string(),
            "provenance",
            "Names `field:problem`, joined with '|', of values that were repaired or unreadable; null if none.",
        ),
    ),
)

IMAGE_VALUES = Table(
    "image_values",
    "The list fields of `images`: one row per element, in the API's order.",
    ("snapshot_date", "project_id", "id", "field", "position"),
    (
        _SNAPSHOT_DATE,
        _PROJECT_ID,
        _ID,
        Column("field", pa.string(), "api", "Name of the list field.", True),
        Column("position", pa.int32(), "api", "Position in the list, from 0.", True),
        Column("value", pa.string(), "api", "The element; as JSON text if it is not a string.", True),
    ),
)

IMAGE_TAGS = Table(
    "image_tags",
    "The cloud tags of `images`, one row per tag, by key.",
    ("snapshot_date", "project_id", "id", "key"),
    (
        _SNAPSHOT_DATE,
        _PROJECT_ID,
        _ID,
        Column("key", pa.string(), "api", "Key of the tag, as sent.", True),
        Column("value", pa.string(), "api", "Value of the tag, as sent; null when there was none."),
    ),
)

# The sources of usage, by the setting's name for each, and the kind of resource that each reads.
USAGE_SOURCES: dict[str, str] = {
    "notebooks": "notebook",
    "training_jobs": "training_job",
    "algorithms": "algorithm",
    "models": "model",
    "services": "service",
    "workflows": "workflow",
}

IMAGE_REFERENCES = Table(
    "image_references",
    "Evidence: the resources of the project that name an image, one row per reference. Which sources were read, and "
    "how far, is in the manifest.",
    ("snapshot_date", "project_id", "kind", "resource_id", "position"),
    (
        _SNAPSHOT_DATE,
        _PROJECT_ID,
        Column("kind", pa.string(), "key", "notebook, training_job, algorithm, model, service or workflow.", True),
        Column("resource_id", pa.string(), "key", "Id of the resource, in lower case.", True),
        Column("position", pa.int32(), "key", "Position among the references of the resource, from 0.", True),
        _api("name", "Name of the resource."),
        _api("status", "Status of the resource, as sent."),
        _api("workspace_id", "Workspace of the resource."),
        _api("user", "Name (or id) of the user who owns the resource."),
        _api("image_id", "Id of the image, in lower case; null when the resource names no id."),
        _api("image_reference", "Registry address or path of the image, as sent, without credentials and query."),
        _derived(
            "image_path", pa.string(), "`namespace/repository` of `image_reference`, without host, in lower case."
        ),
        _derived(
            "image_tag", pa.string(), "Tag of `image_reference`, in lower case; null when it names a digest alone."
        ),
        _derived("image_digest", pa.string(), "Digest of `image_reference`, `sha256:…`, in lower case."),
        _api("via_id", "Id of the model or algorithm by which the resource uses the image; null for a direct use."),
        Column(
            "strength",
            pa.string(),
            "derived",
            "running (uses it now), required (would break without it), past (used it until `last_active_at`) or copied "
            "(was copied from it, and does not need it).",
            True,
        ),
        _api("last_active_at", "When the resource was last active (UTC); null when the API does not say.", TIMESTAMP),
        _api("updated_at", "When the resource was last changed (UTC); null when the list does not say.", TIMESTAMP),
        Column("observed_at", TIMESTAMP, "provenance", "When the answer with this reference was received.", True),
    ),
)

IMAGE_TRACES = Table(
    "image_traces",
    "Evidence: what the audit service recorded of images since the last complete day, and somewhat longer. It keeps "
    "seven days.",
    ("snapshot_date", "project_id", "trace_id"),
    (
        _SNAPSHOT_DATE,
        _PROJECT_ID,
        Column("trace_id", pa.string(), "key", "Id of the trace.", True),
        Column("time", TIMESTAMP, "api", "When it was done (UTC).", True),
        _api("name", "What was done, such as updateNotebookImage; clouds have names of their own."),
        _api("resource_id", "Id of the image, in lower case."),
        _api("resource_name", "Name of the image."),
        _api("user", "Name of the user who did it."),
        _api("source_ip", "Address from which it was done."),
        _api("rating", "normal, warning or incident."),
        Column("observed_at", TIMESTAMP, "provenance", "When the page with this trace was received.", True),
    ),
)

# Evidence of a day, and what is derived from that evidence alone. The manifest has the hash of each file.
TABLES: dict[str, Table] = {
    t.name: t
    for t in (INVENTORY, LIST_PAGES, IMAGE_REFERENCES, IMAGE_TRACES, RESPONSES, IMAGES, IMAGE_VALUES, IMAGE_TAGS)
}

# An image's content from the API: the history keeps these columns, and changes are computed from them.
CONTENT_COLUMNS: tuple[Column, ...] = (
    *(column for column in IMAGES.columns if column.origin == "api"),
    *(column for column in IMAGES.columns if column.name == "extra"),
)

_OWNER = (
    _derived("owner", pa.string(), "Owner by the inventory of that day, or by a cloud tag where it states none."),
    _derived("cost_center", pa.string(), "Cost centre by the inventory of that day, or by a cloud tag."),
    _derived("environment", pa.string(), "Environment by the inventory of that day, or by a cloud tag."),
)
# What a cloud tag may state where the inventory does not.
OWNER_FIELDS = tuple(column.name for column in _OWNER)

IMAGE_HISTORY = Table(
    "image_history",
    "Every version of every image of a project (slowly changing dimension, type 2), from its complete days. "
    "A version is valid from `valid_from` until the day before `valid_to`.",
    ("project_id", "id", "valid_from"),
    (
        _PROJECT_ID,
        _ID,
        Column("valid_from", pa.date32(), "key", "Complete day on which this version was first seen.", True),
        _derived("valid_to", pa.date32(), "First complete day without this version; null for the last version."),
        Column("is_current", pa.bool_(), "derived", "Whether this is the last version of the image.", True),
        Column("is_deleted", pa.bool_(), "derived", "Whether the image is gone; the content is the last known.", True),
        _derived("deleted_reason", pa.string(), "deleted or not_found (the API said so), or not_in_inventory."),
        *CONTENT_COLUMNS,
        *(
            column
            for column in IMAGES.columns
            if column.name in ("size_bytes", "arch_normalised", "registry", "repository", "content_hash")
        ),
    ),
)

IMAGE_CHANGES = Table(
    "image_changes",
    "The changes since the project's last complete day: one row per changed field. Empty for an incomplete day, whose "
    "changes appear on the next complete day.",
    ("snapshot_date", "project_id", "id", "change", "field"),
    (
        _SNAPSHOT_DATE,
        _PROJECT_ID,
        _ID,
        Column("change", pa.string(), "derived", "added, changed, removed or reappeared.", True),
        Column(
            "field",
            pa.string(),
            "derived",
            "Name of the changed column of `images`; `outcome` if the whole image came or went.",
            True,
        ),
        _derived("old_value", pa.string(), "Value before, as text; timestamps in ISO 8601 (UTC)."),
        _derived(
            "new_value",
            pa.string(),
            "Value after; for `outcome`: ok, or why the image is gone (deleted, not_found, not_in_inventory).",
        ),
        Column("change_class", pa.string(), "derived", "lifecycle, access, content or metadata.", True),
        Column("compared_with", pa.date32(), "derived", "The complete day before, which was compared with.", True),
        _api("name", "Image name after the change, or last known."),
        *_OWNER,
        _derived("actor", pa.string(), "User of the one trace that can explain the change; null otherwise."),
        _derived("actor_source_ip", pa.string(), "Address from which that user did it."),
        _derived("trace_id", pa.string(), "That trace, in `image_traces`."),
        _derived(
            "actor_unknown",
            pa.string(),
            "Why there is no actor: traces_not_read, no_trace, several_traces; null when there is one.",
        ),
    ),
)

IMAGE_RECONCILIATION = Table(
    "image_reconciliation",
    "The inventory compared with the image list: images that nobody registered, and registrations without an image.",
    ("snapshot_date", "project_id", "id"),
    (
        _SNAPSHOT_DATE,
        _PROJECT_ID,
        _ID,
        Column("kind", pa.string(), "derived", "not_registered, or registered_but_gone.", True),
        _derived("outcome", pa.string(), "The outcome of a registered id: deleted or not_found."),
        _api("name", "Image name, as listed or last known."),
        _api("namespace", "Registry organisation, as listed or last known."),
        _api("swr_path", "Registry address, as listed or last known."),
        _api("visibility", "Visibility, as listed or last known."),
        _derived("size_bytes", pa.int64(), "Size in bytes, as listed or last known."),
        *_OWNER,
        _derived(
            "likely_owner", pa.string(), "The owner of all registered images of the namespace; null if not unique."
        ),
    ),
)


def _references(source: str) -> Column:
    return _derived(source, pa.int64(), f"References of {source.replace('_', ' ')}; null when these were not read.")


IMAGE_USAGE = Table(
    "image_usage",
    "Who uses each known image, and for how many observed days nobody did; empty while usage is not read.",
    ("snapshot_date", "project_id", "id"),
    (
        _SNAPSHOT_DATE,
        _PROJECT_ID,
        _ID,
        *(_references(source) for source in USAGE_SOURCES),
        _derived("running", pa.int64(), "References of what uses it now; null when no source was read."),
        _derived("required", pa.int64(), "References of what would break without it; null when no source was read."),
        _derived("copied", pa.int64(), "References of what was copied from it; null when no source was read."),
        Column(
            "is_observed",
            pa.bool_(),
            "derived",
            "Whether the day is complete and every wanted source was read as a whole, in every known workspace.",
            True,
        ),
        _derived(
            "observed_kinds",
            pa.string(),
            "'|'-joined names of the sources that were looked at, such as notebooks; null when not observed.",
        ),
        _derived("workspaces", pa.int64(), "Workspaces that were looked at; null when not observed."),
        _derived("last_used_date", pa.date32(), "Last day on which a use was seen; null when there was none."),
        Column(
            "observed_days",
            pa.int64(),
            "derived",
            "Observed days since the image was first known, or since it came back after a complete day without it.",
            True,
        ),
        Column(
            "unused_days",
            pa.int64(),
            "derived",
            "Observed days since the last use, of those that looked at no less than the newest: as many sources and "
            "workspaces.",
            True,
        ),
    ),
)

AUDIT_RULES = Table(
    "audit_rules",
    "The audit rules of the day, and the result of each.",
    ("snapshot_date", "project_id", "rule"),
    (
        _SNAPSHOT_DATE,
        _PROJECT_ID,
        Column("rule", pa.string(), "key", "Id of the rule; directory and file if another rule has that id.", True),
        _derived("title", pa.string(), "What the rule finds, in a few words."),
        _derived("severity", pa.string(), "critical, high, medium, low or info."),
        _derived("why", pa.string(), "Why it matters."),
        _derived("what_to_do", pa.string(), "What to do about a finding."),
        _derived("findings", pa.int64(), "Open findings, including suppressed ones; null if the rule failed."),
        _derived("error", pa.string(), "Why the rule could not be run; null if it was run."),
        Column("sql_sha256", pa.string(), "provenance", "SHA-256 of the rule's file; null if it could not be read."),
    ),
)

AUDIT_FINDINGS = Table(
    "audit_findings",
    "The findings of the audit rules, and those of the last published day that are resolved now.",
    ("snapshot_date", "project_id", "finding_id"),
    (
        _SNAPSHOT_DATE,
        _PROJECT_ID,
        Column("finding_id", pa.string(), "key", "Stable over all days for the same project, rule and image.", True),
        Column("rule", pa.string(), "derived", "Id of the rule.", True),
        Column("severity", pa.string(), "derived", "critical, high, medium, low or info.", True),
        Column("title", pa.string(), "derived", "What the rule finds, in a few words.", True),
        _ID,
        _derived("name", pa.string(), "Image name, as last known."),
        *_OWNER,
        Column(
            "state",
            pa.string(),
            "derived",
            "new, open, or resolved (found on the last published day, but not now).",
            True,
        ),
        Column(
            "first_seen", pa.date32(), "derived", "First day on which it was found without interruption since.", True
        ),
        Column(
            "days_open",
            pa.int64(),
            "derived",
            "Days from `first_seen` to this day, on which it is open or was resolved.",
            True,
        ),
        Column("evidence", pa.string(), "derived", "The values that the rule shows for it, as a JSON object.", True),
        _derived("suppressed_until", pa.date32(), "Last day of its suppression; null if it is not suppressed."),
        _derived("suppression_reason", pa.string(), "Why it is suppressed."),
    ),
)

IMAGE_COSTS = Table(
    "image_costs",
    "The size of each known image and its estimated cost for the day by the price book; not a bill.",
    ("snapshot_date", "project_id", "id"),
    (
        _SNAPSHOT_DATE,
        _PROJECT_ID,
        _ID,
        _api("name", "Image name."),
        _api("namespace", "Registry organisation."),
        _derived("registry", pa.string(), "Host part of the registry address."),
        _api("type", "BUILD_IN or DEDICATED."),
        *_OWNER,
        _derived("size_bytes", pa.int64(), "Size in bytes; null if the API states none."),
        _derived(
            "growth_bytes",
            pa.int64(),
            "Growth since the last complete day; for a new image, its whole size; null if there is no such day or a "
            "size is unknown.",
        ),
        Column(
            "is_carried",
            pa.bool_(),
            "derived",
            "Whether the content is from an earlier day, because there was no usable response.",
            True,
        ),
        _derived(
            "unit_price",
            pa.float64(),
            "Price per GB-month (GB = 1024^3 bytes); null if the price book has none for the image.",
        ),
        Column("currency", pa.string(), "derived", "ISO 4217 code.", True),
        _derived("price_valid_from", pa.date32(), "First day of that price in the price book."),
        _derived(
            "estimated_cost",
            pa.float64(),
            "Estimated cost for the day: GB x unit price / days of the month; null without a price or a size.",
        ),
        _derived("unused_days", pa.int64(), "As in `image_usage`; null while usage is not read."),
        _derived(
            "reclaimable_bytes",
            pa.int64(),
            "Upper bound of what deleting it would free (layers are shared): the size of an image unused for 30 days, "
            "0 of others and of preset ones; null when usage was not read as a whole on that day.",
        ),
        _derived(
            "observed_kinds",
            pa.string(),
            "'|'-joined names of the sources that `reclaimable_bytes` goes by, such as notebooks; null with it.",
        ),
        Column("owner_source", pa.string(), "derived", "Who states `owner`: inventory, tag or none.", True),
    ),
)

# Derived from the published tables of several days; they can be derived again at any time.
ANALYSIS_TABLES: dict[str, Table] = {
    t.name: t
    for t in (
        IMAGE_HISTORY,
        IMAGE_CHANGES,
        IMAGE_RECONCILIATION,
        IMAGE_USAGE,
        AUDIT_RULES,
        AUDIT_FINDINGS,
        IMAGE_COSTS,
    )
}

# What the cloud answered. Analysts read the other tables of a day.
ANSWER_TABLES: dict[str, Table] = {t.name: t for t in (LIST_PAGES, IMAGE_REFERENCES, IMAGE_TRACES, RESPONSES)}
SNAPSHOT_TABLES: dict[str, Table] = {
    name: table
    for name, table in (TABLES | ANALYSIS_TABLES).items()
    if name not in ANSWER_TABLES and table is not IMAGE_HISTORY
}

# Fields of the API that are no single value.
TAGS = "tags"
LIST_FIELDS = ("dev_services", "resource_categories", "support_res_categories")

# Documented values of the enumerations, in upper case; the API varies letter case and may add values.
KNOWN_VALUES: dict[str, frozenset[str]] = {
    "arch": frozenset({"X86_64", "AARCH64"}),
    "type": frozenset({"BUILD_IN", "DEDICATED"}),
    "origin": frozenset({"CUSTOMIZE", "IMAGE_SAVE"}),
    "service_type": frozenset({"COMMON", "INFERENCE", "TRAIN", "DEV", "UNKNOWN"}),
    "status": frozenset({"INIT", "CREATING", "CREATE_FAILED", "ERROR", "DELETED", "ACTIVE"}),
    "visibility": frozenset({"PRIVATE", "PUBLIC"}),
    "dev_services": frozenset({"NOTEBOOK", "SSH"}),
    "resource_categories": frozenset({"CPU", "GPU", "ASCEND"}),
    "support_res_categories": frozenset({"CPU", "GPU", "ASCEND"}),
}
