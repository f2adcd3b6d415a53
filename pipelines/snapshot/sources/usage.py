"""Who uses images: reads the wanted sources of usage, each on its own, as far as each can be read."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any

from pipelines.cloud.modelarts import ModelArtsClient
from pipelines.errors import ListUnreadableError
from pipelines.lake.manifests import SourceFacts
from pipelines.snapshot.checkpoint import Checkpoint
from pipelines.snapshot.scope import Scope
from pipelines.snapshot.sources import algorithms, models, notebooks, services, training_jobs, workflows
from pipelines.snapshot.sources.resources import Resource, Session
from pipelines.tables import USAGE_SOURCES

_READERS: dict[str, Callable[[Session], AsyncIterator[list[Resource]]]] = {
    "notebooks": notebooks.read,
    "training_jobs": training_jobs.read,
    "algorithms": algorithms.read,
    "models": models.read,
    "services": services.read,
    "workflows": workflows.read,
}


class UsageReading:
    """The reading of all wanted sources; `read` may be called again when further workspaces became known."""

    def __init__(
        self,
        client: ModelArtsClient,
        scope: Scope,
        store: Checkpoint,
        wanted: Sequence[str],
        concurrency: int,
        earlier: Callable[[str], dict[str, Resource]],
    ) -> None:
        self._client = client
        self._store = store
        self._sessions = {name: Session(client, scope, concurrency, earlier) for name in wanted}
        self._errors: dict[str, str] = {}

    async def read(self) -> None:
        """Read each source in the workspaces in which it was not read yet.

        Raises:
            PipelineError: no request can succeed, or the storage failed.
        """
        await together(self._read(name, session) for name, session in self._sessions.items())

    async def _read(self, name: str, session: Session) -> None:
        if name in self._errors:
            return
        try:
            async for resources in _READERS[name](session):
                with self._store.transaction():
                    self._store.references.add(resources)
        except ListUnreadableError as error:
            # A day may be published without it. What was shown before the error is kept: a use is a use.
            self._errors[name] = str(error)

    def end(self) -> dict[str, SourceFacts]:
        """What became of each source, when all are read."""
        for name, session in self._sessions.items():
            if name not in self._errors and session.missing:
                # Unlike an image that is not listed, a resource that is not listed makes an image look unused.
                what = session.readings[0].listing.what
                self._errors[name] = (
                    f"The {what} list of {self._client.host} counts {session.missing} items that were on none of its "
                    "pages."
                )
        with self._store.transaction():
            unresolved = self._store.references.resolve()
        return {name: self._facts(name, unresolved.get(kind, 0)) for name, kind in USAGE_SOURCES.items()}

    def _facts(self, name: str, unresolved: int) -> SourceFacts:
        session = self._sessions.get(name)
        if session is None:
            return SourceFacts(wanted=False)
        partial = session.partial
        skipped = sum(reading.skipped for reading in session.readings)
        if skipped:
            partial = f"{skipped} of its items have no id"
        if unresolved:
            via = "models" if name == "services" else "algorithms"
            partial = f"{unresolved} of them use an image by {via} that were not read, or are not there"
        return SourceFacts(
            wanted=True,
            was_read=name not in self._errors,
            error=self._errors.get(name),
            partial=None if name in self._errors else partial,
            items=sum(reading.items for reading in session.readings),
            requests=sum(reading.requests for reading in session.readings),
            skipped=skipped,
            unresolved=unresolved,
        )


async def together(readings: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Await all; the first error ends the others."""
    tasks = [asyncio.create_task(reading) for reading in readings]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
