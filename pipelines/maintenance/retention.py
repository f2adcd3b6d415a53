"""Removes old files by configured rules, so that everything that remains can still be proved.

Manifests, derived manifests and the history always stay. So does everything from the last complete day on, and the days
that the first kept snapshot is compared with. A retention record is written before files are removed; if the process is
killed in between, the next run finishes its work. The meaning of these records belongs to `lake.retention_records`.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.errors import ConfigurationError, StorageError
from pipelines.fingerprint import code_version
from pipelines.lake.derived_manifests import manifest_files
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import FileFacts, chain_head, complete_days, last_days
from pipelines.lake.monthly_manifests import is_unchanged
from pipelines.lake.records import write_record
from pipelines.lake.retention_records import (
    REPORT,
    RemovedFile,
    RetentionRecord,
    RetentionRecords,
    Rules,
    last_record_sha256,
)
from pipelines.lake.storage import LakePath
from pipelines.maintenance.compaction import decompact
from pipelines.tables import RESPONSE_TABLES, SNAPSHOT_TABLES


@dataclass(frozen=True, slots=True)
class Plan:
    """The files of a project that the rules would remove, in order.

    `recorded`: files that a retention record already names, because a run was killed before it removed them.
    """

    project: str
    rules: Rules
    files: list[RemovedFile]
    recorded: int

    def by_table(self) -> dict[str, list[RemovedFile]]:
        """The files of each table, by table and day."""
        tables: dict[str, list[RemovedFile]] = {}
        for removed in sorted(self.files, key=lambda removed: (removed.table, removed.snapshot_date)):
            tables.setdefault(removed.table, []).append(removed)
        return tables


def plan_retention(lake: Lake, project: str, rules: Rules, today: dt.date) -> Plan:
    """Find the files of a project that the rules would remove; changes nothing.

    Raises:
        ConfigurationError: no rule is set.
        StorageError: a manifest or record is damaged, or the lake cannot be read.
    """
    if rules.responses_days is None and rules.snapshots_days is None:
        raise ConfigurationError(
            "No retention rule is set, so everything is kept: give --responses-days or --snapshots-days, or "
            "set IMAGE_SNAPSHOTS_RETENTION_RESPONSES_DAYS or IMAGE_SNAPSHOTS_RETENTION_SNAPSHOTS_DAYS."
        )
    removed = RetentionRecords(lake, project)
    responses = _older(lake, project, rules.responses_days, today)
    snapshots = _older(lake, project, rules.snapshots_days, today)
    if snapshots:
        # The first kept day needs the results of these days.
        first_kept = Partition(snapshots[-1].date + dt.timedelta(days=1), project)
        compared = last_days(lake, first_kept)
        snapshots = [day for day in snapshots if day not in compared]
    files: list[RemovedFile] = []
    for day in lake.contents.partitions():
        if day.project != project:
            continue
        wanted = {
            **(RESPONSE_TABLES if day in responses else {}),
            **(SNAPSHOT_TABLES if day in snapshots else {}),
        }
        for name, file in manifest_files(lake, day).items():
            # Files that a record names are removed even if the rules have changed: their removal was interrupted.
            if (name in wanted or removed.names(file)) and lake.place(name, day).is_there():
                files.append(RemovedFile(table=name, snapshot_date=day.date, file=file))
        if lake.report(day).is_there():
            file = _report_facts(lake, day)
            if day in snapshots or removed.names(file):
                files.append(RemovedFile(table=REPORT, snapshot_date=day.date, file=file))
    return Plan(project, rules, files, sum(removed.names(found.file) for found in files))


def _older(lake: Lake, project: str, kept_days: int | None, today: dt.date) -> list[Partition]:
    """The days of a project that a rule may remove, in order; none from the last complete day on."""
    complete = complete_days(lake, project)
    if kept_days is None or not complete:
        return []
    first_kept = min(today - dt.timedelta(days=kept_days - 1), complete[-1].date)
    return [day for day in lake.contents.partitions() if day.project == project and day.date < first_kept]


def _report_facts(lake: Lake, day: Partition) -> FileFacts:
    path = lake.report(day)
    return FileFacts(path=lake.key(path), rows=0, bytes=path.size(), sha256=path.sha256())


def apply_retention(
    lake: Lake,
    project: str,
    rules: Rules,
    now: dt.datetime,
    on_file: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Write a retention record, remove the files that the rules allow, and return them.

    `on_file` is called with the number of files removed so far.

    Raises:
        ConfigurationError: no rule is set.
        StorageError: a file is not the one that its manifest names, so removing it would hide the change; or the lake
            cannot be read or written.
    """
    # These locks keep others from publishing, deriving or compacting days of the project meanwhile.
    with lake.locks.derived(project, "retention"), lake.locks.chain(project, "retention"):
        plan = plan_retention(lake, project, rules, now.date())
        for removed in plan.files:
            path = _place(lake, project, removed)
            lake.check_within(path)
            if not is_unchanged(path, removed.file):
                raise StorageError(
                    f"{path} is not the file that the manifest names for "
                    f"{Partition(removed.snapshot_date, project)}, so nothing was removed: `image-snapshots verify` "
                    "shows what was changed; restore the file from a backup first."
                )
        _write_record(lake, plan, now)
        for month in sorted({f"{gone.snapshot_date:%Y-%m}" for gone in plan.files if gone.table in SNAPSHOT_TABLES}):
            # The monthly files have the removed rows, too. The rest of the month can be compacted again.
            decompact(lake, month, project, with_files=True)
        for number, removed in enumerate(plan.files):
            on_file(number, len(plan.files))
            lake.remove(_place(lake, project, removed))
        on_file(len(plan.files), len(plan.files))
    return plan


def _place(lake: Lake, project: str, removed: RemovedFile) -> LakePath:
    day = Partition(removed.snapshot_date, project)
    return lake.report(day) if removed.table == REPORT else lake.place(removed.table, day)


def _write_record(lake: Lake, plan: Plan, now: dt.datetime) -> None:
    recorded = RetentionRecords(lake, plan.project)
    files = [removed for removed in plan.files if not recorded.names(removed.file)]
    if not files:
        return
    record = RetentionRecord(
        project=plan.project,
        applied_at=now,
        code_version=code_version(),
        rules=plan.rules,
        previous_record_sha256=last_record_sha256(lake, plan.project),
        newest_manifest_sha256=chain_head(lake, plan.project),
        files=files,
    )
    # Records are numbered, so their order does not depend on a clock. The next number follows the largest existing one,
    # so no record is overwritten even if an earlier one is missing.
    last = max((int(path.stem) for path in lake.contents.retention_records(plan.project)), default=0)
    path = lake.retention_record(plan.project, f"{last + 1:06}")
    write_record(path, record)
