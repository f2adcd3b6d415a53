"""The engine that every installation has: DuckDB, in this process and in bounded memory."""

import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Self

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.engine.interface import Engine
from pipelines.engine.sql_text import quoted
from pipelines.lake.local_storage import LocalPath
from pipelines.lake.storage import LakePath, ReadOnlyFiles
from pipelines.tables import Table

# What one SELECT over a few ids needs, and what many images are sorted in, with the rest in temporary files.
DERIVING_MEMORY = "128MB"
_MEMORY = "400MB"
_RESTING_MEMORY = "16MB"
_BATCH_ROWS = 8_192
_HELD_ROWS = 32_768


class DuckDBEngine(Engine):
    """DuckDB in bounded memory, which spills to temporary files."""

    ids_at_a_time: ClassVar[int | None] = 32_768

    def __init__(self, memory: str = _MEMORY) -> None:
        self._memory = memory
        # In little memory the buffers of a second thread are too much, and small pieces of work gain little from it.
        self._threads = 1 if memory == DERIVING_MEMORY else os.cpu_count() or 1
        self._numbers = count()
        self._stack = ExitStack()
        self._views: dict[str, str] = {}
        self._held: dict[str, tuple[str, ...]] = {}
        self._objects: ReadOnlyFiles | None = None

    def __enter__(self) -> Self:
        scratch = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="image-snapshots-"))
        self._scratch = LocalPath(os.path.realpath(scratch))
        config: dict[str, Any] = {
            "memory_limit": self._memory,
            "threads": self._threads,
            "temp_directory": str(self._scratch),
            "enable_external_file_cache": False,
            # What a task has used and freed goes back to the system when it ends.
            "allocator_flush_threshold": "1MB",
            # The SQL needs nothing that is not built in.
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        self.connection = duckdb.connect(":memory:", config=config)
        self._stack.callback(self.connection.close)
        self.connection.execute("SET TimeZone = 'UTC'")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def load(self, name: str, data: pa.Table | pa.RecordBatchReader) -> None:
        """Make a relation from Arrow data: batches go to a temporary file, because nobody knows how many will come."""
        if isinstance(data, pa.RecordBatchReader):
            path = self._scratch_file()
            with pq.ParquetWriter(path, data.schema, compression="lz4") as writer:
                for batches in _grouped(data):
                    writer.write_table(pa.Table.from_batches(batches, data.schema))
            self.load_file(name, path)
            return
        self.connection.register("arriving", data)
        self.create(name, "SELECT * FROM arriving")
        self.connection.unregister("arriving")

    def load_file(self, name: str, path: LakePath, columns: str = "*") -> None:
        """Make a relation that reads a Parquet file of the lake, without its directory keys."""
        self._know(path)
        source = f"read_parquet({quoted(path.sql_name)}, hive_partitioning = false)"
        self.create_view(name, f"SELECT {columns} FROM {source}")  # noqa: S608

    def load_files(self, name: str, paths: Sequence[LakePath], table: Table) -> None:
        """Make a relation that reads files of a table, with nulls where a file is older than a column."""
        for path in paths:
            self._know(path)
        files = parquet_files(self.connection, table, [path.sql_name for path in paths])
        self.create_view(name, f"SELECT * FROM {files}")  # noqa: S608

    def _know(self, path: LakePath) -> None:
        if path.local is not None:
            # The engine reads local files by itself.
            return
        if self._objects is None:
            self._objects = path.top.reader()
            self.connection.register_filesystem(self._objects)
        # The file may have been replaced since it was read last.
        self._objects.forget(path)

    def create(self, name: str, sql: str) -> None:
        """Make a relation that holds what a SELECT gives now."""
        # Every relation is a view by its name: DuckDB replaces no table by a view, nor a view by a table.
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {name}_rows AS {sql}")
        self.create_view(name, f"SELECT * FROM {name}_rows")  # noqa: S608  (names of ours)

    def append(self, name: str, sql: str) -> None:
        """Add what a SELECT gives to a relation that was made by `create`, or by `load` from a table."""
        self.connection.execute(f"INSERT INTO {name}_rows {sql}")

    def create_view(self, name: str, sql: str) -> None:
        """Make a relation that is what a SELECT gives whenever it is read."""
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}")
        self._views[name] = sql

    def narrow(self, name: str, condition: str | None) -> None:
        """Let a relation have only its rows of a condition, or all again."""
        sql = self._views[name]
        narrowed = sql if condition is None else f"SELECT * FROM ({sql}) AS whole WHERE {condition}"  # noqa: S608
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {narrowed}")

    def hold(self, name: str, selects: Iterable[str]) -> None:
        """Make a relation of what SELECTs give, one after the other, and hold it outside this process's memory."""
        paths = []
        for sql in selects:
            path = self._scratch_file()
            paths.append(path)
            self.connection.execute(
                f"COPY ({sql}) TO {quoted(str(path))} "
                f"(FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE {_HELD_ROWS})"
            )
        self._read_local(name, paths)
        self._held[name] = tuple(map(str, paths))

    def load_local(self, name: str, paths: Iterable[Path], schema: pa.Schema) -> None:
        """Make a relation that reads Parquet files of this machine, where they are."""
        # The engine takes all files to have as many rows as the first.
        if files := sorted(paths, key=lambda path: path.stat().st_size, reverse=True):
            self._read_local(name, files)
        else:
            self.load(name, schema.empty_table())

    def _read_local(self, name: str, paths: Iterable[Path]) -> None:
        files = ", ".join(quoted(LocalPath(path).sql_name) for path in paths)
        self.create_view(name, f"SELECT * FROM read_parquet([{files}], hive_partitioning = false)")  # noqa: S608

    def held_files(self, name: str) -> tuple[str, ...]:
        """The files that a relation made by `hold` is in."""
        return self._held[name]

    def _scratch_file(self) -> LocalPath:
        return self._scratch / f"{next(self._numbers)}.parquet"

    def rest(self) -> None:
        """Give back memory that was used and is not needed until the next statement."""
        # Freed memory is kept for what comes next, until the limit falls below it.
        self.connection.execute(f"SET memory_limit = '{_RESTING_MEMORY}'")
        self.connection.execute(f"SET memory_limit = '{self._memory}'")

    def read(self, sql: str) -> pa.Table:
        """What a SELECT gives, in memory."""
        return self.connection.sql(sql).to_arrow_table()

    def _select(self, sql: str) -> tuple[list[str], Iterator[pa.RecordBatch]]:
        reader = self.connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
        return reader.schema.names, reader


def _grouped(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Batches in lists of about as many rows as a row group should have."""
    pending: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        pending.append(batch)
        rows += batch.num_rows
        if rows >= _HELD_ROWS:
            yield pending
            pending, rows = [], 0
    if pending:
        yield pending


def engine_types(connection: duckdb.DuckDBPyConnection, table: Table) -> dict[str, str]:
    """Column name -> the engine's type."""
    empty = connection.from_arrow(table.schema.empty_table())
    return {name: str(type_) for name, type_ in zip(empty.columns, empty.types, strict=True)}


def parquet_files(
    connection: duckdb.DuckDBPyConnection, table: Table, names: Sequence[str], without: Collection[str] = ()
) -> str:
    """SQL that reads files of a table, for FROM: its columns of their documented types, and `filename`.

    A column that a file lacks, because it is older, is null. Naming the types leaves files unopened until rows are
    asked for. Columns `without` are not read.
    """
    fields = ", ".join(
        f"{quoted(name)}: {{name: {quoted(name)}, type: {quoted(type_)}, default_value: NULL}}"
        for name, type_ in engine_types(connection, table).items()
        if name not in without
    )
    files = ", ".join(map(quoted, names))
    return f"read_parquet([{files}], schema = MAP {{{fields}}})"
