"""Where a checkpoint keeps its responses: in rows of an SQLite table, or in small objects of an object store.

Both survive a kill of the process at any moment, and both notice damage. Each keeps a table `responses` in the
checkpoint's database, with at least the columns `id`, `outcome` and `confirmed_at`. What the checkpoint asks of that
table belongs to `snapshot.checkpoint`.
"""

import hashlib
import io
import logging
import sqlite3
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from operator import attrgetter, itemgetter
from typing import NamedTuple, TypeVar

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.lake.parquet_files import BATCH_BYTES
from pipelines.lake.storage import LakePath
from pipelines.tables import RESPONSES

_BATCH_ROWS = 4_096
# While parts are merged, memory holds one row group of each open part.
_PART_GROUP_ROWS = 512

_T = TypeVar("_T")

_logger = logging.getLogger(__name__)


class StoredResponse(NamedTuple):
    """One row: the columns of `responses` after its two keys, with times in microseconds since the epoch."""

    id: str
    outcome: str
    http_status: int | None
    error_code: str | None
    error_msg: str | None
    attempts: int
    elapsed_ms: int
    observed_at: int
    body: bytes | None
    body_sha256: str | None
    fetched_at: int | None
    confirmed_at: int | None

    @property
    def checksum(self) -> int:
        """The CRC-32 of all values but the body, which has its own digest."""
        return zlib.crc32(orjson.dumps((*self[:_BODY], *self[_BODY + 1 :])))

    def is_intact(self, wanted: str, checksum: int) -> bool:
        """Whether this is, unchanged, the row that was stored for the id `wanted` with this checksum."""
        try:
            if self.id != wanted or self.checksum != checksum:
                return False
        except orjson.JSONEncodeError:  # bytes that are not UTF-8
            return False
        if self.body is None:
            return self.body_sha256 is None
        return type(self.body) is bytes and hashlib.sha256(self.body).hexdigest() == self.body_sha256


_BODY = StoredResponse._fields.index("body")
_SCHEMA = pa.schema([RESPONSES.schema.field(name) for name in StoredResponse._fields])


class RowSink:
    """Responses in rows of the checkpoint's own database."""

    # A kill loses at most the responses of this many seconds, or this many responses, whichever comes first.
    flush_seconds = 0.2
    flush_responses = 256

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        db.execute(
            """CREATE TABLE IF NOT EXISTS responses (id TEXT PRIMARY KEY, outcome TEXT NOT NULL, http_status INTEGER,
            error_code TEXT, error_msg TEXT, attempts INTEGER NOT NULL, elapsed_ms INTEGER NOT NULL,
            observed_at INTEGER NOT NULL, body BLOB, body_sha256 TEXT, fetched_at INTEGER, confirmed_at INTEGER,
            checksum INTEGER NOT NULL)"""
        )

    def put(self, rows: list[StoredResponse]) -> None:
        """Store responses; the caller holds a transaction."""
        self._db.executemany(
            "INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(*row, row.checksum) for row in rows],
        )

    def damaged(self) -> list[str]:
        """The wanted ids whose responses have changed since they were stored."""
        damaged: list[str] = []
        for _ in self._rows(damaged):
            pass
        return damaged

    def tables(self, damaged: list[str]) -> Iterator[pa.Table]:
        """The responses to wanted ids, by id, as Arrow tables, bounded by rows and bytes.

        The ids of damaged responses are added to `damaged` instead.
        """
        for rows in bounded(self._rows(damaged), lambda row: len(row.body or b""), _BATCH_ROWS):
            yield _table_of(rows)

    def _rows(self, damaged: list[str]) -> Iterator[StoredResponse]:
        with closing(self._db.cursor()) as cursor:
            cursor.execute("SELECT wanted.id, responses.* FROM wanted JOIN responses USING (id) ORDER BY wanted.id")
            for wanted, *values, checksum in cursor:
                row = StoredResponse._make(values)
                if row.is_intact(wanted, checksum):
                    yield row
                else:
                    damaged.append(wanted)


