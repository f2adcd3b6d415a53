"""What is written down about a partition besides its tables: the manifest, and the state of an open attempt.

A manifest says which files belong together and proves them by SHA-256. It holds the SHA-256 of the manifest that the
project published before it, so the manifests of a project form a chain in the order of publication. A rerun does not
break the chain: the manifest that it replaces is kept under `_manifests/superseded`.
"""

import datetime as dt
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import Field

from pipelines.errors import ConfigurationError, StorageError
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.parquet_files import open_parquet
from pipelines.lake.records import Evidence, Facts, Link, Record, newest, parse_record, read_record, write_record
from pipelines.lake.storage import LakePath
from pipelines.tables import USAGE_SOURCES


class InventoryFacts(Facts):
    """What was read from the inventory source; `source` is a name for people, without credentials.

    `shortfall`: images that the API's list counts but that were on none of its pages. `missing` of the images `known`
    on the complete day `compared_with` were not in it. An inventory that is not whole, for the `reason` stated, says
    nothing by what it lacks: `added` of the `ids` come from that day instead. `is_accepted`: an operator accepted it
    although it lacks that many.
    """

    source: str
    kind: str
    modified_at: dt.datetime | None
    rows_read: int
    blank: int
    duplicate: int
    other_project: int
    unknown_project: int
    invalid: int
    ids: int
    shortfall: int
    compared_with: dt.date | None = None
    known: int = 0
    missing: int = 0
    added: int = 0
    is_whole: bool = True
    is_accepted: bool = False
    reason: str | None = None


# The source of traces, among the sources of a fetch.
TRACES = "traces"


