"""Renders the report of a day: one self-contained HTML file, made from published and derived tables.

Its figures come from the derived manifest and from the SQL under `sql/report/` (`report.data`); its layout is in
`page.html.j2` and `page.css`. Choosing what is shown belongs here. The beginning is in `report.headline`, figures as
text in `report.words`, the trend's charts in `report.charts`. The same lake gives the same bytes.
"""

import hashlib
import re
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from pipelines.derive.usage import UNUSED_AFTER_DAYS, is_observed, observed_days, users_in_words
from pipelines.engine.spreadsheet import inert
from pipelines.errors import ConfigurationError
from pipelines.fingerprint import code_version
from pipelines.lake.derived_manifests import bases, read_derived_manifest
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.local_storage import LocalPath
from pipelines.lake.manifests import Manifest, published_or_error
from pipelines.lake.records import UNSTATED, is_whole, state_sha256
from pipelines.lake.retention_records import RetentionRecords
from pipelines.lake.storage import LakePath
from pipelines.lake.stored_responses import failed_ids
from pipelines.plain_text import visible
from pipelines.report.charts import charts
from pipelines.report.cost_notes import bill_notes, cost_notes
from pipelines.report.data import read_tables, read_trend
from pipelines.report.headline import asked, awaited, figures, notes, verdict
from pipelines.report.words import (
    SHOWN_TEXT,
    count,
    difference,
    freed,
    long_date,
    moment,
    money,
    plural,
    signed,
    size,
    words,
)
from pipelines.tables import RESPONSES, SEVERITIES, SNAPSHOT_TABLES, USAGE_SOURCES, Outcome

# Limits the size of the page, together with the row limits of `report.data`.
SHOWN_IDS = 200
SHOWN_EVIDENCE = 12
SHOWN_WORKSPACES = 20
# This many of the gravest findings and of access changes are shown unfolded; readers unfold the others.
UNFOLDED_ROWS = 12

_STATED = re.compile(rb'<meta name="image-snapshots:content" content="([0-9a-f]{64})">')
_MARKS = re.compile(rb'<meta name="image-snapshots:([a-z_]+)" content="([^"]*)">')

_OUTCOMES = {
    Outcome.OK: "The API described the image.",
    Outcome.DELETED: "The API says that the image was deleted.",
    Outcome.NOT_FOUND: "The API knows no such image.",
    Outcome.FORBIDDEN: "These credentials may not see the image; it counts as last known.",
    Outcome.FAILED: "There was no usable response; the image counts as last known, and the day is incomplete.",
    Outcome.INVALID_ID: "The inventory's id is not a UUID; it was never sent.",
}
_CLASSES = {
    "access": "Who can reach the image: visibility, namespace, workspace",
    "lifecycle": "Images that came or went, and their status",
    "content": "Content of the image: registry address, tag, architecture, size, update",
    "metadata": "Description of the image: name, type, description, supported services",
}

# Why a part of a bill belongs to no image, by the `allocation` of the table `image_bills`.
_NOT_ALLOCATED = {
    "registry_only": "Tags that no image registers",
    "storage_unknown": "Images whose storage is not known",
    "registry_not_read": "The registry was not read",
    "no_snapshot": "No snapshot of that day",
    "nothing_stored": "Nothing is stored",
    "long_period": "Charges for longer than a day",
}


def write_report(lake: Lake, partition: Partition, output: Path | None = None) -> LakePath:
    """Write the report of a day to the lake or to `output`, and return its path.

    Raises:
        ConfigurationError: the day is not published, its derived tables are missing or outdated, or `output` cannot be
            written.
        StorageError: the lake cannot be read or written.
    """
    content = render_report(lake, partition).encode()
    if output is None:
        lake.report(partition).write_whole(content)
        return lake.report(partition)
    path = LocalPath(output)
    try:
        with path.writing() as file:
            file.write(content)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}. Name another file.") from error
    return path


def outdated_reports(lake: Lake, project: str) -> list[Partition]:
    """The days of a project whose report is older than their derived tables."""
    reported = lake.contents.reported(project)
    return [
        day for day, derived_at in lake.contents.derived(project).items() if reported.get(day, derived_at) < derived_at
    ]


def is_report_whole(content: bytes) -> bool:
    """Whether a report has the SHA-256 that it states for itself."""
    return is_whole(content, _STATED)


def report_marks(content: bytes) -> dict[str, str]:
    """The inputs that a report states: SHA-256 by name (`manifest`, `derived_record`, ...)."""
    head = content.partition(b"<style>")[0]
    return {name.decode(): value.decode() for name, value in _MARKS.findall(head)}


