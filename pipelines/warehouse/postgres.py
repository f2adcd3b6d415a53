"""PostgreSQL as a warehouse: rows are sent by COPY in the binary format, built from Arrow column by column."""

import datetime as dt
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
import psycopg.conninfo
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from pipelines.errors import ConfigurationError, EndpointUnreachableError, PartitionBusyError
from pipelines.inputs.secret_urls import SecretUrl, parse_secret_url
from pipelines.tables import TIMESTAMP, Table

_CONNECT_SECONDS = 10

_REFUSED = re.compile(r"authentication failed|no password supplied|does not exist|denied|no pg_hba\.conf entry")


@contextmanager
def open_postgres(url: str, wait_seconds: float) -> Iterator["PostgresWarehouse"]:
    """Connect to the database of a libpq URL; each lock is waited for at most `wait_seconds`.

    Raises:
        ConfigurationError: the URL is malformed, or the server refuses it or a statement.
        EndpointUnreachableError: the server does not answer, or the connection broke.
        PartitionBusyError: a lock was held for too long.
    """
    parts = parse_warehouse_url(url)
    options = _options(url)
    name = f"{options.get('dbname') or 'the default database'} on {options.get('host') or 'the local server'}"

    def said(error: psycopg.Error) -> str:
        text = error.diag.message_primary or str(error).partition("\n")[0].strip() or type(error).__name__
        return parts.hide(text).rstrip(".")

    defaults: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, "fallback_application_name": "image-snapshots"}
    options = defaults | options | {"client_encoding": "UTF8"}
    try:
        connection = psycopg.connect(psycopg.conninfo.make_conninfo(**options), autocommit=True)
    except psycopg.Error as error:
        if _REFUSED.search(said(error)):
            raise ConfigurationError(
                f"The warehouse {name} refused: {said(error)}. Check IMAGE_SNAPSHOTS_WAREHOUSE."
            ) from None
        raise EndpointUnreachableError(
            f"The warehouse {name} does not answer: {said(error)}. Load again when it is up."
        ) from None
    try:
        with connection:
            yield PostgresWarehouse(name, connection, wait_seconds)
    except psycopg.errors.LockNotAvailable:
        raise PartitionBusyError(
            f"The warehouse {name} was in use by another load or a report for more than {wait_seconds:g} seconds, so "
            "nothing was loaded: load again when that has ended."
        ) from None
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise EndpointUnreachableError(
            f"The warehouse {name} broke off the load: {said(error)}. Its previous content is intact; load again."
        ) from None
    except psycopg.Error as error:
        raise ConfigurationError(
            f"The warehouse {name} refused: {said(error)}. Its previous content is intact; correct that and load again."
        ) from None


def parse_warehouse_url(url: str) -> SecretUrl:
    """Parse the URL of a warehouse.

    Raises:
        ConfigurationError: the URL is malformed or ambiguous.
    """
    example = "postgresql://user:password@host:5432/database"
    try:
        return parse_secret_url(url, example, ("postgresql", "postgres"))
    except ValueError as reason:
        raise ConfigurationError(
            f"The URL of the warehouse is malformed: it {reason} (setting IMAGE_SNAPSHOTS_WAREHOUSE)."
        ) from None


def _options(url: str) -> dict[str, Any]:
    try:
        return dict(psycopg.conninfo.conninfo_to_dict(url))
    except psycopg.ProgrammingError:
        # libpq's message would show parts of the URL.
        raise ConfigurationError(
            "The URL of the warehouse is malformed: it must look like postgresql://user:password@host:5432/database, "
            "with options that PostgreSQL knows (setting IMAGE_SNAPSHOTS_WAREHOUSE)."
        ) from None


def postgres_schema(url: str) -> str | None:
    """Database and first schema of the search path that a URL states; None if it leaves the database to the server.

    Raises:
        ConfigurationError: the URL is malformed.
    """
    options = _options(url)
    database = options.get("dbname") or options.get("user")
    path = re.search(r"search_path\s*=\s*\"?([^\s,\"]+)", str(options.get("options") or ""))
    return f"{database}.{path[1] if path else 'public'}" if database else None


