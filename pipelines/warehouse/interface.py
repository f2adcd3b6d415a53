"""What every kind of warehouse has in common: what it does, and what it reads.

One module for each kind (`duckdb`, `postgres`) is the seam at which the next one fits.
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
    """What a kind of warehouse does; all errors come as those of `errors`, without secrets.

    `name` is for people; `has_keys` says whether tables get their primary keys. `column_types` and `view_comments`
    tell what is there now, by table, column and view; types as `warehouse_ddl.sql_type` writes them.
    """

    name: str
    has_keys: bool

    def column_types(self) -> dict[str, dict[str, str]]: ...  # noqa: D102

    def view_comments(self) -> dict[str, str | None]: ...  # noqa: D102

    def execute(self, statement: str) -> None:
        """Run a statement without parameters."""

    def transaction(self) -> AbstractContextManager[None]:
        """Do what the block does as a whole, or not at all."""

    def hold(self, what: str) -> None:
        """Wait until no other transaction holds `what`, and hold it until this one ends."""

    def replace(
        self,
        table: Table,
        partition: dict[str, object],
        batches: Iterator[pa.RecordBatch],
        _source: "Source | None" = None,
        /,
    ) -> int:
        """Put rows in the place of those whose columns have the values of `partition`; returns how many.

        They are those of the batches, and those of the source if there is one: a warehouse reads either.
        """

    def loaded_days(self, project: str) -> dict[dt.date, str]:
        """The basis of each day of a project in the table `days`."""

    def kinds(self) -> set[bool]:
        """Of the days of all projects: whether they are of the sandbox."""


@dataclass(frozen=True, slots=True)
class Source:
    """A table's file, open: what a run puts in its place meanwhile is not seen."""

    table: Table
    path: LakePath
    file: BufferedReader
    # Of the table's columns in the warehouse, those that the file has.
    columns: list[str]

    @property
    def open_path(self) -> str | None:
        """A path of the file that is open, whatever has its name by now; None where there is no such path."""
        path = Path(f"/proc/self/fd/{self.file.fileno()}")
        return str(path) if self.path.local is not None and local_files.exists(path) else None

    def batches(self, project: str) -> Iterator[pa.RecordBatch]:
        """Yield the rows as the warehouse has them: `project` first, nulls where the file knows no such column."""
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
