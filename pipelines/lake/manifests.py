"""The records of a partition besides its tables: the manifest, and the state of an open attempt.

A manifest names the files that belong together and proves them by SHA-256. It holds the SHA-256 of the manifest that
the project published before it, so the manifests of a project form a chain in the order of publication. A rerun does
not break the chain: the manifest that it replaces is kept under `_manifests/superseded`.
"""

import datetime as dt
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import AwareDatetime, Field

from pipelines.errors import ConfigurationError, StorageError
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.parquet_files import open_parquet
from pipelines.lake.records import (
    Evidence,
    Facts,
    Link,
    Record,
    newest,
    parse_record,
    read_record,
    record_bytes,
    write_record,
)
from pipelines.lake.storage import LakePath
from pipelines.tables import USAGE_SOURCES


class InventoryFacts(Facts):
    """What was read from the inventory source; `source` is a name for people, without credentials.

    `shortfall`: how many images the API's list counts but shows on none of its pages. `missing`: how many of the images
    `known` on the complete day `compared_with` the inventory lacks. If the inventory is not whole (`reason` says why),
    what it lacks proves nothing, and `added` of the `ids` come from that day instead. `is_accepted`: an operator
    accepted the inventory although it lacks that many.
    """

    source: str
    kind: str
    modified_at: AwareDatetime | None
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


# The origin of a scope if the list of workspaces failed.
UNREAD = "unread"

# The names of the traces, the registry and the bill in `FetchFacts.sources`.
TRACES, REGISTRY, BILLS = "traces", "registry", "bills"


