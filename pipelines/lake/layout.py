"""Where the tables live: the tree of paths, what lies in it, and the lock of a partition.

All path work goes through here: the root is a local directory or a name in an object store. How a file is written and
read belongs to `stored_files` and `parquet_files`, what a table contains to neither.
"""

import datetime as dt
import errno
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import pyarrow.parquet as pq

from pipelines.errors import ConfigurationError, StorageError
from pipelines.inputs import local_files
from pipelines.inputs.endpoints import SCHEME
from pipelines.lake.locks import check_holds, held
from pipelines.lake.names import day_of, month_of, project_of
from pipelines.lake.object_storage import ObjectPath, ObjectStat, read_small
from pipelines.lake.parquet_files import ROW_GROUP_ROWS, TableWriter
from pipelines.lake.stored_files import (
    LakePath,
    replace_by_link,
    storage_errors,
    whole_file,
)
from pipelines.tables import ANALYSIS_TABLES, IMAGE_HISTORY, SCHEMA_VERSION, TABLES, Table

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLACED = TABLES | ANALYSIS_TABLES
_NOT_EMPTY = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR}


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One day (UTC) of one project; `project` is the partition key, not the cloud's project id."""

    date: dt.date
    project: str

    def __str__(self) -> str:
        return f"{self.date} of project {self.project}"

    @property
    def directory(self) -> PurePosixPath:
        """The part of a path that all tables of this partition share."""
        return PurePosixPath(f"dt={self.date}", f"project={self.project}")


def _partition(date: str, project: str) -> Partition | None:
    """The partition that two names stand for, or None: what is no name of ours is not read."""
    day, key = day_of(date), project_of(project)
    return Partition(day, key) if day and key else None


