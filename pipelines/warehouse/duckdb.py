"""DuckDB as a warehouse: one file, loaded where it is, or, while somebody has it open, as a copy that takes its place.

DuckDB lets one process write a file, or several read it. So a file that a notebook has open is copied beside, the copy
is loaded, and one rename swaps the two: the notebook keeps the rows of before until it opens the file again. Loads of
one file follow one another, by a lock beside it; what a killed one leaves there, the next one removes.
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
from pipelines.tables import Table
from pipelines.warehouse.ddl import PROJECT
from pipelines.warehouse.interface import Source

# Rows are compressed a group at a time. A second thread merges groups and spills, and takes as long.
_MEMORY = "96MB"
_THREADS = 1

# Catalog names of types, where they are not those of the DDL.
_TYPES = {"VARCHAR": "TEXT", "DOUBLE": "DOUBLE PRECISION"}

_logger = logging.getLogger(__name__)


class _InUseError(Exception):
    """Another process has the file open; says which."""


@contextmanager
def open_duckdb(path: Path) -> Iterator["DuckDBWarehouse"]:
    """Open the file, made when it is not there, to be loaded by this process alone; what others have open stays theirs.

    Raises:
        PartitionBusyError: another process is changing the file, or loads it for longer than locks are waited for.
        ConfigurationError: it cannot be opened, or is no DuckDB file.
        StorageError: it cannot be written.
    """
    # A link stays one.
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
    """Hold the file against other loads of ours, which would each swap it."""
    # What the block raises is its own.
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
        connection.execute(f"SET threads = {_THREADS}")
        yield DuckDBWarehouse(path, connection)
    except duckdb.Error as error:
        raise StorageError(
            f"The warehouse {path} could not be loaded: {_said(error)}. What it held before is intact."
        ) from None
    finally:
        connection.close()


@contextmanager
def _loaded_beside(path: Path, file: Path, part: Path, holder: str) -> Iterator["DuckDBWarehouse"]:
    """Load a copy, and put it in the place of the file when the block ends without an error."""
    copied = _copy(path, file, part, holder)
    _logger.warning(
        "The warehouse %s is open in %s, so a copy is loaded and takes its place: %s sees the rows of before until it "
        "opens the file again.",
        path,
        holder,
        holder,
    )
    with _loading(path, _connect(path, part)) as warehouse:
        yield warehouse
        # All in one file, none in a log beside it.
        warehouse.execute("CHECKPOINT")
    with _file_errors(path, holder):
        with part.open("rb") as loaded:
            os.fsync(loaded.fileno())
        if _version(file) != copied:
            raise _is_changed(path, holder)
        check_holds()
        # What readers have is in the copy.
        _wal(file).unlink(missing_ok=True)
        part.replace(file)
        descriptor = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _copy(path: Path, file: Path, part: Path, holder: str) -> list[tuple[int, int, int]]:
    """Copy the file and the log that belongs to it, as they are at one moment; returns which version that is."""
    with _file_errors(path, holder):
        version = _version(file)
        if len(version) > 1 and _is_open_for_writing(file):
            # Its newest rows are nowhere but in its memory and log.
            raise _is_changed(path, holder)
        shutil.copyfile(file, part)
        shutil.copymode(file, part)
        if len(version) > 1:
            shutil.copyfile(_wal(file), _wal(part))
        if _version(file) != version:
            raise _is_changed(path, holder)
    return version


def _version(file: Path) -> list[tuple[int, int, int]]:
    """What tells one state of the file, and of its log if there is one, from another."""
    places = [file, *([_wal(file)] if local_files.exists(_wal(file)) else [])]
    return [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in (place.stat() for place in places)]


def _wal(file: Path) -> Path:
    """DuckDB's log of what is not in the file itself yet."""
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
                "beside it. What it held before is intact: free some, or close it there, and load again."
            ) from None
        raise StorageError(
            f"The warehouse {path} could not be loaded: {error.strerror} at {error.filename}. What it held before is "
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
    """Open a file beside which lies the log of one that it has replaced."""
    aside = _wal(file).with_suffix(".wal.foreign")
    _logger.warning(
        "A program that had the warehouse %s open while another file took its place has written since. That is not in "
        "the warehouse; the program's log is %s now.",
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
    # The first line is "Kind of error: what happened"; links and hints follow.
    said = str(error).partition("\n")[0].partition(": ")[2] or str(error)
    return said.partition(" See also")[0].strip().rstrip(".!")


class DuckDBWarehouse:
    """A DuckDB file that is open; see `Warehouse`."""

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
        source: Source | None = None,
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
