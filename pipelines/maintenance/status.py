"""Lists days and their state: complete, incomplete, not ended, missing, or damaged (its manifest cannot be read).

`lacking_partitions` is the one answer to "which partitions are missing or incomplete", for all that ask it.
"""

import dataclasses
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pipelines.errors import StorageError
from pipelines.lake.failures import Failure, last_failures
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import Manifest, check_places, known_partitions, parse_manifest
from pipelines.lake.retention_records import RetentionRecords
from pipelines.tables import IMAGE_HISTORY

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

    @property
    def is_lacking(self) -> bool:
        """Whether the day is missing or incomplete: nothing whole is published that can be read."""
        return self.state != "complete"

    @property
    def partition(self) -> Partition:
        """The partition itself."""
        return Partition(self.date, self.project)

    def as_json(self) -> dict[str, object]:
        """The fields as JSON values."""
        times = {"date": str(self.date), "published_at": self.published_at and self.published_at.isoformat()}
        failure = {"failure": self.failure and self.failure.model_dump(mode="json")}
        return dataclasses.asdict(self) | times | failure


def day_statuses(lake: Lake, projects: list[str], first: dt.date, last: dt.date) -> list[PartitionStatus]:
    """The state of every partition from `first` to `last`, by day and project; also of other projects in the lake.

    `projects` are those that are configured. Days before a project's first published day are left out, because they
    cannot be missing. So are the days after the last one of a project that is no longer configured.
    """
    beginnings, ends = dict.fromkeys(projects, last), dict.fromkeys(projects, last)
    for partition in known_partitions(lake):
        beginnings[partition.project] = min(partition.date, beginnings.get(partition.project, partition.date))
        ends[partition.project] = max(partition.date, ends.get(partition.project, partition.date))
    states = [
        dataclasses.replace(status, is_configured=status.project in projects)
        for status, _ in _statuses(lake, sorted(beginnings), first, last)
        if beginnings[status.project] <= status.date <= ends[status.project]
    ]
    return _with_notes(lake, states)


def due_day(now: dt.datetime, due_hour: int) -> dt.date:
    """The last day that must be published by `now`: today from `due_hour` (UTC) on, before it yesterday."""
    return (now.astimezone(dt.UTC) - dt.timedelta(hours=due_hour)).date()


def lacking_partitions(lake: Lake, projects: list[str], first: dt.date, last: dt.date) -> list[PartitionStatus]:
    """The partitions of `projects` from `first` to `last` that are missing or incomplete, by day and project.

    Unfinished and damaged ones are among them. Only the manifests of these days are read, so this may be asked often.
    A project's days count from its first published day on; only `last` counts for a project that was never published.
    """
    beginnings: dict[str, dt.date] = {}
    found = []
    for status, manifest in _statuses(lake, sorted(projects), first, last):
        if status.state not in ("missing", "unfinished"):
            # An earlier complete day, which may lie before `first`, is known to the manifest.
            earlier = manifest.inventory.compared_with if manifest else None
            beginnings.setdefault(status.project, min(status.date, earlier or status.date))
        if status.is_lacking:
            found.append(status)
    for project in set(projects) - beginnings.keys():
        was_derived = lake.project_table(IMAGE_HISTORY.name, project).is_there()
        beginnings[project] = first if was_derived else last
    return _with_notes(lake, [status for status in found if beginnings[status.project] <= status.date])


def _statuses(
    lake: Lake, projects: list[str], first: dt.date, last: dt.date
) -> Iterator[tuple[PartitionStatus, Manifest | None]]:
    """The states of all these partitions, by day and project, each with its manifest, if that can be read."""
    open_attempts = set(lake.contents.unfinished())
    for number in range((last - first).days + 1):
        day = first + dt.timedelta(days=number)
        manifests = lake.contents.manifests_of(day)
        for project in projects:
            partition = Partition(day, project)
            has_open_attempt = partition in open_attempts
            content = manifests.get(partition)
            if content is None:
                yield _unpublished(partition, "unfinished" if has_open_attempt else "missing", has_open_attempt), None
                continue
            try:
                manifest = parse_manifest(content, lake.manifest(partition))
                check_places(lake, partition, manifest)
            except StorageError:
                # A damaged day must not hide the others; `verify` says what is wrong with it.
                yield _unpublished(partition, "damaged", has_open_attempt), None
            else:
                yield _published(partition, manifest, has_open_attempt), manifest


def _unpublished(partition: Partition, state: State, has_open_attempt: bool) -> PartitionStatus:
    return PartitionStatus(
        partition.date, partition.project, state, has_open_attempt, None, None, None, None, None, [], None
    )


def _published(partition: Partition, manifest: Manifest, has_open_attempt: bool) -> PartitionStatus:
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
        [],
        manifest.fetch.is_sandbox,
        manifest.fetch.clock_skew_seconds,
        inventory_is_whole=manifest.inventory.is_whole,
    )


def _with_notes(lake: Lake, statuses: list[PartitionStatus]) -> list[PartitionStatus]:
    """The statuses with what else the lake holds about them: the last failure, and what retention removed."""
    failures = last_failures(lake) if statuses else {}
    published = {status.project for status in statuses if status.published_at is not None}
    removed = {project: RetentionRecords(lake, project) for project in published}
    return [
        dataclasses.replace(
            status,
            failure=failures.get(status.partition),
            removed=[] if status.published_at is None else removed[status.project].missing(status.partition),
        )
        for status in statuses
    ]
