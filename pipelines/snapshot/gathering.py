"""Requests all that a run needs after its inventory: details, the image list, usage, traces, the registry, the bill.

The order of these parts, and their facts for the manifest, belong here. How each part is read belongs to its own
module.
"""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from pipelines.cloud.classification import ImageResponse
from pipelines.cloud.modelarts import ModelArtsClient
from pipelines.errors import StorageError
from pipelines.lake.manifests import (
    BILLS,
    REGISTRY,
    TRACES,
    Attempt,
    EarlyTables,
    FetchFacts,
    RegistryFacts,
    SourceFacts,
    changes_since,
    last_complete_day,
    read_manifest,
    write_attempt,
)
from pipelines.snapshot.build_process import BuildProcess
from pipelines.snapshot.checkpoint import Checkpoint, open_checkpoint
from pipelines.snapshot.connection import REGISTRY_CONNECTIONS, Connection
from pipelines.snapshot.fetch import (
    Progress,
    drop_damaged,
    fetch,
    invalid_responses,
    inventory_ids,
    stoppable,
    write_bills,
    write_references,
    write_responses,
    write_traces,
)
from pipelines.snapshot.image_list import ImageListReading
from pipelines.snapshot.incremental import carry_forward, last_complete_responses
from pipelines.snapshot.scope import Scope, find_scope, known_workspaces
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.sources.bills import read_bills
from pipelines.snapshot.sources.registry import RegistryReading, write_registry
from pipelines.snapshot.sources.resources import Resource
from pipelines.snapshot.sources.store import earlier_resources
from pipelines.snapshot.sources.traces import read_traces
from pipelines.snapshot.sources.usage import UsageReading, together
from pipelines.snapshot.staging import Staging
from pipelines.tables import INVENTORY, RESPONSES, Outcome

_TRIES_TO_STORE = 3
# Building the tables of fewer images takes about a second, half of which another process takes to start.
_MANY_IMAGES = 100_000
_ACCEPTED_POLL_SECONDS = 0.05
# Parsing each body again would cost more than everything else done with it. A workspace that this overlooks is found
# when the day is published.
_WORKSPACE = re.compile(rb'"workspace_id"\s*:\s*"([^"\\]*)"')


async def gather(
    run: SnapshotRun, attempt: Attempt, connection: Connection, on_progress: Callable[[Progress], None]
) -> tuple[FetchFacts, EarlyTables | None]:
    """Request everything that the day lacks, and stage the responses; of a large day also the tables of its images.

    Raises:
        PipelineError: no request can succeed, the run was told to stop, or the storage failed.
    """
    async with connection.client(run.observed_by) as client:
        # Checked again, because this step may be run alone.
        run.check_project(client.project_id, connection.host)
        asked = f"{connection.endpoint} {client.project_id}"
        # The subject names the attempt: nothing is reused from an earlier attempt whose files were not all removed.
        subject = f"{asked} {attempt.started_at.isoformat()}"
        with contextlib.closing(open_checkpoint(run.lake.staging(run.partition), subject)) as store:
            scope = await find_scope(client, run.settings.stated_workspaces, known_workspaces(run.lake, run.partition))
            gathering = _Gathering(run, attempt, connection, on_progress, client, store, scope, asked)
            return await gathering.gather()