class SourceFacts(Facts):
    """What became of a source of evidence on a day.

    A source that was not wanted was not asked. `error` says why a wanted source could not be read. `partial` says why a
    source that was read may lack resources, such as those of other users. `items` are the resources that its lists
    showed, `skipped` those of them without an id, `unresolved` those that use an image by a resource that is not known.
    """

    wanted: bool
    was_read: bool = False
    error: str | None = None
    partial: str | None = None
    items: int = 0
    requests: int = 0
    skipped: int = 0
    unresolved: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether what the source does not show is not there."""
        return self.was_read and self.partial is None


class ScopeFacts(Facts):
    """Which workspaces were read, and how they were found.

    `origin`: stated (by the setting), asked (the API listed them) or assumed (the API does not list them, so these are
    the default one and those that answers of the day name; `error` says why). `outside`: workspaces that answers of the
    day name and that were not read.
    """

    workspaces: list[str]
    origin: str
    error: str | None = None
    outside: list[str] = Field(default_factory=list)


class FetchFacts(Facts):
    """How the responses were fetched.

    `kept` of them were stored already by an attempt that had not ended; `carried` were carried forward from an earlier
    day (mode `changed`). The API's list of images was read to the end, or not wanted, or `list_error` says why it could
    not be read. `list_shortfall`: images that the list counts but that were on none of its pages. `sources`: the
    further sources of evidence, by name. `clock_skew_seconds`: how far our clock was ahead of the API's, negative when
    behind, or None when its responses did not say.
    """

    project_id: str
    endpoint_host: str
    is_sandbox: bool
    mode: str
    started_at: dt.datetime
    finished_at: dt.datetime
    outcomes: dict[str, int]
    kept: int
    carried: int
    requests: int
    retries: int
    throttled: int
    token_renewals: int
    bytes_received: int
    list_was_read: bool = False
    list_error: str | None = None
    list_shortfall: int = 0
    scope: ScopeFacts
    sources: dict[str, SourceFacts] = Field(default_factory=dict)
    clock_skew_seconds: float | None = None

    @property
    def list_is_whole(self) -> bool:
        """Whether the list was read and shows as many images as it counts, so that an image it lacks does not exist."""
        return self.list_was_read and self.list_shortfall == 0

    @property
    def usage_kinds(self) -> list[str]:
        """The sources of usage that were wanted, by name."""
        return [name for name, facts in self.sources.items() if name in USAGE_SOURCES and facts.wanted]

    @property
    def usage_is_observed(self) -> bool:
        """Whether every wanted source of usage was read as a whole in every workspace that is known."""
        kinds = self.usage_kinds
        return bool(kinds) and not self.scope.outside and all(self.sources[name].is_whole for name in kinds)

    @property
    def traces_are_whole(self) -> bool:
        """Whether all traces since the last complete day were read."""
        return TRACES in self.sources and self.sources[TRACES].is_whole

    @property
    def failed(self) -> int:
        """Ids without a response."""
        return self.outcomes.get("failed", 0)


class FileFacts(Facts):
    """One table's file: path relative to the lake's root, rows, bytes and SHA-256."""

    path: str
    rows: int
    bytes: int
    sha256: str


class FailedId(Facts):
    """An id without a response, with the last error."""

    id: str
    error_code: str | None


class Manifest(Record, Evidence):
    """The manifest of a day. `rebuilt`: its tables were derived again from stored responses.

    `derived_record_sha256`: the newest derived manifest that the project had then, which this one proves.
    """

    damaged = "The manifest {path} is damaged ({field}): restore the file from a backup."

    snapshot_date: dt.date
    project: str
    run_id: str
    started_at: dt.datetime
    published_at: dt.datetime
    rebuilt: bool
    code_version: str
    schema_version: int
    inventory: InventoryFacts
    fetch: FetchFacts
    is_complete: bool
    failed: list[FailedId]
    files: dict[str, FileFacts]
    previous_manifest_sha256: str | None
    derived_record_sha256: str | None = None


class Attempt(Evidence):
    """An attempt that has not ended: the run that began it, what it has so far, and its staged files as written.

    `sandbox`: the endpoint and project whose responses, which may be stored, said that they are a sandbox's.
    """

    damaged = (
        "{path} is damaged or of another version of this software ({field}): run with --fresh to start the day over."
    )

    run_id: str
    started_at: dt.datetime
    inventory: InventoryFacts | None = None
    fetch: FetchFacts | None = None
    files: dict[str, FileFacts] = Field(default_factory=dict)
    sandbox: str | None = None


def changes_since(before: Manifest) -> dt.datetime:
    """From when on a change shows on the complete day after `before`, which had not seen it.

    The sandbox shows a day from its first to its last minute as it is then, with what changed on the day before.
    """
    if before.fetch.is_sandbox:
        return dt.datetime.combine(before.snapshot_date, dt.time(), dt.UTC)
    return before.fetch.started_at


def changes_until(manifest: Manifest) -> dt.datetime:
    """Until when a change shows on a day; of the sandbox's days see `changes_since`."""
    if manifest.fetch.is_sandbox:
        return dt.datetime.combine(manifest.snapshot_date, dt.time(), dt.UTC)
    return manifest.fetch.finished_at


def inventory_warning(facts: InventoryFacts) -> str | None:
    """What people must know before they believe what an inventory lacks, in a sentence or two; None: nothing."""
    if facts.is_accepted:
        return (
            f"The inventory {facts.source} lacks {facts.missing} of the {facts.known} images known on "
            f"{facts.compared_with}, and was accepted as it is: what it lacks left the history."
        )
    return facts.reason


def short_list(facts: FetchFacts) -> str | None:
    """What is wrong with a list that shows less than it counts, in a sentence; None when nothing is."""
    if not facts.list_shortfall:
        return None
    return (
        f"The API's list counts {facts.list_shortfall} images that it does not show, so it is not known whether they "
        "are registered, and no finding about them is resolved."
    )


def unobserved_usage(facts: FetchFacts) -> dict[str, str]:
    """Why each wanted source of usage does not show all that there is; empty when all do."""
    return {
        name: why
        for name in facts.usage_kinds
        if (why := facts.sources[name].error or facts.sources[name].partial) is not None
    }


def outside_scope(facts: FetchFacts) -> str | None:
    """What is wrong when answers name workspaces that were not read, in a sentence; None when nothing is."""
    if not facts.scope.outside:
        return None
    return (
        f"Answers name workspaces that were not read ({', '.join(facts.scope.outside)}), so nothing there is known to "
        "be unused or unregistered: add them to IMAGE_SNAPSHOTS_WORKSPACES, or set that to `all`."
    )


