"""One outcome per inventory id: ask the API for what is lacking, put each answer on disk as it comes.

Answers of an attempt that has not ended live in an SQLite file in the staging directory, because a database is
what survives a kill at any instant; when every id has its outcome they become the `responses` table. How one request
is made, retried and judged belongs to `pipelines.api` and `pipelines.answers`.
"""

import asyncio
import datetime as dt
import hashlib
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.answers import Answer
from pipelines.api import ModelArtsClient
from pipelines.columns import LIST_PAGES, NOTEBOOKS, RESPONSES
from pipelines.errors import ListUnreadableError, PipelineError, StorageError
from pipelines.lake import Lake, read_batches, storage_errors
from pipelines.listed import ListedImages, ListedNotebooks, batches_of, microseconds
from pipelines.outcomes import Outcome

# A kill loses at most the answers of this time or this number, whichever comes first.
_FLUSH_SECONDS = 0.2
_FLUSH_ANSWERS = 256
_PROGRESS_SECONDS = 0.5
_PAGE_IDS = 5_000
_BATCH_ROWS = 4_096
# Bodies are long: smaller groups than elsewhere bound the memory of writers and readers alike.
_ROW_GROUP_ROWS = 32_768
_PAGES_A_GROUP = 256
_INVENTORY_BATCH_ROWS = 32_768

_STORE_VERSION = 2
_SCHEMA = (
    "DROP TABLE IF EXISTS subject",
    "DROP TABLE IF EXISTS wanted",
    "DROP TABLE IF EXISTS answers",
    "CREATE TABLE subject (name TEXT NOT NULL)",
    "CREATE TABLE wanted (id TEXT PRIMARY KEY) WITHOUT ROWID",
    # The columns of `responses` after the keys, times in microseconds since the epoch.
    """CREATE TABLE answers (id TEXT PRIMARY KEY, outcome TEXT NOT NULL, http_status INTEGER, error_code TEXT,
        error_msg TEXT, attempts INTEGER NOT NULL, elapsed_ms INTEGER NOT NULL, observed_at INTEGER NOT NULL,
        body BLOB, body_sha256 TEXT, fetched_at INTEGER, confirmed_at INTEGER)""",
)
_INSERT = "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class ImageClient(Protocol):
    """What fetching needs of the API client."""

    async def show_image(self, image_id: str) -> Answer:
        """Ask for one image; every failure that concerns only this image is in the answer."""
        ...


class InterruptedFetchError(PipelineError):
    """The process was told to stop."""


