"""The steps of one partition's day, in order, as an orchestrator calls them: inventory, fetch, publish; and rebuild.

Each step finds what the one before it left on disk, so a step can be run again alone. What a step does in detail
belongs to the module of its name.
"""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import functools
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

from pipelines.cloud.credentials import stated_credentials
from pipelines.cloud.modelarts import ModelArtsClient
from pipelines.errors import ConfigurationError, StorageError, TooManyFailuresError
from pipelines.inputs.endpoints import is_on_loopback
from pipelines.inventory.cleaning import LISTED, Inventory, describe_source
from pipelines.lake.clock import check_clock
from pipelines.lake.layout import Partition
from pipelines.lake.manifests import (
    Attempt,
    FetchFacts,
    FileFacts,
    InventoryFacts,
    Manifest,
    file_facts,
    newest_manifests,
    parse_manifest,
    published,
    published_or_error,
    read_attempt,
    write_attempt,
)
from pipelines.lake.parquet_files import SANDBOX_MARK
from pipelines.lake.retention_records import RetentionRecords, check_derivable
from pipelines.lake.storage import LakePath
from pipelines.lake.witnesses import open_witness
from pipelines.run import Run, utc_now
from pipelines.settings import Settings
from pipelines.snapshot.absence import KnownImages, judge, known_images, missing_rows
from pipelines.snapshot.checkpoint import Checkpoint, open_checkpoint
from pipelines.snapshot.connection import Connection, connect
from pipelines.snapshot.fetch import (
    Progress,
    Staging,
    drop_damaged,
    fetch,
    invalid_responses,
    inventory_ids,
    read_beside,
    read_list,
    stoppable,
    write_no_list,
    write_notebooks,
    write_responses,
)
from pipelines.snapshot.incremental import carry_forward, last_complete_responses
from pipelines.snapshot.publish import BuiltTables, build_tables, failed_ids, publish, validate
from pipelines.tables import IMAGE_VALUES, IMAGES, INVENTORY, LIST_PAGES, NOTEBOOKS, RESPONSES, Outcome

_TRIES_TO_STORE = 3
_EVIDENCE = (INVENTORY.name, LIST_PAGES.name, NOTEBOOKS.name, RESPONSES.name)


