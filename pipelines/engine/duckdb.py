"""The default engine: DuckDB, in this process and in bounded memory."""

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
from pipelines.lake.parquet_files import ROW_GROUP_ROWS
from pipelines.lake.storage import LakePath, ReadOnlyFiles
from pipelines.tables import Table

# Enough for one SELECT over a few ids. Sorting many images uses temporary files beyond it.
DERIVING_MEMORY = "192MB"
_MEMORY = "400MB"
_RESTING_MEMORY, _SORTING_MEMORY = "16MB", "96MB"
_BATCH_ROWS = 8_192


class DuckDBEngine(Engine):
    """DuckDB in bounded memory, which spills to temporary files; `within` an engine that is open, in its memory."""

    # Two groups of rows, one for each of two threads.
    ids_at_a_time: ClassVar[int | None] = 2 * ROW_GROUP_ROWS

    def __init__(self, memory: str = _MEMORY, within: "DuckDBEngine | None" = None) -> None:
        self._memory = memory
        self._within = within
        # Each thread needs memory of its own.
        self._threads = (os.cpu_count() or 1) if memory == _MEMORY else 1
        self._numbers = count()
        self._stack = ExitStack()
        self._views: dict[str, str] = {}
        self._held: dict[str, tuple[str, ...]] = {}
        self._objects: ReadOnlyFiles | None = None
        self._selected: tuple[str, duckdb.DuckDBPyRelation] | None = None

    def __enter__(self) -> Self:
        scratch = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="image-snapshots-"))
        self._scratch = LocalPath(os.path.realpath(scratch))
        # Temporary relations are those of one connection, and end with it.
        self.connection: duckdb.DuckDBPyConnection
        self.connection = self._within.connection.cursor() if self._within is not None else self._database()
        self._stack.callback(self.connection.close)
        self.connection.execute("SET TimeZone = 'UTC'")
        return self

    def _database(self) -> duckdb.DuckDBPyConnection:
        config: dict[str, Any] = {
            "memory_limit": self._memory,
            "threads": self._threads,
            "temp_directory": str(self._scratch),
            "enable_external_file_cache": False,
            # Return freed memory to the system when a task ends.
            "allocator_flush_threshold": "1MB",
            # The SQL needs no extension that is not built in.
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        return duckdb.connect(":memory:", config=config)

    def __exit__(self, *_: object) -> None:
        self._selected = None
        self._stack.close()

    def session(self) -> "DuckDBEngine":
        """An engine with no relations yet, in the memory of this one."""
        return DuckDBEngine(self._memory, within=self)

    def expect(self, rows: int) -> None:
        """Use a second thread if rows are many; with few, starting it costs more than it gains."""
        if rows > ROW_GROUP_ROWS:
            self.connection.execute(f"SET threads = {max(self._threads, min(2, os.cpu_count() or 1))}")

    def load(self, name: str, data: pa.Table | pa.RecordBatchReader) -> None:
        """Create a relation from Arrow data; batches go to a temporary file, because their number is unknown."""
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
        """Create a relation that reads a Parquet file of the lake, without its directory keys."""
        self._know(path)
        source = f"read_parquet({quoted(path.sql_name)}, hive_partitioning = false)"
        self.create_view(name, f"SELECT {columns} FROM {source}")  # noqa: S608

    def load_files(self, name: str, paths: Sequence[LakePath], table: Table) -> None:
        """Create a relation that reads files of a table; columns that an older file lacks are null."""
        for path in paths:
            self._know(path)
        files = parquet_files(self.connection, table, [path.sql_name for path in paths])
        self.create_view(name, f"SELECT * EXCLUDE (filename) FROM {files}")  # noqa: S608

    def _know(self, path: LakePath) -> None:
        if path.local is None:
            # The file may have been replaced since it was last read.
            self._objects_of(path).forget(path)

    def _objects_of(self, path: LakePath) -> ReadOnlyFiles:
        """The file system through which the database, with all its connections, reads a bucket."""
        if self._within is not None:
            return self._within._objects_of(path)  # noqa: SLF001  (another of this class)
        if self._objects is None:
            self._objects = path.top.reader()
            self.connection.register_filesystem(self._objects)
        return self._objects

    def create(self, name: str, sql: str) -> None:
        """Create a relation with the current rows of a SELECT."""
        # The relation's name is always a view, because DuckDB cannot replace a table by a view or a view by a table.
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {name}_rows AS {sql}")
        self.create_view(name, f"SELECT * FROM {name}_rows")  # noqa: S608  (names of ours)

    def append(self, name: str, sql: str) -> None:
        """Add the rows of a SELECT to a relation made by `create`, or by `load` from a table."""
        self.connection.execute(f"INSERT INTO {name}_rows {sql}")

    def create_view(self, name: str, sql: str) -> None:
        """Create a relation that runs a SELECT each time it is read."""
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}")
        self._views[name] = sql

    def narrow(self, name: str, condition: str | None) -> None:
        """Restrict a relation to the rows of a condition; None removes the restriction."""
        sql = self._views[name]
        narrowed = sql if condition is None else f"SELECT * FROM ({sql}) AS whole WHERE {condition}"  # noqa: S608
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {narrowed}")

    def hold(self, name: str, selects: Iterable[str]) -> None:
        """Create a relation with the rows of several SELECTs, one after the other, outside this process's memory."""
        paths = []
        for sql in selects:
            path = self._scratch_file()
            paths.append(path)
            self.connection.execute(
                f"COPY ({sql}) TO {quoted(str(path))} "
                f"(FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE {ROW_GROUP_ROWS})"
            )
        self._read_local(name, paths)
        self._held[name] = tuple(map(str, paths))

    def hold_sorted(self, name: str, sql: str, key: str) -> None:
        """As `hold`, of one SELECT, ordered by a column."""
        # A sort takes all the memory that it may, and is hardly slower with less.
        self.connection.execute(f"SET memory_limit = '{_SORTING_MEMORY}'")
        super().hold_sorted(name, sql, key)
        self.connection.execute(f"SET memory_limit = '{self._memory}'")

    def load_local(self, name: str, paths: Iterable[Path], schema: pa.Schema) -> None:
        """Create a relation that reads Parquet files of this machine in place."""
        # The engine assumes that all files have as many rows as the first.
        if files := sorted(paths, key=lambda path: path.stat().st_size, reverse=True):
            self._read_local(name, files)
        else:
            self.load(name, schema.empty_table())

    def _read_local(self, name: str, paths: Iterable[Path]) -> None:
        files = ", ".join(quoted(LocalPath(path).sql_name) for path in paths)
        self.create_view(name, f"SELECT * FROM read_parquet([{files}], hive_partitioning = false)")  # noqa: S608

    def held_files(self, name: str) -> tuple[str, ...]:
        """The files of a relation made by `hold`."""
        return self._held[name]

    def _scratch_file(self) -> LocalPath:
        return self._scratch / f"{next(self._numbers)}.parquet"

    def rest(self) -> None:
        """Release memory that is not needed until the next statement."""
        # DuckDB keeps freed memory for later use until the limit is set below it.
        self.connection.execute(f"SET memory_limit = '{_RESTING_MEMORY}'")
        self.connection.execute(f"SET memory_limit = '{self._memory}'")

    def read(self, sql: str) -> pa.Table:
        """The rows of a SELECT, in memory."""
        return self.connection.sql(sql).to_arrow_table()

    def _select(self, sql: str) -> tuple[list[str], Iterator[pa.RecordBatch]]:
        # A SELECT that is given one range of ids after the other is looked at once.
        if self._selected is None or self._selected[0] != sql:
            self._selected = sql, self.connection.sql(sql)
        reader = self._selected[1].to_arrow_reader(_BATCH_ROWS)
        return reader.schema.names, reader


