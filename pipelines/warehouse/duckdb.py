"""DuckDB as a warehouse: one file, loaded in place, or as a copy that replaces it while another process has it open.

DuckDB lets either one process write a file or several read it. So if a notebook has the file open, we load a copy
beside it and swap the two with one rename: the notebook sees the old rows until it opens the file again. A lock beside
the file makes its loads take turns; the next load removes what a killed one has left.
"""

import datetime as dt
import errno
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from pipelines.engine.sql_text import quoted
from pipelines.errors import ConfigurationError, PartitionBusyError, StorageError
from pipelines.inputs import local_files
from pipelines.lake import locks
from pipelines.lake.local_storage import LocalPath, check_holds
from pipelines.tables import AMOUNT_DIGITS, AMOUNT_PLACES, Table
from pipelines.warehouse.ddl import PROJECT
from pipelines.warehouse.interface import Source

_MEMORY = "128MB"
# A file of that many rows, several of DuckDB's row groups, is loaded by two threads, and each compresses row groups of
# its own. Below, the order of the file is kept, and a second thread would only add merging.
_MANY_ROWS = 500_000
_MANY_ROWS_THREADS = 2

# Types whose name in the catalog differs from the DDL.
_TYPES = {
    "VARCHAR": "TEXT",
    "DOUBLE": "DOUBLE PRECISION",
    f"DECIMAL({AMOUNT_DIGITS},{AMOUNT_PLACES})": f"NUMERIC({AMOUNT_DIGITS},{AMOUNT_PLACES})",
}

_logger = logging.getLogger(__name__)


class _InUseError(Exception):
    """Another process has the file open; the message names it."""


@contextmanager
def open_duckdb(path: Path) -> Iterator["DuckDBWarehouse"]:
    """Open the file for loading, and create it if needed. Other processes keep the version that they have open.

    Raises:
        PartitionBusyError: another process writes the file, or another load takes longer than we wait for its lock.
        ConfigurationError: the file cannot be opened, or is not a DuckDB file.
        StorageError: the file cannot be written.
    """
    # Follow a link, so that the rename does not replace it.
    file = Path(os.path.realpath(path))
    if not local_files.exists(file.parent):
        raise ConfigurationError(
            f"The warehouse {path} cannot be opened: there is no directory {file.parent}. Correct "
            "IMAGE_SNAPSHOTS_WAREHOUSE."
        )
    with _alone(path, file):
        part = file.with_name(f".{file.name}.part")
        _remove(part)
        try:
            connection = _connect(path, file)
        except _InUseError as in_use:
            try:
                with _loaded_beside(path, file, part, str(in_use)) as warehouse:
                    yield warehouse
            finally:
                _remove(part)
        else:
            with _loading(path, connection) as warehouse:
                yield warehouse


@contextmanager
def _alone(path: Path, file: Path) -> Iterator[None]:
    """Hold the lock that makes our loads of this file take turns."""
    # Only errors of the lock are translated, not those of the block.
    lock = locks.held(LocalPath(file.with_name(f".{file.name}.lock")), f"The warehouse {path}", "a load", may_wait=True)
    try:
        lock.__enter__()
    except OSError as error:
        raise ConfigurationError(
            f"The warehouse {path} cannot be opened: {error.strerror} at {error.filename}. Correct "
            "IMAGE_SNAPSHOTS_WAREHOUSE, or the permissions of the file and its directory."
        ) from None
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


@contextmanager
def _loading(path: Path, connection: duckdb.DuckDBPyConnection) -> Iterator["DuckDBWarehouse"]:
    try:
        connection.execute(f"SET memory_limit = '{_MEMORY}'")
        connection.execute("SET threads = 1")
        yield DuckDBWarehouse(path, connection)
    except duckdb.Error as error:
        raise StorageError(
            f"The warehouse {path} could not be loaded: {_said(error)}. Its previous content is intact."
        ) from None
    finally:
        connection.close()


@contextmanager
def _loaded_beside(path: Path, file: Path, part: Path, holder: str) -> Iterator["DuckDBWarehouse"]:
    """Load a copy, and replace the file by it when the block ends without an error."""
    copied = _copy(path, file, part, holder)
    _logger.warning(
        "The warehouse %s is open in %s, so a copy is loaded and replaces it: %s sees the old rows until it "
        "opens the file again.",
        path,
        holder,
        holder,
    )
    with _loading(path, _connect(path, part)) as warehouse:
        yield warehouse
        # Write everything into the file, so that no log beside it is needed.
        warehouse.execute("CHECKPOINT")
    with _file_errors(path, holder):
        with part.open("rb") as loaded:
            os.fsync(loaded.fileno())
        if _version(file) != copied:
            raise _is_changed(path, holder)
        check_holds()
        # The old file's log is part of the copy already.
        _wal(file).unlink(missing_ok=True)
        part.replace(file)
        descriptor = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _copy(path: Path, file: Path, part: Path, holder: str) -> list[tuple[int, int, int]]:
    """Copy a consistent state of the file and its log; returns the version of that state."""
    with _file_errors(path, holder):
        version = _version(file)
        if len(version) > 1 and _is_open_for_writing(file):
            # The newest rows are only in that process's memory and log.
            raise _is_changed(path, holder)
        shutil.copyfile(file, part)
        shutil.copymode(file, part)
        if len(version) > 1:
            shutil.copyfile(_wal(file), _wal(part))
        if _version(file) != version:
            raise _is_changed(path, holder)
    return version