class SourceFacts(Facts):
    """The result of reading one source of evidence on a day.

    A source that was not `wanted` was not requested. `error` says why a wanted source could not be read. `partial` says
    why a source that was read may lack resources, such as those of other users. `items`: resources with an id that its
    lists showed. `skipped`: resources without an id. `unresolved`: resources that use an image through a model or
    algorithm that is not known.
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
        """Whether a resource that the source did not show does not exist."""
        return self.was_read and self.partial is None


class ScopeFacts(Facts):
    """Which workspaces were read, and how they were found.

    `origin` is `stated` (by the setting), `asked` (the API listed them), `assumed` (the API does not list them) or
    `unread` (the list failed, so there may be others). `error` says why the API's list was not used. Assumed and unread
    scopes hold the default workspace and those that the last complete day and responses of the day name. `outside`:
    workspaces that responses of the day name but that were not read.
    """

    workspaces: list[str]
    origin: str
    error: str | None = None
    outside: list[str] = Field(default_factory=list)


class UnreadRepository(Facts):
    """A repository that was not read, or not as a whole, and why; without `repository`: a whole namespace's list.

    Without `namespace`: something that several repositories needed, such as the login for manifest lists.
    """

    namespace: str | None
    repository: str | None
    reason: str


class RegistryFacts(Facts):
    """How far the registry was read: the namespaces that were asked for, and what in them could not be read.

    `origin`: `images` (those that images name), `stated` (by the setting) or `all` (that the user may see).
    """

    namespaces: list[str]
    origin: str
    unread: list[UnreadRepository] = Field(default_factory=list)


class FetchFacts(Facts):
    """How the responses were fetched.

    `kept`: responses that an open attempt had already stored. `carried`: responses carried forward from an earlier day
    (mode `changed`). The image list was read to its end, or it was not wanted, or `list_error` says why it could not be
    read. `list_shortfall`: how many images the list counts but shows on none of its pages. `sources`: the further
    sources of evidence, by name. `registry`: how far the registry was read, None if it was not wanted.
    `clock_skew_seconds`: how far our clock was ahead of the API's, negative if it was behind, or None if the responses
    did not say.
    """

    project_id: str
    endpoint_host: str
    is_sandbox: bool
    mode: str
    started_at: AwareDatetime
    finished_at: AwareDatetime
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
    registry: RegistryFacts | None = None
    clock_skew_seconds: float | None = None

    @property
    def list_is_whole(self) -> bool:
        """Whether the list was read and shows as many images as it counts.

        If so, an image that the list lacks does not exist.
        """
        return self.list_was_read and self.list_shortfall == 0

    @property
    def usage_kinds(self) -> list[str]:
        """The names of the sources of usage that were wanted."""
        return [name for name, facts in self.sources.items() if name in USAGE_SOURCES and facts.wanted]

    @property
    def usage_is_observed(self) -> bool:
        """Whether every wanted source of usage was read as a whole, in every workspace that is known."""
        kinds = self.usage_kinds
        knows_scope = self.scope.origin != UNREAD and not self.scope.outside
        return bool(kinds) and knows_scope and all(self.sources[name].is_whole for name in kinds)

    @property
    def traces_are_whole(self) -> bool:
        """Whether all traces since the last complete day were read."""
        return TRACES in self.sources and self.sources[TRACES].is_whole

    @property
    def registry_was_wanted(self) -> bool:
        """Whether the registry was to be read, so that stored bytes are known, or are known to be unknown."""
        return REGISTRY in self.sources and self.sources[REGISTRY].wanted

    @property
    def registry_was_read(self) -> bool:
        """Whether the registry was read, though some repositories may not have been (see `registry`)."""
        return REGISTRY in self.sources and self.sources[REGISTRY].was_read

    @property
    def failed(self) -> int:
        """The number of ids without a response."""
        return self.outcomes.get("failed", 0)


class FileFacts(Facts):
    """One table's file: path relative to the lake's root, rows, bytes and SHA-256."""

    path: str
    rows: int
    bytes: int
    sha256: str


class Manifest(Record, Evidence):
    """The manifest of a day. `rebuilt`: its tables were derived again from stored responses.

    `responses_root`: the root of the hash tree over the rows of `responses` (see `stored_responses.response_leaves`),
    which proves one response without another. So a manifest names no image, and may be shown to anyone.
    `derived_record_sha256`: the SHA-256 of the project's newest derived manifest at that time, which this manifest
    proves.
    """

    damaged = "The manifest {path} is damaged ({field}): restore the file from a backup."

    snapshot_date: dt.date
    project: str
    run_id: str
    started_at: AwareDatetime
    published_at: AwareDatetime
    rebuilt: bool
    code_version: str
    schema_version: int
    inventory: InventoryFacts
    fetch: FetchFacts
    is_complete: bool
    responses_root: str
    files: dict[str, FileFacts]
    previous_manifest_sha256: str | None
    derived_record_sha256: str | None = None


class BuiltFacts(Facts):
    """What was found while the tables of images were built: images by name, as `Normalised` has them."""

    unknown_fields: dict[str, int]
    unknown_values: dict[str, int]
    anomalies: dict[str, int]


class EarlyTables(Facts):
    """Tables of images that were built before the day is published: where, by which run and code, and their files."""

    # A name and no path: what a record says must not lead elsewhere.
    directory: str = Field(pattern=r"^[0-9a-f]{32}$")
    run_id: str
    code_version: str
    found: BuiltFacts
    files: dict[str, FileFacts]


class Attempt(Evidence):
    """An open attempt: the run that began it, what it has so far, and its staged files as written.

    `early`: tables that were built beside the fetch. `sandbox`: the endpoint and project whose responses said that they
    are from a sandbox; some may be stored.
    """

    damaged = (
        "{path} is damaged or of another version of this software ({field}): run with --fresh to start the day over."
    )

    run_id: str
    started_at: AwareDatetime
    inventory: InventoryFacts | None = None
    fetch: FetchFacts | None = None
    files: dict[str, FileFacts] = Field(default_factory=dict)
    early: EarlyTables | None = None
    sandbox: str | None = None


def changes_since(before: Manifest) -> dt.datetime:
    """The time from which changes are missing on `before` and show on the next complete day.

    A day of the sandbox shows the same state from its first to its last minute: it includes what changed on the day
    before, but nothing of the day itself.
    """
    if before.fetch.is_sandbox:
        return dt.datetime.combine(before.snapshot_date, dt.time(), dt.UTC)
    return before.fetch.started_at


def changes_until(manifest: Manifest) -> dt.datetime:
    """The time up to which changes show on a day. For days of the sandbox see `changes_since`."""
    if manifest.fetch.is_sandbox:
        return dt.datetime.combine(manifest.snapshot_date, dt.time(), dt.UTC)
    return manifest.fetch.finished_at


def inventory_warning(facts: InventoryFacts) -> str | None:
    """A warning, in a sentence or two, about what an inventory lacks; None if there is nothing to say."""
    if facts.is_accepted:
        return (
            f"The inventory {facts.source} lacks {facts.missing} of the {facts.known} images known on "
            f"{facts.compared_with}, and was accepted as it is: what it lacks left the history."
        )
    return facts.reason


def short_list(facts: FetchFacts) -> str | None:
    """A sentence that warns of an image list that shows fewer images than it counts; None if it shows them all."""
    if not facts.list_shortfall:
        return None
    return (
        f"The API's list counts {facts.list_shortfall} images that it does not show, so it is not known whether they "
        "are registered, and no finding about them is resolved."
    )


def unobserved_usage(facts: FetchFacts) -> dict[str, str]:
    """For each wanted source of usage that may not show everything, the reason; empty if all show everything."""
    return {
        name: why
        for name in facts.usage_kinds
        if (why := facts.sources[name].error or facts.sources[name].partial) is not None
    }


def outside_scope(facts: FetchFacts) -> str | None:
    """A sentence that warns of workspaces that were not read, or may not have been; None if all were read."""
    if facts.scope.origin == UNREAD:
        return f"{facts.scope.error} So there may be workspaces that were not read."
    if not facts.scope.outside:
        return None
    return (
        f"Responses name workspaces that were not read ({', '.join(facts.scope.outside)}), so nothing there is known "
        "to be unused or unregistered: add them to IMAGE_SNAPSHOTS_WORKSPACES, or set that to `all`."
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
    """The first table whose path in a partition's record is not that table's place; None if all paths are right.

    A path in a record may be read, replaced or removed only if it is that place.
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
    """Refuse a manifest whose files are not in the places of its partition's tables.

    Raises:
        StorageError: a file is elsewhere; the message names it.
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
    """The manifest of a partition that must be published; `consequence` completes the sentence of the error.

    Raises:
        ConfigurationError: it was never published.
        StorageError: as for `published`.
    """
    manifest = published(lake, partition)
    if manifest is None:
        raise not_published(partition, consequence)
    return manifest


def not_published(partition: Partition, consequence: str) -> ConfigurationError:
    """The error if nothing is published for a partition; `consequence` completes its sentence."""
    return ConfigurationError(
        f"Nothing is published for {partition}, so {consequence}. `image-snapshots status` lists the published days."
    )


def known_partitions(lake: Lake) -> list[Partition]:
    """The partitions that have a manifest, in order, without those of project keys that are not real.

    A copy of a manifest under a name such as `project=default.bak.json` looks like one of another project, but states
    the project of the original. A key is left out if all its manifests are copies from projects that exist here.
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
    """The newest readable manifest of each project.

    Raises:
        StorageError: a project has no readable manifest; with `skip_damaged` that project is left out instead.
    """
    days: dict[str, list[Partition]] = {}
    for partition in known_partitions(lake):
        days.setdefault(partition.project, []).append(partition)
    for project in days.values():
        for number, partition in enumerate(reversed(project), start=1):
            try:
                manifest = read_manifest(lake.manifest(partition))
            except StorageError:
                # An older manifest is good enough here, and `verify` reports the damaged one.
                if number == len(project) and not skip_damaged:
                    raise
            else:
                yield manifest
                break


def holds_sandbox(lake: Lake) -> bool:
    """Whether the days of a lake are of the sandbox. If one is, all are.

    A damaged manifest must not stop a command that only reads; `verify` reports it.
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
    """The project's last complete day before a partition, and its last published day; each None if there is none.

    Manifests are read from the newest back to the last complete one.
    """
    earlier = [day for day in reversed(lake.contents.partitions(partition.project)) if day < partition]
    complete = next((day for day in earlier if read_manifest(lake.manifest(day)).is_complete), None)
    return complete, next(iter(earlier), None)


def last_complete_day(lake: Lake, partition: Partition) -> Partition | None:
    """The project's last complete day before a partition; None if there is none."""
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


def write_manifest(lake: Lake, partition: Partition, manifest: Manifest) -> Manifest:
    """Write the manifest of a partition, keeping the one it replaces; returns it as written, with its own SHA-256."""
    write_record(lake.manifest(partition), manifest, lake.superseded_manifests(partition.project))
    return Manifest.model_validate_json(record_bytes(manifest))


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