@dataclass(slots=True)
class Progress:
    """How far a fetch is: `kept` ids had an answer on disk before it began, `outcomes` counts all that have one."""

    total: int
    kept: int
    started: float
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        """Ids that have an outcome."""
        return self.outcomes.total()

    @property
    def seconds(self) -> float:
        """Time since the fetch began."""
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Images per second, of those that were asked for in this run."""
        return (self.done - self.kept) / max(self.seconds, 1e-9)


class AnswerStore:
    """The answers of an attempt, in SQLite; survives a kill of the process at any instant."""

    def __init__(self, path: Path, subject: str) -> None:
        """Open or create the store. Answers kept for another `subject` (endpoint and project) are dropped."""
        self._path = path
        with self._errors(), storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None)
            # Exclusive: one process at a time (the partition is held), and no shared memory file, which network
            # file systems lack.
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
            self.listed = ListedImages(self._db)
            self.notebooks = ListedNotebooks(self._db)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def want(self, ids: Iterator[list[str]]) -> int:
        """Set the ids that this attempt is about, and return their number."""
        with self.transaction():
            self._db.execute("DELETE FROM wanted")
            for some in ids:
                self._db.executemany("INSERT INTO wanted VALUES (?)", [(id_,) for id_ in some])
            return int(self._db.execute("SELECT count(*) FROM wanted").fetchone()[0])

    def outcomes(self) -> Counter[str]:
        """How many wanted ids have each outcome."""
        with self._errors():
            rows = self._db.execute("SELECT outcome, count(*) FROM wanted JOIN answers USING (id) GROUP BY outcome")
            return Counter(dict(rows))

    def carried(self) -> int:
        """How many wanted ids have an answer that was carried forward from an earlier day."""
        with self._errors():
            rows = self._db.execute(
                "SELECT count(*) FROM wanted JOIN answers USING (id) WHERE confirmed_at IS NOT NULL"
            )
            return int(rows.fetchone()[0])

    def forget(self) -> None:
        """Drop what an attempt cannot take over from the one before: outcomes that are no answer, whatever was listed,
        and the answers of an earlier day that this list confirmed."""
        with self.transaction():
            self._db.execute("DELETE FROM answers WHERE outcome = ? OR confirmed_at IS NOT NULL", (Outcome.FAILED,))
            self.listed.clear()
            self.notebooks.clear()

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
        """Wanted ids without an outcome, in order; answers may be put meanwhile."""
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

    def put(self, answers: list[Answer]) -> None:
        """Store answers in one transaction."""
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
        with self.transaction():
            self._db.executemany(_INSERT, rows)

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
        with self.transaction():
            self._db.executemany(_INSERT, rows)

    def batches(self, snapshot_date: dt.date, project_id: str) -> Iterator[pa.RecordBatch]:
        """All outcomes of wanted ids, by id, as batches of the `responses` table."""
        with self._errors(), closing(self._db.cursor()) as cursor:
            cursor.execute("SELECT answers.* FROM wanted JOIN answers USING (id) ORDER BY wanted.id")
            yield from batches_of(cursor, RESPONSES, _BATCH_ROWS, snapshot_date, project_id)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what the block stores."""
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
                raise StorageError(
                    f"The kept answers in {self._path} are damaged: run with --fresh to start the day over."
                ) from error
            raise StorageError(f"The kept answers in {self._path} cannot be used: {error}.") from error


class _Writer:
    """Gathers answers and puts them on disk a few times a second."""

    def __init__(self, store: AnswerStore, progress: Progress) -> None:
        self._store = store
        self._progress = progress
        self._pending: list[Answer] = []

    def add(self, answer: Answer) -> None:
        self._pending.append(answer)
        self._progress.outcomes[answer.outcome] += 1
        if len(self._pending) >= _FLUSH_ANSWERS:
            self.flush()

    def flush(self) -> None:
        if self._pending:
            pending, self._pending = self._pending, []
            self._store.put(pending)


async def fetch(
    client: ImageClient,
    store: AnswerStore,
    progress: Progress,
    concurrency: int,
    deadline: Callable[[], None],
    on_progress: Callable[[Progress], None],
) -> None:
    """Ask for every id that `store` lacks, with at most `concurrency` requests in flight.

    Memory does not grow with the number of ids: a fixed number of workers draw from one iterator. `deadline` is
    called now and then and raises when the fetch may not go on.

    Raises:
        InterruptedFetchError: SIGTERM or SIGINT came; what was answered is on disk.
        PipelineError: whatever makes going on pointless, from `client` or `store`.
    """
    writer = _Writer(store, progress)
    lacking = store.lacking()

    async def work() -> None:
        for image_id in lacking:
            writer.add(await client.show_image(image_id))

    async def tick() -> None:
        next_progress = time.monotonic()
        while True:
            deadline()
            if time.monotonic() >= next_progress:
                on_progress(progress)
                next_progress += _PROGRESS_SECONDS
            await asyncio.sleep(_FLUSH_SECONDS)
            writer.flush()

    try:
        async with stoppable(progress):
            ticker = asyncio.create_task(tick())
            workers = [asyncio.create_task(work()) for _ in range(concurrency)]
            try:
                # The ticker never ends by itself: should it fail, the fetch fails with it.
                pending: set[asyncio.Task[None]] = {*workers, ticker}
                while pending != {ticker}:
                    ended, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    for task in ended:
                        task.result()
            finally:
                for task in (*workers, ticker):
                    task.cancel()
                await asyncio.gather(*workers, ticker, return_exceptions=True)
    finally:
        writer.flush()
    on_progress(progress)


