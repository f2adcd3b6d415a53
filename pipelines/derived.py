"""All that is derived from a project's published days, in order: history, changes, reconciliation, usage, audit, costs.

A day's derived tables depend on the days before it. Each day has a seal, `_derived/dt=.../project=....json`, with the
files' facts and the *basis*: a hash over its manifest and those of all days before it. A day whose seal is
missing or of another basis is derived again with the next one, so that a day that was rebuilt in the middle, or a run
that was killed, corrects what follows. Seals form a chain in the order in which they were written, and those that were
replaced are kept under `_derived/superseded`. What each table means belongs to the module of its name.
"""

import datetime as dt
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.analysis import DayAnalysis
from pipelines.audit import AuditResult, derive_audit_findings, read_rules
from pipelines.columns import ANALYSIS_TABLES, IMAGE_HISTORY, SCHEMA_VERSION
from pipelines.costs import CostResult, derive_image_costs
from pipelines.day import Day
from pipelines.errors import ConfigurationError, StorageError
from pipelines.history import HistoryResult, derive_image_changes, derive_image_history
from pipelines.lake import Lake, Partition
from pipelines.manifest import (
    FileFacts,
    check_places,
    code_version,
    last_complete_day,
    last_published_day,
    misplaced,
    parse_manifest,
    read_manifest,
)
from pipelines.reconciliation import ReconciliationResult, derive_image_reconciliation
from pipelines.records import Record, derived_link, is_whole, newest_derived_record, record_bytes, with_own_sha256
from pipelines.removed import HANDED_ON, RemovedFiles, check_derivable, is_derivable
from pipelines.stored_files import LakePath, exists, remove_tree, sha256_of_file, storage_errors, write_atomically
from pipelines.usage import UsageResult, derive_image_usage


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DaySummary(_Facts):
    """A day in a few figures.

    `changes`: images by kind of change since `compared_with`; `findings`: open ones that are not suppressed, by
    severity; sizes in bytes, `growth_bytes` against `compared_with`, `reclaimable_bytes` an upper bound;
    `estimated_cost` of the day, `is_priced` whether the price book states any price above zero. None where nothing is
    known.
    """

    is_complete: bool
    compared_with: dt.date | None
    images: int
    changes: dict[str, int]
    findings: dict[str, int]
    new_findings: int
    resolved_findings: int
    suppressed_findings: int
    rule_errors: dict[str, str]
    total_bytes: int
    growth_bytes: int | None
    estimated_cost: float | None
    currency: str
    is_priced: bool
    unpriced: int
    reclaimable_bytes: int | None


class Inputs(_Facts):
    """What the derived tables of a day were made from besides published days, so that it can be told when that changed.

    SHA-256 of the audit rules, the file of suppressions and the setting of allowed namespaces (None where there was
    none), and the price book. `handed_on`: SHA-256, by path, of the derived files of earlier days that they go on from.
    """

    audit_rules: str
    suppressions: str | None
    allowed_namespaces: str | None
    price_book: str
    handed_on: dict[str, str]


class DerivedSeal(Record):
    """What the derived tables of a day were made from, their files, and the day in a few figures.

    `manifest_sha256` is of the day's manifest. `history`: the project's `image_history` as it was after this day was
    derived; what the newest seal says holds. `accepted_history`: SHA-256 of one that somebody said is right although no
    record names it. `previous_record_sha256`: of the seal that the project wrote before.
    """

    snapshot_date: dt.date
    project: str
    run_id: str
    derived_at: dt.datetime
    code_version: str
    schema_version: int
    basis: str
    manifest_sha256: str
    inputs: Inputs
    files: dict[str, FileFacts]
    history: FileFacts
    accepted_history: str | None = None
    summary: DaySummary
    previous_record_sha256: str | None


@dataclass(frozen=True, slots=True)
class DerivedDay:
    """What deriving a day brought to light."""

    history: HistoryResult
    reconciliation: ReconciliationResult
    usage: UsageResult
    audit: AuditResult
    costs: CostResult
    seal: DerivedSeal


def bases(lake: Lake, project: str) -> dict[Partition, str]:
    """The basis of each published day of a project, in order."""
    found: dict[Partition, str] = {}
    before = ""
    for partition, content in lake.manifests(project).items():
        digest = hashlib.sha256(content).hexdigest()
        before = hashlib.sha256(f"{before} {digest}".encode()).hexdigest()
        found[partition] = before
    return found


