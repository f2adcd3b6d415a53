"""Copies published days into the catalog: each table's day is one commit that replaces its partition.

A reader sees a table's old day or its new one, also when the process is killed. `days` is committed last: when its row
of a day has the new `basis`, all other tables of that day have been committed.
"""

import datetime as dt
import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, EqualTo
from pyiceberg.io.pyarrow import pyarrow_to_schema, write_file
from pyiceberg.partitioning import PartitionFieldValue, PartitionKey
from pyiceberg.table import Table as IcebergTable
from pyiceberg.table import WriteTask

from pipelines.catalog.opening import CatalogAccess, catalog_access, catalog_errors, open_catalog
from pipelines.catalog.schemas import bring_up_to_date, partition_columns
from pipelines.errors import ConfigurationError
from pipelines.lake.derived_manifests import bases
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.retention_records import RetentionRecords
from pipelines.lake.storage import storage_errors
from pipelines.tables import IMAGE_HISTORY
from pipelines.warehouse.ddl import DAYS, PROJECT, WAREHOUSE_TABLES
from pipelines.warehouse.sources import OpenPartition, is_loadable, open_partition, open_source

# Rows of about this size in memory become one file of the catalog; compressed it is a fifth to a tenth of it.
FILE_BYTES = 64 * 1024**2
_PROPERTY = "image-snapshots."
INTO = "the catalog"


@dataclass(frozen=True, slots=True)
class CatalogResult:
    """The result of a load: the catalog's name (without secrets), rows by table, and wall-clock seconds.

    The rows are those of the requested day; `commits` counts the tables that were not as they should be, and
    `other_days` further days that were loaded.
    """

    catalog: str
    rows: dict[str, int]
    commits: int
    other_days: int
    seconds: float


def load_catalog_project(lake: Lake, partition: Partition, setting: str, holder: str = "another run") -> CatalogResult:
    """Load a day, and every other day of its project that is missing or outdated in the catalog.

    A table whose newest snapshot of the day is already made from the same file is left as it is.

    Raises:
        ConfigurationError: the setting or PyIceberg's configuration is wrong, the catalog refuses, a table there has
            another shape or is of the sandbox, the partition is not published or not derived, or retention removed
            files of it.
        EndpointUnreachableError: the catalog does not answer.
        PartitionBusyError: another load took too long, or another program changed the same partition.
        StorageError: a file is not the one that its manifest names, or a file of the catalog cannot be written.
    """
    started = time.monotonic()
    access = catalog_access(setting, lake)
    with ExitStack() as stack:
        # Check the day before changing anything in the catalog.
        day = open_partition(lake, partition, stack, INTO)
        # Loads of one lake take turns: a commit that meets another one must write its files again.
        stack.enter_context(lake.locks.catalog(holder))
        stack.enter_context(catalog_errors(access))
        catalog = stack.enter_context(open_catalog(access))
        load = _Load(lake, partition.project, access, bring_up_to_date(catalog, access, lake))
        load.check_kind(day)
        removed = RetentionRecords(lake, partition.project)
        others = [
            other
            for other, basis in bases(lake, partition.project).items()
            if other != partition and load.known.get(other.date) != basis and is_loadable(lake, other, removed)
        ]
        for other in others:
            with ExitStack() as files:
                load.day(open_partition(lake, other, files, INTO))
        # The history belongs to the whole project; it is loaded once, before the last day's row of `days`.
        rows = {IMAGE_HISTORY.name: load.history(day)} | load.day(day)
    return CatalogResult(access.name, rows, load.commits, len(others), time.monotonic() - started)


