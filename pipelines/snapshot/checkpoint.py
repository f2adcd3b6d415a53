"""Stores the responses of an open attempt: in SQLite on a file system, in small objects in an object store.

Both survive a kill of the process at any moment. When every id has an outcome, the responses become the table
`responses`. Which ids are requested, and when responses are stored, belongs to `snapshot.fetch`.
"""

import datetime as dt
import functools
import hashlib
import io
import logging
import sqlite3
import tempfile
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.cloud.classification import ImageResponse
from pipelines.errors import StorageError
from pipelines.lake.parquet_files import BATCH_BYTES
from pipelines.lake.storage import LakePath, storage_errors
from pipelines.snapshot.image_list import ImageList, microseconds
from pipelines.snapshot.sources.bill_lines import BillStore
from pipelines.snapshot.sources.registry_store import RegistryStore
from pipelines.snapshot.sources.store import ReferenceStore, TraceStore
from pipelines.tables import RESPONSES, Outcome

_PAGE_IDS = 5_000
_BATCH_ROWS = 4_096
# While parts are merged, memory holds one row group of each open part.
_PART_GROUP_ROWS = 512

_STORE_VERSION = 3
_SCHEMA = (
    "DROP TABLE IF EXISTS subject",
    "DROP TABLE IF EXISTS wanted",
    "DROP TABLE IF EXISTS answers",
    "CREATE TABLE subject (name TEXT NOT NULL)",
    "CREATE TABLE wanted (id TEXT PRIMARY KEY) WITHOUT ROWID",
    # The columns of `responses` after its keys, with times in microseconds since the epoch. `checksum` covers all of
    # them but the body, which has its own digest.
    """CREATE TABLE answers (id TEXT PRIMARY KEY, outcome TEXT NOT NULL, http_status INTEGER, error_code TEXT,
        error_msg TEXT, attempts INTEGER NOT NULL, elapsed_ms INTEGER NOT NULL, observed_at INTEGER NOT NULL,
        body BLOB, body_sha256 TEXT, fetched_at INTEGER, confirmed_at INTEGER, checksum INTEGER NOT NULL)""",
)
_INSERT = "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

_PART = pa.schema(list(RESPONSES.schema)[2:])
_BODY = _PART.get_field_index("body")
_DIGEST = _PART.get_field_index("body_sha256")
_TIMES = ("observed_at", "fetched_at", "confirmed_at")

_Row = tuple[Any, ...]
_T = TypeVar("_T")

_logger = logging.getLogger(__name__)


def open_checkpoint(staging: LakePath, subject: str) -> "Checkpoint":
    """Open the checkpoint in a staging directory; it ignores responses stored for another `subject`.

    The subject names the endpoint, the project and the attempt.
    """
    if staging.local is None:
        return ObjectCheckpoint(staging / "answers", subject)
    path = staging.local / "answers.sqlite"
    try:
        return Checkpoint(path, subject)
    except DamagedStoreError as error:
        _logger.warning("%s The ids are asked for again.", error)
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return Checkpoint(path, subject)


class DamagedStoreError(StorageError):
    """The checkpoint's file is no longer a valid SQLite database."""


def _checksum(row: _Row) -> int:
    """The CRC-32 of all values of a row but the body."""
    values = "\0".join(map(str, (*row[:_BODY], *row[_BODY + 1 :])))
    return zlib.crc32(values.encode("utf-8", "surrogateescape"))


def _is_intact(wanted: str, row: _Row, checksum: int) -> bool:
    body, digest = row[_BODY], row[_DIGEST]
    if row[0] != wanted or _checksum(row) != checksum:
        return False
    if body is None or digest is None:
        return body is digest
    return type(body) is bytes and hashlib.sha256(body).hexdigest() == digest


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


