"""The tables that are derived from the published tables of several days."""

import pyarrow as pa

from pipelines.tables.bills import AMOUNT
from pipelines.tables.column import ID, PROJECT_ID, SNAPSHOT_DATE, Column, Table, api, derived
from pipelines.tables.evidence import USAGE_SOURCES, Outcome
from pipelines.tables.images import CONTENT_COLUMNS, IMAGES

_OWNER = (
    derived("owner", pa.string(), "Owner by the inventory of that day, or by a cloud tag where it states none."),
    derived("cost_center", pa.string(), "Cost centre by the inventory of that day, or by a cloud tag."),
    derived("environment", pa.string(), "Environment by the inventory of that day, or by a cloud tag."),
)
# What a cloud tag may state if the inventory does not.
OWNER_FIELDS = tuple(column.name for column in _OWNER)
# Of audit rules and findings, the gravest first.
SEVERITIES = ("critical", "high", "medium", "low", "info")

IMAGE_HISTORY = Table(
    "image_history",
    "Every version of every image of a project (slowly changing dimension, type 2), from its complete days. "
    "A version is valid from `valid_from` until the day before `valid_to`.",
    ("project_id", "id", "valid_from"),
    (
        PROJECT_ID,
        ID,
        Column("valid_from", pa.date32(), "key", "Complete day on which this version was first seen.", True),
        derived("valid_to", pa.date32(), "First complete day without this version; null for the last version."),
        Column("is_current", pa.bool_(), "derived", "Whether this is the last version of the image.", True),
        Column("is_deleted", pa.bool_(), "derived", "Whether the image is gone; the content is the last known.", True),
        derived(
            "deleted_reason",
            pa.string(),
            "deleted or not_found (the API said so), or not_in_inventory.",
            values=("deleted", "not_found", "not_in_inventory"),
        ),
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
        SNAPSHOT_DATE,
        PROJECT_ID,
        ID,
        Column(
            "change",
            pa.string(),
            "derived",
            "added, changed, removed or reappeared.",
            True,
            values=("added", "changed", "removed", "reappeared"),
        ),
        Column(
            "field",
            pa.string(),
            "derived",
            "Name of the changed column of `images`; `outcome` if the whole image came or went; `digest`: that of its "
            "tag in the registry, see `image_storage`.",
            True,
        ),
        derived("old_value", pa.string(), "Value before, as text; timestamps in ISO 8601 (UTC)."),
        derived(
            "new_value",
            pa.string(),
            "Value after; for `outcome`: ok, or why the image is gone (deleted, not_found, not_in_inventory).",
        ),
        Column(
            "change_class",
            pa.string(),
            "derived",
            "lifecycle, access, content or metadata.",
            True,
            values=("lifecycle", "access", "content", "metadata"),
        ),
        Column("compared_with", pa.date32(), "derived", "The complete day before, which was compared with.", True),
        api("name", "Image name after the change, or last known."),
        *_OWNER,
        derived("actor", pa.string(), "User of the one trace that can explain the change; null otherwise."),
        derived("actor_source_ip", pa.string(), "Address from which that user did it."),
        derived("trace_id", pa.string(), "That trace, in `image_traces`."),
        derived(
            "actor_unknown",
            pa.string(),
            "Why there is no actor: traces_not_read, no_trace, several_traces; null when there is one.",
            values=("traces_not_read", "no_trace", "several_traces"),
        ),
    ),
)

IMAGE_RECONCILIATION = Table(
    "image_reconciliation",
    "The inventory compared with the image list: images that nobody registered, and registrations without an image.",
    ("snapshot_date", "project_id", "id"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        ID,
        Column(
            "kind",
            pa.string(),
            "derived",
            "not_registered, or registered_but_gone.",
            True,
            values=("not_registered", "registered_but_gone"),
        ),
        derived(
            "outcome",
            pa.string(),
            "The outcome of a registered id: deleted or not_found.",
            values=(Outcome.DELETED, Outcome.NOT_FOUND),
        ),
        api("name", "Image name, as listed or last known."),
        api("namespace", "Registry organisation, as listed or last known."),
        api("swr_path", "Registry address, as listed or last known."),
        api("visibility", "Visibility, as listed or last known."),
        derived("size_bytes", pa.int64(), "Size in bytes, as listed or last known."),
        *_OWNER,
        derived(
            "likely_owner", pa.string(), "The owner of all registered images of the namespace; null if not unique."
        ),
    ),
)


def _references(source: str) -> Column:
    return derived(source, pa.int64(), f"Number of references by {source.replace('_', ' ')}; null if not read.")