class _Load:
    """One load of a project; `known` is the basis of each of its days in the catalog, `commits` their number so far."""

    def __init__(self, lake: Lake, project: str, access: CatalogAccess, tables: Mapping[str, IcebergTable]) -> None:
        self._lake = lake
        self._project = project
        self._access = access
        self._tables = tables
        self.commits = 0
        rows = tables[DAYS.name].scan().to_arrow().to_pylist()
        self._kinds = {row["is_sandbox"] for row in rows}
        self._days = {row["snapshot_date"]: row for row in rows if row[PROJECT.name] == project}

    @property
    def known(self) -> dict[dt.date, str]:
        return {date: row["basis"] for date, row in self._days.items()}

    def day(self, day: OpenPartition) -> dict[str, int]:
        """Load the tables of a day, then its row of `days`; returns the rows by table."""
        (row,) = day.row.to_pylist()
        for source in day.sources:
            self._replace(source.table.name, row, day.files[source.table.name].sha256, source.batches(self._project))
        self._days[row["snapshot_date"]] = row
        rows = pa.RecordBatch.from_pylist([self._days[date] for date in sorted(self._days)], DAYS.schema)
        digest = hashlib.sha256(repr(rows.to_pylist()).encode()).hexdigest()
        self._replace(DAYS.name, row, digest, iter([rows]))
        return {source.table.name: day.files[source.table.name].rows for source in day.sources} | {DAYS.name: 1}

    def check_kind(self, day: OpenPartition) -> None:
        """Check that the catalog has no days of the other kind: the sandbox's images are invented.

        Raises:
            ConfigurationError: it has.
        """
        (row,) = day.row.to_pylist()
        if self._kinds - {row["is_sandbox"]}:
            raise ConfigurationError(
                f"The catalog {self._access.name} holds days of {'a cloud' if row['is_sandbox'] else 'the sandbox'}, "
                f"but {row['snapshot_date']} of {self._project} is from "
                f"{'the sandbox, whose images are invented' if row['is_sandbox'] else 'a cloud'}: set "
                "IMAGE_SNAPSHOTS_CATALOG to another catalog or namespace."
            )

    def history(self, day: OpenPartition) -> int:
        """Load the project's history as it is after this day; returns its rows."""
        (row,) = day.row.to_pylist()
        with ExitStack() as stack:
            path = self._lake.project_table(IMAGE_HISTORY.name, self._project)
            source = open_source(IMAGE_HISTORY, path, stack, INTO)
            with storage_errors(path):
                digest = hashlib.file_digest(source.file, "sha256").hexdigest()
                source.file.seek(0)
                rows = int(pq.read_metadata(source.file).num_rows)
                source.file.seek(0)
            self._replace(IMAGE_HISTORY.name, row, digest, source.batches(self._project))
        return rows

    def _replace(self, name: str, row: Mapping[str, Any], digest: str, batches: Iterator[pa.RecordBatch]) -> None:
        """Replace a partition by the rows of a file with this SHA-256, in one commit with one snapshot."""
        table = self._tables[name]
        partition = {column: row[column] for column in partition_columns(WAREHOUSE_TABLES[name])}
        facts = {
            "project": self._project,
            "snapshot-date": str(row["snapshot_date"]),
            "manifest-sha256": row["manifest_sha256"],
            "basis": row["basis"],
            "run-id": row["run_id"],
            "is-complete": str(row["is_complete"]).lower(),
            "source-sha256": digest,
        }
        if _is_current(table, facts, of_day="snapshot_date" in partition):
            return
        where = _condition(partition)
        key = PartitionKey(
            [PartitionFieldValue(field, partition[field.name]) for field in table.spec().fields],
            table.spec(),
            table.schema(),
        )
        # `overwrite` of a table deletes and appends in two snapshots, between which time travel would find no day.
        properties = {f"{_PROPERTY}{fact}": value for fact, value in facts.items()}
        with table.transaction() as transaction, transaction.update_snapshot(properties).overwrite() as change:
            # Only rows of this partition that others added meanwhile are a conflict.
            change.delete_by_predicate(where)
            for task in table.scan(row_filter=where).plan_files():
                if task.file.spec_id != table.spec().spec_id or task.file.partition != key.partition:
                    raise ConfigurationError(
                        f"A file of the table {name} in the catalog {self._access.name} has rows of several "
                        f"partitions, so {row['snapshot_date']} of {self._project} was left as it is there: rename the "
                        "table and load its days again."
                    )
                change.delete_data_file(task.file)
            schema = pyarrow_to_schema(WAREHOUSE_TABLES[name].schema, name_mapping=table.schema().name_mapping)
            for number, rows in enumerate(_files(batches)):
                written = WriteTask(change.commit_uuid, number, schema, rows, partition_key=key)
                # One file at a time: PyIceberg would hold all that it is given in memory.
                for file in write_file(table.io, table.metadata, iter([written])):
                    change.append_data_file(file)
        self.commits += 1


def _condition(partition: Mapping[str, Any]) -> BooleanExpression:
    condition: BooleanExpression = AlwaysTrue()
    for column, value in partition.items():
        # PyIceberg's own initialiser, which mypy's plugin for pydantic does not see.
        condition = And(condition, EqualTo(column, value))  # type: ignore[call-arg]
    return condition


def _is_current(table: IcebergTable, facts: Mapping[str, str], *, of_day: bool) -> bool:
    """Whether the newest snapshot of a partition is made from the same file, and nobody else has changed the table."""
    snapshots = {snapshot.snapshot_id: snapshot for snapshot in table.snapshots()}
    snapshot = table.current_snapshot()
    while snapshot is not None:
        found = snapshot.summary.additional_properties if snapshot.summary is not None else {}
        if f"{_PROPERTY}source-sha256" not in found:
            return False
        names = ("project", "snapshot-date") if of_day else ("project",)
        if all(found.get(f"{_PROPERTY}{name}") == facts[name] for name in names):
            # A day that is published again has another manifest, also where this table's file is the same.
            names = ("source-sha256", "manifest-sha256") if of_day else ("source-sha256",)
            return all(found.get(f"{_PROPERTY}{name}") == facts[name] for name in names)
        snapshot = snapshots.get(snapshot.parent_snapshot_id or 0)
    return False


def _files(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """The rows of each file: batches together until they have its size in memory."""
    rows: list[pa.RecordBatch] = []
    for batch in batches:
        if batch.num_rows:
            rows.append(batch)
        if sum(one.nbytes for one in rows) >= FILE_BYTES:
            yield rows
            rows = []
    if rows:
        yield rows