@dataclass(frozen=True, slots=True)
class SnapshotRun(Run):
    """A run that takes a snapshot, or publishes one again.

    `is_played`: the clock is set for a day that the sandbox plays, so the day is not published by it.
    Somebody said of this run: `is_fresh`, what an attempt that did not end has gathered does not count;
    `accepts_shrunk`, an inventory that has shrunk is right; `is_moved`, the project has another id or endpoint than on
    the days before. `connect`: how a step reaches its endpoint; steps of one run may share a connection.
    """

    is_played: bool = False
    is_fresh: bool = False
    accepts_shrunk: bool = False
    is_moved: bool = False
    connect: Callable[[Settings, Partition], contextlib.AbstractContextManager[Connection]] = connect

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

    @property
    def observed_by(self) -> Callable[[], dt.datetime]:
        """The clock of answers: the wall's, but for a day that the sandbox plays, whose answers came on that day."""
        return self.now if self.is_played else utc_now

    def publication_time(self) -> dt.datetime:
        """When a manifest that is written now says it was published."""
        return utc_now() if self.is_played else self.now()

    def check_clock(self) -> None:
        """Refuse to publish by a clock that is behind the lake.

        Raises:
            ConfigurationError: names both times.
        """
        check_clock(self.lake, self.partition.project, self.publication_time())

    def check_source(self) -> None:
        """Refuse what would take invented images for real ones, as far as it can be told before anything is asked.

        Raises:
            ConfigurationError: credentials of a cloud are stated and no endpoint; or the lake holds days of a cloud and
                these would be the sandbox's, or the other way round.
        """
        if self.settings.endpoint is None and (stated := stated_credentials(os.environ)):
            raise ConfigurationError(
                f"Credentials of a cloud are stated ({', '.join(stated)}) and no endpoint, so invented images of the "
                "sandbox would be taken: set IMAGE_SNAPSHOTS_ENDPOINT to the cloud's ModelArts endpoint, or to "
                "`sandbox` where the sandbox is meant."
            )
        # What listens on this machine may be a sandbox, too: its answers say so, before anything is published.
        if self.settings.uses_sandbox or not is_on_loopback(self.settings.endpoint or ""):
            self.check_kind(is_sandbox=self.settings.uses_sandbox)

    def check_kind(self, *, is_sandbox: bool) -> None:
        """Refuse a day of the sandbox in a lake that holds any of a cloud, or the other way round.

        Raises:
            ConfigurationError: a project's days are of the other kind.
        """
        for last in newest_manifests(self.lake):
            if last.fetch.is_sandbox and not is_sandbox:
                raise ConfigurationError(
                    f"The lake {self.lake.root} holds days of the sandbox (project {last.project}), which would pass "
                    "for real ones: set IMAGE_SNAPSHOTS_LAKE to another directory, or remove this one."
                )
            if is_sandbox and not last.fetch.is_sandbox:
                raise ConfigurationError(
                    f"The lake {self.lake.root} holds days of {last.fetch.endpoint_host} (project {last.project}), and "
                    "these would be invented ones of the sandbox: set IMAGE_SNAPSHOTS_ENDPOINT, or "
                    "IMAGE_SNAPSHOTS_LAKE to another directory for the sandbox's days."
                )

    def check_project(self, project_id: str, host: str) -> None:
        """Refuse to put the images of one project among those of another, which would then count as removed.

        Raises:
            ConfigurationError: the project's last day came from another project id or endpoint, and nobody said that
                the project moved.
        """
        last = self._last_published()
        if last is None or self.is_moved:
            return
        before = last.fetch
        # The embedded sandbox listens on another port each time.
        same_host = before.endpoint_host.lower() == host.lower() or (before.is_sandbox and self.settings.uses_sandbox)
        if before.project_id == project_id and same_host:
            return
        raise ConfigurationError(
            f"The days of project {self.partition.project!r} in {self.lake.root} are those of the project id "
            f"{before.project_id} at {before.endpoint_host} (the last is {last.snapshot_date}), and this run would ask "
            f"for the project id {project_id} at {host}, so nothing was asked or written: correct the endpoint, "
            "IMAGE_SNAPSHOTS_PROJECTS or the credentials, give the other project a key of its own in "
            "IMAGE_SNAPSHOTS_PROJECTS, or, if this project has moved, say so once with `image-snapshots run "
            "--project-moved`."
        )

    def _last_published(self) -> Manifest | None:
        contents = self.lake.contents.manifests(self.partition.project)
        if not contents:
            return None
        last = max(contents)
        return parse_manifest(contents[last], self.lake.manifest(last))


def start_over(run: SnapshotRun) -> None:
    """Throw away what an attempt that did not end has gathered."""
    directory = run.lake.staging(run.partition)
    directory.remove_tree()


@dataclass(frozen=True, slots=True)
class InventoryResult:
    """The staged inventory. `is_stale`: the source's file is older than the setting allows."""

    facts: InventoryFacts
    file: FileFacts
    is_stale: bool


def take_inventory(run: SnapshotRun) -> InventoryResult:
    """Read the inventory source into the staged `inventory` table; opens the day's attempt, or goes on with it.

    Raises:
        ConfigurationError: the day is not the current one, the project is another than on the days before, or the
            source cannot be read, is empty, or holds too many ids that are none.
        PipelineError: the project's id or the API's list is asked for, and that fails.
    """
    attempt = read_attempt(run.lake, run.partition)
    ended = published(run.lake, run.partition)
    if attempt is not None and ended is not None and ended.started_at == attempt.started_at:
        # Killed between the manifest and the removal of the attempt: the day ended.
        start_over(run)
        attempt = None
    if run.is_fresh:
        attempt = None
    run.check_date(attempt)
    run.check_source()
    run.check_clock()
    attempt = attempt or Attempt(run_id=run.run_id, started_at=run.now())
    path = run.staged(INVENTORY.name)
    # What was accepted for an attempt holds for the run that goes on with it.
    accepted = run.accepts_shrunk or (attempt.inventory is not None and attempt.inventory.is_accepted)
    with run.connect(run.settings, run.partition) as connection:
        project_id = asyncio.run(_project_id(run, connection))
        if run.is_fresh:
            # Nothing refuses the run any more.
            start_over(run)
        # Before anything slow: a lake that cannot be written is found out here.
        write_attempt(run.lake, run.partition, attempt)
        facts = asyncio.run(_read_inventory(run, connection, path, project_id, accepted=accepted))
    file = file_facts(run.lake, path, INVENTORY.name, run.partition)
    taken = {"inventory": facts, "fetch": None, "files": {INVENTORY.name: file}}
    write_attempt(run.lake, run.partition, attempt.model_copy(update=taken))
    limit = dt.timedelta(hours=run.settings.inventory_max_age_hours)
    return InventoryResult(
        facts,
        file,
        is_stale=facts.modified_at is not None and run.now() - facts.modified_at > limit,
    )


