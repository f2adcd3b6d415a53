"""What the sources of usage share: resources that name images, and the session that reads a source.

A source is a module with a function `read(session)` that yields lists of `Resource`. Not here: which resources count as
usage of an image, and how references are matched to images (`derive.usage`).
"""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from pipelines.bodies.image_reference import ImageReference, parse_reference
from pipelines.bodies.json_text import text_or_none
from pipelines.bodies.list_page import id_of, text_at, value_at
from pipelines.cloud.modelarts import ModelArtsClient
from pipelines.cloud.paging import Listing
from pipelines.cloud.service import Reading
from pipelines.snapshot.scope import Scope

RUNNING, REQUIRED, PAST, COPIED = "running", "required", "past", "copied"

# A time outside of this range is not the time of a resource.
_FIRST_MS, _LAST_MS = 0, 4_102_444_800_000


@dataclass(frozen=True, slots=True)
class Resource:
    """What is kept of a resource.

    Everything else that the API sends, such as access tokens and environment variables, is dropped.

    `images`: the images that the resource itself names, each with a strength. `via_ids`: the models or algorithms
    through which it uses images; `strength` says how it uses those. `has_image`: whether the resource may have an
    image.
    """

    kind: str
    id: str
    name: str | None
    status: str | None
    workspace_id: str | None
    user: str | None
    observed_at: dt.datetime
    strength: str = REQUIRED
    has_image: bool = True
    images: tuple[tuple[ImageReference, str], ...] = ()
    via_ids: tuple[str, ...] = ()
    last_active_at: dt.datetime | None = None
    updated_at: dt.datetime | None = None


@dataclass(slots=True)
class _ListState:
    """The number of workspaces of the scope in which a list was read."""

    reading: Reading
    workspaces: int = 0


@dataclass(slots=True)
class Session:
    """The reading of one source, and what it found.

    If further workspaces become known, the source is read again in these alone. `earlier` finds the resources of a kind
    on the last complete day, by id. At most `concurrency` details are requested at once. `users` are the owners of the
    resources that were shown. `partial` says why the source may show fewer resources than there are.
    """

    client: ModelArtsClient
    scope: Scope
    concurrency: int
    earlier: Callable[[str], dict[str, Resource]]
    users: set[str] = field(default_factory=set)
    partial: str | None = None
    _lists: dict[int, _ListState] = field(default_factory=dict)

    @property
    def readings(self) -> list[Reading]:
        """The reading of each list of the source."""
        return [state.reading for state in self._lists.values()]

    @property
    def missing(self) -> int:
        """How many resources the lists count but show on none of their pages."""
        return sum(max(0, reading.shortfall - reading.skipped) for reading in self.readings)

    async def resources_of(
        self, listing: Listing, reduce: Callable[[dict[str, Any], dt.datetime], Resource]
    ) -> AsyncIterator[list[Resource]]:
        """Read a list in the workspaces that were not read yet, or once if the list does not take a workspace.

        Raises:
            ListUnreadableError: a page cannot be read.
            PipelineError: no request can succeed.
        """
        state = self._lists.setdefault(id(listing), _ListState(Reading(listing)))
        while state.workspaces < (len(self.scope.workspaces) if listing.workspace else 1):
            workspace = self.scope.workspaces[state.workspaces] if listing.workspace else None
            async for resources in self.client.rows(state.reading, workspace, reduce):
                for resource in resources:
                    self.scope.note(resource.workspace_id)
                    self.users |= {resource.user} if resource.user else set()
                yield resources
            state.workspaces += 1

    async def with_details(
        self,
        listing: Listing,
        resources: list[Resource],
        path: str,
        add: Callable[[Resource, dict[str, Any]], Resource],
    ) -> list[Resource]:
        """Complete resources with their details, read at `path` (with `{id}`); those that no longer exist are left out.

        If the list shows that a resource has not changed since the last complete day, its details are not requested
        again.

        Raises:
            ListUnreadableError: the details of a resource cannot be read.
            PipelineError: no request can succeed.
        """
        known = self.earlier(resources[0].kind) if resources else {}
        reading = self._lists[id(listing)].reading

        async def complete(resource: Resource) -> Resource | None:
            before = known.get(resource.id)
            if before is not None and resource.updated_at is not None and before.updated_at == resource.updated_at:
                # The strength follows from today's status, but a copy stays a copy.
                images = tuple(
                    (image, strength if strength == COPIED else resource.strength) for image, strength in before.images
                )
                return replace(resource, images=images, via_ids=before.via_ids)
            target = path.format(id=quote(resource.id, safe=""), project_id="{project_id}")
            return await self.client.show(reading, target, lambda body, _: add(resource, body))

        return [one for one in await _in_turns(resources, complete, self.concurrency) if one is not None]


async def _in_turns(
    items: Sequence[Resource], work: Callable[[Resource], Awaitable[Resource | None]], concurrency: int
) -> list[Resource | None]:
    """Run `work` for each item, at most `concurrency` at once; the first error stops all."""
    results: list[Resource | None] = [None] * len(items)
    waiting = iter(range(len(items)))

    async def worker() -> None:
        for position in waiting:
            results[position] = await work(items[position])

    workers = [asyncio.create_task(worker()) for _ in range(min(concurrency, len(items)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for one in workers:
            one.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return results


def described(kind: str, item: dict[str, Any], observed_at: dt.datetime, names: Sequence[str] = ("id",)) -> Resource:
    """A resource with the fields that most lists share: id, name, status, workspace, user and times."""
    prefix = tuple(names[:-1])
    return Resource(
        kind=kind,
        id=id_of(item, names) or "",
        name=text_at(item, *prefix, "name"),
        status=text_or_none(item.get("status")),
        workspace_id=text_at(item, *prefix, "workspace_id"),
        user=text_at(item, *prefix, "user_name") or text_at(item, "user", "name") or text_at(item, *prefix, "owner"),
        observed_at=observed_at,
        updated_at=time_at(item, *prefix, "update_at") or time_at(item, *prefix, "update_time"),
    )


def references(*named: tuple[object, str]) -> tuple[tuple[ImageReference, str], ...]:
    """The images that some fields name, each once. If an image is named twice, its first strength counts."""
    found: dict[ImageReference, str] = {}
    for value, strength in named:
        reference = value if isinstance(value, ImageReference) else parse_reference(value)
        if reference is not None and reference not in found:
            found[reference] = strength
    return tuple(found.items())


def is_running(status: str | None, *running: str) -> bool:
    """Whether a status is one of `running`, in any letter case."""
    return (status or "").strip().upper() in running


def time_at(item: Any, *names: str) -> dt.datetime | None:
    """The time at a path of names, as `as_time` reads it; None if it is not a time."""
    return as_time(value_at(item, *names))


def as_time(value: object) -> dt.datetime | None:
    """A time as the APIs write it: milliseconds since 1970 (number or text), or ISO 8601; None if it is not a time."""
    if isinstance(value, str):
        text = value.strip()
        if not (text.isascii() and text.isdigit()):
            return _of_text(text)
        value = int(text[:20])
    if not isinstance(value, int) or isinstance(value, bool) or not _FIRST_MS < value < _LAST_MS:
        return None
    return dt.datetime.fromtimestamp(value // 1000, dt.UTC) + dt.timedelta(milliseconds=value % 1000)


def _of_text(text: str) -> dt.datetime | None:
    try:
        time = dt.datetime.fromisoformat(text)
        return time.astimezone(dt.UTC) if time.tzinfo else time.replace(tzinfo=dt.UTC)
    except (ValueError, OverflowError):
        # A time of the year 9999 in one zone may be one of the year 10,000 in another.
        return None
