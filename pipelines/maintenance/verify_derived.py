"""Verifies what is derived from several days: files against derived manifests, and tables and history derived again."""

import datetime as dt
import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from pipelines.derive.analysis import Analysis
from pipelines.derive.audit import derive_audit_findings
from pipelines.derive.costs import derive_image_costs
from pipelines.derive.days import derived_inputs, summarise
from pipelines.derive.history import derive_image_changes, write_history_again
from pipelines.derive.reconciliation import derive_image_reconciliation
from pipelines.derive.storage import derive_image_storage, derive_reclaimable
from pipelines.derive.usage import derive_image_usage
from pipelines.engine.duckdb import DuckDBEngine
from pipelines.errors import ConfigurationError
from pipelines.fingerprint import code_version
from pipelines.lake.derived_manifests import (
    DerivedManifest,
    DerivedSummary,
    Inputs,
    bases,
    chain_of_derived,
    newest_derived_record,
)
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.local_storage import LocalPath
from pipelines.lake.manifests import FileFacts, published_days
from pipelines.lake.records import parse_record
from pipelines.lake.retention_records import RetentionRecords, is_derivable
from pipelines.lake.storage import LakePath
from pipelines.maintenance.verify_tables import (
    Note,
    Problem,
    false_statistics,
    first_difference,
    named,
    rows_of,
    wrong_keys,
)
from pipelines.run import Run
from pipelines.settings import Settings
from pipelines.tables import (
    ANALYSIS_TABLES,
    AUDIT_FINDINGS,
    AUDIT_RULES,
    IMAGE_CHANGES,
    IMAGE_COSTS,
    IMAGE_HISTORY,
    IMAGE_RECONCILIATION,
    IMAGE_STORAGE,
    IMAGE_USAGE,
    RECLAIMABLE,
)

# For each table: its inputs besides published days, in words, as far as `Inputs` knows them.
_MADE_FROM: dict[str, tuple[str, ...]] = {
    IMAGE_CHANGES.name: ("tag_keys", "handed_on"),
    IMAGE_RECONCILIATION.name: ("tag_keys",),
    IMAGE_STORAGE.name: ("handed_on",),
    IMAGE_USAGE.name: ("handed_on",),
    AUDIT_RULES.name: ("audit_rules", "suppressions", "allowed_namespaces", "tag_keys", "handed_on"),
    AUDIT_FINDINGS.name: ("audit_rules", "suppressions", "allowed_namespaces", "tag_keys", "handed_on"),
    IMAGE_COSTS.name: ("price_book", "tag_keys", "handed_on"),
    RECLAIMABLE.name: ("tag_keys", "handed_on"),
}
_IN_WORDS = {
    "audit_rules": "the audit rules",
    "suppressions": "the suppressions",
    "allowed_namespaces": "the allowed namespaces",
    "price_book": "the price book",
    "tag_keys": "the tag keys",
    "handed_on": "the derived tables of the day before",
}


def verify_derived(
    lake: Lake,
    project: str,
    settings: Settings | None = None,
    *,
    quick: bool = False,
    is_sound: bool = True,
    days: set[dt.date] | None = None,
    on_note: Callable[[Note], None] = lambda _: None,
) -> Iterator[Problem]:
    """Check the derived tables of a project: their files, their inputs, and the history.

    If all files agree with the derived manifests, the history and (with `settings`) the tables of `days` (None: all)
    are derived again and compared. This is skipped if `quick`, or if the published days are not `is_sound`. Tables of
    days that retention removed files from are not derived again.
    """
    removed = RetentionRecords(lake, project, skip_damaged=True)
    derived_manifests = {
        partition: parse_record(DerivedManifest, content, lake.derived_manifest(partition))
        for partition, content in lake.contents.derived_manifests(project).items()
    }
    found = False
    for problem in _verify_files(lake, project, derived_manifests, removed, is_sound=is_sound):
        found = True
        yield problem
    if quick or found or not is_sound:
        return
    yield from named(lake.key(lake.project_table(IMAGE_HISTORY.name, project)), _verify_history(lake, project))
    if settings is not None:
        yield from _derive_again(lake, project, derived_manifests, settings, days, on_note)


def _again(partition: Partition, *, can: bool = True) -> str:
    """The advice for a derived table of a day; `can`: it can be derived again."""
    if not can:
        return "restore it from a backup: retention removed the files that it was made from"
    return f"derive it again with `image-snapshots rebuild --date {partition.date} --project {partition.project}`"