def render_report(lake: Lake, partition: Partition) -> str:
    """The report of a day as HTML; it states its inputs and its own SHA-256.

    Raises:
        ConfigurationError: the day is not published, retention removed files of it, or its derived tables are missing
            or outdated.
        StorageError: the lake cannot be read.
    """
    manifest = published_or_error(lake, partition, "there is nothing to report")
    RetentionRecords(lake, partition.project).check_has(
        partition, SNAPSHOT_TABLES, "nothing of that day is left to report"
    )
    basis = bases(lake, partition.project)
    derived_manifest = read_derived_manifest(lake, partition)
    if derived_manifest is None or derived_manifest.basis != basis[partition]:
        raise ConfigurationError(
            f"The derived tables of {partition} are missing or outdated: derive them with "
            f"`image-snapshots rebuild --date {partition.date} --project {partition.project}`, then report again."
        )
    rows = read_tables(lake, partition, derived_manifest)
    kinds, workspaces = manifest.fetch.usage_kinds, manifest.fetch.scope.workspaces
    users = users_in_words(kinds, len(workspaces)) if kinds else None
    observed = len(observed_days(lake, manifest)) if is_observed(manifest) else 0
    trend = read_trend(lake, partition, derived_manifest.summary.currency, basis)
    compared_with = derived_manifest.summary.compared_with
    previous = read_derived_manifest(lake, Partition(compared_with, partition.project)) if compared_with else None
    before = previous.summary if previous else None
    responses = lake.table(RESPONSES.name, partition)
    trend_sha256 = hashlib.sha256(repr(trend).encode()).hexdigest()
    content = template().render(
        partition=partition,
        manifest=manifest,
        manifest_path=lake.key(lake.manifest(partition)),
        manifest_sha256=lake.manifest(partition).sha256(),
        derived_record_sha256=lake.derived_manifest(partition).sha256(),
        trend_sha256=trend_sha256,
        code=code_version(),
        unstated=UNSTATED,
        derived_manifest=derived_manifest,
        summary=derived_manifest.summary,
        verdict=verdict(manifest, derived_manifest.summary),
        notes=[*notes(manifest, derived_manifest.summary), *awaited(rows["rules"], observed)],
        figures=figures(derived_manifest.summary, before, next(iter(rows["bills"]), None)),
        severity_counts=[
            (name, number, number - before.findings[name] if before else None)
            for name, number in derived_manifest.summary.findings.items()
        ],
        severities=_findings_by_severity(rows["rules"], rows["findings"]),
        set_aside=_set_aside(rows["rules"], rows["findings"]),
        changes=_changes(rows["change_classes"], rows["changes"]),
        groups={kind: _with_share(found) for kind, found in _grouped(rows["bytes_and_costs"], "dimension").items()},
        bills=rows["bills"],
        bill_groups=_grouped(rows["bill_groups"], "dimension"),
        not_allocated=_NOT_ALLOCATED,
        cost_notes=cost_notes(manifest.fetch, derived_manifest.summary, users),
        bill_notes=bill_notes(manifest.fetch),
        outliers={"largest": [], "grown": [], "unused": []} | _grouped(rows["outliers"], "kind"),
        trend=trend,
        charts=charts(trend),
        broken=[rule for rule in rows["rules"] if rule["error"] is not None],
        silent=[
            rule for rule in rows["rules"] if rule["has_file"] and rule["error"] is None and not rule["open_findings"]
        ],
        rules_applied=len({rule["rule"] for rule in rows["rules"] if rule["has_file"] and rule["error"] is None}),
        outcomes=[(name, manifest.fetch.outcomes.get(name, 0), meaning) for name, meaning in _OUTCOMES.items()],
        asked=asked(manifest),
        # Retention may have removed the responses.
        failed=failed_ids(responses)[:SHOWN_IDS] if responses.is_there() else [],
        files=[*manifest.files.values(), *derived_manifest.files.values()],
        unused_after_days=UNUSED_AFTER_DAYS,
        is_observed=observed > 0,
        usage_is_observed=manifest.fetch.usage_is_observed,
        users=users,
        usage=_usage(manifest),
        workspaces=[*workspaces[:SHOWN_WORKSPACES], *(["…"] if workspaces[SHOWN_WORKSPACES:] else [])],
    )
    return state_sha256(content.encode(), _STATED).decode()