async def _project_id(run: SnapshotRun, connection: Connection) -> str | None:
    """The project's id, checked against the days before; None when there are none and the credentials do not say it.

    Raises:
        ConfigurationError: the project is another than on the days before.
        PipelineError: the credentials name the project alone, and the identity service cannot be asked for its id.
    """
    project_id = connection.credentials.project_id
    if project_id is None and run.lake.contents.manifests(run.partition.project):
        async with connection.client(run.observed_by) as client:
            project_id = client.project_id
    if project_id is not None:
        run.check_project(project_id, connection.host)
    return project_id


async def _read_inventory(
    run: SnapshotRun, connection: Connection, path: LakePath, project_id: str | None, *, accepted: bool
) -> InventoryFacts:
    inventory = Inventory(
        snapshot_date=run.partition.date,
        project_key=run.partition.project,
        project_keys=run.settings.project_keys,
        allow_empty=run.settings.allow_empty_inventory,
        max_invalid_ratio=run.settings.max_invalid_ratio,
    )
    source = describe_source(connection.inventory)
    shortfall, is_sandbox = 0, run.settings.uses_sandbox
    with run.lake.writer(path, INVENTORY, run.run_id) as writer:
        if connection.inventory == LISTED:
            async with connection.client(run.observed_by) as client:
                async for batch in inventory.read_listed(_listed_ids(client)):
                    writer.write(batch)
                shortfall, is_sandbox = client.list_shortfall or 0, is_sandbox or client.met_sandbox
        else:
            for batch in inventory.read(connection.inventory, run.settings.inventory_query):
                writer.write(batch)
        if is_sandbox:
            writer.note(SANDBOX_MARK)
        images = known_images(run.lake, run.partition, project_id) if project_id else KnownImages(run.lake, None)
        judgement = judge(
            inventory,
            source.name,
            images,
            shortfall=shortfall,
            max_shrunk_ratio=run.settings.max_shrunk_ratio,
            accepted=accepted,
        )
        read = writer.rows
        if judgement.reason is not None:
            for batch in missing_rows(inventory, images, run.partition.date):
                writer.write(batch)
        added = writer.rows - read
    return InventoryFacts(
        source=source.name,
        kind=source.kind,
        modified_at=source.modified_at,
        shortfall=shortfall,
        compared_with=images.day.date if images.day else None,
        known=judgement.known,
        missing=judgement.missing,
        added=added,
        is_whole=judgement.reason is None,
        is_accepted=judgement.is_accepted,
        reason=judgement.reason,
        **(dataclasses.asdict(inventory.counts) | {"ids": inventory.counts.ids + added}),
    )


async def _listed_ids(client: ModelArtsClient) -> AsyncIterator[str]:
    async for page in client.list_images():
        for item in page.items:
            yield item["id"]


@dataclass(frozen=True, slots=True)
class FetchResult:
    """The staged responses."""

    facts: FetchFacts
    file: FileFacts


def fetch_responses(run: SnapshotRun, on_progress: Callable[[Progress], None]) -> FetchResult:
    """Ask the API for every id of the day's inventory that has no answer yet, and stage the `responses` table.

    Raises:
        TooManyFailuresError: more ids failed than allowed; answers are kept, and the next run asks for the rest.
        PipelineError: no request can succeed, the run was told to stop, or the storage failed.
    """
    attempt = read_attempt(run.lake, run.partition)
    run.check_date(attempt)
    if attempt is None or attempt.inventory is None:
        raise ConfigurationError(f"No inventory was taken for {run.partition}: run `image_inventory` first.")
    _check_staged(run, attempt, [INVENTORY.name])
    with run.connect(run.settings, run.partition) as connection:
        facts = asyncio.run(_fetch_responses(run, attempt, connection, on_progress))
    total = sum(facts.outcomes.values())
    if facts.failed > run.settings.max_failed_ratio * total:
        raise TooManyFailuresError(
            f"{facts.failed} of {total} images of {run.partition} could not be fetched, more than "
            f"IMAGE_SNAPSHOTS_MAX_FAILED_RATIO ({run.settings.max_failed_ratio:g}) allows, so nothing was published. "
            f"{_most_common_errors(run)} Run again today to ask for those alone."
        )
    names = (LIST_PAGES.name, NOTEBOOKS.name, RESPONSES.name)
    files = attempt.files | {name: file_facts(run.lake, run.staged(name), name, run.partition) for name in names}
    attempt = read_attempt(run.lake, run.partition) or attempt
    write_attempt(run.lake, run.partition, attempt.model_copy(update={"fetch": facts, "files": files}))
    return FetchResult(facts, files[RESPONSES.name])


