"""The snapshot of a day's images, and what is known about the API's fields."""

import pyarrow as pa

from pipelines.tables.column import ID, PROJECT_ID, SNAPSHOT_DATE, TIMESTAMP, Column, Table, api, derived

# Fields of the API that are no single value.
TAGS = "tags"
LIST_FIELDS = ("dev_services", "resource_categories", "support_res_categories")

# What columns are computed from: the lists of resources, and columns of `responses`.
_CATEGORIES = ("resource_categories", "support_res_categories")
_BODY, _SHA256 = ("body",), ("body_sha256",)

IMAGES = Table(
    "images",
    "The snapshot: one row per id that the API described on that day.",
    ("snapshot_date", "project_id", "id"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        ID,
        api("name", "Image name."),
        api("namespace", "Registry (SWR) organisation of the image."),
        api("swr_path", "Registry address, host/namespace/repository:tag."),
        api("tag", "Image tag."),
        api("arch", "Processor architecture as sent; letter case varies (see `arch_normalised`)."),
        api("type", "BUILD_IN (preset) or DEDICATED (saved by a user)."),
        api("origin", "CUSTOMIZE, or IMAGE_SAVE (saved from a notebook)."),
        api("service_type", "COMMON, INFERENCE, TRAIN, DEV or UNKNOWN."),
        api("status", "INIT, CREATING, CREATE_FAILED, ERROR, DELETED or ACTIVE."),
        api("status_message", "Build information."),
        api("visibility", "PRIVATE, or PUBLIC (any user may read the image by its id)."),
        api("workspace_id", "Workspace; '0' is the default workspace."),
        api("flavor_type", "Resource type; free text."),
        api("description", "Free text."),
        api("size", "Image size in KB, as sent.", pa.int64()),
        api("create_at", "When the image was created (UTC).", TIMESTAMP),
        api("update_at", "When the image was last updated (UTC).", TIMESTAMP),
        api("dev_services", "Sorted, de-duplicated, joined with '|'; '' for an empty list, null for no list."),
        api("resource_categories", "Resources the image may use, flattened like `dev_services`."),
        api("support_res_categories", "Resources the image supports, flattened like `dev_services`."),
        api("show_name", "Name that the console shows."),
        api("show_tag", "Tag that the console shows."),
        api("swr_instance_id", "Enterprise registry (SWR) instance that holds the image."),
        api("tags", "Cloud tags as a JSON object, key -> value: '{}' for an empty list, null for none."),
        derived("size_bytes", pa.int64(), "`size` x 1024.", "size"),
        derived("supports_notebook", pa.bool_(), "`dev_services` has NOTEBOOK; null without a list.", "dev_services"),
        derived("supports_ssh", pa.bool_(), "`dev_services` has SSH; null without a list.", "dev_services"),
        derived("supports_cpu", pa.bool_(), "A category list has CPU; null without both lists.", *_CATEGORIES),
        derived("supports_gpu", pa.bool_(), "A category list has GPU; null without both lists.", *_CATEGORIES),
        derived("supports_ascend", pa.bool_(), "A category list has ASCEND; null without both lists.", *_CATEGORIES),
        derived("arch_normalised", pa.string(), "`arch` in lower case.", "arch"),
        derived("registry", pa.string(), "Host part of `swr_path`.", "swr_path"),
        derived(
            "repository", pa.string(), "Repository part of `swr_path`, without registry, namespace and tag.", "swr_path"
        ),
        derived(
            "age_days", pa.int64(), "Whole days from `create_at` to `snapshot_date` (both as UTC dates).", "create_at"
        ),
        derived("days_since_update", pa.int64(), "Whole days from `update_at` to `snapshot_date`.", "update_at"),
        Column("observed_at", TIMESTAMP, "provenance", "When the API sent this response (UTC).", True),
        Column("response_sha256", pa.string(), "provenance", "`body_sha256` of the row in `responses`.", True, _SHA256),
        Column(
            "content_hash",
            pa.string(),
            "provenance",
            "SHA-256 of the API's content; does not depend on the order of keys or list elements.",
            True,
            _BODY,
        ),
        Column(
            "extra",
            pa.string(),
            "provenance",
            "JSON object of undocumented fields; null if there are none.",
            False,
            _BODY,
        ),
        Column(
            "anomalies",
            pa.string(),
            "provenance",
            "Names `field:problem`, joined with '|', of values that were repaired or unreadable; null if none.",
            False,
            _BODY,
        ),
    ),
)

IMAGE_VALUES = Table(
    "image_values",
    "The list fields of `images`: one row per element, in the API's order.",
    ("snapshot_date", "project_id", "id", "field", "position"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        ID,
        Column(
            "field",
            pa.string(),
            "api",
            "Name of the list field: dev_services, resource_categories or support_res_categories.",
            True,
            LIST_FIELDS,
            LIST_FIELDS,
        ),
        Column("position", pa.int32(), "api", "Position in the list, from 0.", True, LIST_FIELDS),
        Column("value", pa.string(), "api", "The element; as JSON text if it is not a string.", True, LIST_FIELDS),
    ),
)

IMAGE_TAGS = Table(
    "image_tags",
    "The cloud tags of `images`: one row per tag, in the order of the keys.",
    ("snapshot_date", "project_id", "id", "key"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        ID,
        Column("key", pa.string(), "api", "Key of the tag, as sent.", True, (TAGS,)),
        Column("value", pa.string(), "api", "Value of the tag, as sent; null if the tag has none.", False, (TAGS,)),
    ),
)

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

# An image's content from the API: the history keeps these columns, and changes are computed from them.
CONTENT_COLUMNS: tuple[Column, ...] = (
    *(column for column in IMAGES.columns if column.origin == "api"),
    *(column for column in IMAGES.columns if column.name == "extra"),
)
