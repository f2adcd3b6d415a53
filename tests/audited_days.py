"""Published days with audit findings, by a test's own rules and by all rules."""

from published_days import published_rows

from pipelines.derive.analysis import Analysis
from pipelines.derive.audit import derive_audit_findings
from pipelines.tables import AUDIT_FINDINGS

# The shipped rules and their severities.
SHIPPED = {
    "build_failed": "medium",
    "build_stuck": "medium",
    "large_and_unused": "medium",
    "large_registry_only": "medium",
    "mutable_tag_in_use": "medium",
    "namespace_not_allowed": "high",
    "not_registered": "medium",
    "older_than_a_year": "low",
    "owner_missing": "medium",
    "public_dedicated_image": "high",
    "public_without_description": "low",
    "registered_but_gone": "medium",
    "tag_gone": "high",
    "tag_pushed_again": "medium",
    "unknown_architecture": "low",
    "unknown_category": "low",
    "unused_30_days": "low",
    "unused_90_days": "medium",
    "visibility_widened": "high",
}

HEADER = "-- id: {id}\n-- title: Named badly\n-- severity: low\n-- why: It is.\n-- do: Rename it.\n"
SPINS = "SELECT 'a' AS id, MAX(a.range + b.range * 7 % 13) AS n FROM range(60000000) a, range(60000000) b"
NAMED_BADLY = "SELECT id, name FROM current_images WHERE name LIKE 'bad%'"


def write_rule(directory, id_, sql=NAMED_BADLY, header=HEADER):
    directory.mkdir(exist_ok=True)
    (directory / f"{id_}.sql").write_text(header.format(id=id_) + sql + "\n")


def derive(day):
    with Analysis(day) as analysis:
        return derive_audit_findings(analysis)


def findings_of(day, rule):
    return {row["id"]: row for row in published_rows(day, AUDIT_FINDINGS) if row["rule"] == rule}