def _grouped(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Group batches into lists with about the rows of one row group."""
    pending: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        pending.append(batch)
        rows += batch.num_rows
        if rows >= ROW_GROUP_ROWS:
            yield pending
            pending, rows = [], 0
    if pending:
        yield pending


def engine_types(connection: duckdb.DuckDBPyConnection, table: Table) -> dict[str, str]:
    """The engine's type of each column, by name."""
    empty = connection.from_arrow(table.schema.empty_table())
    return {name: str(type_) for name, type_ in zip(empty.columns, empty.types, strict=True)}


def parquet_files(
    connection: duckdb.DuckDBPyConnection, table: Table, names: Sequence[str], without: Collection[str] = ()
) -> str:
    """SQL for FROM that reads files of a table: its columns with their documented types, and `filename`.

    A column that an older file lacks is null. Because the types are named, no file is opened before rows are needed.
    The columns `without` are not read.
    """
    fields = ", ".join(
        f"{quoted(name)}: {{name: {quoted(name)}, type: {quoted(type_)}, default_value: NULL}}"
        for name, type_ in engine_types(connection, table).items()
        if name not in without
    )
    files = ", ".join(map(quoted, names))
    # Only with the column itself, instead of the one that any file has, do several conditions on it skip files.
    return f"read_parquet([{files}], schema = MAP {{{fields}}}, filename = true)"
