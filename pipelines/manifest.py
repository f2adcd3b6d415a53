"""What is written down about a partition besides its tables: the manifest, and the state of an open attempt.

A manifest says which files belong together and proves them by SHA-256; it holds the SHA-256 of the manifest that the
project published before it, so the manifests of a project form a chain in the order of publication. Reruns do not
break it: the manifest they replace is kept under `_manifests/superseded`.
"""

import datetime as dt
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.errors import StorageError
from pipelines.lake import Lake, LakePath, Partition, sha256_of_file, storage_errors, write_atomically


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InventoryFacts(_Facts):
    """What was read from the inventory source; `source` is a name for people, without credentials.

    `shortfall`: images that the API's list counts but that were on none of its pages.
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


class FetchFacts(_Facts):
    """How the answers were had.

    `kept` of them were on disk already from an attempt that had not ended; `carried` were carried forward from an
    earlier day (mode `changed`). The API's list of images and its notebooks were read to the end, or not wanted, or the
    error says why they could not be read; `notebooks_skipped` of the latter had no id.
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
    notebooks_were_read: bool = False
    notebooks_error: str | None = None
    notebooks_skipped: int = 0

    @property
    def failed(self) -> int:
        """Ids without an answer."""
        return self.outcomes.get("failed", 0)


class FileFacts(_Facts):
    """One table's file: path relative to the lake's root, rows, bytes and SHA-256."""

    path: str
    rows: int
    bytes: int
    sha256: str


class FailedId(_Facts):
    """An id that got no answer, with the last error."""

    id: str
    error_code: str | None


class Manifest(_Facts):
    """The seal of a published partition. `rebuilt`: derived again from stored answers."""

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


class Attempt(_Facts):
    """An attempt that has not ended: who began it, what it has so far, and its staged files as written."""

    run_id: str
    started_at: dt.datetime
    inventory: InventoryFacts | None = None
    fetch: FetchFacts | None = None
    files: dict[str, FileFacts] = {}


@cache
def code_version() -> str:
    """Version of the package and a digest of the code and SQL that make the tables."""
    digest = hashlib.sha256()
    code = Path(__file__).parent
    for path in [*sorted(code.glob("*.py")), *sorted((code.parent / "sql").rglob("*.sql"))]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"{version('image-snapshots')}+{digest.hexdigest()[:12]}"


def read_manifest(path: LakePath) -> Manifest:
    """Read one manifest.

    Raises:
        StorageError: it is not what a manifest must be.
    """
    with storage_errors(path):
        content = path.read_bytes()
    return parse_manifest(content, path)


def parse_manifest(content: bytes, path: LakePath) -> Manifest:
    """Make a manifest of a file's content.

    Raises:
        StorageError: it is not what a manifest must be; `path` tells where.
    """
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StorageError(
            f"The manifest {path} is damaged ({where or 'content'}: {first['msg']}): restore the file from a backup."
        ) from None


def published(lake: Lake, partition: Partition) -> Manifest | None:
    """The manifest of a partition, or None when the partition was never published."""
    path = lake.manifest(partition)
    return read_manifest(path) if path.exists() else None


@dataclass(frozen=True, slots=True)
class PublishedDay:
    """A published partition with its manifest and the SHA-256 of that."""

    partition: Partition
    sha256: str
    manifest: Manifest


def published_days(lake: Lake, project: str) -> list[PublishedDay]:
    """The published days of a project, in order."""
    return [
        PublishedDay(partition, hashlib.sha256(content).hexdigest(), parse_manifest(content, lake.manifest(partition)))
        for partition, content in lake.manifests(project).items()
    ]


def complete_days(lake: Lake, project: str) -> list[Partition]:
    """The days of a project that are complete, in order."""
    return [day.partition for day in published_days(lake, project) if day.manifest.is_complete]


def last_published_day(lake: Lake, partition: Partition) -> Partition | None:
    """The project's last published day before a partition's, or None when there is none."""
    return max((day for day in lake.manifests(partition.project) if day < partition), default=None)


def last_complete_day(lake: Lake, partition: Partition) -> Partition | None:
    """The project's last complete day before a partition's, or None when there is none."""
    contents = lake.manifests(partition.project)
    earlier = reversed([day for day in contents if day < partition])
    return next((day for day in earlier if parse_manifest(contents[day], lake.manifest(day)).is_complete), None)


def chain_of_manifests(lake: Lake, project: str) -> dict[LakePath, bytes]:
    """All manifests that a project ever published."""
    current = {lake.manifest(partition): content for partition, content in lake.manifests(project).items()}
    return current | lake.superseded(project)


def chain_head(lake: Lake, project: str) -> str | None:
    """SHA-256 of the project's newest manifest: the one that no other follows. None when there is none."""
    manifests = {
        hashlib.sha256(content).hexdigest(): parse_manifest(content, path)
        for path, content in chain_of_manifests(lake, project).items()
    }
    followed = {manifest.previous_manifest_sha256 for manifest in manifests.values()}
    heads = [(manifest.published_at, digest) for digest, manifest in manifests.items() if digest not in followed]
    return max(heads)[1] if heads else None


def write_manifest(lake: Lake, partition: Partition, manifest: Manifest) -> None:
    """Write the manifest of a partition, keeping the one it replaces."""
    path = lake.manifest(partition)
    with storage_errors(path):
        if path.exists():
            kept = lake.superseded_manifests(partition.project) / f"{sha256_of_file(path)}.json"
            write_atomically(kept, path.read_bytes())
        write_atomically(path, manifest.model_dump_json(indent=1).encode() + b"\n")


def _attempt_path(lake: Lake, partition: Partition) -> LakePath:
    return lake.staging(partition) / "attempt.json"


def read_attempt(lake: Lake, partition: Partition) -> Attempt | None:
    """The open attempt of a partition, or None."""
    path = _attempt_path(lake, partition)
    if not path.exists():
        return None
    with storage_errors(path):
        content = path.read_bytes()
    try:
        return Attempt.model_validate_json(content)
    except ValidationError:
        raise StorageError(
            f"{path} is damaged or of another version of this software: run with --fresh to start the day over."
        ) from None


def write_attempt(lake: Lake, partition: Partition, attempt: Attempt) -> None:
    """Put the state of an attempt on disk."""
    path = _attempt_path(lake, partition)
    with storage_errors(path):
        write_atomically(path, attempt.model_dump_json(indent=1).encode() + b"\n")