def _verify_files(
    lake: Lake,
    project: str,
    derived_manifests: dict[Partition, DerivedManifest | None],
    removed: RetentionRecords,
    *,
    is_sound: bool,
) -> Iterator[Problem]:
    basis = bases(lake, project)
    # Take the project ids from the published days, if these can be trusted.
    ids = {run.partition: run.manifest.fetch.project_id for run in published_days(lake, project)} if is_sound else {}
    for partition in sorted(basis.keys() | derived_manifests.keys()):
        found_manifest = derived_manifests.get(partition)
        key = lake.key(lake.derived_manifest(partition))
        # A damaged manifest does not tell what the day can be derived from.
        can = not is_sound or is_derivable(lake, partition, removed)
        again = _again(partition, can=can)
        if found_manifest is None:
            for name in ANALYSIS_TABLES.keys() - {IMAGE_HISTORY.name}:
                path = lake.table(name, partition)
                if path.is_there():
                    yield Problem(lake.key(path), f"No derived manifest names this file: {again}.")
            continue
        own = Partition(found_manifest.snapshot_date, found_manifest.project)
        if own != partition:
            yield Problem(key, f"It is the record of {own}: it was moved or copied to the place of {partition}.")
            continue
        if partition not in basis:
            # `verify_witnesses` reports what names the missing manifest.
            continue
        if is_sound and found_manifest.basis != basis[partition] and can:
            yield Problem(key, f"The derived tables were made from days that have been published again since: {again}.")
        for name, facts in found_manifest.files.items():
            yield from named(facts.path, _verify_file(lake, partition, name, facts, removed, ids, again))
    not_derived = [partition for partition in sorted(basis) if derived_manifests.get(partition) is None]
    yield from _verify_history_file(lake, project, set(ids.values()), not_derived, has_removed=bool(removed))


def _verify_file(
    lake: Lake,
    partition: Partition,
    name: str,
    facts: FileFacts,
    removed: RetentionRecords,
    ids: dict[Partition, str],
    again: str,
) -> Iterator[Problem]:
    path = lake.table(name, partition)
    if facts.path != lake.key(path) or name not in ANALYSIS_TABLES:
        yield Problem(
            lake.key(lake.derived_manifest(partition)),
            f"It names {facts.path} as its table {name}, which is not the place of that table: {again}.",
        )
    elif not path.is_there():
        if not removed.names(facts):
            yield Problem(facts.path, f"The file is missing: {again}.")
    elif path.sha256() != facts.sha256:
        yield Problem(facts.path, f"The file was changed: {again}.")
    elif rows_of(path) != facts.rows:
        yield Problem(facts.path, f"The record says {facts.rows} rows, but the file has a different number: {again}.")
    else:
        expected: dict[str, set[Any]] = {"snapshot_date": {partition.date}}
        if partition in ids:
            expected["project_id"] = {ids[partition]}
        yield from (Problem(facts.path, sentence) for sentence in wrong_keys(path, expected))


def newest_derived_manifest(lake: Lake, project: str) -> DerivedManifest | None:
    """The newest derived manifest of a project."""
    newest = newest_derived_record(lake, project)
    for path, content in chain_of_derived(lake, project).items():
        if hashlib.sha256(content).hexdigest() == newest:
            return parse_record(DerivedManifest, content, path)
    return None


def _verify_history_file(
    lake: Lake, project: str, ids: set[str], not_derived: list[Partition], *, has_removed: bool
) -> Iterator[Problem]:
    path, found_manifest = lake.project_table(IMAGE_HISTORY.name, project), newest_derived_manifest(lake, project)
    key, is_there = lake.key(path), path.is_there()
    again = (
        "restore it from a backup: it cannot be derived again, because retention removed the files it was made from"
        if has_removed
        else "derive any day again with `image-snapshots rebuild`"
    )
    if found_manifest is None:
        if is_there:
            yield Problem(key, f"No derived manifest names this file: {again}.")
    elif found_manifest.history.path != key:
        yield Problem(key, f"The newest derived manifest names {found_manifest.history.path} as the history instead.")
    elif not is_there:
        yield Problem(key, f"The file is missing: {again}.")
    elif (digest := path.sha256()) == found_manifest.history.sha256:
        if ids:
            yield from named(key, (Problem(key, sentence) for sentence in wrong_keys(path, {"project_id": ids})))
    elif not_derived:
        # The history is put in its place before the record that names it.
        yield Problem(
            key,
            f"The file is not the one that the newest derived manifest names ({found_manifest.snapshot_date}), and "
            f"{not_derived[-1]} has no record: a run was killed while it derived that day, or somebody removed its "
            "record or put the file there. Derive that day with `image-snapshots rebuild --date "
            f"{not_derived[-1].date}`, which writes the file again.",
        )
    else:
        yield Problem(
            key,
            f"The file was changed: its SHA-256 is {digest}, but {found_manifest.history.sha256} in the newest "
            f"derived manifest ({found_manifest.snapshot_date}). Restore it from a backup"
            + (
                "; it cannot be derived again, because retention removed the files it was made from."
                if has_removed
                else "; or keep a copy of it, and derive any day again with `image-snapshots rebuild`, which writes it "
                "anew."
            ),
        )