def read_seal(lake: Lake, partition: Partition) -> DerivedSeal | None:
    """The seal of a day's derived tables; None when there is none, or none that this version of the software can read.

    What it seals can be derived again, so a damaged seal is as good as none; so is one that names other places than
    those where the tables of the day lie.
    """
    path = lake.derived_seal(partition)
    if not exists(path):
        return None
    with storage_errors(path):
        content = path.read_bytes()
    return _placed_seal(lake, partition, content)


def parse_seal(content: bytes) -> DerivedSeal | None:
    """Make a seal of a file's content, wherever it lies; None as for `read_seal`."""
    try:
        return DerivedSeal.model_validate_json(content)
    except ValidationError:
        return None


def _placed_seal(lake: Lake, partition: Partition, content: bytes) -> DerivedSeal | None:
    seal = parse_seal(content)
    return seal if seal is not None and misplaced(lake, partition, seal.files) is None else None


def sealed_files(lake: Lake, partition: Partition) -> dict[str, FileFacts]:
    """The files that the manifest of a published day and the seal of its derived tables name, by table.

    Raises:
        StorageError: the manifest is damaged, or names a place that is not that of the day's table.
    """
    seal = read_seal(lake, partition)
    manifest = read_manifest(lake.manifest(partition))
    check_places(lake, partition, manifest)
    return manifest.files | (seal.files if seal else {})


def readable_sealed_files(lake: Lake, project: str) -> dict[Partition, dict[str, FileFacts]]:
    """What `sealed_files` gives for each published day of a project; days with a damaged manifest are left out.

    Whoever reads rows need not be stopped by one; `verify` names it.
    """
    seals = lake.derived_seals(project)
    found = {}
    for partition, content in lake.manifests(project).items():
        try:
            manifest = parse_manifest(content, lake.manifest(partition))
            check_places(lake, partition, manifest)
        except StorageError:
            continue
        seal = _placed_seal(lake, partition, seals[partition]) if partition in seals else None
        found[partition] = manifest.files | (seal.files if seal else {})
    return found


def derive_days(day: Day, on_day: Callable[[Partition, int, int], None] = lambda *_: None) -> DerivedDay:
    """Derive the tables of a published day, and those of every other day of its project that lacks them or is outdated.

    `on_day` is told each day before it is derived, its number and how many there are.

    Raises:
        ConfigurationError: the day is not published, retention removed what its tables are made from, or a rule, price
            or suppression file cannot be read.
        StorageError: the lake cannot be read or written.
    """
    # Two days of a project may end together: whoever comes second must see what the other has published.
    with day.lake.deriving(day.partition.project, f"run {day.run_id}"):
        return _derive_days(day, on_day)


def _derive_days(day: Day, on_day: Callable[[Partition, int, int], None]) -> DerivedDay:
    lake, asked = day.lake, day.partition
    basis = bases(lake, asked.project)
    if asked not in basis:
        raise ConfigurationError(
            f"Nothing is published for {asked}, so nothing can be derived from it. "
            "`image-snapshots status` lists the days that are there."
        )
    removed = RemovedFiles(lake, asked.project)
    check_derivable(lake, asked, removed)
    current = _current(lake, asked.project, basis)
    # Of days whose files were removed, what was derived before stands.
    due = [
        partition
        for partition in basis
        if partition == asked or (partition not in current and is_derivable(lake, partition, removed))
    ]
    result: DerivedDay | None = None
    for number, partition in enumerate(due):
        on_day(partition, number, len(due))
        derived = _derive(replace(day, partition=partition), basis[partition])
        if partition == asked:
            result = derived
    if result is None:
        raise StorageError(f"{asked} was published, and then removed while its tables were derived: run again.")
    return result


def _current(lake: Lake, project: str, basis: dict[Partition, str]) -> set[Partition]:
    """The days whose derived tables are there, and made from what is published now."""
    sizes = {path: size for name in ANALYSIS_TABLES for path, size in lake.sizes(name, project).items()}
    current = set()
    for partition, content in lake.derived_seals(project).items():
        seal = _placed_seal(lake, partition, content)
        if (
            seal is not None
            and is_whole(content)
            and seal.basis == basis.get(partition)
            and seal.schema_version == SCHEMA_VERSION
            and all(sizes.get(file.path) == file.bytes for file in seal.files.values())
        ):
            current.add(partition)
    return current