def _version(file: Path) -> list[tuple[int, int, int]]:
    """A fingerprint of the state of the file and of its log, if there is one."""
    places = [file, *([_wal(file)] if local_files.exists(_wal(file)) else [])]
    return [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in (place.stat() for place in places)]


def _wal(file: Path) -> Path:
    """DuckDB's log of changes that are not in the file yet."""
    return file.with_name(f"{file.name}.wal")


def _is_open_for_writing(file: Path) -> bool:
    try:
        duckdb.connect(file, read_only=True).close()
    except duckdb.Error as error:
        return "Could not set lock" in _said(error)
    return False


def _is_changed(path: Path, holder: str) -> PartitionBusyError:
    return PartitionBusyError(
        f"The warehouse {path} is being changed by {holder}, so nothing was loaded: close it there, or open it with "
        "read_only=True, and load again."
    )


@contextmanager
def _file_errors(path: Path, holder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"The warehouse {path} could not be loaded: it is open in {holder}, and there is no space for a copy "
                "beside it. Its previous content is intact: free some space, or close it there, and load again."
            ) from None
        raise StorageError(
            f"The warehouse {path} could not be loaded: {error.strerror} at {error.filename}. Its previous content is "
            "intact."
        ) from None


def _remove(part: Path) -> None:
    for left in (part, _wal(part)):
        left.unlink(missing_ok=True)


def _connect(path: Path, file: Path) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(file)
    except duckdb.Error as error:
        said = _said(error)
        if "Could not set lock" in said:
            holder = re.search(r"PID (\d+)", said)
            raise _InUseError(f"process {holder[1]}" if holder else "another process") from None
        if "WAL checkpoint iteration does not match" in said:
            return _without_foreign_log(path, file)
        raise _cannot_be_opened(path, said) from None


def _without_foreign_log(path: Path, file: Path) -> duckdb.DuckDBPyConnection:
    """Open a file after setting aside a log that belongs to the file it replaced."""
    aside = _wal(file).with_suffix(".wal.foreign")
    _logger.warning(
        "A program that had the warehouse %s open when a load replaced it has written since. Its changes are not in "
        "the warehouse; its log was moved to %s.",
        path,
        aside,
    )
    _wal(file).replace(aside)
    try:
        return duckdb.connect(file)
    except duckdb.Error as error:
        raise _cannot_be_opened(path, _said(error)) from None


def _cannot_be_opened(path: Path, said: str) -> ConfigurationError:
    return ConfigurationError(
        f"The warehouse {path} cannot be opened: {said}. Correct IMAGE_SNAPSHOTS_WAREHOUSE, or the file's permissions."
    )


def _said(error: duckdb.Error) -> str:
    # The first line is "Kind of error: message"; links and hints follow.
    said = str(error).partition("\n")[0].partition(": ")[2] or str(error)
    return said.partition(" See also")[0].strip().rstrip(".!")


class DuckDBWarehouse:
    """An open DuckDB file; see `Warehouse`."""

    # Indexes would hold the keys of all days in memory and double the time of a rerun. Rows were checked for duplicates
    # before they were published.
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
        """Commit the block's changes, or roll them back."""
        self._connection.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def hold(self, what: str) -> None:
        """Do nothing: this process has the file open alone."""

    def replace(
        self,
        table: Table,
        partition: dict[str, object],
        batches: Iterator[pa.RecordBatch],
        source: Source | None = None,
    ) -> int:
        """Delete the partition's rows and insert the new ones, straight from the source if DuckDB can read it."""
        condition = " AND ".join(f'"{name}" = ?' for name in partition)
        self._connection.execute(
            f'DELETE FROM "{table.name}" WHERE {condition}',  # noqa: S608  (names of ours)
            list(partition.values()),
        )
        path = source.open_path if source is not None else None
        if source is not None and path is not None:
            # DuckDB reads the file itself: it uses its own threads, and less memory than through Arrow.
            project = quoted(str(partition[PROJECT.name]))
            columns = ", ".join(f'"{name}"' for name in source.columns)
            rows = f"SELECT {project} AS {PROJECT.name}, {columns} FROM read_parquet({quoted(path)})"  # noqa: S608
            return self._insert(table, rows) if source.rows < _MANY_ROWS else self._insert_many(table, rows)
        self._connection.register("arriving", pa.RecordBatchReader.from_batches(table.schema, batches))
        count = self._insert(table, "SELECT * FROM arriving")
        self._connection.unregister("arriving")
        return count

    def _insert_many(self, table: Table, rows: str) -> int:
        """Insert by several threads, in no order."""
        self._connection.execute(f"SET threads = {_MANY_ROWS_THREADS}; SET preserve_insertion_order = false")
        inserted = self._insert(table, rows)
        self._connection.execute("SET threads = 1; SET preserve_insertion_order = true")
        return inserted

    def _insert(self, table: Table, rows: str) -> int:
        # Columns missing from the rows become null.
        inserted = self._connection.execute(f'INSERT INTO "{table.name}" BY NAME {rows}').fetchone()
        return inserted[0] if inserted else 0

    def kinds(self) -> set[bool]:
        """The distinct values of `is_sandbox` in `days`."""
        return {kind for (kind,) in self._connection.execute("SELECT DISTINCT is_sandbox FROM days").fetchall()}

    def loaded_days(self, project: str) -> dict[dt.date, str]:
        """Bases by day."""
        rows = self._connection.execute("SELECT snapshot_date, basis FROM days WHERE project = ?", [project]).fetchall()
        return dict(rows)
