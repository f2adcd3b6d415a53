"""What is billed: the evidence of bill lines, and how a bill is divided among images."""

import pyarrow as pa

from pipelines.tables.column import ID, PROJECT_ID, SNAPSHOT_DATE, TIMESTAMP, Column, Table, api, derived

# Amounts are decimals with 12 places: sums are exact, and a day of a small image costs less than a cent.
AMOUNT_DIGITS, AMOUNT_PLACES = 28, 12
# So many days before it, a day reads bills of. They are corrected for days, and closed some days after a month.
BILLED_DAYS = 35
AMOUNT = pa.decimal128(AMOUNT_DIGITS, AMOUNT_PLACES)

_CHARGE_DATE = Column(
    "charge_date", pa.date32(), "key", "Day of the charge, in the time zone of the bill (`time_zone`).", True
)
_CURRENCY = Column("currency", pa.string(), "api", "ISO 4217 code.", True)
_VERSION = (
    "SHA-256 over the lines of the charge day's statement. A statement with another version corrects an earlier one: "
    "the one with the newest `snapshot_date` counts."
)

BILLED_COSTS = Table(
    "billed_costs",
    "Evidence: the lines of the bill for the registry and for ModelArts, for each of the 35 days before this one. "
    "Bills are corrected for days, so each day keeps the statements that it read. Empty if no bill was read.",
    ("snapshot_date", "project_id", "line"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        Column("line", pa.int32(), "key", "Position among the lines, from 0: by charge day, service, resource.", True),
        _CHARGE_DATE,
        Column("charge_period_start", TIMESTAMP, "api", "When the charged period begins (UTC).", True),
        Column("charge_period_end", TIMESTAMP, "api", "When the charged period ends (UTC), exclusive.", True),
        Column(
            "time_zone", pa.string(), "api", "Time zone of the bill's days: UTC, Europe/Berlin or Asia/Shanghai.", True
        ),
        Column("kind", pa.string(), "derived", "registry or modelarts: what the service is to us.", True),
        Column("service", pa.string(), "api", "Service, as the bill names it.", True),
        api("resource_id", "Id of the charged resource."),
        api("resource_name", "Name of the charged resource."),
        api("description", "What was charged: product, usage type or description, as the bill names it."),
        _CURRENCY,
        api("list_cost", "Amount at list prices; null if the bill does not state it.", AMOUNT),
        api("contracted_cost", "Amount at contracted prices, likewise.", AMOUNT),
        Column("billed_cost", AMOUNT, "api", "Amount that is billed.", True),
        Column("source", pa.string(), "provenance", "Host or file that the line is from.", True),
        Column("source_sha256", pa.string(), "provenance", "SHA-256 of that file or response, byte for byte.", True),
        Column("version", pa.string(), "provenance", _VERSION, True),
        Column("observed_at", TIMESTAMP, "provenance", "When the line was read.", True),
    ),
)

BILL_DAYS = Table(
    "bill_days",
    "The bill of each charge day as known on this day, beside the estimate: one row for each currency. A statement "
    "that is not read again is carried over.",
    ("snapshot_date", "project_id", "charge_date", "currency"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        _CHARGE_DATE,
        _CURRENCY,
        derived(
            "estimated_cost", AMOUNT, "Estimated cost of all images on that day; null if that day was not published."
        ),
        derived(
            "estimate_currency", pa.string(), "Currency of the estimate, which compares only if it is that of the bill."
        ),
        Column("billed_cost", AMOUNT, "derived", "Sum of all its lines.", True),
        Column("billed_registry_cost", AMOUNT, "derived", "Sum of the registry's lines.", True),
        derived("list_cost", AMOUNT, "Sum of the lines at list prices; null unless all lines state it."),
        derived("contracted_cost", AMOUNT, "Sum of the lines at contracted prices; null unless all lines state it."),
        Column("allocated_cost", AMOUNT, "derived", "What `image_bills` allocates to images.", True),
        Column("not_allocated_cost", AMOUNT, "derived", "The rest of `billed_cost`.", True),
        Column("lines", pa.int64(), "derived", "Number of its lines.", True),
        Column(
            "time_zone",
            pa.string(),
            "api",
            "Time zone of the charge day: UTC, Europe/Berlin or Asia/Shanghai.",
            True,
            values=("UTC", "Europe/Berlin", "Asia/Shanghai"),
        ),
        Column("known_since", pa.date32(), "derived", "Snapshot whose `image_bills` has its allocation.", True),
        Column("version", pa.string(), "provenance", _VERSION, True),
    ),
)

IMAGE_BILLS = Table(
    "image_bills",
    "The bill of each charge day whose statement is new or corrected on this day, divided among the images of that "
    "day by the bytes that are theirs. The rows of a charge day and currency add up to its bill exactly. Of a charge "
    "day that several days have, the newest counts.",
    ("snapshot_date", "project_id", "charge_date", "currency", "allocation", "id"),
    (
        SNAPSHOT_DATE,
        PROJECT_ID,
        _CHARGE_DATE,
        _CURRENCY,
        Column(
            "allocation",
            pa.string(),
            "derived",
            "image; or why it is not allocated to one: registry_only (tags that no image registers), storage_unknown "
            "(images whose storage is not known), registry_not_read, no_snapshot (that day was not published), "
            "nothing_stored, long_period (lines for longer than a day).",
            True,
            values=(
                *("image", "registry_only", "storage_unknown", "registry_not_read"),
                *("no_snapshot", "nothing_stored", "long_period"),
            ),
        ),
        Column("id", pa.string(), "key", f"{ID.meaning[:-1]}; empty for what is not allocated.", True),
        derived("owner", pa.string(), "Owner on the charge day, as in `image_costs`."),
        derived("cost_center", pa.string(), "Cost centre on the charge day."),
        derived("environment", pa.string(), "Environment on the charge day."),
        derived("namespace", pa.string(), "Registry organisation."),
        derived(
            "weight_bytes",
            pa.int64(),
            "Bytes by which the bill is divided: unique bytes and the share of shared ones, of the image's part of its "
            "tag; of the row's images or tags together if it is not allocated.",
        ),
        derived(
            "estimated_cost", pa.float64(), "Estimated cost of the image on the charge day, in `estimate_currency`."
        ),
        derived("estimate_currency", pa.string(), "Currency of the price book."),
        Column("billed_cost", AMOUNT, "derived", "Its part of all lines.", True),
        Column("billed_registry_cost", AMOUNT, "derived", "Its part of the registry's lines.", True),
        Column("version", pa.string(), "provenance", _VERSION, True),
    ),
)
