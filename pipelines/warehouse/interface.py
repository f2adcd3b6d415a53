"""The interface of every kind of warehouse, and the source that it loads from.

Each kind has its own module (`duckdb`, `postgres`); a new kind is one more module.
"""

import datetime as dt
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.inputs import local_files
from pipelines.lake.storage import LakePath, storage_errors
from pipelines.tables import Table
from pipelines.warehouse.ddl import PROJECT, WAREHOUSE_TABLES

_BATCH_ROWS = 4_096


class Warehouse(Protocol):
    """One kind of warehouse. All errors are those of `pipelines.errors`, without secrets.

    `name` is for messages. `has_keys`: tables get primary keys. `column_types` and `view_comments` describe the
    existing tables, columns and views, with types as `ddl.sql_type` writes them.
    """

    name: str
    has_keys: bool

    def column_types(self) -> dict[str, dict[str, str]]: ...  # noqa: D102

    def view_comments(self) -> dict[str, str | None]: ...  # noqa: D102

    def execute(self, statement: str) -> None:
        """Run a statement without parameters."""

    def transaction(self) -> AbstractContextManager[None]:
        """Commit all changes of the block, or none."""

    def hold(self, what: str) -> None:
        """Wait for the lock `what`, and hold it until this transaction ends."""

    def replace(
        self,
        table: Table,
        partition: dict[str, object],
        batches: Iterator[pa.RecordBatch],
        _source: "Source | None" = None,
        /,
    ) -> int:
        """Replace the rows whose columns have the values of `partition`; returns the number of new rows.

        The new rows are those of `batches`. If `source` is given, it has the same rows, and a warehouse may read it
        instead.
        """

    def loaded_days(self, project: str) -> dict[dt.date, str]:
        """The basis of each day of a project in the table `days`."""

    def kinds(self) -> set[bool]:
        """The distinct values of `is_sandbox` over the days of all projects."""


@dataclass(frozen=True, slots=True)
class Source:
    """A table's open file. It stays the same even if a run replaces the file meanwhile."""

    table: Table
    path: LakePath
    file: BufferedReader
    rows: int
    # The table's columns in the warehouse that the file has.
    columns: list[str]

    @property
    def open_path(self) -> str | None:
        """A path to the open file, even if its name now belongs to another file; None if there is no such path."""
        path = Path(f"/proc/self/fd/{self.file.fileno()}")
        return str(path) if self.path.local is not None and local_files.exists(path) else None

    def batches(self, project: str) -> Iterator[pa.RecordBatch]:
        """Yield the rows in the warehouse's form: `project` first, null for columns that the file lacks."""
        wanted = WAREHOUSE_TABLES[self.table.name].schema
        with storage_errors(self.path), pq.ParquetFile(self.file, pre_buffer=False) as parquet:
            columns = [name for name in wanted.names if name in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=columns):
                arrays = [
                    pa.repeat(project, batch.num_rows)
                    if field.name == PROJECT.name
                    else batch.column(field.name)
                    if field.name in columns
                    else pa.nulls(batch.num_rows, field.type)
                    for field in wanted
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=wanted)