class Checkpoint:
    """The responses of an open attempt, in an SQLite file."""

    # A kill loses at most the responses of this many seconds, or this many responses, whichever comes first.
    flush_seconds = 0.2
    flush_responses = 256

    def __init__(self, path: Path, subject: str) -> None:
        self._path = path
        with self._errors(), storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None)
            # A damaged text may hold any bytes; its checksum shows the damage.
            self._db.text_factory = functools.partial(str, encoding="utf-8", errors="surrogateescape")
            # Only one process uses the file, because the partition is locked. Exclusive mode needs no shared-memory
            # file, which network file systems do not support.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            known = self._db.execute("SELECT name FROM sqlite_master WHERE name = 'subject'").fetchone()
            subject = f"store {_STORE_VERSION}, {subject}"
            if known is None or self._db.execute("SELECT name FROM subject").fetchone() != (subject,):
                with self.transaction():
                    for statement in _SCHEMA:
                        self._db.execute(statement)
                    self._db.execute("INSERT INTO subject VALUES (?)", (subject,))
            self.listed = ImageList(self._db)
            self.references = ReferenceStore(self._db)
            self.traces = TraceStore(self._db)
            self.registry = RegistryStore(self._db)
            self.bills = BillStore(self._db)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def want(self, ids: Iterator[list[str]]) -> int:
        """Set the ids that this attempt needs; returns their number."""
        with self.transaction():
            self._db.execute("DELETE FROM wanted")
            for some in ids:
                self._db.executemany("INSERT INTO wanted VALUES (?)", [(id_,) for id_ in some])
            return int(self._db.execute("SELECT count(*) FROM wanted").fetchone()[0])

    def outcomes(self) -> Counter[str]:
        """The number of wanted ids with each outcome."""
        with self._errors():
            rows = self._db.execute("SELECT outcome, count(*) FROM wanted JOIN answers USING (id) GROUP BY outcome")
            return Counter(dict(rows))

    def carried(self) -> int:
        """The number of wanted ids whose response was carried forward from an earlier day."""
        with self._errors():
            rows = self._db.execute(
                "SELECT count(*) FROM wanted JOIN answers USING (id) WHERE confirmed_at IS NOT NULL"
            )
            return int(rows.fetchone()[0])

    def forget(self) -> None:
        """Drop what a resumed attempt must not reuse: failed requests, carried responses, and all that lists showed.

        Responses were carried forward because the image list confirmed them, and the list is read again.
        """
        with self.transaction():
            self._db.execute("DELETE FROM answers WHERE outcome = ? OR confirmed_at IS NOT NULL", (Outcome.FAILED,))
            self.listed.clear()
            self.references.clear()
            self.traces.clear()
            self.registry.clear()
            self.bills.clear()

    def lacks(self, ids: list[str]) -> set[str]:
        """Those of some ids that are wanted and have no outcome."""
        marks = ",".join("?" * len(ids))
        with self._errors():
            rows = self._db.execute(
                f"SELECT id FROM wanted WHERE id IN ({marks}) AND NOT EXISTS"  # noqa: S608  (question marks only)
                " (SELECT 1 FROM answers WHERE answers.id = wanted.id)",
                ids,
            )
            return {id_ for (id_,) in rows}

    def lacking(self) -> Iterator[str]:
        """The wanted ids without an outcome, in order; responses may be stored during the iteration."""
        last = ""
        while True:
            with self._errors():
                page = self._db.execute(
                    "SELECT id FROM wanted WHERE id > ? AND NOT EXISTS"
                    " (SELECT 1 FROM answers WHERE answers.id = wanted.id) ORDER BY id LIMIT ?",
                    (last, _PAGE_IDS),
                ).fetchall()
            if not page:
                return
            last = page[-1][0]
            yield from (id_ for (id_,) in page)

    def put(self, answers: list[ImageResponse]) -> None:
        """Store responses in one transaction."""
        rows = []
        for answer in answers:
            observed_at = microseconds(answer.observed_at)
            rows.append(
                (
                    answer.id,
                    answer.outcome,
                    answer.http_status,
                    answer.error_code,
                    answer.error_msg,
                    answer.attempts,
                    answer.elapsed_ms,
                    observed_at,
                    answer.body,
                    None if answer.body is None else hashlib.sha256(answer.body).hexdigest(),
                    observed_at if answer.attempts else None,
                    None,
                )
            )
        self._insert(rows)

    def carry(self, confirmed: list[tuple[dict[str, Any], int]]) -> None:
        """Store rows of an earlier day's `responses`, each with the time (microseconds) at which it was confirmed."""
        rows = [
            (
                row["id"],
                row["outcome"],
                row["http_status"],
                row["error_code"],
                row["error_msg"],
                0,
                0,
                confirmed_at,
                row["body"],
                row["body_sha256"],
                microseconds(row["fetched_at"]),
                confirmed_at,
            )
            for row, confirmed_at in confirmed
        ]
        self._insert(rows)

    def _insert(self, rows: list[_Row]) -> None:
        with self.transaction():
            self._db.executemany(_INSERT, [(*row, _checksum(row)) for row in rows])

    def damaged(self) -> list[str]:
        """The wanted ids whose responses have changed since they were stored."""
        damaged: list[str] = []
        for _ in self._rows(damaged):
            pass
        return damaged

    def drop(self, ids: list[str]) -> None:
        """Remove the responses to some ids, so that `lacking` returns these ids again."""
        with self.transaction():
            self._db.executemany("DELETE FROM answers WHERE id = ?", [(id_,) for id_ in ids])

    def _rows(self, damaged: list[str]) -> Iterator[_Row]:
        """The rows of wanted ids, by id. The id of a damaged row is added to `damaged` instead."""
        with self._errors(), closing(self._db.cursor()) as cursor:
            cursor.execute("SELECT wanted.id, answers.* FROM wanted JOIN answers USING (id) ORDER BY wanted.id")
            for wanted, *values, checksum in cursor:
                row = tuple(values)
                if _is_intact(wanted, row, checksum):
                    yield row
                else:
                    damaged.append(wanted)

    def batches(self, snapshot_date: dt.date, project_id: str, damaged: list[str]) -> Iterator[pa.RecordBatch]:
        """All outcomes of wanted ids, by id, as batches of the `responses` table, bounded by rows and bytes.

        Damaged responses are left out, and their ids are added to `damaged`.
        """
        for rows in bounded(self._rows(damaged), lambda row: len(row[_BODY] or b""), _BATCH_ROWS):
            yield _with_keys(_table_of(rows), snapshot_date, project_id)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Store everything that the block stores, or nothing."""
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                # After "disk full" SQLite has rolled back by itself.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorname", "") or ""
            if code.startswith("SQLITE_FULL"):
                raise StorageError(
                    f"No space left while writing {self._path}: free some and run again; what was published before is "
                    "intact and answers fetched so far are kept."
                ) from error
            if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
                raise DamagedStoreError(
                    f"The kept answers in {self._path} are damaged: run with --fresh to start the day over."
                ) from error
            raise StorageError(f"The kept answers in {self._path} cannot be used: {error}.") from error


class ObjectCheckpoint(Checkpoint):
    """The responses of an open attempt, in small Parquet objects called parts.

    A part holds the responses of a few seconds by id, with the columns of `responses` after its two keys. If several
    parts hold an id, the last one counts. An SQLite file in a temporary directory records which part holds an id.
    """

    # Each part costs one request to write and one to read.
    flush_seconds = 5.0
    flush_responses = 4_096

    def __init__(self, directory: LakePath, subject: str) -> None:
        self._stack = ExitStack()
        scratch = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="image-snapshots-"))
        super().__init__(Path(scratch) / "index.sqlite", subject)
        self._db.execute(
            "CREATE TABLE located (id TEXT PRIMARY KEY, part INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID"
        )
        self._directory = directory / hashlib.sha256(subject.encode()).hexdigest()[:16]
        self._parts: list[LakePath] = []
        for path in self._directory.all_files():
            part = _read_part(path)
            if part is None:
                _logger.warning("%s is not as it was written: the ids in it are asked for again.", path)
            else:
                self._locate(_rows_of(part), len(self._parts))
            self._parts.append(path)

    def close(self) -> None:
        """Remove the temporary SQLite file; the parts stay."""
        super().close()
        self._stack.close()

    def _insert(self, rows: list[_Row]) -> None:
        if not rows:
            return
        rows = sorted(rows, key=itemgetter(0))
        buffer = io.BytesIO()
        pq.write_table(_table_of(rows), buffer, compression="zstd", row_group_size=_PART_GROUP_ROWS)
        content = buffer.getvalue()
        # The names sort in the order of writing, even after an attempt was killed. The digest in the name verifies the
        # part.
        digest = hashlib.sha256(content).hexdigest()
        path = self._directory / f"{len(self._parts):08}-{uuid.uuid4().hex}-{digest}.parquet"
        path.write_whole(content)
        self._locate(rows, len(self._parts))
        self._parts.append(path)

    def _locate(self, rows: list[_Row], part: int) -> None:
        located = [(row[0], part, len(row[_BODY] or b"")) for row in rows]
        super()._insert([(*row[:_BODY], None, *row[_BODY + 1 :]) for row in rows])
        with self.transaction():
            self._db.executemany("INSERT OR REPLACE INTO located VALUES (?, ?, ?)", located)

    def damaged(self) -> list[str]:
        """An empty list, because parts are verified when the checkpoint is opened."""
        return []

    def batches(self, snapshot_date: dt.date, project_id: str, damaged: list[str]) -> Iterator[pa.RecordBatch]:
        """All outcomes of wanted ids, by id, as batches of the `responses` table, bounded by rows and bytes.

        Responses in damaged parts are left out, and their ids are added to `damaged`.
        """
        source = "FROM wanted JOIN answers USING (id) JOIN located USING (id)"
        with self._errors(), closing(self._db.cursor()) as cursor:
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
                    yield _with_keys(pa.Table.from_batches(found, _PART).sort_by("id"), snapshot_date, project_id)


def _read_part(path: LakePath) -> pq.ParquetFile | None:
    """A part, in memory as it is stored; None if its content does not match the digest in its name."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.stem.rpartition("-")[2]:
        return None
    return pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)


def _rows_of(part: pq.ParquetFile) -> list[_Row]:
    """The rows of a part, with times in microseconds."""
    table = part.read()
    for name in _TIMES:
        index = table.schema.get_field_index(name)
        table = table.set_column(index, name, table[name].cast(pa.int64()))
    return [*zip(*(column.to_pylist() for column in table.columns), strict=True)]


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


def _table_of(rows: list[_Row]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.Table.from_arrays(
        [pa.array(values, field.type) for values, field in zip(columns, _PART, strict=True)], schema=_PART
    )


def _with_keys(table: pa.Table, snapshot_date: dt.date, project_id: str) -> pa.RecordBatch:
    (batch,) = table.combine_chunks().to_batches()
    schema = RESPONSES.schema
    keys = (pa.scalar(snapshot_date, schema.field(0).type), pa.scalar(project_id, schema.field(1).type))
    columns = [*(pa.repeat(key, batch.num_rows) for key in keys), *batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