@cache
def template() -> Template:
    """The page's template, compiled once because compiling takes longer than rendering."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=count,
        size=size,
        signed=signed,
        money=money,
        difference=difference,
        long_date=long_date,
        moment=moment,
        words=words,
        plural=plural,
    )
    environment.globals["freed"] = freed
    return environment.get_template("page.html.j2")


def _shown(value: Any) -> Any:
    """A value as the page shows it, also when its tables are opened in a spreadsheet; Markup is kept as it is."""
    return inert(visible(value, keep="\n\t")) if isinstance(value, str) and not isinstance(value, Markup) else value


def _usage(manifest: Manifest) -> list[str]:
    """What became of each source of usage that was wanted."""
    sources = manifest.fetch.sources
    return [
        f"{name.replace('_', ' ')} {'not read' if not facts.was_read else 'read in part' if facts.partial else 'read'}"
        for name, facts in ((name, sources[name]) for name in manifest.fetch.usage_kinds)
    ]


def _grouped(rows: list[dict[str, Any]], name: str) -> dict[str, list[dict[str, Any]]]:
    """Rows grouped by a column that they are sorted by."""
    return {key: list(found) for key, found in groupby(rows, lambda row: row[name])}


def _evidence(text: str | None) -> list[tuple[str, str]] | None:
    """Names and values of a finding's evidence; None if it is too long to show."""
    if text is None:
        return None
    values = _with_usage_in_words(orjson.loads(text))
    return [(name[:SHOWN_TEXT], words(value)) for name, value in list(values.items())[:SHOWN_EVIDENCE]]


def _with_usage_in_words(evidence: dict[str, Any]) -> dict[str, Any]:
    """Evidence in which the columns that say together how long nobody used an image are one sentence."""
    match evidence:
        case {"observed_kinds": str(kinds), "workspaces": int(workspaces), "unused_days": int(days), **others}:
            names = kinds.split("|")
            if USAGE_SOURCES.keys() >= set(names):
                users = users_in_words(names, workspaces)
                return {"unused": f"no {users} for {plural(days, 'observed day', 'observed days')}"} | others
    return evidence


def _findings_by_severity(rules: list[dict[str, Any]], findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The severities with open findings, worst first, each with its rules and their findings."""
    shown: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for finding in findings:
        if finding["kind"] == "open":
            finding["evidence"] = _evidence(finding["evidence"])
            shown.setdefault((finding["rule"], finding["severity"]), []).append(finding)
    severities: list[dict[str, Any]] = []
    for name in SEVERITIES:
        found = [
            rule | {"rows": shown[rule["rule"], name], "number": number}
            for number, rule in enumerate(rules)
            if rule["severity"] == name and rule["open_findings"]
        ]
        for rule in found:
            rule["blocks"] = _blocks(rule["rows"], rule["open_findings"], is_gravest=not severities)
        if found:
            severities.append({"name": name, "rules": found, "open": sum(rule["open_findings"] for rule in found)})
    return severities


def _blocks(rows: list[dict[str, Any]], total: int, *, is_gravest: bool) -> list[dict[str, Any]]:
    """Divide a rule's findings into folded blocks; the first of the gravest findings are unfolded."""
    images = plural(total, "image", "images")
    first = min(len(rows), UNFOLDED_ROWS)
    if not is_gravest or first == len(rows):
        return [{"title": images, "rows": rows, "is_unfolded": is_gravest}]
    return [
        {"title": f"The first {first} of {images}", "rows": rows[:first], "is_unfolded": True},
        {"title": f"{total - first:,} more", "rows": rows[first:], "is_unfolded": False},
    ]


def _set_aside(rules: list[dict[str, Any]], findings: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Suppressed and resolved findings: their numbers, and those that are shown."""
    return {
        kind: {
            "count": sum(rule[f"{kind}_findings"] for rule in rules),
            "rows": [finding for finding in findings if finding["kind"] == kind],
        }
        for kind in ("suppressed", "resolved")
    }


def _changes(classes: list[dict[str, Any]], changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each class of changes: its description, its counts by kind and field, and the changes that are shown."""
    counts, shown = _grouped(classes, "change_class"), _grouped(changes, "change_class")
    return [
        {
            "name": name,
            "meaning": meaning,
            "counts": counts.get(name, []),
            "rows": shown.get(name, []),
            # Access changes are read every day.
            "is_unfolded": name == "access" and len(shown.get(name, [])) <= UNFOLDED_ROWS,
            "total": shown[name][0]["class_changes"] if name in shown else 0,
        }
        for name, meaning in _CLASSES.items()
    ]


def _with_share(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The groups with their share of all bytes, in percent."""
    total = sum(group["size_bytes"] or 0 for group in groups)
    return [group | {"share": 100 * (group["size_bytes"] or 0) / total if total else 0.0} for group in groups]
