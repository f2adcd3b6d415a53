"""The evidence of a day: its inventory, and what the cloud answered."""

from enum import StrEnum

import pyarrow as pa

from pipelines.tables.column import ID, PROJECT_ID, SNAPSHOT_DATE, TIMESTAMP, Column, Table, api, derived


class Outcome(StrEnum):
    """The result of the request for one inventory id."""

    OK = "ok"
    DELETED = "deleted"
    NOT_FOUND = "not_found"
    FORBIDDEN = "forbidden"
    FAILED = "failed"
    INVALID_ID = "invalid_id"


INVENTORY = Table(
    "inventory",
    "The image ids of the day's inventory, as read from its source.",
    ("snapshot_date", "project_key", "id"),
    (
        SNAPSHOT_DATE,
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
            values=("inventory", "last_complete_day"),
        ),
    ),
)

RESPONSES = Table(
    "responses",
    "Evidence: the API's response for each inventory id, including errors.",
    ("snapshot_date", "project_id", "id"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        ID,
        Column(
            "outcome",
            pa.string(),
            "provenance",
            "ok; deleted (the API reports status DELETED); not_found; forbidden; failed; invalid_id (never sent).",
            True,
            values=tuple(Outcome),
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
        SNAPSHOT_DATE,
        PROJECT_ID,
        Column("page", pa.int32(), "key", "Position of the page, from 0.", True),
        Column("observed_at", TIMESTAMP, "provenance", "When the page was received.", True),
        Column("body", pa.binary(), "provenance", "Body of the page, byte for byte after transfer decoding.", True),
        Column("body_sha256", pa.string(), "provenance", "SHA-256 of `body`, in hexadecimal.", True),
    ),
)

# The sources of usage: the name of each in the setting, and the kind of resource that it reads.
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
    "Evidence: the resources of the project that name an image, one row per reference. The manifest says which "
    "sources were read, and how completely.",
    ("snapshot_date", "project_id", "kind", "resource_id", "position"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        Column("kind", pa.string(), "key", "notebook, training_job, algorithm, model, service or workflow.", True),
        Column("resource_id", pa.string(), "key", "Id of the resource, in lower case.", True),
        Column("position", pa.int32(), "key", "Position among the references of the resource, from 0.", True),
        api("name", "Name of the resource."),
        api("status", "Status of the resource, as sent."),
        api("workspace_id", "Workspace of the resource."),
        api("user", "Name (or id) of the user who owns the resource."),
        api("image_id", "Id of the image, in lower case; null if the resource names no id."),
        api("image_reference", "Registry address or path of the image, as sent, without credentials and query."),
        derived("image_path", pa.string(), "`namespace/repository` of `image_reference`, without host, in lower case."),
        derived("image_tag", pa.string(), "Tag of `image_reference`, in lower case; null if it has only a digest."),
        derived("image_digest", pa.string(), "Digest of `image_reference`, `sha256:…`, in lower case."),
        api("via_id", "Id of the model or algorithm through which the resource uses the image; null if direct."),
        Column(
            "strength",
            pa.string(),
            "derived",
            "running (uses the image now), required (would break without it), past (used it until `last_active_at`) or "
            "copied (has a copy and does not need the image).",
            True,
        ),
        api("last_active_at", "When the resource was last active (UTC); null if the API does not say.", TIMESTAMP),
        api("updated_at", "When the resource was last changed (UTC); null if the list does not say.", TIMESTAMP),
        Column("observed_at", TIMESTAMP, "provenance", "When the response with this reference was received.", True),
    ),
)

IMAGE_TRACES = Table(
    "image_traces",
    "Evidence: the events of images that the audit service recorded, beginning an hour before the last "
    "complete day was fetched. The service keeps seven days.",
    ("snapshot_date", "project_id", "trace_id"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        Column("trace_id", pa.string(), "key", "Id of the trace.", True),
        Column("time", TIMESTAMP, "api", "When the event happened (UTC).", True),
        api("name", "Name of the event, such as updateNotebookImage; each cloud has its own names."),
        api("resource_id", "Id of the image, in lower case."),
        api("resource_name", "Name of the image."),
        api("user", "Name of the user who caused the event."),
        api("source_ip", "IP address from which the request came."),
        api("rating", "Result of the event: normal, warning or incident."),
        Column("observed_at", TIMESTAMP, "provenance", "When the page with this trace was received.", True),
    ),
)