@asynccontextmanager
async def stoppable(progress: Progress) -> AsyncIterator[None]:
    """Let SIGTERM and SIGINT end the block in good order, and put the handlers back afterwards.

    Raises:
        InterruptedFetchError: one of them came.
    """
    if threading.current_thread() is not threading.main_thread():
        # Signals are the main thread's; who runs a fetch elsewhere stops it by other means.
        yield
        return
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        received.append(number)
        if main is not None:
            main.cancel()

    handled = (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.getsignal(number) for number in handled}
    for number in handled:
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    except asyncio.CancelledError:
        if not received:
            raise
        raise InterruptedFetchError(
            f"Stopped by {received[0].name} with {progress.done} of {progress.total} ids answered: run again today "
            "to go on from there."
        ) from None
    finally:
        for number, handler in previous.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


async def read_list(client: ModelArtsClient, store: AnswerStore, *, index: bool) -> None:
    """Put the pages of the API's own list into an empty `store.listed`, with `index` their items, too.

    Raises:
        ListUnreadableError: a page cannot be read; none is kept.
        PipelineError: no request can succeed, or the storage failed.
    """
    number = 0
    try:
        async for page in client.list_images():
            observed_at = microseconds(page.observed_at)
            with store.transaction():
                store.listed.add(number, observed_at, page.body)
                if index:
                    store.listed.index(observed_at, page.body)
            number += 1
    except ListUnreadableError:
        with store.transaction():
            store.listed.clear()
        raise


async def read_notebooks(client: ModelArtsClient, store: AnswerStore) -> None:
    """Put the project's notebooks into an empty `store.notebooks`.

    Raises:
        ListUnreadableError: not all can be read; none is kept.
        PipelineError: no request can succeed, or the storage failed.
    """
    try:
        async for notebooks in client.list_notebooks():
            with store.transaction():
                store.notebooks.add(notebooks)
    except ListUnreadableError:
        with store.transaction():
            store.notebooks.clear()
        raise


def inventory_ids(inventory: Path) -> Iterator[list[str]]:
    """All ids of an `inventory` file, in lists of bounded length."""
    for batch in _inventory_batches(inventory):
        yield batch["id"].to_pylist()


def invalid_answers(inventory: Path, now: dt.datetime) -> Iterator[list[Answer]]:
    """The outcome of ids that are never sent because they are no UUIDs."""
    for batch in _inventory_batches(inventory):
        ids = pc.filter(batch["id"], pc.invert(batch["is_valid"])).to_pylist()
        yield [
            Answer(
                id=id_,
                outcome=Outcome.INVALID_ID,
                http_status=None,
                error_code=None,
                error_msg="not a UUID",
                attempts=0,
                elapsed_ms=0,
                observed_at=now,
                body=None,
            )
            for id_ in ids
        ]


def _inventory_batches(inventory: Path) -> Iterator[pa.RecordBatch]:
    return read_batches(inventory, _INVENTORY_BATCH_ROWS, ["id", "is_valid"])


def write_responses(lake: Lake, path: Path, store: AnswerStore, date: dt.date, project_id: str, run_id: str) -> None:
    """Turn the stored answers into a `responses` file."""
    with lake.writer(path, RESPONSES, run_id, _ROW_GROUP_ROWS) as writer:
        for batch in store.batches(date, project_id):
            writer.write(batch)


def write_list_pages(lake: Lake, path: Path, store: AnswerStore, date: dt.date, project_id: str, run_id: str) -> None:
    """Turn the stored pages of the API's list into a `list_pages` file; without pages it has no rows."""
    with lake.writer(path, LIST_PAGES, run_id, _PAGES_A_GROUP) as writer:
        for batch in store.listed.batches(date, project_id):
            writer.write(batch)


def write_notebooks(lake: Lake, path: Path, store: AnswerStore, date: dt.date, project_id: str, run_id: str) -> None:
    """Turn the stored notebooks into a `notebooks` file; without any it has no rows."""
    with lake.writer(path, NOTEBOOKS, run_id) as writer:
        for batch in store.notebooks.batches(date, project_id):
            writer.write(batch)