def derived_inputs(day: Day) -> Inputs:
    """What the tables of a day would be made from now besides published days.

    Raises:
        ConfigurationError: the price book, the suppressions or the directory of rules cannot be read.
    """
    settings = day.settings
    rules = [f"{rule.name} {rule.sql_sha256}" for rule in read_rules(settings.audit_rules)]
    handed_on = {}
    for before in (last_complete_day(day.lake, day.partition), last_published_day(day.lake, day.partition)):
        seal = read_seal(day.lake, before) if before else None
        files = seal.files if seal else {}
        handed_on.update({files[name].path: files[name].sha256 for name in HANDED_ON if name in files})
    namespaces = settings.allowed_namespaces
    return Inputs(
        audit_rules=_sha256("\n".join(rules).encode()),
        suppressions=_sha256_of(settings.suppressions, "suppressions file") if settings.suppressions else None,
        allowed_namespaces=None if namespaces is None else _sha256("\n".join(sorted(namespaces)).encode()),
        price_book=_sha256_of(settings.price_book, "price book"),
        handed_on=dict(sorted(handed_on.items())),
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sha256_of(path: Path, name: str) -> str:
    try:
        return _sha256(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"The {name} {path} cannot be read: {error.strerror}.") from error


def _derive(day: Day, basis: str) -> DerivedDay:
    """Make all tables of a day in staging, then put them in their places: what fails before that changes nothing."""
    staging = day.lake.staged_derived(day.partition)
    with storage_errors(staging):
        # What a run that was killed left.
        remove_tree(staging)
    try:
        return _derive_staged(day, basis, staging)
    finally:
        with storage_errors(staging):
            remove_tree(staging)


def _derive_staged(day: Day, basis: str, staging: LakePath) -> DerivedDay:
    # First, because all that follows reads it.
    history = derive_image_history(day, staging=staging)
    inputs = derived_inputs(day)
    with DayAnalysis(day, staging) as analysis:
        changes_file, changes = derive_image_changes(analysis)
        reconciliation = derive_image_reconciliation(analysis)
        usage = derive_image_usage(analysis)
        audit = derive_audit_findings(analysis)
        costs = derive_image_costs(analysis)
        files = (changes_file, reconciliation.file, usage.file, *audit.files, costs.file)
        seal = DerivedSeal(
            snapshot_date=day.partition.date,
            project=day.partition.project,
            run_id=day.run_id,
            derived_at=day.now(),
            code_version=code_version(),
            schema_version=SCHEMA_VERSION,
            basis=basis,
            manifest_sha256=sha256_of_file(day.lake.manifest(day.partition)),
            inputs=inputs,
            files={file.path.partition("/")[0]: file for file in files},
            history=FileFacts(
                path=day.lake.key(day.lake.project_table(IMAGE_HISTORY.name, day.partition.project)),
                rows=history.versions,
                bytes=day.lake.size(history.path),
                sha256=sha256_of_file(history.path),
            ),
            accepted_history=day.accepted_history,
            summary=summarise(analysis, changes, audit, costs),
            previous_record_sha256=newest_derived_record(day.lake, day.partition.project),
        )
    content = record_bytes(with_own_sha256(seal))
    # Who finds a history that no record names yet can tell whose it is.
    coming = day.lake.coming_seal(day.partition.project)
    with storage_errors(coming):
        write_atomically(coming, content)
    _keep_seal(day.lake, day.partition)
    path = day.lake.derived_seal(day.partition)
    # Without a seal while files change: whoever is killed here leaves a day that is not derived, and never files that
    # a seal says were changed by somebody.
    day.lake.remove(path)
    stored = day.lake.project_table(IMAGE_HISTORY.name, day.partition.project)
    day.lake.replace(history.path, stored)
    for name in seal.files:
        day.lake.replace(staging / f"{name}.parquet", day.lake.table(name, day.partition))
    history = replace(history, path=stored)
    with storage_errors(path):
        write_atomically(path, content)
    day.lake.remove(coming)
    return DerivedDay(history, reconciliation, usage, audit, costs, seal)


def summarise(analysis: DayAnalysis, changes: dict[str, int], audit: AuditResult, costs: CostResult) -> DaySummary:
    """A day in a few figures, by what deriving it has brought to light."""
    return DaySummary(
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
    )


def _keep_seal(lake: Lake, partition: Partition) -> None:
    """Keep a copy of the seal that is about to be replaced, or removed: later records name it."""
    path = lake.derived_seal(partition)
    if exists(path):
        with storage_errors(path):
            replaced = path.read_bytes()
            # A damaged one is in no chain.
            if derived_link(replaced) is not None:
                kept = lake.superseded_derived_seals(partition.project) / f"{_sha256(replaced)}.json"
                write_atomically(kept, replaced)
