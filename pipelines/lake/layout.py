"""Where everything in a lake lies: the tree of paths by name, and what a lake is made of.

`contents` says what there is, `locks` what is held. How a file is written belongs to the storage and to
`parquet_files`, what a table contains to neither.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pyarrow.parquet as pq

from pipelines.lake.contents import Contents
from pipelines.lake.locks import Locks
from pipelines.lake.names import Partition
from pipelines.lake.parquet_files import ROW_GROUP_ROWS, TableWriter
from pipelines.lake.paths import open_storage
from pipelines.lake.storage import LakePath, storage_errors
from pipelines.tables import ANALYSIS_TABLES, IMAGE_HISTORY, SCHEMA_VERSION, TABLES, Table

__all__ = ["Lake", "Partition"]

_PLACED = TABLES | ANALYSIS_TABLES


class Lake:
    """The tree of tables under one root: a local directory, or an address in an object store.

    Raises:
        ConfigurationError: there is no storage of the root's kind, or it cannot be opened.
    """

    def __init__(self, root: str, compression: str = "zstd") -> None:
        self.root: LakePath = open_storage(root)
        self.contents = Contents(self.root)
        self.locks = Locks(self.root)
        self.compression = compression

    def key(self, path: LakePath) -> str:
        """Where a file is, relative to the lake's root."""
        return path.relative_to(self.root).as_posix()

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
        """The derived manifest that a derivation is about to write, while derived tables take their places."""
        return self.root / "_derived" / "coming" / f"project={project}.json"

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
        """The monthly manifest: the daily files that a project's monthly files were made of."""
        return self.root / "_monthly" / f"month={month}" / f"project={project}.json"

    def retention_record(self, project: str, name: str) -> LakePath:
        """A record of files that were removed."""
        return self.root / "_retention" / f"project={project}" / f"{name}.json"

    def superseded_manifests(self, project: str) -> LakePath:
        """Directory of the manifests that a rerun replaced, each named by its SHA-256."""
        return self.root / "_manifests" / "superseded" / f"project={project}"

    def staging(self, partition: Partition) -> LakePath:
        """Directory of an attempt that has not ended."""
        return self.root / "_staging" / partition.directory

    def early_tables(self, partition: Partition) -> LakePath:
        """Directory of tables that are built while an attempt still writes its responses."""
        return self.staging(partition) / "early"

    def rebuilding(self, partition: Partition) -> LakePath:
        """Directory of tables that are rebuilt from published responses, beside any open attempt."""
        return self.staging(partition) / "rebuild"

    def staged_derived(self, partition: Partition) -> LakePath:
        """Directory of derived tables that are not all made yet, beside any open attempt."""
        return self.staging(partition) / "derived"

    def failure(self, partition: Partition) -> LakePath:
        """The note of a partition's last failure."""
        return self.staging(partition) / "failure.json"

    def told(self) -> LakePath:
        """The record of what was told in notifications."""
        return self.root / "_notifications" / "told.json"

    def told_findings(self, project: str) -> LakePath:
        """The record of a project's findings that were told in notifications."""
        return self.root / "_notifications" / "findings" / f"project={project}.json"

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
        with storage_errors(path), path.writing() as file:
            schema = table.schema.with_metadata(metadata)
            # The thread ends before the file is closed, however the block ends.
            with (
                pq.ParquetWriter(file, schema, compression=self.compression) as parquet,
                ThreadPoolExecutor(1) as beside,
            ):
                writer = TableWriter(parquet, table.schema, row_group_rows, beside)
                yield writer
                writer.flush()
                writer.wait()

    def replace(self, source: LakePath, target: LakePath) -> None:
        """Put a staged file in the place of another, whole or not at all; the staged one stays where it is."""
        target.replace_by(source)

    def check_within(self, path: LakePath) -> None:
        """Refuse what a link of the lake leads to outside of it.

        Raises:
            StorageError: it lies outside, so it may not be removed.
        """
        path.check_within(self.root)

    def remove(self, path: LakePath) -> None:
        """Remove a file, if it is there, and the directories of its day or month that this leaves empty.

        Raises:
            StorageError: it lies outside the lake, or the storage failed.
        """
        self.check_within(path)
        path.remove()

    @contextmanager
    def founding(self, holder: str = "another run") -> Iterator[None]:
        """Hold the lake while its first day is published: two first days must agree on what kind of lake it is."""
        if self.contents.partitions():
            yield
            return
        with self.locks.empty_lake(holder):
            yield
