"""The client of the registry (SWR): repositories, tags and manifests.

The management API has two versions. Version 2 pages by offset and says the total in the header Content-Range; version 3
pages by marker. Manifests come from the registry's own API, with a login that the management API issues. That login is
a credential: it is kept in memory only, and sent only to the registry that it is for.
"""

import datetime as dt
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode, urlsplit

import httpx

from pipelines.bodies.json_text import parse
from pipelines.bodies.list_page import text_at
from pipelines.cloud.authentication import Grant
from pipelines.cloud.classification import WRONG_PATH_CODES, Verdict, classify_registry
from pipelines.cloud.credentials import ReadyToken
from pipelines.cloud.options import Limits, Timeouts
from pipelines.cloud.sender import HEADERS, brief
from pipelines.cloud.service import Result, ServiceClient
from pipelines.errors import ListDeniedError, ListMissingError, ListUnreadableError
from pipelines.inputs.endpoints import check_endpoint, is_on_loopback
from pipelines.tables import Outcome

if TYPE_CHECKING:
    from pipelines.cloud.shared_rate import SharedRate

# A page of a thousand tags has a thousand manifests.
BODY_BYTES = 64 * 2**20
PAGE_SIZES = (1000, 100, 20, 10)
_TOTAL = re.compile(r"/\s*(\d{1,15})\s*$")
_MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.oci.image.index.v1+json"
)


@dataclass(frozen=True, slots=True)
class RegistryPage:
    """One response: the body as received, and its items. `shortfall`: items that the list counts but never showed.

    The shortfall is that of the whole list, on its last page alone.
    """

    items: list[dict[str, Any]]
    body: bytes
    observed_at: dt.datetime
    shortfall: int = 0


@dataclass(slots=True)
class _Position:
    """How far a list is read. `size` is an index of `PAGE_SIZES`, `shown` the items so far, each once."""

    offset: int = 0
    marker: str | None = None
    total: int | None = None
    shown: set[tuple[object, ...]] = field(default_factory=set)
    size: int = 0


class RegistryClient(ServiceClient):
    """A client of the registry's management API, used like its base class; `requests` counts what it sent.

    `version` is that of the API, 2 or 3: the first one that answers.
    """

    version: int | None = None
    requests = 0

    async def repositories(self, namespace: str | None) -> AsyncIterator[RegistryPage]:
        """The repositories of a namespace, or all that the user may see, page by page.

        Raises:
            ListUnreadableError: a page cannot be read.
            PipelineError: no request can succeed.
        """
        where = {} if namespace is None else {"namespace": namespace}
        what = "repository list" if namespace is None else f"repository list of {namespace}"
        if self.version is None:
            self.version = 2
            try:
                async for page in self._pages("/manage/repos", "repos", where, what):
                    yield page
            except ListMissingError:
                self.version = 3
            else:
                return
        async for page in self._pages("/manage/repos", "repos", where, what):
            yield page

    async def tags(self, namespace: str, repository: str) -> AsyncIterator[RegistryPage]:
        """The tags of a repository with their manifests, page by page; call this after `repositories`.

        Raises:
            ListMissingError: there is no such repository.
            ListUnreadableError: a page cannot be read.
            PipelineError: no request can succeed.
        """
        named = quote(repository.replace("/", "$"), safe="$")
        path = f"/manage/namespaces/{quote(namespace, safe='')}/repos/{named}/tags"
        where = {"with_manifest": "true"} if self.version == 3 else {}
        async for page in self._pages(path, "tags", where, f"tag list of {namespace}/{repository}"):
            yield page

    async def login(self) -> "RegistryLogin":
        """Fetch a login for the registry's own API.

        Raises:
            ListUnreadableError: none is issued.
            PipelineError: no request can succeed.
        """
        result = await self._request("/v2/manage/utils/secret", "", posted=b"{}")
        body = result.body
        if result.verdict.outcome is not Outcome.OK or body is None:
            raise ListUnreadableError(
                f"{self.host} issues no login for the registry ({brief(result.status, result.verdict)})."
            )
        issued = parse(body)
        auths = issued.get("auths") if isinstance(issued, dict) else None
        for host, value in auths.items() if isinstance(auths, dict) else ():
            basic = text_at(value, "auth")
            if basic and basic.isascii() and basic.isprintable():
                # Plain HTTP is for a server on this machine.
                scheme = "http" if is_on_loopback(self._endpoint) else "https"
                try:
                    return RegistryLogin(check_endpoint(f"{scheme}://{host}", "https://registry.example"), basic)
                except ValueError:
                    continue
        raise ListUnreadableError(f"{self.host} issues no login for the registry that can be used.")

    async def _pages(self, path: str, name: str, where: dict[str, str], what: str) -> AsyncIterator[RegistryPage]:
        position = _Position()
        while True:
            result, total = await self._page(path, name, where, position)
            verdict = result.verdict
            is_refused = result.status == 400 or verdict.error_code == "client.body_too_large"
            if is_refused and not position.shown and position.size + 1 < len(PAGE_SIZES):
                position.size += 1
                continue
            if verdict.outcome is not Outcome.OK or result.body is None:
                sentence = f"The {what} of {self.host} cannot be read ({brief(result.status, verdict)})."
                if name == "tags" and verdict.error_code in WRONG_PATH_CODES:
                    # The repository may well have tags.
                    raise ListUnreadableError(sentence)
                raise _unreadable(verdict, sentence)
            content = parse(result.body)
            items = [item for item in (content if self.version == 2 else content[name]) if isinstance(item, dict)]
            before = len(position.shown)
            position.shown.update(map(_key, items))
            position.total = max(position.total or 0, total) if total is not None else position.total
            is_last = not self._advance(position, content, len(items))
            shortfall = max(0, (position.total or 0) - len(position.shown)) if is_last else 0
            yield RegistryPage(items, result.body, result.observed_at, shortfall)
            if not is_last and len(position.shown) == before:
                # It would go on for ever.
                raise ListUnreadableError(f"The {what} of {self.host} shows nothing new, and says that there is more.")
            if is_last and self.version == 3 and content.get("has_more") is True:
                raise ListUnreadableError(f"The {what} of {self.host} says that there is more, and not where.")
            if is_last:
                return

    def _advance(self, position: _Position, content: Any, shown: int) -> bool:
        """Move to the next page; False at the end of the list."""
        if not shown:
            return False
        if self.version == 3:
            marker = content.get("next_marker") or content.get("nextMarker")
            before, position.marker = position.marker, None if marker is None else str(marker)
            return position.marker not in (None, "", before) and content.get("has_more") is not False
        position.offset += shown
        if position.total is not None:
            return position.offset < position.total
        return shown >= PAGE_SIZES[position.size]

    async def _page(
        self, path: str, name: str, where: dict[str, str], position: _Position
    ) -> tuple[Result, int | None]:
        query: dict[str, str] = {"limit": str(PAGE_SIZES[position.size])}
        if self.version == 2:
            query["offset"] = str(position.offset)
        elif position.marker is not None:
            query["marker"] = position.marker
        total: list[int] = []

        def note_total(headers: httpx.Headers) -> None:
            total[:] = [int(found[1])] if (found := _TOTAL.search(headers.get("content-range", ""))) else []

        items = None if self.version == 2 else name
        result = await self._request(f"/v{self.version}{path}", urlencode(query | where), items, note=note_total)
        return result, total[0] if total else None

    async def _request(
        self,
        path: str,
        query: str,
        items: str | None = "",
        *,
        posted: bytes = b"",
        note: Callable[[httpx.Headers], None] = lambda _: None,
    ) -> Result:
        def judge(status: int, headers: httpx.Headers, body: bytes) -> Verdict:
            note(headers)
            return classify_registry(status, headers, body, items=items)

        target = f"{urlsplit(self._endpoint).path}{path}{f'?{query}' if query else ''}"
        result = await self.ask(target, judge, posted)
        self.requests += result.attempts
        return result


