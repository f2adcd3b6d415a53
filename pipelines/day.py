"""The steps of one partition's day, in order, as an orchestrator calls them: inventory, fetch, publish; and rebuild.

Each step finds what the one before it left on disk, so a step can be run again alone. What a step does in detail
belongs to the module of its name.
"""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass

from pipelines.answer_store import AnswerStore, open_answers
from pipelines.api import ModelArtsClient
from pipelines.changed import carry_forward, last_complete_responses
from pipelines.columns import IMAGE_VALUES, IMAGES, INVENTORY, LIST_PAGES, NOTEBOOKS, RESPONSES
from pipelines.connection import Connection, connect
from pipelines.errors import ConfigurationError, ListUnreadableError, StorageError, TooManyFailuresError
from pipelines.fetch import (
    Progress,
    Staging,
    fetch,
    invalid_answers,
    inventory_ids,
    read_list,
    read_notebooks,
    stoppable,
    write_no_list,
    write_notebooks,
    write_responses,
)
from pipelines.inventory import LISTED, Inventory, describe_source
from pipelines.lake import Lake, LakePath, Partition, remove_tree, sha256_of_file, storage_errors
from pipelines.manifest import (
    Attempt,
    FetchFacts,
    FileFacts,
    InventoryFacts,
    Manifest,
    published,
    read_attempt,
    read_manifest,
    write_attempt,
)
from pipelines.outcomes import Outcome
from pipelines.publish import Derivation, derive_tables, failed_ids, file_facts, publish, validate
from pipelines.removed import RemovedFiles, check_derivable
from pipelines.settings import Settings

_ACCEPTED_POLL_SECONDS = 0.05
_TRIES_TO_STORE = 3
_EVIDENCE = (INVENTORY.name, LIST_PAGES.name, NOTEBOOKS.name, RESPONSES.name)

_logger = logging.getLogger(__name__)


def utc_now() -> dt.datetime:
    """The wall clock."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, slots=True)
class Day:
    """One partition as one run sees it. `now` is the clock that tells which day it is."""

    partition: Partition
    run_id: str
    settings: Settings
    now: Callable[[], dt.datetime] = utc_now

    @property
    def lake(self) -> Lake:
        """The lake that the settings name."""
        return Lake(self.settings.lake, self.settings.parquet_compression)

    def hold(self) -> contextlib.AbstractContextManager[None]:
        """Hold the partition against other runs."""
        return self.lake.hold(self.partition, self.run_id)

    def staged(self, name: str) -> LakePath:
        """A table's file in the open attempt."""
        return self.lake.staging(self.partition) / f"{name}.parquet"

    def check_date(self, attempt: Attempt | None) -> None:
        """Refuse to fetch for a day that is not the current one: the API cannot say what was.

        Raises:
            ConfigurationError: the day is over (or a run that began on it is too late), or has not begun.
        """
        now, date = self.now(), self.partition.date
        if date == now.date():
            return
        if date > now.date():
            raise ConfigurationError(
                f"{date} has not begun (UTC now: {now:%Y-%m-%d %H:%M}): run without a date for today."
            )
        late = dt.timedelta(hours=self.settings.late_fetch_hours)
        end = dt.datetime.combine(date + dt.timedelta(days=1), dt.time(), dt.UTC)
        began_on_its_day = attempt is not None and attempt.started_at.date() == date
        if began_on_its_day and now < end + late:
            return
        raise ConfigurationError(
            f"{date} is over, and the API cannot say what existed then: nothing was fetched. Run without a date for "
            "today; `image-snapshots rebuild` derives an old day again from the answers stored on that day."
        )

    def check_source(self) -> None:
        """Refuse to put the embedded sandbox's answers among those of a cloud, or the other way round.

        Raises:
            ConfigurationError: the project's days come from the other one.
        """
        days = [partition for partition in self.lake.partitions() if partition.project == self.partition.project]
        if not days:
            return
        last = read_manifest(self.lake.manifest(days[-1])).fetch
        if last.is_sandbox and not self.settings.uses_sandbox:
            raise ConfigurationError(
                f"The lake {self.lake.root} holds days of the embedded sandbox, which would pass for real ones: set "
                "IMAGE_SNAPSHOTS_LAKE to another directory, or remove this one."
            )
        if self.settings.uses_sandbox and not last.is_sandbox:
            raise ConfigurationError(
                f"The lake {self.lake.root} holds days of {last.endpoint_host}, and no endpoint is configured: set "
                "IMAGE_SNAPSHOTS_ENDPOINT, or IMAGE_SNAPSHOTS_LAKE to another directory for the sandbox's days."
            )