IMAGE_USAGE = Table(
    "image_usage",
    "Who uses each known image, and for how many observed days it has not been used; empty if usage is not read.",
    ("snapshot_date", "project_id", "id"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        ID,
        *(_references(source) for source in USAGE_SOURCES),
        derived("running", pa.int64(), "Number of references with strength running; null if no source was read."),
        derived("required", pa.int64(), "Number of references with strength required; null if no source was read."),
        derived("copied", pa.int64(), "Number of references with strength copied; null if no source was read."),
        Column(
            "is_observed",
            pa.bool_(),
            "derived",
            "Whether the day is complete and every wanted source was read as a whole, in every known workspace.",
            True,
        ),
        derived(
            "observed_kinds",
            pa.string(),
            "'|'-joined names of the sources that were read, such as notebooks; null if the day is not observed.",
        ),
        derived("workspaces", pa.int64(), "Number of workspaces that were read; null if the day is not observed."),
        derived("last_used_date", pa.date32(), "Last day on which the image was used; null if no use is known."),
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
            "Observed days since the last use. Only days count that read at least this day's sources and workspaces.",
            True,
        ),
    ),
)

AUDIT_RULES = Table(
    "audit_rules",
    "The audit rules of the day, and the result of each.",
    ("snapshot_date", "project_id", "rule"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        Column("rule", pa.string(), "key", "Id of the rule; directory and file if another rule has that id.", True),
        derived("title", pa.string(), "What the rule finds, in a few words."),
        derived("severity", pa.string(), "critical, high, medium, low or info.", values=SEVERITIES),
        derived("why", pa.string(), "Why it matters."),
        derived("what_to_do", pa.string(), "What to do about a finding."),
        derived("findings", pa.int64(), "Open findings, including suppressed ones; null if the rule failed."),
        derived("error", pa.string(), "Why the rule could not be run; null if it was run."),
        Column("sql_sha256", pa.string(), "provenance", "SHA-256 of the rule's file; null if it could not be read."),
    ),
)

AUDIT_FINDINGS = Table(
    "audit_findings",
    "The findings of the audit rules, and those of the last published day that are resolved now.",
    ("snapshot_date", "project_id", "finding_id"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        Column("finding_id", pa.string(), "key", "Stable over all days for the same project, rule and image.", True),
        Column("rule", pa.string(), "derived", "Id of the rule.", True),
        Column("severity", pa.string(), "derived", "critical, high, medium, low or info.", True, values=SEVERITIES),
        Column("title", pa.string(), "derived", "What the rule finds, in a few words.", True),
        ID,
        derived("name", pa.string(), "Image name, as last known."),
        *_OWNER,
        Column(
            "state",
            pa.string(),
            "derived",
            "new, open, or resolved (found on the last published day, but not now).",
            True,
            values=("new", "open", "resolved"),
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
        derived("suppressed_until", pa.date32(), "Last day of its suppression; null if it is not suppressed."),
        derived("suppression_reason", pa.string(), "Why it is suppressed."),
    ),
)

IMAGE_COSTS = Table(
    "image_costs",
    "The size of each known image, its estimated cost for the day by the price book, and its part of the newest bill.",
    ("snapshot_date", "project_id", "id"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        ID,
        api("name", "Image name."),
        api("namespace", "Registry organisation."),
        derived("registry", pa.string(), "Host part of the registry address."),
        api("type", "BUILD_IN or DEDICATED."),
        *_OWNER,
        derived("size_bytes", pa.int64(), "Size in bytes; null if the API states none."),
        derived(
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
        derived(
            "unit_price",
            pa.float64(),
            "Price per GB-month (GB = 1024^3 bytes); null if the price book has none for the image.",
        ),
        Column("currency", pa.string(), "derived", "ISO 4217 code.", True),
        derived("price_valid_from", pa.date32(), "First day of that price in the price book."),
        derived(
            "estimated_cost",
            pa.float64(),
            "Estimated cost for the day: GB x unit price / days of the month; null without a price or a size.",
        ),
        derived("unused_days", pa.int64(), "As in `image_usage`; null while usage is not read."),
        derived(
            "reclaimable_bytes",
            pa.int64(),
            "What deleting this image alone would free, if it is unused for 30 days: `unique_bytes` of `image_storage` "
            "(0 while another image has the same tag), or its size where the registry is not read, which is an upper "
            "bound because layers are shared. 0 for others and for preset ones; null if it is not known, and when "
            "usage was not read as a whole on that day. Do not add it up: see `reclaimable` for sets.",
        ),
        derived(
            "observed_kinds",
            pa.string(),
            "'|'-joined names of the sources that `reclaimable_bytes` goes by, such as notebooks; null with it.",
        ),
        Column(
            "owner_source",
            pa.string(),
            "derived",
            "Who states `owner`: inventory, tag or none.",
            True,
            values=("inventory", "tag", "none"),
        ),
        derived(
            "reclaimable_by",
            pa.string(),
            "What `reclaimable_bytes` goes by: layers (exact) or size (an upper bound); null when usage was not read "
            "as a whole on that day.",
            values=("layers", "size"),
        ),
        derived(
            "billed_date",
            pa.date32(),
            "Newest day whose bill was known on this day; null if there is none, or if the image was not billed then.",
        ),
        derived("billed_currency", pa.string(), "Currency of that bill."),
        derived("billed_cost", AMOUNT, "The image's part of the bill of `billed_date`, as in `image_bills`."),
        derived("billed_registry_cost", AMOUNT, "Likewise, of the registry's lines: what the estimate compares with."),
    ),
)