def _verify_history(lake: Lake, project: str) -> Iterator[Problem]:
    history = lake.project_table(IMAGE_HISTORY.name, project)
    if not history.is_there():
        return
    for sentence in false_statistics(history):
        yield Problem(lake.key(history), sentence)
    with tempfile.TemporaryDirectory(prefix="image-snapshots-") as directory:
        derived = LocalPath(directory) / history.name
        # Every installation has this engine, whichever engine made the file.
        with DuckDBEngine() as engine:
            write_history_again(engine, lake, project, derived)
        difference = first_difference(history, derived)
    if difference is not None:
        yield Problem(
            lake.key(history),
            f"The history is not what the complete days give: {difference} differs. Keep a copy of the file, remove "
            "it, and derive any day again with `image-snapshots rebuild`.",
        )


# Once more


def _derive_again(
    lake: Lake,
    project: str,
    derived_manifests: dict[Partition, DerivedManifest | None],
    settings: Settings,
    days: set[dt.date] | None,
    on_note: Callable[[Note], None],
) -> Iterator[Problem]:
    settings = settings.model_copy(update={"lake": str(lake.root), "engine": "duckdb"})
    removed = RetentionRecords(lake, project)
    left_out: Counter[str] = Counter()
    for partition, found_manifest in derived_manifests.items():
        if found_manifest is None or (days is not None and partition.date not in days):
            continue
        if not is_derivable(lake, partition, removed) or not lake.manifest(partition).is_there():
            left_out["retention removed the files that they were made from"] += 1
            continue
        with tempfile.TemporaryDirectory(prefix="image-snapshots-") as directory:
            run = Run(partition, found_manifest.run_id, settings)
            try:
                inputs = derived_inputs(run)
            except ConfigurationError as error:
                on_note(Note("_derived", f"Nothing of project {project} was derived again: {error}"))
                return
            comparable = dict.fromkeys(found_manifest.files, True)
            for name, changed in _changed(found_manifest.inputs, inputs).items():
                comparable[name] = False
                left_out[f"{changed} changed since"] += 1
            key = lake.key(lake.derived_manifest(partition))
            yield from named(key, _compare(lake, run, LocalPath(directory), found_manifest, comparable, left_out))
    for reason, count in left_out.items():
        on_note(
            Note(
                "_derived",
                f"{count:,} derived tables of project {project} could not be derived again, because {reason}: "
                "the chain of records proves them.",
            )
        )


def _changed(then: Inputs, now: Inputs) -> dict[str, str]:
    """The changed inputs, in words, by the table that is made from them."""
    found = {}
    for name, inputs in _MADE_FROM.items():
        changed = [_IN_WORDS[one] for one in inputs if getattr(then, one) != getattr(now, one)]
        if changed:
            found[name] = " and ".join(changed)
    return found


def _compare(
    lake: Lake,
    run: Run,
    staging: LakePath,
    found_manifest: DerivedManifest,
    comparable: dict[str, bool],
    left_out: Counter[str],
) -> Iterator[Problem]:
    with Analysis(run, staging) as analysis:
        derive_image_reconciliation(analysis)
        storage = derive_image_storage(analysis)
        _, changes = derive_image_changes(analysis)
        usage = derive_image_usage(analysis)
        audit = derive_audit_findings(analysis) if comparable.get(AUDIT_FINDINGS.name) else None
        # Without findings that were derived again, it goes by those that are published.
        derive_reclaimable(analysis)
        costs = derive_image_costs(analysis) if comparable.get(IMAGE_COSTS.name) else None
        summary = summarise(analysis, changes, usage, audit, costs, storage) if audit and costs else None
    is_same_code = found_manifest.code_version == code_version()
    for name in found_manifest.files:
        path = lake.table(name, run.partition)
        yield from (Problem(lake.key(path), sentence) for sentence in false_statistics(path))
        if not comparable[name]:
            continue
        difference = first_difference(path, staging / f"{name}.parquet")
        if difference is None:
            continue
        if not is_same_code:
            left_out[
                f"they were derived by code {found_manifest.code_version}, and this code derives them differently"
            ] += 1
            continue
        yield Problem(
            lake.key(path),
            f"The table does not follow from the published days: {difference} differs. Restore it and its record from "
            f"a backup, or {_again(run.partition)}.",
        )
    if is_same_code and summary is not None and _figures(summary) != _figures(found_manifest.summary):
        yield Problem(
            lake.key(lake.derived_manifest(run.partition)),
            f"Its figures do not follow from the published days. Restore it from a backup, or {_again(run.partition)}.",
        )


def _figures(summary: DerivedSummary) -> dict[str, object]:
    # The last digits of sums of fractions depend on the order of the rows.
    cost = summary.estimated_cost
    return summary.model_dump() | {"estimated_cost": None if cost is None else f"{cost:.9e}"}