def start_over(day: Day) -> None:
    """Throw away what an attempt that did not end has gathered."""
    directory = day.lake.staging(day.partition)
    with storage_errors(directory):
        remove_tree(directory)


@dataclass(frozen=True, slots=True)
class InventoryTaken:
    """The staged inventory. `is_stale`: the source's file is older than the setting allows."""

    facts: InventoryFacts
    file: FileFacts
    is_stale: bool


def take_inventory(day: Day) -> InventoryTaken:
    """Read the inventory source into the staged `inventory` table; opens the day's attempt, or goes on with it.

    Raises:
        ConfigurationError: the day is not the current one, or the source cannot be read or is empty.
    """
    attempt = read_attempt(day.lake, day.partition)
    ended = published(day.lake, day.partition)
    if attempt is not None and ended is not None and ended.started_at == attempt.started_at:
        # Killed between the manifest and the removal of the attempt: the day ended.
        start_over(day)
        attempt = None
    day.check_date(attempt)
    day.check_source()
    attempt = attempt or Attempt(run_id=day.run_id, started_at=day.now())
    # Before anything slow: a lake that cannot be written is found out here.
    write_attempt(day.lake, day.partition, attempt)
    path = day.staged(INVENTORY.name)
    with connect(day.settings, day.partition) as connection:
        facts = asyncio.run(_read_inventory(day, connection, path))
    file = file_facts(day.lake, path, INVENTORY.name, day.partition)
    taken = {"inventory": facts, "fetch": None, "files": {INVENTORY.name: file}}
    write_attempt(day.lake, day.partition, attempt.model_copy(update=taken))
    limit = dt.timedelta(hours=day.settings.inventory_max_age_hours)
    return InventoryTaken(
        facts,
        file,
        is_stale=facts.modified_at is not None and day.now() - facts.modified_at > limit,
    )


async def _read_inventory(day: Day, connection: Connection, path: LakePath) -> InventoryFacts:
    inventory = Inventory(
        snapshot_date=day.partition.date,
        project_key=day.partition.project,
        project_keys=day.settings.project_keys,
        allow_empty=day.settings.allow_empty_inventory,
    )
    source = describe_source(connection.inventory)
    shortfall = 0
    with day.lake.writer(path, INVENTORY, day.run_id) as writer:
        if connection.inventory == LISTED:
            async with connection.client() as client:
                async for batch in inventory.read_listed(_listed_ids(client)):
                    writer.write(batch)
                shortfall = client.list_shortfall or 0
        else:
            for batch in inventory.read(connection.inventory, day.settings.inventory_query):
                writer.write(batch)
    return InventoryFacts(
        source=source.name,
        kind=source.kind,
        modified_at=source.modified_at,
        shortfall=shortfall,
        **dataclasses.asdict(inventory.counts),
    )


async def _listed_ids(client: ModelArtsClient) -> AsyncIterator[str]:
    async for page in client.list_images():
        for item in page.items:
            yield item["id"]


@dataclass(frozen=True, slots=True)
class AnswersFetched:
    """The staged responses."""

    facts: FetchFacts
    file: FileFacts


def fetch_answers(day: Day, on_progress: Callable[[Progress], None]) -> AnswersFetched:
    """Ask the API for every id of the day's inventory that has no answer yet, and stage the `responses` table.

    Raises:
        TooManyFailuresError: more ids failed than allowed; answers are kept, and the next run asks for the rest.
        PipelineError: no request can succeed, the run was told to stop, or the storage failed.
    """
    attempt = read_attempt(day.lake, day.partition)
    day.check_date(attempt)
    if attempt is None or attempt.inventory is None:
        raise ConfigurationError(f"No inventory was taken for {day.partition}: run `image_inventory` first.")
    _check_staged(day, attempt, [INVENTORY.name])
    with connect(day.settings, day.partition) as connection:
        facts = asyncio.run(_fetch_answers(day, attempt, connection, on_progress))
    total = sum(facts.outcomes.values())
    if facts.failed > day.settings.max_failed_ratio * total:
        raise TooManyFailuresError(
            f"{facts.failed} of {total} images of {day.partition} could not be fetched, more than "
            f"IMAGE_SNAPSHOTS_MAX_FAILED_RATIO ({day.settings.max_failed_ratio:g}) allows, so nothing was published. "
            f"{_most_common_errors(day)} Run again today to ask for those alone."
        )
    names = (LIST_PAGES.name, NOTEBOOKS.name, RESPONSES.name)
    files = attempt.files | {name: file_facts(day.lake, day.staged(name), name, day.partition) for name in names}
    write_attempt(day.lake, day.partition, attempt.model_copy(update={"fetch": facts, "files": files}))
    return AnswersFetched(facts, files[RESPONSES.name])