def file_facts(lake: Lake, path: LakePath, name: str, partition: Partition) -> FileFacts:
    """Rows, bytes and SHA-256 of a file that is, or will be, the published one of its table."""
    with open_parquet(path) as file:
        return FileFacts(
            path=lake.key(lake.table(name, partition)),
            rows=file.metadata.num_rows,
            bytes=path.size(),
            sha256=path.sha256(),
        )


def misplaced(lake: Lake, partition: Partition, files: Mapping[str, FileFacts]) -> str | None:
    """The first table whose path in a record of a partition is not the place of that table of the partition, or None.

    A path that a record states may be read, replaced or removed only when it is that place.
    """
    for name, file in files.items():
        try:
            place = lake.place_key(name, partition)
        except KeyError:
            return name
        if file.path != place:
            return name
    return None


def check_places(lake: Lake, partition: Partition, manifest: Manifest) -> None:
    """Refuse a manifest whose files do not lie where the tables of its partition do.

    Raises:
        StorageError: says which.
    """
    if (name := misplaced(lake, partition, manifest.files)) is not None:
        raise StorageError(
            f"The manifest {lake.manifest(partition)} is damaged (files.{name}.path: not where that table of "
            f"{partition} lies): restore the file from a backup."
        )


def read_manifest(path: LakePath) -> Manifest:
    """Read one manifest. The places that it names are not checked: `published` does that.

    Raises:
        StorageError: it is damaged, or there is none.
    """
    return parse_manifest(path.read_whole(), path)


def parse_manifest(content: bytes, path: LakePath) -> Manifest:
    """The manifest in the content of the file `path`.

    Raises:
        StorageError: it is damaged.
    """
    return parse_record(Manifest, content, path)


def published(lake: Lake, partition: Partition) -> Manifest | None:
    """The manifest of a partition, or None when the partition was never published.

    Raises:
        StorageError: it is not what a manifest of this partition must be.
    """
    manifest = read_record(Manifest, lake.manifest(partition))
    if manifest is not None:
        check_places(lake, partition, manifest)
    return manifest


def published_or_error(lake: Lake, partition: Partition, consequence: str) -> Manifest:
    """The manifest of a partition that must be published; the sentence of the error goes on with `consequence`.

    Raises:
        ConfigurationError: it was never published.
        StorageError: as for `published`.
    """
    manifest = published(lake, partition)
    if manifest is None:
        raise not_published(partition, consequence)
    return manifest


def not_published(partition: Partition, consequence: str) -> ConfigurationError:
    """The error when nothing is published for a partition; its sentence goes on with `consequence`."""
    return ConfigurationError(
        f"Nothing is published for {partition}, so {consequence}. `image-snapshots status` lists the published days."
    )


def known_partitions(lake: Lake) -> list[Partition]:
    """Partitions that have a manifest, in order, without those of keys that no project has.

    A copy of a manifest under a name such as `project=default.bak.json` looks like one of another project, but states
    its own. A key is left out when all of its manifests are copies of those of projects that are there.
    """
    partitions = lake.contents.partitions()
    days: dict[str, list[Partition]] = {}
    for partition in partitions:
        days.setdefault(partition.project, []).append(partition)
    stated = {key: _stated_projects(lake, own) for key, own in days.items()}
    projects = {key for key, names in stated.items() if key in names}
    return [
        partition for partition in partitions if stated[partition.project] - projects or partition.project in projects
    ]


def _stated_projects(lake: Lake, partitions: list[Partition]) -> set[str]:
    """The projects that the manifests of a key state, the newest first, until one is of that key or cannot be read."""
    found: set[str] = set()
    for partition in reversed(partitions):
        try:
            found.add(read_manifest(lake.manifest(partition)).project)
        except StorageError:
            found.add(partition.project)
        if partition.project in found:
            break
    return found