def _check_staged(run: SnapshotRun, attempt: Attempt, names: Iterable[str]) -> None:
    """Refuse staged files that are not as they were written.

    Raises:
        StorageError: the first that is not.
    """
    for name in names:
        path = run.staged(name)
        if name not in attempt.files or path.sha256() != attempt.files[name].sha256:
            raise StorageError(
                f"{path} is not as it was written: the storage damaged it, or somebody changed it. Nothing was "
                "published from it; run again today to write it anew, from the answers that are kept."
            )


async def _fetch_responses(
    run: SnapshotRun, attempt: Attempt, connection: Connection, on_progress: Callable[[Progress], None]
) -> FetchFacts:
    inventory, started_at = run.staged(INVENTORY.name), run.now()
    directory = run.lake.staging(run.partition)
    async with connection.client(run.observed_by) as client:
        # Again, because this step may be run alone.
        run.check_project(client.project_id, connection.host)
        asked = f"{connection.endpoint} {client.project_id}"

        def is_sandbox() -> bool:
            return run.settings.uses_sandbox or client.met_sandbox or attempt.sandbox == asked

        def note_sandbox() -> None:
            # Of a run that finds every answer stored, nothing else says where they are from.
            nonlocal attempt
            if client.met_sandbox and attempt.sandbox != asked:
                attempt = attempt.model_copy(update={"sandbox": asked})
                write_attempt(run.lake, run.partition, attempt)

        staging = Staging(run.lake, directory, run.partition.date, client.project_id, run.run_id, is_sandbox)
        # Of another attempt, which ended and was not quite tidied up, nothing is taken over.
        subject = f"{asked} {attempt.started_at.isoformat()}"
        with contextlib.closing(open_checkpoint(directory, subject)) as store:
            total = store.want(inventory_ids(inventory))
            for answers in invalid_responses(inventory, started_at):
                store.put(answers)
            store.forget()
            drop_damaged(store, store.damaged())
            kept = store.outcomes().total() - store.outcomes()[Outcome.INVALID_ID]
            list_was_read = run.settings.mode == "changed" and await _carry_forward(run, client, staging, store)
            outcomes = store.outcomes()
            progress = Progress(total, outcomes.total(), time.monotonic(), outcomes)
            ask = functools.partial(
                fetch,
                client,
                store,
                progress,
                run.settings.concurrency,
                lambda: run.check_date(attempt),
                on_progress,
                note_sandbox,
            )
            reads_list = run.settings.reconcile and not list_was_read
            # One page after the other, which would make a fetch half as long again.
            beside = asyncio.create_task(
                read_beside(
                    client, staging, store, progress, reads_list=reads_list, reads_usage=run.settings.reads_usage
                )
            )
            try:
                await ask()
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
                drop_damaged(store, damaged)
                for answers in invalid_responses(inventory, started_at):
                    store.put(answers)
                progress.outcomes = store.outcomes()
                await ask()
            else:
                raise StorageError(
                    f"{len(damaged)} answers in {directory} are again not as they were stored: the storage damages "
                    "what is written to it, so nothing was published."
                )
            write_notebooks(staging, store)
            return FetchFacts(
                project_id=client.project_id,
                endpoint_host=connection.host,
                is_sandbox=is_sandbox(),
                mode=run.settings.mode,
                started_at=started_at,
                finished_at=run.now(),
                outcomes=dict(sorted(store.outcomes().items())),
                kept=kept,
                carried=store.carried(),
                list_was_read=list_was_read,
                list_error=list_error,
                list_shortfall=client.list_shortfall or 0 if list_was_read else 0,
                notebooks_were_read=run.settings.reads_usage and notebooks_error is None,
                notebooks_error=notebooks_error,
                notebooks_skipped=client.notebooks_skipped or 0,
                requests=client.stats.requests,
                retries=client.stats.retries,
                throttled=client.stats.throttled,
                token_renewals=client.stats.token_renewals,
                bytes_received=client.stats.bytes_received,
                clock_skew_seconds=client.stats.clock_skew_seconds,
            )


