"""Fetches one outcome for each id of the inventory: requests what is missing, and stores each response as it arrives.

Not here: how responses are stored (`snapshot.checkpoint`), how one request is sent, retried and judged
(`cloud.modelarts`, `cloud.classification`), and what else a run requests (`snapshot.gathering`).
"""

import asyncio
import datetime as dt
import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.cloud.classification import ImageResponse
from pipelines.errors import PipelineError
from pipelines.lake.parquet_files import BATCH_BYTES, read_batches
from pipelines.lake.storage import LakePath
from pipelines.snapshot.build_process import BuildProcess
from pipelines.snapshot.checkpoint import Checkpoint
from pipelines.snapshot.staging import Staging
from pipelines.tables import BILLED_COSTS, IMAGE_REFERENCES, IMAGE_TRACES, RESPONSES, Outcome

_TICK_SECONDS = 0.2
_PROGRESS_SECONDS = 0.5
_INVENTORY_BATCH_ROWS = 32_768

_logger = logging.getLogger(__name__)


class ImageClient(Protocol):
    """What `fetch` needs from the API client."""

    async def show_image(self, image_id: str) -> ImageResponse:
        """Request one image. A failure that concerns only this image is in the response, not raised."""
        ...


class InterruptedFetchError(PipelineError):
    """A signal told the process to stop."""


@dataclass(slots=True)
class Progress:
    """How far a fetch is: `kept` ids had a stored response before it began, `outcomes` counts all ids that have one."""

    total: int
    kept: int
    started: float
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        """The number of ids that have an outcome."""
        return self.outcomes.total()

    @property
    def seconds(self) -> float:
        """Seconds since the fetch began."""
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Images per second, counting only those requested in this run."""
        return (self.done - self.kept) / max(self.seconds, 1e-9)


class _Writer:
    """Collects responses and stores them a few times a second."""

    def __init__(
        self, store: Checkpoint, progress: Progress, before_put: Callable[[list[ImageResponse]], None]
    ) -> None:
        self._store = store
        self._before_put = before_put
        self._progress = progress
        self._pending: list[ImageResponse] = []
        self._bytes = 0
        self._due = 0.0

    def add(self, response: ImageResponse) -> None:
        self._pending.append(response)
        self._bytes += len(response.body or b"")
        self._progress.outcomes[response.outcome] += 1
        if len(self._pending) >= self._store.flush_responses or self._bytes >= BATCH_BYTES:
            self.flush()

    def flush_if_due(self) -> None:
        if time.monotonic() >= self._due:
            self.flush()

    def flush(self) -> None:
        if self._pending:
            pending, self._pending, self._bytes = self._pending, [], 0
            self._before_put(pending)
            self._store.put(pending)
        self._due = time.monotonic() + self._store.flush_seconds


async def fetch(
    client: ImageClient,
    store: Checkpoint,
    progress: Progress,
    concurrency: int,
    deadline: Callable[[], None],
    on_progress: Callable[[Progress], None],
    before_put: Callable[[list[ImageResponse]], None],
) -> None:
    """Request every id that `store` lacks, with at most `concurrency` requests in flight.

    Memory does not grow with the number of ids, because a fixed number of workers draw from one iterator. `deadline` is
    called a few times a second, and raises if the fetch must not continue. `before_put` gets the responses that are
    about to be stored.

    Raises:
        InterruptedFetchError: SIGTERM or SIGINT came; the responses that arrived before are stored.
        PipelineError: `client` or `store` cannot continue.
    """
    writer = _Writer(store, progress, before_put)
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
            await asyncio.sleep(_TICK_SECONDS)
            writer.flush_if_due()

    try:
        async with stoppable(progress):
            ticker = asyncio.create_task(tick())
            workers = [asyncio.create_task(work()) for _ in range(concurrency)]
            try:
                # The ticker never ends by itself. If it fails, the fetch fails with it.
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
    """End the block in good order if SIGTERM or SIGINT comes; restore the previous handlers afterwards.

    Raises:
        InterruptedFetchError: one of these signals came.
    """
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread can handle signals. A fetch in another thread must be stopped by other means.
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


def drop_damaged(store: Checkpoint, damaged: list[str]) -> None:
    """Drop and log responses that were damaged in storage, so that their ids are requested again."""
    if damaged:
        _logger.warning(
            "%d stored responses are damaged, the one for %s among them: these ids are requested again.",
            len(damaged),
            damaged[0],
        )
        store.drop(damaged)


def inventory_ids(inventory: LakePath) -> Iterator[list[str]]:
    """All ids of an `inventory` file, in lists of bounded length."""
    for batch in _inventory_batches(inventory):
        yield batch["id"].to_pylist()


def invalid_responses(inventory: LakePath, now: dt.datetime) -> Iterator[list[ImageResponse]]:
    """The outcomes of ids that are never sent, because they are not UUIDs."""
    for batch in _inventory_batches(inventory):
        ids = pc.filter(batch["id"], pc.invert(batch["is_valid"])).to_pylist()
        yield [
            ImageResponse(
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


def _inventory_batches(inventory: LakePath) -> Iterator[pa.RecordBatch]:
    return read_batches(inventory, _INVENTORY_BATCH_ROWS, ["id", "is_valid"])


def write_responses(staging: Staging, store: Checkpoint, beside: BuildProcess | None = None) -> list[str]:
    """Write the stored responses to the staged `responses`; returns the ids whose responses are damaged.

    The table lacks these ids, so it is complete only if there are none. `beside` gets the same batches.
    """
    damaged: list[str] = []
    with staging.writer(RESPONSES) as writer:
        for batch in store.batches(staging.date, staging.project_id, damaged):
            if beside is not None:
                beside.add(batch)
            writer.write(batch)
    return damaged


def write_references(staging: Staging, store: Checkpoint) -> None:
    """Write the stored references to the staged `image_references`, which may have no rows."""
    with staging.writer(IMAGE_REFERENCES) as writer:
        for batch in store.references.batches(staging.date, staging.project_id):
            writer.write(batch)


def write_traces(staging: Staging, store: Checkpoint) -> None:
    """Write the stored traces to the staged `image_traces`, which may have no rows."""
    with staging.writer(IMAGE_TRACES) as writer:
        for batch in store.traces.batches(staging.date, staging.project_id):
            writer.write(batch)


def write_bills(staging: Staging, store: Checkpoint) -> None:
    """Write the stored lines of the bill to the staged `billed_costs`, which may have no rows."""
    with staging.writer(BILLED_COSTS) as writer:
        for batch in store.bills.batches(staging.date, staging.project_id):
            writer.write(batch)
