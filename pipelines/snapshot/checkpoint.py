"""Stores the responses of an open attempt, so that a killed run resumes without requesting them again.

A database knows which ids are wanted and which have an outcome; a sink (`snapshot.checkpoint_sinks`) keeps the
responses. When every id has an outcome, they become the table `responses`. Which ids are requested, and when responses
are stored, belongs to `snapshot.fetch`.
"""

import datetime as dt
import functools
import hashlib
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.cloud.classification import ImageResponse
from pipelines.errors import StorageError
from pipelines.lake.storage import LakePath, storage_errors
from pipelines.snapshot.checkpoint_sinks import PartSink, RowSink, StoredResponse
from pipelines.snapshot.image_list import ImageList, microseconds
from pipelines.snapshot.sources.bill_lines import BillStore
from pipelines.snapshot.sources.registry_store import RegistryStore
from pipelines.snapshot.sources.store import ReferenceStore, TraceStore
from pipelines.tables import RESPONSES, Outcome

_PAGE_IDS = 5_000
_Sink = RowSink | PartSink

_VERSION = 4
_SCHEMA = (
    "DROP TABLE IF EXISTS subject",
    "DROP TABLE IF EXISTS wanted",
    "DROP TABLE IF EXISTS responses",
    "CREATE TABLE subject (name TEXT NOT NULL)",
    "CREATE TABLE wanted (id TEXT PRIMARY KEY) WITHOUT ROWID",
)

_logger = logging.getLogger(__name__)


def open_checkpoint(staging: LakePath, subject: str) -> "Checkpoint":
    """Open the checkpoint in a staging directory; it ignores responses stored for another `subject`.

    The subject names the endpoint, the project and the attempt.
    """
    if staging.local is None:
        parts = staging / "checkpoint" / hashlib.sha256(subject.encode()).hexdigest()[:16]
        # SQLite makes a temporary file if it is given no name.
        return Checkpoint(None, subject, lambda db: PartSink(db, parts))
    path = staging.local / "checkpoint.sqlite"
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return Checkpoint(path, subject, RowSink)
    except DamagedCheckpointError as error:
        _logger.warning("%s The ids are requested again.", error)
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return Checkpoint(path, subject, RowSink)


class DamagedCheckpointError(StorageError):
    """The checkpoint's file is no longer a valid SQLite database."""


