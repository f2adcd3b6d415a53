"""The one table of columns: name, Arrow type, origin and meaning of everything the lake holds.

Arrow schemas, Dagster's column metadata, the data dictionary and warehouse DDL derive from here. New columns go
last in their table, and `SCHEMA_VERSION` is raised. Code that computes a column does not belong here.
"""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

SCHEMA_VERSION = 1

Origin = Literal["key", "inventory", "api", "derived", "provenance"]

TIMESTAMP = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `origin` says who states the value, `required` that it is never null."""

    name: str
    type: pa.DataType
    origin: Origin
    meaning: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the lake: a row is identified by `key` within all days and projects."""

    name: str
    meaning: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema, in column order."""
        return pa.schema([pa.field(c.name, c.type, nullable=not c.required) for c in self.columns])


_SNAPSHOT_DATE = Column("snapshot_date", pa.date32(), "key", "Day (UTC) on which the API was asked.", True)
_PROJECT_ID = Column("project_id", pa.string(), "key", "Project id in the cloud, as used in the URL.", True)
_ID = Column("id", pa.string(), "key", "Image id in lower case.", True)


def _api(name: str, meaning: str, type_: pa.DataType | None = None) -> Column:
    return Column(name, type_ or pa.string(), "api", meaning)


def _derived(name: str, type_: pa.DataType, meaning: str) -> Column:
    return Column(name, type_, "derived", meaning)


INVENTORY = Table(
    "inventory",
    "The ids the pipeline was told to ask for, as read from the inventory source on that day.",
    ("snapshot_date", "project_key", "id"),
    (
        _SNAPSHOT_DATE,
        Column("project_key", pa.string(), "key", "Partition key of the project.", True),
        Column("id", pa.string(), "key", "Image id, trimmed and in lower case.", True),
        Column("id_as_read", pa.string(), "inventory", "The id exactly as the source has it.", True),
        Column(
            "is_valid",
            pa.bool_(),
            "derived",
            "Whether the id is a UUID; others are never put into a URL.",
            True,
        ),
        Column("owner", pa.string(), "inventory", "Owner stated by the inventory."),
        Column("cost_center", pa.string(), "inventory", "Cost centre stated by the inventory."),
        Column("environment", pa.string(), "inventory", "Environment stated by the inventory."),
        Column("attributes", pa.string(), "inventory", "Further columns of the source, as a JSON object."),
    ),
)

RESPONSES = Table(
    "responses",
    "Evidence: what the API answered for each inventory id, errors included.",
    ("snapshot_date", "project_id", "id"),
    (
        _SNAPSHOT_DATE,
        _PROJECT_ID,
        _ID,
        Column(
            "outcome",
            pa.string(),
            "provenance",
            "ok; deleted (answered with status DELETED); not_found; forbidden; failed; invalid_id (never sent).",
            True,
        ),
        Column("http_status", pa.int32(), "provenance", "HTTP status of the last answer; null when none came."),
        Column("error_code", pa.string(), "provenance", "Error code of the API, or ours for what is no answer."),
        Column("error_msg", pa.string(), "provenance", "Error message that goes with `error_code`."),
        Column("attempts", pa.int32(), "provenance", "Requests sent for this id.", True),
        Column("elapsed_ms", pa.int64(), "provenance", "First request to last answer, in milliseconds.", True),
        Column(
            "observed_at",
            TIMESTAMP,
            "provenance",
            "When the last answer (or its absence) was observed.",
            True,
        ),
        Column(
            "body",
            pa.binary(),
            "provenance",
            "Body of the last answer, byte for byte after transfer decoding.",
        ),
        Column("body_sha256", pa.string(), "provenance", "SHA-256 of `body`, in hexadecimal."),
        Column("fetched_at", TIMESTAMP, "provenance", "When this answer was fetched; null when nothing was sent."),
        Column(
            "confirmed_at",
            TIMESTAMP,
            "provenance",
            "Set on an answer of an earlier day that was carried forward: when a page of the API's list confirmed it.",
        ),
    ),
)

LIST_PAGES = Table(
    "list_pages",
    "Evidence: the pages of the API's own list that confirmed answers of earlier days; empty on a full day.",
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
        _api("namespace", "Registry (SWR) organisation the image belongs to."),
        _api("swr_path", "Registry address, host/namespace/repository:tag."),
        _api("tag", "Image tag."),
        _api("arch", "Processor architecture as sent; letter case varies (see `arch_normalised`)."),
        _api("type", "BUILD_IN (preset) or DEDICATED (saved by a user)."),
        _api("origin", "CUSTOMIZE, or IMAGE_SAVE (saved from a notebook)."),
        _api("service_type", "COMMON, INFERENCE, TRAIN, DEV or UNKNOWN."),
        _api("status", "INIT, CREATING, CREATE_FAILED, ERROR, DELETED or ACTIVE."),
        _api("status_message", "Build information."),
        _api("visibility", "PRIVATE, or PUBLIC (any user may read the image by its id)."),
        _api("workspace_id", "Workspace; '0' is the default one."),
        _api("flavor_type", "Resource type; free text."),
        _api("description", "Free text."),
        _api("size", "Image size in KB, as sent.", pa.int64()),
        _api("create_at", "When the image was created (UTC).", TIMESTAMP),
        _api("update_at", "When the image was last updated (UTC).", TIMESTAMP),
        _api("dev_services", "Sorted, de-duplicated, joined with '|': '' for an empty list, null for none."),
        _api("resource_categories", "Resources the image may use, flattened like `dev_services`."),
        _api("support_res_categories", "Resources the image supports, flattened like `dev_services`."),
        _derived("size_bytes", pa.int64(), "`size` x 1024."),
        _derived("supports_notebook", pa.bool_(), "`dev_services` has NOTEBOOK; null when there was no list."),
        _derived("supports_ssh", pa.bool_(), "`dev_services` has SSH; null when there was no list."),
        _derived("supports_cpu", pa.bool_(), "A category list has CPU; null when there was neither list."),
        _derived("supports_gpu", pa.bool_(), "A category list has GPU; null when there was neither list."),
        _derived("supports_ascend", pa.bool_(), "A category list has ASCEND; null when there was neither list."),
        _derived("arch_normalised", pa.string(), "`arch` in lower case."),
        _derived("registry", pa.string(), "Host part of `swr_path`."),
        _derived("repository", pa.string(), "Repository part of `swr_path`, without registry, namespace and tag."),
        _derived("age_days", pa.int64(), "Whole days from `create_at` to `snapshot_date` (both as UTC dates)."),
        _derived("days_since_update", pa.int64(), "Whole days from `update_at` to `snapshot_date`."),
        Column("observed_at", TIMESTAMP, "provenance", "When the API gave this answer (UTC).", True),
        Column("response_sha256", pa.string(), "provenance", "`body_sha256` of the row in `responses`.", True),
        Column(
            "content_hash",
            pa.string(),
            "provenance",
            "SHA-256 of the API's content; does not depend on the order of keys or list elements.",
            True,
        ),
        Column("extra", pa.string(), "provenance", "JSON object of fields outside the contract; null when none."),
        Column(
            "anomalies",
            pa.string(),
            "provenance",
            "'|'-joined field:problem names of what was repaired or could not be read; null when none.",
        ),
    ),
)

IMAGE_VALUES = Table(
    "image_values",
    "The list fields of `images`, one row per element, in the order of the API.",
    ("snapshot_date", "project_id", "id", "field", "position"),
    (
        _SNAPSHOT_DATE,
        _PROJECT_ID,
        _ID,
        Column("field", pa.string(), "api", "Name of the list field.", True),
        Column("position", pa.int32(), "api", "Position in the list, from 0.", True),
        Column("value", pa.string(), "api", "The element; JSON text where the element is no string.", True),
    ),
)

TABLES: dict[str, Table] = {t.name: t for t in (INVENTORY, LIST_PAGES, RESPONSES, IMAGES, IMAGE_VALUES)}

LIST_FIELDS = ("dev_services", "resource_categories", "support_res_categories")

# Documented values of the open enumerations, in upper case: the API varies letter case and adds values.
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