async def _carry_forward(run: SnapshotRun, client: ModelArtsClient, staging: Staging, store: Checkpoint) -> bool:
    """Carry answers forward from the last complete day; False when there is none, and the list was not read."""
    responses = last_complete_responses(run.lake, run.partition, client.project_id)
    if responses is None:
        return False
    await read_list(client, staging, store.listed)
    carry_forward(store, responses, run.now() - dt.timedelta(days=run.settings.full_refresh_days))
    return True


def _most_common_errors(run: SnapshotRun) -> str:
    codes = Counter(failed.error_code or "no error code" for failed in failed_ids(run.staged(RESPONSES.name)))
    return "Most common: " + ", ".join(f"{code} ({count})" for code, count in codes.most_common(3)) + "."


@dataclass(frozen=True, slots=True)
class Publication:
    """A published partition and what deriving it brought to light."""

    manifest: Manifest
    built: BuiltTables


def publish_snapshot(run: SnapshotRun) -> Publication:
    """Derive `images` and `image_values`, validate the day and publish it.

    With answers fetched by an open attempt this ends the attempt. Without, a published day is derived again from its
    own stored answers.

    Raises:
        ValidationError: a table breaks its contract; nothing was published.
        StorageError: the published answers are not what the manifest says.
        ConfigurationError: there is neither an attempt that has its answers nor a published day, or retention removed
            what the published day would be derived from; or the lake holds days of a cloud and this one is the
            sandbox's, or the other way round.
    """
    run.check_clock()
    attempt = read_attempt(run.lake, run.partition)
    if attempt is not None and attempt.inventory is not None and attempt.fetch is not None:
        _check_staged(run, attempt, _EVIDENCE)
        evidence = {name: run.staged(name) for name in _EVIDENCE}
        directory = run.lake.staging(run.partition)
        publication = _publish(
            run, evidence, directory, attempt.started_at, attempt.inventory, attempt.fetch, rebuilt=False
        )
        start_over(run)
        return publication
    manifest = published_or_error(run.lake, run.partition, "nothing can be derived again")
    check_derivable(run.lake, run.partition, RetentionRecords(run.lake, run.partition.project))
    evidence = {name: run.lake.table(name, run.partition) for name in _EVIDENCE}
    for name, path in evidence.items():
        if name not in manifest.files or path.sha256() != manifest.files[name].sha256:
            raise StorageError(
                f"{path} is not the file that the manifest of {run.partition} names: the evidence was changed. "
                "`image-snapshots verify` says what else was; restore the file from a backup."
            )
    directory = run.lake.rebuilding(run.partition)
    publication = _publish(
        run, evidence, directory, manifest.started_at, manifest.inventory, manifest.fetch, rebuilt=True
    )
    directory.remove_tree()
    return publication


def _publish(
    run: SnapshotRun,
    evidence: dict[str, LakePath],
    directory: LakePath,
    started_at: dt.datetime,
    inventory: InventoryFacts,
    fetch: FetchFacts,
    *,
    rebuilt: bool,
) -> Publication:
    built = build_tables(run.lake, evidence[RESPONSES.name], directory, run.run_id)
    files = evidence | {name: directory / f"{name}.parquet" for name in (IMAGES.name, IMAGE_VALUES.name)}
    validate(run.partition, fetch.project_id, files, inventory.ids, fetch.outcomes)
    with open_witness(run.settings.witness, run.lake) as note, run.lake.founding():
        run.check_kind(is_sandbox=fetch.is_sandbox)
        manifest = publish(
            run.lake,
            run.partition,
            files,
            run_id=run.run_id,
            started_at=started_at,
            published_at=run.publication_time(),
            rebuilt=rebuilt,
            inventory=inventory,
            fetch=fetch,
        )
        note(manifest)
    return Publication(manifest, built)
