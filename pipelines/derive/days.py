"""All that is derived from a project's published days, in order, from their history to their costs.

A day's derived tables depend on the days before it. Each day has a derived manifest,
`_derived/dt=.../project=....json`, with the files' facts and the *basis*: a hash over its manifest and those of all
days before it. A day whose derived manifest is missing or of another basis is derived again with the next day. So the
days after a rebuilt day or a killed run are corrected. Derived manifests form a chain in the order in which they were
written; replaced ones are kept under `_derived/superseded`. What each table means belongs to the module of its name.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from pipelines.derive.analysis import Analysis
from pipelines.derive.audit import AuditResult, derive_audit_findings, read_rules
from pipelines.derive.costs import CostResult, derive_image_costs
from pipelines.derive.history import HistoryResult, derive_image_changes, derive_image_history
from pipelines.derive.reconciliation import ReconciliationResult, derive_image_reconciliation
from pipelines.derive.storage import StorageResult, derive_image_storage, derive_reclaimable
from pipelines.derive.usage import UsageResult, derive_image_usage
from pipelines.engine.interface import Engine
from pipelines.engine.opening import open_engine
from pipelines.errors import ConfigurationError, StorageError
from pipelines.fingerprint import code_version
from pipelines.lake.derived_manifests import (
    DerivedManifest,
    DerivedSummary,
    Inputs,
    RegistrySummary,
    bases,
    derived_link,
    newest_derived_record,
    placed_derived_manifest,
    read_derived_manifest,
)
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import FileFacts, last_days, not_published
from pipelines.lake.records import is_whole, keep_record, write_record
from pipelines.lake.retention_records import HANDED_ON, RetentionRecords, check_derivable, is_derivable
from pipelines.lake.storage import LakePath
from pipelines.run import Run
from pipelines.tables import ANALYSIS_TABLES, IMAGE_HISTORY, SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class DerivationResult:
    """What deriving a day brought to light."""

    history: HistoryResult
    reconciliation: ReconciliationResult
    storage: StorageResult
    usage: UsageResult
    audit: AuditResult
    costs: CostResult
    derived_manifest: DerivedManifest


def derive_days(run: Run, on_day: Callable[[Partition, int, int], None] = lambda *_: None) -> DerivationResult:
    """Derive the tables of a published day, and those of every other day of its project that lacks them or is outdated.

    `on_day` is told each day before it is derived, its number and how many there are.

    Raises:
        ConfigurationError: the day is not published, retention removed what its tables are made from, or a rule, price
            or suppression file cannot be read.
        StorageError: the lake cannot be read or written.
    """
    # Two days of a project may end at once: the second derivation must see what the first one has published.
    with run.lake.locks.derived(run.partition.project, f"run {run.run_id}"):
        return _derive_days(run, on_day)


def _derive_days(run: Run, on_day: Callable[[Partition, int, int], None]) -> DerivationResult:
    lake, asked = run.lake, run.partition
    basis = bases(lake, asked.project)
    if asked not in basis:
        raise not_published(asked, "nothing can be derived from it")
    removed = RetentionRecords(lake, asked.project)
    check_derivable(lake, asked, removed)
    current = _current(lake, asked.project, basis)
    # Of days whose files were removed, what was derived before stands.
    due = [
        partition
        for partition in basis
        if partition == asked or (partition not in current and is_derivable(lake, partition, removed))
    ]
    result: DerivationResult | None = None
    with open_engine(run.settings) as engine:
        for number, partition in enumerate(due):
            on_day(partition, number, len(due))
            derived = _derive(replace(run, partition=partition), basis[partition], engine)
            if partition == asked:
                result = derived
    if result is None:
        raise StorageError(f"{asked} was published, and then removed while its tables were derived: run again.")
    return result


def _current(lake: Lake, project: str, basis: dict[Partition, str]) -> set[Partition]:
    """The days whose derived tables are there, and made from what is published now."""
    sizes = {path: size for name in ANALYSIS_TABLES for path, size in lake.contents.sizes(name, project).items()}
    current = set()
    for partition, content in lake.contents.derived_manifests(project).items():
        derived_manifest = placed_derived_manifest(lake, partition, content)
        if (
            derived_manifest is not None
            and is_whole(content)
            and derived_manifest.basis == basis.get(partition)
            and derived_manifest.schema_version == SCHEMA_VERSION
            and all(sizes.get(file.path) == file.bytes for file in derived_manifest.files.values())
        ):
            current.add(partition)
    return current


def derived_inputs(run: Run) -> Inputs:
    """What the tables of a day would be made from now besides published days.

    Raises:
        ConfigurationError: the price book, the suppressions or the directory of rules cannot be read.
    """
    settings = run.settings
    rules = [f"{rule.name} {rule.sql_sha256}" for rule in read_rules(settings.audit_rules)]
    handed_on = {}
    for before in last_days(run.lake, run.partition):
        derived_manifest = read_derived_manifest(run.lake, before) if before else None
        files = derived_manifest.files if derived_manifest else {}
        handed_on.update({files[name].path: files[name].sha256 for name in HANDED_ON if name in files})
    namespaces = settings.allowed_namespaces
    return Inputs(
        audit_rules=_sha256("\n".join(rules).encode()),
        suppressions=_sha256_of(settings.suppressions, "suppressions file") if settings.suppressions else None,
        allowed_namespaces=None if namespaces is None else _sha256("\n".join(sorted(namespaces)).encode()),
        price_book=_sha256_of(settings.price_book, "price book"),
        # Letter case is no difference.
        tag_keys=_sha256(orjson.dumps({name: key.lower() for name, key in settings.owner_tags.items()})),
        handed_on=dict(sorted(handed_on.items())),
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sha256_of(path: Path, name: str) -> str:
    try:
        return _sha256(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"The {name} {path} cannot be read: {error.strerror}.") from error


def _derive(run: Run, basis: str, engine: Engine) -> DerivationResult:
    """Make all tables of a day in staging, then put them in their places: what fails before that changes nothing."""
    staging = run.lake.staged_derived(run.partition)
    # What a run that was killed left.
    staging.remove_tree()
    try:
        return _derive_staged(run, basis, staging, engine)
    finally:
        staging.remove_tree()


def _derive_staged(run: Run, basis: str, staging: LakePath, engine: Engine) -> DerivationResult:
    # First, because all that follows reads it.
    history = derive_image_history(run, staging=staging, engine=engine.session())
    engine.rest()
    inputs = derived_inputs(run)
    with Analysis(run, staging, engine.session()) as analysis:
        reconciliation = derive_image_reconciliation(analysis)
        storage = derive_image_storage(analysis)
        changes_file, changes = derive_image_changes(analysis)
        usage = derive_image_usage(analysis)
        audit = derive_audit_findings(analysis)
        reclaimable = derive_reclaimable(analysis)
        costs = derive_image_costs(analysis)
        files = (
            changes_file,
            reconciliation.file,
            *storage.files,
            usage.file,
            *audit.files,
            costs.file,
            reclaimable,
        )
        derived_manifest = DerivedManifest(
            snapshot_date=run.partition.date,
            project=run.partition.project,
            run_id=run.run_id,
            derived_at=run.now(),
            code_version=code_version(),
            schema_version=SCHEMA_VERSION,
            basis=basis,
            manifest_sha256=run.lake.manifest(run.partition).sha256(),
            inputs=inputs,
            files={file.path.partition("/")[0]: file for file in files},
            history=FileFacts(
                path=run.lake.key(run.lake.project_table(IMAGE_HISTORY.name, run.partition.project)),
                rows=history.versions,
                bytes=history.path.size(),
                sha256=history.path.sha256(),
            ),
            accepted_history=run.accepted_history,
            summary=summarise(analysis, changes, usage, audit, costs, storage),
            previous_record_sha256=newest_derived_record(run.lake, run.partition.project),
        )
    # Who finds a history that no record names yet can tell whose it is.
    coming = run.lake.pending_derived_manifest(run.partition.project)
    write_record(coming, derived_manifest)
    _keep_derived_manifest(run.lake, run.partition)
    path = run.lake.derived_manifest(run.partition)
    # No derived manifest while files change: a run killed here leaves a day that is not derived, never files that
    # differ from their derived manifest as if somebody had changed them.
    run.lake.remove(path)
    stored = run.lake.project_table(IMAGE_HISTORY.name, run.partition.project)
    run.lake.replace(history.path, stored)
    for name in derived_manifest.files:
        run.lake.replace(staging / f"{name}.parquet", run.lake.table(name, run.partition))
    history = replace(history, path=stored)
    write_record(path, derived_manifest)
    run.lake.remove(coming)
    return DerivationResult(history, reconciliation, storage, usage, audit, costs, derived_manifest)


def summarise(
    analysis: Analysis,
    changes: dict[str, int],
    usage: UsageResult,
    audit: AuditResult,
    costs: CostResult,
    storage: StorageResult,
) -> DerivedSummary:
    """A day in a few figures, by what deriving it has brought to light."""
    registry = None
    if analysis.manifest.fetch.registry_was_wanted:
        registry = RegistrySummary(
            tags=storage.tags,
            stored_bytes=storage.stored_bytes,
            only_tags=storage.registry_only_tags,
            only_bytes=storage.registry_only_bytes,
            unread=storage.unread,
            known_reclaimable_bytes=costs.known_reclaimable_bytes,
            unknown_images=costs.unknown_reclaimable_images,
        )
    return DerivedSummary(
        is_complete=analysis.manifest.is_complete,
        compared_with=analysis.previous.date if analysis.previous else None,
        images=costs.images,
        changes=changes,
        findings=audit.open_by_severity,
        new_findings=audit.new,
        resolved_findings=audit.resolved,
        suppressed_findings=audit.suppressed,
        rule_errors=audit.rule_errors,
        total_bytes=costs.total_bytes,
        growth_bytes=costs.growth_bytes,
        estimated_cost=costs.estimated_cost,
        currency=costs.currency,
        is_priced=costs.is_priced,
        unpriced=costs.unpriced,
        reclaimable_bytes=costs.reclaimable_bytes,
        unmatched_references=usage.unmatched_references,
        registry=registry,
    )


def _keep_derived_manifest(lake: Lake, partition: Partition) -> None:
    """Keep a copy of the derived manifest that is about to be replaced or removed: later records name it."""
    path = lake.derived_manifest(partition)
    if path.is_there():
        replaced = path.read_whole()
        # A damaged one is in no chain.
        if derived_link(replaced) is not None:
            keep_record(replaced, lake.superseded_derived_manifests(partition.project))