class Lake:
    """The tree of tables under one root directory."""

    def __init__(self, root: str, compression: str = "zstd") -> None:
        # With one slash too, which would make a directory of that name.
        if (scheme := re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/+", root)) and not root.startswith(SCHEME):
            raise ConfigurationError(
                "IMAGE_SNAPSHOTS_LAKE must be a local path or s3://bucket/directory: "
                f"{scheme[0]} storage is not supported."
            )
        self.root: LakePath = ObjectPath.parse(root) if root.startswith(SCHEME) else Path(root).absolute()
        self._compression = compression

    def key(self, path: LakePath) -> str:
        """Where a file is, relative to the lake's root."""
        return path.relative_to(self.root).as_posix()  # type: ignore[arg-type]  # both are of the same kind

    def holds(self, path: Path) -> bool:
        """Whether a file of that name, or what it leads to, lies in the lake, or would."""
        root = self.root.resolve()
        # A link is replaced where it lies, whatever it points to.
        return isinstance(root, Path) and any(
            place.is_relative_to(root) for place in (path.resolve(), path.parent.resolve())
        )

    @staticmethod
    def uri(path: LakePath) -> str:
        """A path of the lake as a URI."""
        # `Path.as_uri` would spell each `=` of the directories `%3D`.
        return str(path) if isinstance(path, ObjectPath) else f"file://{quote(str(path), safe='/=')}"

    def table(self, name: str, partition: Partition) -> LakePath:
        """The published file of a table."""
        return self.root / name / partition.directory / f"{name}.parquet"

    def project_table(self, name: str, project: str) -> LakePath:
        """The file of a table that is kept for all days of a project together."""
        return self.root / name / f"project={project}" / f"{name}.parquet"

    def manifest(self, partition: Partition) -> LakePath:
        """The manifest that says which files of a partition belong together."""
        return self.root / "_manifests" / f"dt={partition.date}" / f"project={partition.project}.json"

    def derived_manifest(self, partition: Partition) -> LakePath:
        """The file that says what the derived tables of a partition were made from."""
        return self.root / "_derived" / f"dt={partition.date}" / f"project={partition.project}.json"

    def pending_derived_manifest(self, project: str) -> LakePath:
        """The seal that a derivation is about to write, while derived tables take their places."""
        return self.root / "_derived" / "coming" / f"project={project}.json"

    def superseded_derived(self, project: str) -> dict[LakePath, bytes]:
        """The derived manifests that were replaced."""
        return self._small_files(self.superseded_derived_manifests(project), "*.json")

    def superseded_derived_manifests(self, project: str) -> LakePath:
        """Directory of derived manifests that were replaced, each named by its SHA-256."""
        return self.root / "_derived" / "superseded" / f"project={project}"

    def report(self, partition: Partition) -> LakePath:
        """The report of a partition, for people."""
        return self.root / "reports" / partition.directory / "report.html"

    def monthly(self, name: str, month: str, project: str) -> LakePath:
        """The file that holds a table's rows of a month, `2026-11`, of a project."""
        return self.root / "_monthly" / name / f"month={month}" / f"project={project}" / f"{name}.parquet"

    def monthly_manifest(self, month: str, project: str) -> LakePath:
        """The file that says of which daily files a project's monthly ones were made."""
        return self.root / "_monthly" / f"month={month}" / f"project={project}.json"

    def monthly_manifests(self) -> list[tuple[str, str]]:
        """Month and project of each seal of monthly files, in order."""
        paths = self._paths(self.root / "_monthly", "month=*/project=*.json")
        names = ((month_of(path.parent.name), project_of(path.stem)) for path in paths)
        return sorted((month, project) for month, project in names if month and project)

    def retention_record(self, project: str, name: str) -> LakePath:
        """A record of files that were removed."""
        return self.root / "_retention" / f"project={project}" / f"{name}.json"

    def retention_records(self, project: str) -> dict[LakePath, bytes]:
        """A project's records of files that were removed, the oldest first."""
        return self._small_files(self.root / "_retention" / f"project={project}", f"{'[0-9]' * 6}.json")

    def superseded_manifests(self, project: str) -> LakePath:
        """Directory of the manifests that a rerun replaced, each named by its SHA-256."""
        return self.root / "_manifests" / "superseded" / f"project={project}"

    def staging(self, partition: Partition) -> LakePath:
        """Directory of an attempt that has not ended."""
        return self.root / "_staging" / partition.directory

    def rebuilding(self, partition: Partition) -> LakePath:
        """Directory of tables that are derived again from published responses, beside any open attempt."""
        return self.staging(partition) / "rebuild"

    def staged_derived(self, partition: Partition) -> LakePath:
        """Directory of derived tables that are not all made yet, beside any open attempt."""
        return self.staging(partition) / "derived"

    @contextmanager
    def writer(
        self,
        path: LakePath,
        table: Table,
        run_id: str,
        row_group_rows: int = ROW_GROUP_ROWS,
        metadata: Mapping[str, str] | None = None,
    ) -> Iterator[TableWriter]:
        """Write one table's file, further file metadata included; it appears when the block ends without an error."""
        # Readers take the schema from the file: the version and the run say how it came to be.
        metadata = {
            "image_snapshots.schema_version": str(SCHEMA_VERSION),
            "image_snapshots.run_id": run_id,
            **(metadata or {}),
        }
        with storage_errors(path), whole_file(path) as file:
            schema = table.schema.with_metadata(metadata)
            # The thread ends before the file is closed, however the block ends.
            with (
                pq.ParquetWriter(file, schema, compression=self._compression) as parquet,
                ThreadPoolExecutor(1) as beside,
            ):
                writer = TableWriter(parquet, table.schema, row_group_rows, beside)
                yield writer
                writer.flush()
                writer.wait()

    def replace_published(self, source: LakePath, name: str, partition: Partition) -> None:
        """Put a staged file in the place of the published one; the staged one stays where it is."""
        self.replace(source, self.table(name, partition))

    def replace(self, source: LakePath, target: LakePath) -> None:
        """Put a staged file in the place of another, whole or not at all; the staged one stays where it is."""
        with storage_errors(target):
            if isinstance(target, ObjectPath) and isinstance(source, ObjectPath):
                target.copy_from(source)
            elif isinstance(target, Path) and isinstance(source, Path):
                replace_by_link(source, target)

    def manifests(self, project: str) -> dict[Partition, bytes]:
        """The manifests of a project's published days, in order."""
        return self._by_day(self._small_files(self.root / "_manifests", f"dt=*/project={project}.json"))

    def superseded(self, project: str) -> dict[LakePath, bytes]:
        """The manifests that a rerun replaced."""
        found = self._small_files(self.superseded_manifests(project), "*.json")
        return {path: content for path, content in found.items() if _SHA256.fullmatch(path.stem)}

    def derived_manifests(self, project: str) -> dict[Partition, bytes]:
        """The derived manifests of a project, in order."""
        return self._by_day(self._small_files(self.root / "_derived", f"dt=*/project={project}.json"))

    def sizes(self, name: str, project: str) -> dict[str, int]:
        """The files of a table of a project, by path relative to the root, and their sizes in bytes."""
        found = self._matching(self.root / name, f"dt=*/project={project}/{name}.parquet")
        return {self.key(path): stat.st_size for path, stat in found}

    def reported(self, project: str) -> dict[Partition, float]:
        """When the report of each day of a project was written that has one, in seconds since the epoch."""
        found = self._matching(self.root / "reports", f"dt=*/project={project}/report.html")
        days = ((_partition(path.parent.parent.name, path.parent.name), stat) for path, stat in found)
        return {day: stat.st_mtime for day, stat in days if day}

    def derived(self, project: str) -> dict[Partition, float]:
        """When each day of a project was derived, in seconds since the epoch, and in order."""
        found = self._matching(self.root / "_derived", f"dt=*/project={project}.json")
        days = ((_partition(path.parent.name, path.stem), stat) for path, stat in found)
        return dict(sorted((day, stat.st_mtime) for day, stat in days if day))

    def _paths(self, directory: LakePath, pattern: str) -> list[LakePath]:
        """The files that match below a directory of the lake; what cannot be listed is an error."""
        with storage_errors(directory):
            if isinstance(directory, ObjectPath):
                return list(directory.glob(pattern))
            return [*local_files.matching(directory, pattern)]

    def _matching(self, directory: LakePath, pattern: str) -> list[tuple[LakePath, os.stat_result | ObjectStat]]:
        with storage_errors(directory):
            if isinstance(directory, ObjectPath):
                return list(directory.matching(pattern))
            return [(path, path.stat()) for path in local_files.matching(directory, pattern)]

    def _small_files(self, directory: LakePath, pattern: str) -> dict[LakePath, bytes]:
        with storage_errors(directory):
            if isinstance(directory, ObjectPath):
                return dict(read_small(directory.matching(pattern)).items())
            return {path: path.read_bytes() for path in local_files.matching(directory, pattern)}

    @staticmethod
    def _by_day(records: Mapping[LakePath, bytes]) -> dict[Partition, bytes]:
        days = ((_partition(path.parent.name, path.stem), content) for path, content in records.items())
        return {day: content for day, content in days if day}

    def _partitions_below(self, directory: LakePath, pattern: str) -> dict[Partition, LakePath]:
        """The files that match below `dt=.../project=.../`, by partition, in order."""
        paths = self._paths(directory, f"dt=*/project=*/{pattern}")
        days = ((_partition(path.parent.parent.name, path.parent.name), path) for path in paths)
        return dict(sorted((day, path) for day, path in days if day))

    def partitions(self, project: str = "*") -> list[Partition]:
        """Partitions that have a manifest, of all projects or of one, in order."""
        paths = self._paths(self.root / "_manifests", f"dt=*/project={project}.json")
        return sorted(day for path in paths if (day := _partition(path.parent.name, path.stem)))

    def partitions_of(self, name: str) -> list[Partition]:
        """Partitions that have a file of a table, in order."""
        return list(self._partitions_below(self.root / name, "*.parquet"))

    def tables_beside(self, name: str, partition: Partition) -> list[LakePath]:
        """The Parquet files in the directory of a partition's table, its own included."""
        return self._paths(self.root / name / partition.directory, "*.parquet")

    def files_of(self, name: str) -> dict[Partition, LakePath]:
        """The published files of a table, by partition, in order."""
        return self._partitions_below(self.root / name, f"{name}.parquet")

    def project_files_of(self, name: str) -> list[LakePath]:
        """The files of a table that is kept for all days of a project together, by project."""
        paths = self._paths(self.root / name, f"project=*/{name}.parquet")
        return sorted(path for path in paths if project_of(path.parent.name))

    def all_files(self) -> Iterator[str]:
        """Every file below the root, whatever it is, by its path relative to the root.

        Raises:
            ConfigurationError: a directory may not be read.
            StorageError: the storage failed.
        """
        with storage_errors(self.root):
            if isinstance(self.root, ObjectPath):
                yield from (self.key(path) for path, _ in self.root.tree())
            else:
                yield from (self.key(path) for path in local_files.below(self.root, "*"))

    def place(self, name: str, partition: Partition) -> LakePath:
        """Where the file of a table lies that a record of a partition names.

        Raises:
            KeyError: there is no such table.
        """
        if _PLACED[name] is IMAGE_HISTORY:
            return self.project_table(name, partition.project)
        return self.table(name, partition)

    @staticmethod
    def place_key(name: str, partition: Partition) -> str:
        """The `key` of a `place`, without making a path: manifests of many days are compared with it.

        Raises:
            KeyError: there is no such table.
        """
        day = "" if _PLACED[name] is IMAGE_HISTORY else f"dt={partition.date}/"
        return f"{name}/{day}project={partition.project}/{name}.parquet"

    def size(self, path: LakePath) -> int:
        """Bytes of a file."""
        with storage_errors(path):
            return path.stat().st_size

    def check_within(self, path: LakePath) -> None:
        """Refuse what a link of the lake leads to outside of it.

        Raises:
            StorageError: it lies outside, so it is not ours to remove.
        """
        with storage_errors(path):
            if isinstance(path, Path) and isinstance(self.root, Path):
                found = path.parent.resolve()
                if found != path.parent and not found.is_relative_to(self.root.resolve()):
                    raise StorageError(
                        f"{path} lies outside the lake, because a link leads to {found}, so nothing was removed: put "
                        "the directory itself in the link's place."
                    )

    def remove(self, path: LakePath) -> None:
        """Remove a file, if it is there, and the directories of its day or month that this leaves empty.

        Raises:
            StorageError: it lies outside the lake, or the storage failed.
        """
        self.check_within(path)
        check_holds()
        with storage_errors(path):
            path.unlink(missing_ok=True)
            for directory in path.parents[:2] if isinstance(path, Path) else ():
                try:
                    directory.rmdir()
                except OSError as error:
                    if error.errno not in _NOT_EMPTY:
                        raise
                    break

    def unfinished(self) -> list[Partition]:
        """Partitions with an attempt that has not ended, in order."""
        return list(self._partitions_below(self.root / "_staging", "attempt.json"))

    def failure(self, partition: Partition) -> LakePath:
        """The note of a partition's last failure."""
        return self.staging(partition) / "failure.json"

    def failures(self) -> dict[Partition, LakePath]:
        """The notes of partitions' last failures, in order."""
        return self._partitions_below(self.root / "_staging", "failure.json")

    def hold(self, partition: Partition, run_id: str) -> AbstractContextManager[None]:
        """Hold a partition against other runs until the block (or the process) ends.

        Raises:
            PartitionBusyError: another run holds it; says which.
        """
        place = self.root / "_locks" / "partitions" / f"dt={partition.date}" / f"project={partition.project}"
        return self._held(place, f"The partition {partition}", f"run {run_id}", may_wait=False)

    def chain(self, project: str, holder: str = "another run") -> AbstractContextManager[None]:
        """Hold a project's chain of manifests, so that two days that end together cannot fork it.

        `holder` says who does, for whoever waits.

        Raises:
            PartitionBusyError: another process held it for too long; says which.
        """
        place = self.root / "_locks" / "manifests" / f"project={project}"
        return self._held(place, f"The chain of manifests of project {project}", holder, may_wait=True)

    def deriving(self, project: str, holder: str = "another run") -> AbstractContextManager[None]:
        """Hold a project's derived tables, which depend on one another from day to day; else as `chain`."""
        place = self.root / "_locks" / "derived" / f"project={project}"
        return self._held(place, f"What is derived for project {project}", holder, may_wait=True)

    @contextmanager
    def founding(self, holder: str = "another run") -> Iterator[None]:
        """Hold the lake while its first day is published: two first days must agree on what kind of lake it is."""
        if self.partitions():
            yield
            return
        with self._held(self.root / "_locks" / "first-day", "The empty lake", holder, may_wait=True):
            yield

    @contextmanager
    def _held(self, place: LakePath, what: str, holder: str, *, may_wait: bool) -> Iterator[None]:
        with ExitStack() as stack:
            with storage_errors(place):
                stack.enter_context(held(place, what, holder, may_wait=may_wait))
            yield