def _check_staged(day: Day, attempt: Attempt, names: Iterable[str]) -> None:
    """Refuse staged files that are not as they were written.

    Raises:
        StorageError: the first that is not.
    """
    for name in names:
        path = day.staged(name)
        with storage_errors(path):
            intact = name in attempt.files and sha256_of_file(path) == attempt.files[name].sha256
        if not intact:
            raise StorageError(
                f"{path} is not as it was written: the storage damaged it, or somebody changed it. Nothing was "
                "published from it; run again today to write it anew, from the answers that are kept."
            )


async def _fetch_answers(
    day: Day, attempt: Attempt, connection: Connection, on_progress: Callable[[Progress], None]
) -> FetchFacts:
    inventory, started_at = day.staged(INVENTORY.name), day.now()
    directory = day.lake.staging(day.partition)
    async with connection.client() as client:
        staging = Staging(day.lake, directory, day.partition.date, client.project_id, day.run_id)
        # Of another attempt, which ended and was not quite tidied up, nothing is taken over.
        subject = f"{connection.endpoint} {client.project_id} {attempt.started_at.isoformat()}"
        with contextlib.closing(open_answers(directory, subject)) as store:
            total = store.want(inventory_ids(inventory))
            for answers in invalid_answers(inventory, started_at):
                store.put(answers)
            store.forget()
            _drop(store, store.damaged())
            kept = store.outcomes().total() - store.outcomes()[Outcome.INVALID_ID]
            list_was_read = day.settings.mode == "changed" and await _carry_forward(day, client, staging, store)
            outcomes = store.outcomes()
            progress = Progress(total, outcomes.total(), time.monotonic(), outcomes)
            reads_list = day.settings.reconcile and not list_was_read
            # One page after the other, which would make a fetch half as long again.
            beside = asyncio.create_task(
                _read_beside(day.settings, client, staging, store, progress, reads_list=reads_list)
            )
            try:
                await fetch(
                    client,
                    store,
                    progress,
                    day.settings.concurrency,
                    lambda: day.check_date(attempt),
                    on_progress,
                )
                async with stoppable(progress):
                    list_error, notebooks_error = await beside
            finally:
                beside.cancel()
                await asyncio.gather(beside, return_exceptions=True)
            list_was_read = list_was_read or (reads_list and list_error is None)
            if not list_was_read:
                write_no_list(staging)
            for _ in range(_TRIES_TO_STORE):
                if not (damaged := write_responses(staging, store)):
                    break
                _drop(store, damaged)
                for answers in invalid_answers(inventory, started_at):
                    store.put(answers)
                progress.outcomes = store.outcomes()
                await fetch(
                    client,
                    store,
                    progress,
                    day.settings.concurrency,
                    lambda: day.check_date(attempt),
                    on_progress,
                )
            else:
                raise StorageError(
                    f"{len(damaged)} answers in {directory} are again not as they were stored: the storage damages "
                    "what is written to it, so nothing was published."
                )
            write_notebooks(staging, store)
            return FetchFacts(
                project_id=client.project_id,
                endpoint_host=connection.host,
                is_sandbox=day.settings.uses_sandbox,
                mode=day.settings.mode,
                started_at=started_at,
                finished_at=day.now(),
                outcomes=dict(sorted(store.outcomes().items())),
                kept=kept,
                carried=store.carried(),
                list_was_read=list_was_read,
                list_error=list_error,
                notebooks_were_read=day.settings.reads_usage and notebooks_error is None,
                notebooks_error=notebooks_error,
                notebooks_skipped=client.notebooks_skipped or 0,
                requests=client.stats.requests,
                retries=client.stats.retries,
                throttled=client.stats.throttled,
                token_renewals=client.stats.token_renewals,
                bytes_received=client.stats.bytes_received,
            )


def _drop(store: AnswerStore, damaged: list[str]) -> None:
    if damaged:
        _logger.warning(
            "%d stored answers are not as they came, the one for %s among them: these ids are asked for again.",
            len(damaged),
            damaged[0],
        )
        store.drop(damaged)