def newest_manifests(lake: Lake, *, skip_damaged: bool = False) -> Iterator[Manifest]:
    """The newest manifest of each project that can be read.

    Raises:
        StorageError: a project has none that can be read; not with `skip_damaged`, which leaves that project out.
    """
    days: dict[str, list[Partition]] = {}
    for partition in known_partitions(lake):
        days.setdefault(partition.project, []).append(partition)
    for project in days.values():
        for number, partition in enumerate(reversed(project), start=1):
            try:
                manifest = read_manifest(lake.manifest(partition))
            except StorageError:
                # An older one does as well here, and `verify` reports the damaged one.
                if number == len(project) and not skip_damaged:
                    raise
            else:
                yield manifest
                break


def holds_sandbox(lake: Lake) -> bool:
    """Whether the days of a lake are of the sandbox: then all of them are.

    A damaged manifest stops nobody who only reads; `verify` reports it.
    """
    return any(manifest.fetch.is_sandbox for manifest in newest_manifests(lake, skip_damaged=True))


@dataclass(frozen=True, slots=True)
class PublishedPartition:
    """A published partition with its manifest and the SHA-256 of that."""

    partition: Partition
    sha256: str
    manifest: Manifest


def published_days(lake: Lake, project: str) -> list[PublishedPartition]:
    """The published days of a project, in order.

    Raises:
        StorageError: a manifest is not what one of its partition must be.
    """
    days = []
    for partition, content in lake.contents.manifests(project).items():
        manifest = parse_manifest(content, lake.manifest(partition))
        check_places(lake, partition, manifest)
        days.append(PublishedPartition(partition, hashlib.sha256(content).hexdigest(), manifest))
    return days


def complete_days(lake: Lake, project: str) -> list[Partition]:
    """The days of a project that are complete, in order."""
    return [day.partition for day in published_days(lake, project) if day.manifest.is_complete]


def last_days(lake: Lake, partition: Partition) -> tuple[Partition | None, Partition | None]:
    """The project's last complete day before a partition's, and its last published one; None where there is none.

    Manifests are read from the newest back, up to the complete one.
    """
    earlier = [day for day in reversed(lake.contents.partitions(partition.project)) if day < partition]
    complete = next((day for day in earlier if read_manifest(lake.manifest(day)).is_complete), None)
    return complete, next(iter(earlier), None)


def last_complete_day(lake: Lake, partition: Partition) -> Partition | None:
    """The project's last complete day before a partition's, or None when there is none."""
    return last_days(lake, partition)[0]


def chain_of_manifests(lake: Lake, project: str) -> dict[LakePath, bytes]:
    """All manifests that a project ever published."""
    current = {lake.manifest(partition): content for partition, content in lake.contents.manifests(project).items()}
    return current | lake.contents.superseded_manifests(project)


def chain_head(lake: Lake, project: str) -> str | None:
    """SHA-256 of the project's newest manifest: the one that no other follows. None when there is none."""
    return newest(
        manifest_link(content, parse_manifest(content, path))
        for path, content in chain_of_manifests(lake, project).items()
    )


def manifest_link(content: bytes, manifest: Manifest) -> Link:
    """A manifest in its chain."""
    return Link(hashlib.sha256(content).hexdigest(), manifest.previous_manifest_sha256, manifest.published_at)


def write_manifest(lake: Lake, partition: Partition, manifest: Manifest) -> None:
    """Write the manifest of a partition, keeping the one it replaces."""
    write_record(lake.manifest(partition), manifest, lake.superseded_manifests(partition.project))


def _attempt_path(lake: Lake, partition: Partition) -> LakePath:
    return lake.staging(partition) / "attempt.json"


def read_attempt(lake: Lake, partition: Partition) -> Attempt | None:
    """The open attempt of a partition, or None.

    Raises:
        StorageError: it is damaged, or of another version of this software.
    """
    return read_record(Attempt, _attempt_path(lake, partition))


def write_attempt(lake: Lake, partition: Partition, attempt: Attempt) -> None:
    """Write the state of an attempt."""
    write_record(_attempt_path(lake, partition), attempt)
