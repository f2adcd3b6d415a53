"""All tables of the lake: name, Arrow type, origin and meaning of each column; and the outcomes.

Arrow schemas, Dagster's column metadata, the data dictionary and warehouse DDL are generated from here. Everyone else
imports from here. Add new columns at the end of their table, and raise `SCHEMA_VERSION`. Code that computes columns
does not belong here.
"""

from pipelines.tables.bills import (
    AMOUNT,
    AMOUNT_DIGITS,
    AMOUNT_PLACES,
    BILL_DAYS,
    BILLED_COSTS,
    BILLED_DAYS,
    IMAGE_BILLS,
)
from pipelines.tables.column import TIMESTAMP, Column, Origin, Table
from pipelines.tables.derived import (
    AUDIT_FINDINGS,
    AUDIT_RULES,
    IMAGE_CHANGES,
    IMAGE_COSTS,
    IMAGE_HISTORY,
    IMAGE_RECONCILIATION,
    IMAGE_USAGE,
    OWNER_FIELDS,
    SEVERITIES,
)
from pipelines.tables.evidence import (
    IMAGE_REFERENCES,
    IMAGE_TRACES,
    INVENTORY,
    LIST_PAGES,
    RESPONSES,
    USAGE_SOURCES,
    Outcome,
)
from pipelines.tables.images import CONTENT_COLUMNS, IMAGE_TAGS, IMAGE_VALUES, IMAGES, KNOWN_VALUES, LIST_FIELDS, TAGS
from pipelines.tables.storage import (
    IMAGE_STORAGE,
    RECLAIMABLE,
    REGISTRY_LAYERS,
    REGISTRY_ONLY,
    REGISTRY_PAGES,
    REGISTRY_TAGS,
)

__all__ = [
    "AMOUNT",
    "AMOUNT_DIGITS",
    "AMOUNT_PLACES",
    "ANALYSIS_TABLES",
    "AUDIT_FINDINGS",
    "AUDIT_RULES",
    "BILLED_COSTS",
    "BILLED_DAYS",
    "BILL_DAYS",
    "CONTENT_COLUMNS",
    "IMAGES",
    "IMAGE_BILLS",
    "IMAGE_CHANGES",
    "IMAGE_COSTS",
    "IMAGE_HISTORY",
    "IMAGE_RECONCILIATION",
    "IMAGE_REFERENCES",
    "IMAGE_STORAGE",
    "IMAGE_TAGS",
    "IMAGE_TRACES",
    "IMAGE_USAGE",
    "IMAGE_VALUES",
    "INVENTORY",
    "KNOWN_VALUES",
    "LIST_FIELDS",
    "LIST_PAGES",
    "OWNER_FIELDS",
    "RECLAIMABLE",
    "REGISTRY_LAYERS",
    "REGISTRY_ONLY",
    "REGISTRY_PAGES",
    "REGISTRY_TAGS",
    "RESPONSES",
    "RESPONSE_TABLES",
    "SCHEMA_VERSION",
    "SEVERITIES",
    "SNAPSHOT_TABLES",
    "TABLES",
    "TAGS",
    "TIMESTAMP",
    "USAGE_SOURCES",
    "Column",
    "Origin",
    "Outcome",
    "Table",
]

SCHEMA_VERSION = 5


# Evidence of a day, and what is derived from that evidence alone. The manifest has the hash of each file.
TABLES: dict[str, Table] = {
    t.name: t
    for t in (
        INVENTORY,
        LIST_PAGES,
        IMAGE_REFERENCES,
        IMAGE_TRACES,
        REGISTRY_PAGES,
        REGISTRY_TAGS,
        REGISTRY_LAYERS,
        BILLED_COSTS,
        RESPONSES,
        IMAGES,
        IMAGE_VALUES,
        IMAGE_TAGS,
    )
}

# Derived from the published tables of several days; they can be derived again at any time. Each comes after those that
# it is made from.
ANALYSIS_TABLES: dict[str, Table] = {
    t.name: t
    for t in (
        IMAGE_HISTORY,
        IMAGE_RECONCILIATION,
        IMAGE_STORAGE,
        REGISTRY_ONLY,
        IMAGE_CHANGES,
        IMAGE_USAGE,
        AUDIT_RULES,
        AUDIT_FINDINGS,
        RECLAIMABLE,
        IMAGE_BILLS,
        BILL_DAYS,
        IMAGE_COSTS,
    )
}

# Responses of the cloud. Analysts read the other tables of a day.
RESPONSE_TABLES: dict[str, Table] = {
    t.name: t
    for t in (
        LIST_PAGES,
        IMAGE_REFERENCES,
        IMAGE_TRACES,
        REGISTRY_PAGES,
        REGISTRY_TAGS,
        REGISTRY_LAYERS,
        BILLED_COSTS,
        RESPONSES,
    )
}
SNAPSHOT_TABLES: dict[str, Table] = {
    name: table
    for name, table in (TABLES | ANALYSIS_TABLES).items()
    if name not in RESPONSE_TABLES and table is not IMAGE_HISTORY
}
