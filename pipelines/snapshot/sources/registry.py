"""Reads the registry: all tags of the repositories of some namespaces, and the layers of each.

A repository that may not be read costs what it could share layers with, so the facts name it. The registry is asked
last, because images name the namespaces and repositories that are read.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pyarrow as pa

from pipelines.cloud.registry import ManifestClient, RegistryClient, RegistryLogin, RegistryPage
from pipelines.errors import ListDeniedError, ListMissingError, ListUnreadableError, PipelineError, StorageError
from pipelines.lake.manifests import RegistryFacts, SourceFacts, UnreadRepository
from pipelines.lake.parquet_files import TableWriter, read_batches
from pipelines.lake.storage import LakePath
from pipelines.snapshot.checkpoint import Checkpoint
from pipelines.snapshot.sources.registry_bodies import (
    Repository,
    Tag,
    layers_of,
    repository_named,
    repository_of,
    tag_of,
)
from pipelines.snapshot.staging import Staging
from pipelines.tables import REGISTRY_LAYERS, REGISTRY_PAGES, REGISTRY_TAGS

_BATCH_ROWS = 4_096
_PAGES_A_GROUP = 64
# A list of manifests may list further lists.
_MOST_DEPTH = 3
_MANY = 20
# So many lists in a row fail before the registry is taken to be down.
_MOST_FAULTS = 2


@dataclass(slots=True)
class RegistryReading:
    """The reading of a registry on a day.

    `stated`: the namespaces to read; None for all that the user may see, and empty for those that images name.
    `open_client` and `open_manifests` make the clients. At most `concurrency` repositories are read at once.
    """

    open_client: Callable[[], RegistryClient]
    open_manifests: Callable[[RegistryLogin], ManifestClient]
    store: Checkpoint
    staging: Staging
    stated: tuple[str, ...] | None
    concurrency: int
    _pages: int = 0
    _requests: int = 0
    _skipped: int = 0
    _writer: TableWriter | None = None
    _namespaces: list[str] = field(default_factory=list)
    _unread: list[UnreadRepository] = field(default_factory=list)

    async def read(self, responses: LakePath) -> tuple[SourceFacts, RegistryFacts]:
        """Read the registry, and stage its tables; `responses` is the staged file of the day.

        Raises:
            StorageError: the storage failed. Errors of the registry are in the facts and do not end the run.
        """
        named = self._named(responses)
        error: str | None = None
        with ExitStack() as stack:
            self._writer = stack.enter_context(self.staging.writer(REGISTRY_PAGES, _PAGES_A_GROUP))
            try:
                await self._read(named)
            except StorageError:
                raise
            except PipelineError as reason:
                # A day may be published without the registry. What is half read proves nothing.
                error = str(reason)
                with self.store.transaction():
                    self.store.registry.clear()
                stack.__exit__(type(reason), reason, reason.__traceback__)
        if error is not None:
            self._namespaces, self._unread = [], []
        write_registry(self.staging, self.store, pages=error is not None)
        return self._facts(error)

    def _named(self, responses: LakePath) -> list[str]:
        """Note the repositories that images name; returns their namespaces."""
        with self.store.transaction():
            self.store.registry.clear()
            for batch in read_batches(responses, _BATCH_ROWS, ["body"]):
                bodies = (body for body in batch["body"].to_pylist() if body is not None)
                named = {found for body in bodies if (found := repository_named(body)) is not None}
                self.store.registry.want(sorted(named))
            return self.store.registry.namespaces()

    async def _read(self, named: list[str]) -> None:
        async with self.open_client() as client:
            try:
                await self._read_repositories(client, named)
                repositories = self.store.registry.repositories(self._namespaces)
                await in_turns(repositories, lambda one: self._read_tags(client, one), self.concurrency)
                if self.store.registry.lists():
                    await self._read_lists(client)
            finally:
                self._requests += client.requests
        if self._unread and not self._pages:
            # Nothing was shown, which is not the same as nothing stored.
            raise ListUnreadableError(self._unread[0].reason)
        for namespace, repository, tags in self.store.registry.unknown():
            words = "the layers of one tag are" if tags == 1 else f"the layers of {tags} tags are"
            self._note_unread(namespace, repository, f"{words} not known")

    async def _read_repositories(self, client: RegistryClient, named: list[str]) -> None:
        wanted, faults = list(self.stated or named), 0
        for namespace in [None] if self.stated is None else wanted:
            try:
                async for page in client.repositories(namespace):
                    self._keep("repositories", namespace, None, page)
                    found = [repository_of(item) for item in page.items]
                    # An API that ignores the filter shows those of other namespaces.
                    of_it = [one for one in found if one and namespace in (None, one.namespace)]
                    self._skipped += found.count(None)
                    with self.store.transaction():
                        self.store.registry.note(of_it)
                    if page.shortfall and namespace is not None:
                        self._note_unread(namespace, None, f"its list counts {page.shortfall} repositories more")
                    elif page.shortfall:
                        self._fail_short(client, page.shortfall)
            except ListUnreadableError as error:
                faults += not isinstance(error, ListDeniedError | ListMissingError)
                if namespace is None or (faults >= _MOST_FAULTS and not self._pages):
                    raise
                self._note_unread(namespace, None, str(error))
        self._namespaces = self.store.registry.namespaces() if self.stated is None else wanted

    @staticmethod
    def _fail_short(client: RegistryClient, shortfall: int) -> None:
        raise ListUnreadableError(
            f"The repository list of {client.host} counts {shortfall} repositories that it does not show."
        )

    async def _read_tags(self, client: RegistryClient, repository: Repository) -> None:
        pages = 0
        try:
            async for page in client.tags(repository.namespace, repository.name):
                self._keep("tags", repository.namespace, repository.name, page)
                pages += 1
                found = [tag_of(item) for item in page.items]
                tags: list[Tag] = [one for one in found if one is not None]
                with self.store.transaction():
                    self.store.registry.add(repository, tags, page.observed_at)
                skipped = len(found) - len(tags)
                self._skipped += skipped
                if lacking := skipped + page.shortfall:
                    self._note_unread(*repository[:2], f"{lacking} of its tags are not shown")
        except ListMissingError as error:
            # The registry says that there is none, so it has no tags; but it has shown some of one deleted meanwhile.
            if pages:
                self._note_unread(*repository[:2], str(error))
        except ListUnreadableError as error:
            self._note_unread(*repository[:2], str(error))

    async def _read_lists(self, client: RegistryClient) -> None:
        """Read the manifests that manifest lists name. Layers that cannot be had stay unknown."""
        try:
            login = await client.login()
            async with self.open_manifests(login) as manifests:
                try:
                    for digest, namespace, repository, listed in self.store.registry.lists():
                        layers = await self._layers(manifests, namespace, repository, listed, 1)
                        if layers is not None:
                            with self.store.transaction():
                                self.store.registry.set_layers(digest, layers.items())
                finally:
                    self._requests += manifests.requests
        except StorageError:
            raise
        except PipelineError as error:
            # `unknown` finds the tags without layers.
            self._note_unread(None, None, str(error))

    async def _layers(
        self, client: ManifestClient, namespace: str, repository: str, digests: list[str], depth: int
    ) -> dict[str, int] | None:
        found: dict[str, int] = {}
        for digest in digests:
            known = self.store.registry.layers(digest)
            if known is None:
                try:
                    page = await client.manifest(namespace, repository, digest)
                except ListUnreadableError as error:
                    self._note_unread(namespace, repository, str(error))
                    return None
                self._keep("manifest", namespace, repository, page)
                content = layers_of(page.items[0])
                if content.layers is not None:
                    known = dict(content.layers)
                elif content.manifests and depth < _MOST_DEPTH:
                    known = await self._layers(client, namespace, repository, list(content.manifests), depth + 1)
            if known is None:
                return None
            found |= known
        return found

    def _keep(self, kind: str, namespace: str | None, repository: str | None, page: RegistryPage) -> None:
        assert self._writer is not None  # noqa: S101
        digest = hashlib.sha256(page.body).hexdigest()
        about = (self.staging.date, self.staging.project_id, self._pages, kind, namespace, repository)
        row = (*about, page.observed_at, page.body, digest)
        arrays = [pa.array([value], one.type) for value, one in zip(row, REGISTRY_PAGES.schema, strict=True)]
        self._writer.write(pa.RecordBatch.from_arrays(arrays, schema=REGISTRY_PAGES.schema))
        self._pages += 1

    def _note_unread(self, namespace: str | None, repository: str | None, reason: str) -> None:
        if not any((one.namespace, one.repository) == (namespace, repository) for one in self._unread[-_MANY:]):
            self._unread.append(UnreadRepository(namespace=namespace, repository=repository, reason=reason))

    def _facts(self, error: str | None) -> tuple[SourceFacts, RegistryFacts]:
        unread = sorted(self._unread, key=lambda one: (one.namespace or "", one.repository or ""))
        source = SourceFacts(
            wanted=True,
            was_read=error is None,
            error=error,
            partial=_in_words(unread),
            items=self.store.registry.tags(),
            requests=self._requests,
            skipped=self._skipped,
        )
        origin = "all" if self.stated is None else "stated" if self.stated else "images"
        return source, RegistryFacts(namespaces=sorted(self._namespaces), origin=origin, unread=unread)


async def in_turns(
    repositories: Iterator[Repository], work: Callable[[Repository], Awaitable[None]], concurrency: int
) -> None:
    """Run `work` for each repository, at most `concurrency` at once; the first error stops all."""

    async def worker() -> None:
        for repository in repositories:
            await work(repository)

    workers = [asyncio.create_task(worker()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*workers)
    finally:
        for one in workers:
            one.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def write_registry(staging: Staging, store: Checkpoint, *, pages: bool = True) -> None:
    """Write the stored tags and layers to their staged tables, and an empty table of `pages` unless that is written."""
    if pages:
        with staging.writer(REGISTRY_PAGES):
            pass
    for table, batches in (
        (REGISTRY_TAGS, store.registry.tag_batches),
        (REGISTRY_LAYERS, store.registry.layer_batches),
    ):
        with staging.writer(table) as writer:
            for batch in batches(staging.date, staging.project_id):
                writer.write(batch)


def _in_words(unread: list[UnreadRepository]) -> str | None:
    if not unread:
        return None
    names = ["/".join(part for part in (one.namespace, one.repository) if part) for one in unread]
    named = [name for name in dict.fromkeys(names) if name]
    shown = ", ".join(named[:_MANY]) + (f" and {len(named) - _MANY} others" if len(named) > _MANY else "")
    return f"not read, or not as a whole: {shown or 'manifest lists'} ({unread[0].reason.rstrip('.')})"