class PartSink:
    """Responses in small Parquet objects called parts; the table `responses` records which part holds an id.

    A part holds the responses of a few seconds, by id. Its name has its SHA-256, and sorts in the order of writing.
    """

    # Each part costs one request to write and one to read.
    flush_seconds = 5.0
    flush_responses = 4_096

    def __init__(self, db: sqlite3.Connection, directory: LakePath) -> None:
        self._db = db
        self._directory = directory
        self._parts: list[LakePath] = []
        db.execute(
            """CREATE TABLE responses (id TEXT PRIMARY KEY, outcome TEXT NOT NULL, confirmed_at INTEGER,
            bytes INTEGER NOT NULL, part INTEGER NOT NULL) WITHOUT ROWID"""
        )
        for path in directory.all_files():
            part = _read_part(path)
            if part is None:
                _logger.warning("%s is damaged: the ids in it are requested again.", path)
            self._add(path, None if part is None else part.read(["id", "outcome", "body", "confirmed_at"]))

    def put(self, rows: list[StoredResponse]) -> None:
        """Store responses; the caller holds a transaction."""
        if not rows:
            return
        table = _table_of(sorted(rows, key=attrgetter("id")))
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", row_group_size=_PART_GROUP_ROWS)
        content = buffer.getvalue()
        digest = hashlib.sha256(content).hexdigest()
        path = self._directory / f"{len(self._parts):08}-{uuid.uuid4().hex}-{digest}.parquet"
        path.write_whole(content)
        self._add(path, table)

    def _add(self, path: LakePath, table: pa.Table | None) -> None:
        number = len(self._parts)
        self._parts.append(path)
        if table is not None:
            sizes = pc.fill_null(pc.binary_length(table["body"]), 0)
            columns = (table["id"], table["outcome"], table["confirmed_at"].cast(pa.int64()), sizes)
            rows = zip(*(column.to_pylist() for column in columns), [number] * len(table), strict=True)
            self._db.executemany("INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?)", rows)

    def damaged(self) -> list[str]:
        """An empty list, because parts are verified when the checkpoint is opened."""
        return []

    def tables(self, damaged: list[str]) -> Iterator[pa.Table]:
        """As `RowSink.tables`, but a damaged part costs all its responses."""
        source = "FROM wanted JOIN responses USING (id)"
        with closing(self._db.cursor()) as cursor:
            left = Counter(dict(self._db.execute(f"SELECT part, count(*) {source} GROUP BY part")))
            readers: dict[int, _PartReader | None] = {}
            cursor.execute(f"SELECT id, part, bytes {source} ORDER BY wanted.id")
            for rows in bounded(cursor, itemgetter(2), _BATCH_ROWS):
                ids: dict[int, list[str]] = {}
                for id_, number, _ in rows:
                    ids.setdefault(number, []).append(id_)
                found: list[pa.RecordBatch] = []
                for number, some in ids.items():
                    if number not in readers:
                        part = _read_part(self._parts[number])
                        readers[number] = None if part is None else _PartReader(part)
                    if (reader := readers[number]) is None:
                        damaged += some
                    else:
                        found += reader.take(some)
                    left[number] -= len(some)
                    if not left[number]:
                        del readers[number]
                if found:
                    yield pa.Table.from_batches(found, _SCHEMA).sort_by("id")


class _PartReader:
    """Reads a part from its beginning to its end, one row group at a time."""

    def __init__(self, part: pq.ParquetFile) -> None:
        self._batches = part.iter_batches(_PART_GROUP_ROWS)
        self._batch = next(self._batches)

    def take(self, ids: list[str]) -> list[pa.RecordBatch]:
        """The rows of some ids, which must be ascending and come after the ids taken before."""
        wanted = pa.array(ids, pa.string())
        found = []
        while True:
            found.append(self._batch.filter(pc.is_in(self._batch["id"], value_set=wanted)))
            if self._batch["id"][-1].as_py() >= ids[-1]:
                return found
            self._batch = next(self._batches)


def _read_part(path: LakePath) -> pq.ParquetFile | None:
    """A part, in memory as it is stored; None if its content does not match the digest in its name."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.stem.rpartition("-")[2]:
        return None
    return pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)


def _table_of(rows: list[StoredResponse]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(values, type_) for values, type_ in zip(columns, _SCHEMA.types, strict=True)], _SCHEMA)


def bounded(items: Iterable[_T], size: Callable[[_T], int], most: int) -> Iterator[list[_T]]:
    """Lists of the items, in order: at most `most` items each, and at most `BATCH_BYTES` plus one item."""
    some: list[_T] = []
    total = 0
    for item in items:
        some.append(item)
        total += size(item)
        if len(some) >= most or total >= BATCH_BYTES:
            yield some
            some, total = [], 0
    if some:
        yield some
