"""DuckDB as a warehouse: one file, that one process at a time may have open."""

import datetime as dt
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from pipelines.columns import Table
from pipelines.errors import ConfigurationError, PartitionBusyError, StorageError
from pipelines.warehouse_ddl import PROJECT, quoted

if TYPE_CHECKING:
    from pipelines.warehouse import Source

_RETRY_SECONDS = 0.2
# Rows are compressed a group at a time, which neither more memory nor more threads make faster.
_MEMORY = "96MB"
_THREADS = 2

# Catalog names of types, where they are not those of the DDL.
_TYPES = {"VARCHAR": "TEXT", "DOUBLE": "DOUBLE PRECISION"}


@contextmanager
def open_duckdb(path: Path, wait_seconds: float) -> Iterator["DuckDBWarehouse"]:
    """Open the file, made when it is not there, for this process alone.

    Raises:
        PartitionBusyError: another process had it open for longer than `wait_seconds`.
        ConfigurationError: it cannot be opened, or is no DuckDB file.
        StorageError: it cannot be written.
    """
    connection = _connect(path, wait_seconds)
    try:
        connection.execute(f"SET memory_limit = '{_MEMORY}'")
        connection.execute(f"SET threads = {_THREADS}")
        yield DuckDBWarehouse(path, connection)
    except duckdb.Error as error:
        raise StorageError(
            f"The warehouse {path} could not be loaded: {_said(error)}. What it held before is intact."
        ) from None
    finally:
        connection.close()


def _connect(path: Path, wait_seconds: float) -> duckdb.DuckDBPyConnection:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            return duckdb.connect(path)
        except duckdb.Error as error:
            said = _said(error)
            if "Could not set lock" not in said:
                raise ConfigurationError(
                    f"The warehouse {path} cannot be opened: {said}. Correct IMAGE_SNAPSHOTS_WAREHOUSE, or the file's "
                    "permissions."
                ) from None
            if time.monotonic() > deadline:
                holder = re.search(r"PID (\d+)", said)
                who = f"process {holder[1]}" if holder else "another process"
                raise PartitionBusyError(
                    f"The warehouse {path} was held by {who} for more than {wait_seconds:g} seconds, so nothing was "
                    "loaded: close it there and load again."
                ) from None
        time.sleep(_RETRY_SECONDS)


def _said(error: duckdb.Error) -> str:
    # The first line is "Kind of error: what happened"; links and hints follow.
    said = str(error).partition("\n")[0].partition(": ")[2] or str(error)
    return said.partition(" See also")[0].strip().rstrip(".!")


class DuckDBWarehouse:
    """A DuckDB file that is open; see `warehouse.Warehouse`."""

    # Its indexes would hold the keys of all days in memory, and double the time of a rerun. What is loaded was checked
    # for duplicates before it was published.
    has_keys = False

    def __init__(self, path: Path, connection: duckdb.DuckDBPyConnection) -> None:
        self.name = str(path)
        self._connection = connection

    def column_types(self) -> dict[str, dict[str, str]]:
        """Types by table and column."""
        rows = self._connection.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() "
            "WHERE database_name = current_database() AND schema_name = current_schema()"
        ).fetchall()
        types: dict[str, dict[str, str]] = {}
        for table, column, type_ in rows:
            types.setdefault(table, {})[column] = _TYPES.get(type_, type_)
        return types

    def view_comments(self) -> dict[str, str | None]:
        """Comments by view."""
        rows = self._connection.execute(
            "SELECT view_name, comment FROM duckdb_views() "
            "WHERE database_name = current_database() AND schema_name = current_schema()"
        ).fetchall()
        return dict(rows)

    def execute(self, statement: str) -> None:
        """Run a statement."""
        self._connection.execute(statement)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block does, or roll it back."""
        self._connection.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def hold(self, what: str) -> None:
        """Do nothing: who has the file open has it alone."""

    def replace(
        self,
        table: Table,
        partition: dict[str, object],
        batches: Iterator[pa.RecordBatch],
        source: "Source | None" = None,
    ) -> int:
        """Delete the partition's rows and insert those of the batches, or of their source where DuckDB can read it."""
        condition = " AND ".join(f'"{name}" = ?' for name in partition)
        self._connection.execute(
            f'DELETE FROM "{table.name}" WHERE {condition}',  # noqa: S608  (names of ours)
            list(partition.values()),
        )
        path = source.open_path if source is not None else None
        if source is not None and path is not None:
            # With threads of its own, and in less memory than by way of Arrow.
            project = quoted(str(partition[PROJECT.name]))
            columns = ", ".join(f'"{name}"' for name in source.columns)
            rows = f"SELECT {project} AS {PROJECT.name}, {columns} FROM read_parquet({quoted(path)})"  # noqa: S608
            return self._insert(table, rows)
        self._connection.register("arriving", pa.RecordBatchReader.from_batches(table.schema, batches))
        count = self._insert(table, "SELECT * FROM arriving")
        self._connection.unregister("arriving")
        return count

    def _insert(self, table: Table, rows: str) -> int:
        # Columns that the rows lack are null.
        inserted = self._connection.execute(f'INSERT INTO "{table.name}" BY NAME {rows}').fetchone()
        return inserted[0] if inserted else 0

    def kinds(self) -> set[bool]:
        """Whether days are of the sandbox."""
        return {kind for (kind,) in self._connection.execute("SELECT DISTINCT is_sandbox FROM days").fetchall()}

    def loaded_days(self, project: str) -> dict[dt.date, str]:
        """Bases by day."""
        rows = self._connection.execute("SELECT snapshot_date, basis FROM days WHERE project = ?", [project]).fetchall()
        return dict(rows)