@dataclass(slots=True)
class _Gathering:
    """The state that the steps of `gather` share."""

    run: SnapshotRun
    attempt: Attempt
    connection: Connection
    on_progress: Callable[[Progress], None]
    client: ModelArtsClient
    store: Checkpoint
    scope: Scope
    asked: str
    progress: Progress = dataclasses.field(init=False)
    details_are_there: asyncio.Event = dataclasses.field(init=False, default_factory=asyncio.Event)

    async def gather(self) -> tuple[FetchFacts, EarlyTables | None]:
        settings, store = self.run.settings, self.store
        started_at = self.run.now()
        total = self._resume(started_at)
        kept = store.outcomes().total() - store.outcomes()[Outcome.INVALID_ID]
        staging = self._staging()
        responses = None
        if settings.mode == "changed":
            responses = last_complete_responses(self.run.lake, self.run.partition, self.client.project_id)
        reads_list = settings.reconcile or responses is not None
        with ImageListReading(
            self.client, self.scope, staging, store.image_list if responses is not None else None
        ) as image_list:
            if responses is not None:
                await image_list.read()
                if image_list.error is not None:
                    raise image_list.error
                oldest = self.run.now() - dt.timedelta(days=settings.full_refresh_days)
                carry_forward(store, responses, oldest)
            outcomes = store.outcomes()
            self.progress = Progress(total, outcomes.total(), time.monotonic(), outcomes)
            usage = UsageReading(
                self.client, self.scope, store, settings.usage_sources, settings.concurrency, self._earlier()
            )
            async with self._beside(image_list if reads_list else None, usage):
                await self._ask()
            traces = await self._read_traces()
            bills = await self._read_bills()
        early = await self._write_responses(staging, started_at)
        registry, registry_facts = await self._read_registry(staging)
        sources = usage.end() | {TRACES: traces, REGISTRY: registry, BILLS: bills}
        write_references(staging, store)
        write_traces(staging, store)
        write_bills(staging, store)
        return self._facts(started_at, kept, image_list, sources, registry_facts), early

    def _facts(
        self,
        started_at: dt.datetime,
        kept: int,
        image_list: ImageListReading,
        sources: dict[str, SourceFacts],
        registry: RegistryFacts | None,
    ) -> FetchFacts:
        """What the manifest says of the fetch, once everything is read."""
        store, stats = self.store, self.client.stats
        return FetchFacts(
            project_id=self.client.project_id,
            endpoint_host=self.connection.host,
            is_sandbox=self._is_sandbox(),
            mode=self.run.settings.mode,
            started_at=started_at,
            finished_at=self.run.now(),
            outcomes=dict(sorted(store.outcomes().items())),
            kept=kept,
            carried=store.carried(),
            list_was_read=image_list.was_read,
            list_error=str(image_list.error) if image_list.error is not None else None,
            list_shortfall=image_list.shortfall,
            scope=self.scope.facts,
            sources=sources,
            registry=registry,
            requests=stats.requests,
            retries=stats.retries,
            throttled=stats.throttled,
            token_renewals=stats.token_renewals,
            bytes_received=stats.bytes_received,
            clock_skew_seconds=stats.clock_skew_seconds,
        )

    def _resume(self, started_at: dt.datetime) -> int:
        """Keep the undamaged stored responses to ids of this inventory; returns the number of ids."""
        inventory = self.run.staged(INVENTORY.name)
        total = self.store.want(inventory_ids(inventory))
        for responses in invalid_responses(inventory, started_at):
            self.store.put(responses)
        self.store.forget()
        drop_damaged(self.store, self.store.damaged())
        return total

    async def _ask(self) -> None:
        await fetch(
            self.client,
            self.store,
            self.progress,
            self.run.settings.concurrency,
            lambda: self.run.check_date(self.attempt),
            self.on_progress,
            self._note,
        )

    def _note(self, responses: list[ImageResponse]) -> None:
        """Note what the responses say beyond the images: their workspaces, and whether a sandbox invented them."""
        for response in responses:
            if response.body is not None and (stated := _WORKSPACE.search(response.body)):
                self.scope.note(stated[1].decode("utf-8", "replace"))
        # If a later run finds every response stored, only this note says where they come from.
        if self.client.met_sandbox and self.attempt.sandbox != self.asked:
            self.attempt = self.attempt.model_copy(update={"sandbox": self.asked})
            write_attempt(self.run.lake, self.run.partition, self.attempt)

    def _is_sandbox(self) -> bool:
        return self.run.settings.uses_sandbox or self.client.met_sandbox or self.attempt.sandbox == self.asked

    def _staging(self) -> Staging:
        run = self.run
        return Staging(
            run.lake,
            run.lake.staging(run.partition),
            run.partition.date,
            self.client.project_id,
            run.run_id,
            self._is_sandbox,
        )

    @contextlib.asynccontextmanager
    async def _beside(self, image_list: ImageListReading | None, usage: UsageReading) -> AsyncIterator[None]:
        """Read the image list and the sources of usage while the block fetches details.

        Pages are requested one after the other. Reading them after the details would make a fetch half as long again.
        """
        beside = asyncio.create_task(self._read_beside(image_list, usage))
        try:
            yield
            self.details_are_there.set()
            async with stoppable(self.progress):
                await beside
        finally:
            beside.cancel()
            await asyncio.gather(beside, return_exceptions=True)

    async def _read_beside(self, image_list: ImageListReading | None, usage: UsageReading) -> None:
        # Wait for one accepted request, so that a 403 on the list is not taken for bad credentials.
        while not self.client.was_accepted and not self.details_are_there.is_set():  # noqa: ASYNC110  (no event)
            await asyncio.sleep(_ACCEPTED_POLL_SECONDS)
        while True:
            known = len(self.scope.workspaces)
            await together([usage.read(), *([image_list.read()] if image_list is not None else [])])
            if len(self.scope.workspaces) > known:
                continue
            if self.details_are_there.is_set():
                return
            # Details may name workspaces that no list names.
            await self.details_are_there.wait()

    async def _read_traces(self) -> SourceFacts:
        if not self.run.settings.reads_traces:
            return SourceFacts(wanted=False)
        before = last_complete_day(self.run.lake, self.run.partition)
        since = None if before is None else changes_since(read_manifest(self.run.lake.manifest(before)))
        async with stoppable(self.progress):
            return await read_traces(
                lambda: self.connection.traces_client(self.run.observed_by), self.store, self.run.now(), since
            )

    async def _read_registry(self, staging: Staging) -> tuple[SourceFacts, RegistryFacts | None]:
        settings, observed_by = self.run.settings, self.run.observed_by
        if not settings.reads_registry:
            write_registry(staging, self.store)
            return SourceFacts(wanted=False), None
        reading = RegistryReading(
            lambda: self.connection.registry_client(observed_by),
            lambda login: self.connection.manifest_client(login, observed_by),
            self.store,
            staging,
            settings.stated_namespaces,
            min(REGISTRY_CONNECTIONS, settings.concurrency),
        )
        async with stoppable(self.progress):
            return await reading.read(self.run.staged(RESPONSES.name))

    async def _read_bills(self) -> SourceFacts:
        access = self.connection.bill_access(self.run.observed_by)
        if access is None:
            return SourceFacts(wanted=False)
        async with stoppable(self.progress):
            return await read_bills(
                access, self.store, self.client.project_id, self.run.partition.date, self.run.observed_by
            )

    async def _write_responses(self, staging: Staging, started_at: dt.datetime) -> EarlyTables | None:
        """Stage the responses. Those that were damaged since they were stored are requested again.

        Returns:
            The tables of images, if there are enough of them to be built meanwhile.

        Raises:
            StorageError: responses are damaged again each time.
        """
        for _ in range(_TRIES_TO_STORE):
            with contextlib.ExitStack() as stack:
                beside = None
                if self.progress.total >= _MANY_IMAGES:
                    process = BuildProcess(
                        self.run.lake, self.run.partition, self.run.run_id, is_sandbox=self._is_sandbox()
                    )
                    beside = stack.enter_context(process)
                damaged = write_responses(staging, self.store, beside)
                if not damaged:
                    return None if beside is None else beside.end()
            drop_damaged(self.store, damaged)
            for responses in invalid_responses(self.run.staged(INVENTORY.name), started_at):
                self.store.put(responses)
            self.progress.outcomes = self.store.outcomes()
            await self._ask()
        raise StorageError(
            f"{len(damaged)} responses in {staging.directory} are damaged again: the storage damages "
            "what is written to it, so nothing was published."
        )

    def _earlier(self) -> Callable[[str], dict[str, Resource]]:
        """A function that finds the resources of a kind on the last complete day, by id; it reads that day once."""
        found: dict[str, dict[str, Resource]] | None = None

        def find(kind: str) -> dict[str, Resource]:
            nonlocal found
            if found is None:
                found = {}
                day = last_complete_day(self.run.lake, self.run.partition)
                if day is not None:
                    found = earlier_resources(self.run.lake, day)
            return found.get(kind, {})

        return find