@dataclass(frozen=True, slots=True)
class RegistryLogin:
    """A login for the registry at `endpoint`, as the value of a Basic authorization. It is never stored."""

    endpoint: str
    basic: str

    def __repr__(self) -> str:
        return f"RegistryLogin({self.endpoint})"


class ManifestClient(ServiceClient):
    """A client of the registry's own API, for manifests; used like its base class."""

    requests = 0

    def __init__(
        self,
        login: RegistryLogin,
        limits: Limits,
        timeouts: Timeouts,
        shared_rate: "SharedRate | None",
        ca_bundle: Path | None,
        now: Callable[[], dt.datetime] | None,
    ) -> None:
        # No project takes part in this API, and its header replaces that of the token.
        super().__init__(
            login.endpoint,
            ReadyToken("", ""),
            limits=limits,
            timeouts=timeouts,
            shared_rate=shared_rate,
            ca_bundle=ca_bundle,
            now=now,
        )
        self._basic = login.basic

    async def __aenter__(self) -> Self:
        """Open connections, as `ServiceClient` does."""
        await super().__aenter__()
        headers = {"Host": self.host, "Authorization": f"Basic {self._basic}"} | HEADERS | {"Accept": _MANIFESTS}
        self._authentication.grant = Grant(httpx.Headers(headers))
        return self

    async def manifest(self, namespace: str, repository: str, digest: str) -> RegistryPage:
        """The manifest of a digest, as the one item of a page.

        Raises:
            ListUnreadableError: it cannot be read.
            PipelineError: no request can succeed.
        """
        path = f"/v2/{quote(namespace, safe='')}/{quote(repository, safe='/')}/manifests/{quote(digest, safe=':')}"
        result = await self.ask(path, lambda *answer: classify_registry(*answer, items=""))
        self.requests += result.attempts
        if result.verdict.outcome is not Outcome.OK or result.body is None:
            came = brief(result.status, result.verdict)
            raise _unreadable(result.verdict, f"The manifest {digest} of {self.host} cannot be read ({came}).")
        return RegistryPage([parse(result.body)], result.body, result.observed_at)


def _key(item: dict[str, Any]) -> tuple[object, ...]:
    """What tells an item of a list from the others: names as text, so that odd values do no harm."""
    names = ("namespace", "namespace_name", "name", "Tag", "tag", "digest")
    return tuple(str(item[name]) if name in item else None for name in names)


def _unreadable(verdict: Verdict, sentence: str) -> ListUnreadableError:
    if verdict.outcome is Outcome.FORBIDDEN:
        return ListDeniedError(sentence)
    if verdict.outcome is Outcome.NOT_FOUND or verdict.error_code in WRONG_PATH_CODES:
        return ListMissingError(sentence)
    return ListUnreadableError(sentence)