async def _carry_forward(day: Day, client: ModelArtsClient, staging: Staging, store: AnswerStore) -> bool:
    """Carry answers forward from the last complete day; False when there is none, and the list was not read."""
    responses = last_complete_responses(day.lake, day.partition)
    if responses is None:
        return False
    await read_list(client, staging, store.listed)
    carry_forward(store, responses, day.now() - dt.timedelta(days=day.settings.full_refresh_days))
    return True


async def _read_beside(
    settings: Settings,
    client: ModelArtsClient,
    staging: Staging,
    store: AnswerStore,
    progress: Progress,
    *,
    reads_list: bool,
) -> tuple[str | None, str | None]:
    """Read the list and the notebooks, as far as they are wanted; why each cannot be read, or None."""
    # What is refused here alone is no reason to stop; that it is here alone shows once the API has accepted something.
    while not client.was_accepted and progress.done < progress.total:  # noqa: ASYNC110  (one of the two is no event)
        await asyncio.sleep(_ACCEPTED_POLL_SECONDS)
    list_error = notebooks_error = None
    if reads_list:
        list_error = await _why_unreadable(read_list(client, staging, None))
    if settings.reads_usage:
        notebooks_error = await _why_unreadable(read_notebooks(client, store))
    return list_error, notebooks_error


async def _why_unreadable(reading: Awaitable[None]) -> str | None:
    try:
        await reading
    except ListUnreadableError as error:
        # A day may be published without it.
        return str(error)
    return None


def _most_common_errors(day: Day) -> str:
    codes = Counter(failed.error_code or "no error code" for failed in failed_ids(day.staged(RESPONSES.name)))
    return "Most common: " + ", ".join(f"{code} ({count})" for code, count in codes.most_common(3)) + "."


@dataclass(frozen=True, slots=True)
class DayPublished:
    """A published partition and what deriving it brought to light."""

    manifest: Manifest
    derivation: Derivation


def publish_day(day: Day) -> DayPublished:
    """Derive `images` and `image_values`, validate the day and publish it.

    With answers fetched by an open attempt this ends the attempt. Without, a published day is derived again from its
    own stored answers.

    Raises:
        ValidationError: a table breaks its contract; nothing was published.
        StorageError: the published answers are not what the manifest says.
        ConfigurationError: there is neither an attempt that has its answers nor a published day, or retention removed
            what the published day would be derived from.
    """
    attempt = read_attempt(day.lake, day.partition)
    if attempt is not None and attempt.inventory is not None and attempt.fetch is not None:
        _check_staged(day, attempt, _EVIDENCE)
        evidence = {name: day.staged(name) for name in _EVIDENCE}
        directory = day.lake.staging(day.partition)
        published_day = _publish(
            day, evidence, directory, attempt.started_at, attempt.inventory, attempt.fetch, rebuilt=False
        )
        start_over(day)
        return published_day
    manifest = published(day.lake, day.partition)
    if manifest is None:
        raise ConfigurationError(
            f"Nothing is published for {day.partition}, so nothing can be derived again. "
            "`image-snapshots status` lists the days that are there."
        )
    check_derivable(day.lake, day.partition, RemovedFiles(day.lake, day.partition.project))
    evidence = {name: day.lake.table(name, day.partition) for name in _EVIDENCE}
    for name, path in evidence.items():
        with storage_errors(path):
            if name not in manifest.files or sha256_of_file(path) != manifest.files[name].sha256:
                raise StorageError(
                    f"{path} is not the file that the manifest of {day.partition} names: the evidence was changed. "
                    "`image-snapshots verify` says what else was; restore the file from a backup."
                )
    directory = day.lake.rebuilding(day.partition)
    published_day = _publish(
        day, evidence, directory, manifest.started_at, manifest.inventory, manifest.fetch, rebuilt=True
    )
    with storage_errors(directory):
        remove_tree(directory)
    return published_day


def _publish(
    day: Day,
    evidence: dict[str, LakePath],
    directory: LakePath,
    started_at: dt.datetime,
    inventory: InventoryFacts,
    fetch: FetchFacts,
    *,
    rebuilt: bool,
) -> DayPublished:
    derivation = derive_tables(day.lake, evidence[RESPONSES.name], directory, day.run_id)
    files = evidence | {name: directory / f"{name}.parquet" for name in (IMAGES.name, IMAGE_VALUES.name)}
    validate(day.partition, fetch.project_id, files, inventory.ids, fetch.outcomes)
    manifest = publish(
        day.lake,
        day.partition,
        files,
        run_id=day.run_id,
        started_at=started_at,
        published_at=day.now(),
        rebuilt=rebuilt,
        inventory=inventory,
        fetch=fetch,
    )
    return DayPublished(manifest, derivation)
