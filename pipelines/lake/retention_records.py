"""Retention records: the files that retention has removed from each day, and what can no longer be done without them.

A record is written before the files that it names are removed. It names each by the SHA-256 that the day's manifest, or
the derived manifest, has for it, and the record before it by its SHA-256. Deciding what to remove, and
removing it, belong to `maintenance.retention`.
"""

import datetime as dt
import hashlib
from collections.abc import Collection

from pydantic import AwareDatetime

from pipelines.errors import ConfigurationError, StorageError
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import FileFacts, last_days
from pipelines.lake.records import Evidence, Facts, Record, parse_record
from pipelines.lake.storage import LakePath
from pipelines.tables import AUDIT_FINDINGS, BILL_DAYS, IMAGE_COSTS, IMAGE_STORAGE, IMAGE_USAGE, TABLES

# In the records, this stands for the table of a report.
REPORT = "report"

# The tables of a day that the next day's derived tables continue.
HANDED_ON = (AUDIT_FINDINGS.name, BILL_DAYS.name, IMAGE_COSTS.name, IMAGE_STORAGE.name, IMAGE_USAGE.name)


class Rules(Facts):
    """How many days are kept, today included; None: for ever.

    `responses_days`: for what the API sent (responses, list pages, references to images). `snapshots_days`: for all
    other tables of a day, and its report.
    """

    responses_days: int | None
    snapshots_days: int | None


class RemovedFile(Facts):
    """A file that was, or is about to be, removed; a report has the table `report` and no rows."""

    table: str
    snapshot_date: dt.date
    file: FileFacts


class RetentionRecord(Record, Evidence):
    """The files that were removed at once from a project, and by which rules.

    `newest_manifest_sha256`: where the project's chain of manifests ended then.
    """

    damaged = (
        "The retention record {path} is damaged ({field}), so it is not known which files were removed lawfully: "
        "restore it from a backup."
    )

    project: str
    applied_at: AwareDatetime
    code_version: str
    rules: Rules
    previous_record_sha256: str | None
    newest_manifest_sha256: str | None
    files: list[RemovedFile]


class RetentionRecords:
    """All that a project's records name; with `skip_damaged`, those of them that can be read.

    Raises:
        StorageError: a record is damaged.
    """

    def __init__(self, lake: Lake, project: str, *, skip_damaged: bool = False) -> None:
        self._lake = lake
        self._days: dict[Partition, dict[str, dt.date]] = {}
        self._files: set[tuple[str, str]] = set()
        for path, content in lake.contents.retention_records(project).items():
            try:
                record = parse_record(RetentionRecord, content, path)
                for removed in record.files:
                    _check_place(lake, Partition(removed.snapshot_date, project), removed, path)
            except StorageError:
                if skip_damaged:
                    continue
                raise
            for removed in record.files:
                day = Partition(removed.snapshot_date, project)
                self._days.setdefault(day, {})[removed.table] = record.applied_at.date()
                self._files.add((removed.file.path, removed.file.sha256))

    def __bool__(self) -> bool:
        return bool(self._files)

    def names(self, file: FileFacts) -> bool:
        """Whether a record names exactly this file with this content."""
        return (file.path, file.sha256) in self._files

    def missing(self, partition: Partition) -> list[str]:
        """The tables of a day that a record names and that are not there, in order."""
        return [
            name
            for name in sorted(self._days.get(partition, {}))
            if name != REPORT and not self._lake.table(name, partition).is_there()
        ]

    def check_has(self, partition: Partition, tables: Collection[str], consequence: str) -> None:
        """Refuse what needs tables of a day when some were removed; the sentence goes on with `consequence`.

        Raises:
            ConfigurationError: says which were removed and when.
        """
        if gone := [name for name in self.missing(partition) if name in tables]:
            when = max(self._days[partition][name] for name in gone)
            raise ConfigurationError(f"Retention removed {', '.join(gone)} of {partition} on {when}, so {consequence}.")


def _check_place(lake: Lake, day: Partition, removed: RemovedFile, record: LakePath) -> None:
    try:
        place = lake.report(day) if removed.table == REPORT else lake.place(removed.table, day)
    except KeyError:
        place = None
    if place is None or removed.file.path != lake.key(place):
        raise StorageError(
            f"The retention record {record} is damaged (the path of {removed.table} is not where that table of {day} "
            "lies), so it is not known which files were removed lawfully: restore it from a backup."
        )


def last_record_sha256(lake: Lake, project: str) -> str | None:
    """SHA-256 of a project's newest record; None when nothing was ever removed."""
    contents = list(lake.contents.retention_records(project).values())
    return hashlib.sha256(contents[-1]).hexdigest() if contents else None


def check_derivable(lake: Lake, partition: Partition, removed: RetentionRecords) -> None:
    """Refuse to derive the tables of a day when retention has removed what they are made from.

    Raises:
        ConfigurationError: files of the day, or what the days before it hand on, were removed.
    """
    if not removed:
        return
    consequence = f"the tables of {partition} cannot be derived again; what was derived before stands"
    removed.check_has(partition, TABLES, consequence)
    for day in last_days(lake, partition):
        if day is not None:
            removed.check_has(day, HANDED_ON, consequence)


def is_derivable(lake: Lake, partition: Partition, removed: RetentionRecords) -> bool:
    """Whether retention has left all that the tables of a day are made from."""
    try:
        check_derivable(lake, partition, removed)
    except ConfigurationError:
        return False
    return True