class Checkpoint:
    """The wanted ids, responses and findings of an open attempt.

    Without a path the database is a temporary file, so the sink must keep the responses elsewhere.
    """

    def __init__(self, path: Path | None, subject: str, make_sink: Callable[[sqlite3.Connection], _Sink]) -> None:
        self._path = path
        with self._errors(), ExitStack() as stack:
            self._db = sqlite3.connect(path or "", isolation_level=None)
            stack.callback(self._db.close)
            # A damaged text may hold any bytes; its checksum shows the damage.
            self._db.text_factory = functools.partial(str, encoding="utf-8", errors="surrogateescape")
            # Only one process uses the file, because the partition is locked. Exclusive mode needs no shared-memory
            # file, which network file systems do not support.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            known = self._db.execute("SELECT name FROM sqlite_master WHERE name = 'subject'").fetchone()
            subject = f"checkpoint {_VERSION}, {subject}"
            with self.transaction():
                if known is None or self._db.execute("SELECT name FROM subject").fetchone() != (subject,):
                    for statement in _SCHEMA:
                        self._db.execute(statement)
                    self._db.execute("INSERT INTO subject VALUES (?)", (subject,))
                self._sink = make_sink(self._db)
            self.flush_seconds, self.flush_responses = self._sink.flush_seconds, self._sink.flush_responses
            self.image_list = ImageList(self._db)
            self.references = ReferenceStore(self._db)
            self.traces = TraceStore(self._db)
            self.registry = RegistryStore(self._db)
            self.bills = BillStore(self._db)
            # From here on the checkpoint is closed by whoever opened it.
            stack.pop_all()

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
            rows = self._db.execute("SELECT outcome, count(*) FROM wanted JOIN responses USING (id) GROUP BY outcome")
            return Counter(dict(rows))

    def carried(self) -> int:
        """The number of wanted ids whose response was carried forward from an earlier day."""
        with self._errors():
            rows = self._db.execute(
                "SELECT count(*) FROM wanted JOIN responses USING (id) WHERE confirmed_at IS NOT NULL"
            )
            return int(rows.fetchone()[0])

    def forget(self) -> None:
        """Drop what a resumed attempt must not reuse: failed requests, carried responses, and all that lists showed.

        Responses were carried forward because the image list confirmed them, and the list is read again.
        """
        with self.transaction():
            self._db.execute("DELETE FROM responses WHERE outcome = ? OR confirmed_at IS NOT NULL", (Outcome.FAILED,))
            self.image_list.clear()
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
                " (SELECT 1 FROM responses WHERE responses.id = wanted.id)",
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
                    " (SELECT 1 FROM responses WHERE responses.id = wanted.id) ORDER BY id LIMIT ?",
                    (last, _PAGE_IDS),
                ).fetchall()
            if not page:
                return
            last = page[-1][0]
            yield from (id_ for (id_,) in page)

    def put(self, responses: list[ImageResponse]) -> None:
        """Store responses in one transaction."""
        rows = []
        for response in responses:
            observed_at = microseconds(response.observed_at)
            rows.append(
                StoredResponse(
                    id=response.id,
                    outcome=response.outcome,
                    http_status=response.http_status,
                    error_code=response.error_code,
                    error_msg=response.error_msg,
                    attempts=response.attempts,
                    elapsed_ms=response.elapsed_ms,
                    observed_at=observed_at,
                    body=response.body,
                    body_sha256=None if response.body is None else hashlib.sha256(response.body).hexdigest(),
                    fetched_at=observed_at if response.attempts else None,
                    confirmed_at=None,
                )
            )
        self._put(rows)

    def carry(self, confirmed: list[tuple[dict[str, Any], int]]) -> None:
        """Store rows of an earlier day's `responses`, each with the time (microseconds) at which it was confirmed."""
        rows = []
        for row, confirmed_at in confirmed:
            new = {"attempts": 0, "elapsed_ms": 0, "observed_at": confirmed_at, "confirmed_at": confirmed_at}
            values = row | new | {"fetched_at": microseconds(row["fetched_at"])}
            rows.append(StoredResponse(**{name: values[name] for name in StoredResponse._fields}))
        self._put(rows)

    def _put(self, rows: list[StoredResponse]) -> None:
        with self.transaction():
            self._sink.put(rows)

    def damaged(self) -> list[str]:
        """The wanted ids whose responses have changed since they were stored."""
        with self._errors():
            return self._sink.damaged()

    def drop(self, ids: list[str]) -> None:
        """Remove the responses to some ids, so that `lacking` returns these ids again."""
        with self.transaction():
            self._db.executemany("DELETE FROM responses WHERE id = ?", [(id_,) for id_ in ids])

    def batches(self, snapshot_date: dt.date, project_id: str, damaged: list[str]) -> Iterator[pa.RecordBatch]:
        """All outcomes of wanted ids, by id, as batches of the `responses` table, bounded by rows and bytes.

        Damaged responses are left out, and their ids are added to `damaged`.
        """
        schema = RESPONSES.schema
        keys = (pa.scalar(snapshot_date, schema.field(0).type), pa.scalar(project_id, schema.field(1).type))
        with self._errors():
            for table in self._sink.tables(damaged):
                (batch,) = table.combine_chunks().to_batches()
                columns = [*(pa.repeat(key, batch.num_rows) for key in keys), *batch.columns]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)

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
            path = self._path or "a temporary file"
            code = getattr(error, "sqlite_errorname", "") or ""
            if code.startswith("SQLITE_FULL"):
                raise StorageError(
                    f"No space left while writing {path}: free some and run again; what was published before is "
                    "intact and responses fetched so far are kept."
                ) from error
            if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
                raise DamagedCheckpointError(
                    f"The stored responses in {path} are damaged: run with --fresh to start the day over."
                ) from error
            raise StorageError(f"The stored responses in {path} cannot be used: {error}.") from error
