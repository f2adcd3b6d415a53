"""Lists days and their state: complete, incomplete, not ended, missing, or damaged (its manifest cannot be read)."""

import dataclasses
import datetime as dt
from dataclasses import dataclass
from typing import Literal

from pipelines.errors import StorageError
from pipelines.lake.failures import Failure, last_failures
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import known_partitions, published
from pipelines.lake.retention_records import RetentionRecords

State = Literal["complete", "incomplete", "unfinished", "missing", "damaged"]


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """One partition; counts are None if nothing is published. A published day may also have an open attempt.

    `removed`: the tables that retention removed; counts and bytes are those at publication.
    `clock_skew_seconds`: how far our clock was ahead of the API's.
    `failure`: why the last run failed, if it was noted and no later run has succeeded.
    `is_sandbox`: the images are the sandbox's invented ones.
    `inventory_is_whole`: images missing from the inventory count as gone.
    `is_configured`: the settings name the project.
    """

    date: dt.date
    project: str
    state: State
    has_open_attempt: bool
    images: int | None
    outcomes: dict[str, int] | None
    bytes: int | None
    published_at: dt.datetime | None
    run_id: str | None
    removed: list[str]
    is_sandbox: bool | None
    clock_skew_seconds: float | None = None
    failure: Failure | None = None
    inventory_is_whole: bool | None = None
    is_configured: bool = True

    def as_json(self) -> dict[str, object]:
        """The fields as JSON values."""
        times = {"date": str(self.date), "published_at": self.published_at and self.published_at.isoformat()}
        failure = {"failure": self.failure and self.failure.model_dump(mode="json")}
        return dataclasses.asdict(self) | times | failure


def day_statuses(lake: Lake, projects: list[str], first: dt.date, last: dt.date) -> list[PartitionStatus]:
    """The state of every partition from `first` to `last`, by day and project; `projects` are those configured.

    Days before a project's first published day are left out, because they cannot be missing. So are the days after the
    last one of a project that is no longer configured.
    """
    known = known_partitions(lake)
    open_attempts = set(lake.contents.unfinished())
    failures = last_failures(lake)
    statuses = []
    for project in sorted({*projects, *(partition.project for partition in known)}):
        dates = [partition.date for partition in known if partition.project == project]
        is_configured = project in projects
        day = max(first, min(dates, default=last))
        end = last if is_configured else min(last, max(dates))
        removed = RetentionRecords(lake, project)
        while day <= end:
            partition = Partition(day, project)
            status = _status(lake, partition, removed, has_open_attempt=partition in open_attempts)
            statuses.append(dataclasses.replace(status, failure=failures.get(partition), is_configured=is_configured))
            day += dt.timedelta(days=1)
    return sorted(statuses, key=lambda status: (status.date, status.project))


def _status(lake: Lake, partition: Partition, removed: RetentionRecords, *, has_open_attempt: bool) -> PartitionStatus:
    state: State = "unfinished" if has_open_attempt else "missing"
    try:
        manifest = published(lake, partition)
    except StorageError:
        # A damaged day must not hide the others; `verify` says what is wrong with it.
        manifest, state = None, "damaged"
    if manifest is None:
        return PartitionStatus(
            partition.date, partition.project, state, has_open_attempt, None, None, None, None, None, [], None
        )
    return PartitionStatus(
        partition.date,
        partition.project,
        "complete" if manifest.is_complete else "incomplete",
        has_open_attempt,
        manifest.files["images"].rows,
        manifest.fetch.outcomes,
        sum(file.bytes for file in manifest.files.values()),
        manifest.published_at,
        manifest.run_id,
        removed.missing(partition),
        manifest.fetch.is_sandbox,
        manifest.fetch.clock_skew_seconds,
        inventory_is_whole=manifest.inventory.is_whole,
    )