class PostgresWarehouse:
    """A connected database; uses the first schema of its search path. See `Warehouse`."""

    has_keys = True

    def __init__(self, name: str, connection: psycopg.Connection, wait_seconds: float) -> None:
        self.name = name
        self._connection = connection
        self._lock_timeout = f"{wait_seconds * 1000:.0f}ms"

    def column_types(self) -> dict[str, dict[str, str]]:
        """Types by table and column."""
        types: dict[str, dict[str, str]] = {}
        for table, column, type_ in self._connection.execute(
            "SELECT c.relname, a.attname, upper(format_type(a.atttypid, a.atttypmod)) "
            "FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
            "WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
        ):
            types.setdefault(table, {})[column] = type_
        return types

    def view_comments(self) -> dict[str, str | None]:
        """Comments by view."""
        return dict(
            self._connection.execute(
                "SELECT relname, obj_description(oid, 'pg_class') FROM pg_class "
                "WHERE relnamespace = current_schema()::regnamespace AND relkind = 'v'"
            ).fetchall()
        )

    def execute(self, statement: str) -> None:
        """Run a statement."""
        self._connection.execute(statement.encode())

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit the block's changes, or roll them back."""
        with self._connection.transaction():
            self._connection.execute("SELECT set_config('lock_timeout', %s, true)", [self._lock_timeout])
            yield

    def hold(self, what: str) -> None:
        """Take an advisory lock for this database and schema until the transaction ends."""
        self._connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('image-snapshots ' || current_schema() || ' ' || %s, 0))",
            [what],
        )

    def replace(
        self, table: Table, partition: dict[str, object], batches: Iterator[pa.RecordBatch], _source: object = None
    ) -> int:
        """Delete the partition's rows and copy the batches; one batch at a time is in memory."""
        name = sql.Identifier(table.name)
        condition = sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(column)) for column in partition)
        columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)
        with self._connection.cursor() as cursor:
            cursor.execute(sql.SQL("DELETE FROM {} WHERE {}").format(name, condition), list(partition.values()))
            statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(name, columns)
            with cursor.copy(statement) as copy:
                copy.write(_BEGIN)
                for batch in batches:
                    copy.write(binary_rows(batch))
                copy.write(_END)
            return cursor.rowcount

    def kinds(self) -> set[bool]:
        """The distinct values of `is_sandbox` in `days`."""
        return {kind for (kind,) in self._connection.execute("SELECT DISTINCT is_sandbox FROM days").fetchall()}

    def loaded_days(self, project: str) -> dict[dt.date, str]:
        """Bases by day."""
        rows = self._connection.execute("SELECT snapshot_date, basis FROM days WHERE project = %s", [project])
        return dict(rows.fetchall())


# The binary format of COPY: for each row the number of its fields; for each field its length in bytes (-1 for null) and
# its content. Numbers are big-endian.
# https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4

_BEGIN = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_END = struct.pack(">h", -1)
_NULL = pa.scalar(struct.pack(">i", -1), pa.binary())

# PostgreSQL counts days from 2000-01-01.
_EPOCH_DAYS = 10_957
_EPOCH_MICROSECONDS = _EPOCH_DAYS * 86_400_000_000

# PostgreSQL cannot store U+0000 in text; it is replaced by its symbol.
_NUL, _NUL_SYMBOL = "\0", "\u2400"


def binary_rows(batch: pa.RecordBatch) -> bytes:
    """Rows in the binary format of COPY; U+0000 in texts becomes U+2400 (␀)."""
    pieces: list[Any] = [pa.scalar(struct.pack(">h", batch.num_columns), pa.binary())]
    for column in batch.columns:
        pieces += _ENCODERS[column.type](column)
    rows = pc.binary_join_element_wise(*pieces, pa.scalar(b"", pa.binary()))
    _, offsets, content = rows.buffers()
    first, last = np.frombuffer(offsets, np.int32)[[rows.offset, rows.offset + len(rows)]]
    return bytes(content.slice(first, last - first))


def _text(array: pa.Array) -> list[pa.Array]:
    content = array.cast(pa.binary())
    memory = content.buffers()[2]
    if memory is not None and (np.frombuffer(memory, np.uint8) == 0).any():
        content = pc.replace_substring(array, _NUL, _NUL_SYMBOL).cast(pa.binary())
    lengths = pc.binary_length(content).fill_null(-1).to_numpy(zero_copy_only=False)
    return [_fixed_size(lengths.astype(">i4")), content.fill_null(b"")]


def _number(type_: str, convert: Callable[[Any], Any] = lambda array: array) -> Callable[[pa.Array], list[pa.Array]]:
    """Encoder for a type that numpy writes as `type_`."""
    layout = np.dtype([("length", ">i4"), ("value", type_)])

    def encode(array: pa.Array) -> list[pa.Array]:
        fields = np.empty(len(array), layout)
        fields["length"] = layout["value"].itemsize
        fields["value"] = convert(array).fill_null(0).to_numpy(zero_copy_only=False)
        encoded = _fixed_size(fields)
        return [pc.if_else(array.is_valid(), encoded, _NULL) if array.null_count else encoded]

    return encode


def _fixed_size(items: Any) -> pa.Array:
    """A binary array with the bytes of each element of a numpy array."""
    offsets = np.arange(len(items) + 1, dtype=np.int32) * items.itemsize
    return pa.Array.from_buffers(pa.binary(), len(items), [None, pa.py_buffer(offsets), pa.py_buffer(items)])


def _days(array: pa.Array) -> pa.Array:
    return pc.subtract(array.cast(pa.int32()), _EPOCH_DAYS)


def _microseconds(array: pa.Array) -> pa.Array:
    return pc.subtract(array.cast(pa.int64()), _EPOCH_MICROSECONDS)


_ENCODERS: dict[pa.DataType, Callable[[pa.Array], list[pa.Array]]] = {
    pa.string(): _text,
    pa.int32(): _number(">i4"),
    pa.int64(): _number(">i8"),
    pa.float64(): _number(">f8"),
    pa.bool_(): _number(">i1", lambda array: array.cast(pa.int8())),
    pa.date32(): _number(">i4", _days),
    TIMESTAMP: _number(">i8", _microseconds),
}
