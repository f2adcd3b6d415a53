"""The ModelArts API: the one module between us and httpx.

`ModelArtsClient` asks, signs or carries the token, retries, and stops when no request can succeed. What an answer means
belongs to `pipelines.answers`, how fast requests may leave to `pipelines.throttle`.
"""

import asyncio
import datetime as dt
import logging
import random
import re
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self
from urllib.parse import urlsplit

import aiohttp
import httpx
import orjson

from pipelines.answers import (
    PAST_THE_END_CODE,
    WRONG_PATH_CODES,
    Answer,
    Kind,
    Outcome,
    Verdict,
    classify,
    classify_failure,
    classify_list,
    retry_after,
)
from pipelines.credentials import AccessKey, Credentials, PasswordLogin, ReadyToken
from pipelines.errors import (
    AccessDeniedError,
    ConfigurationError,
    EndpointUnreachableError,
    ListDeniedError,
    ListUnreadableError,
    PipelineError,
)
from pipelines.identity import read_token, refused_login, token_request
from pipelines.signing import sign_headers
from pipelines.throttle import Throttle
from pipelines.transport import PooledTransport, proxy_for, tls_context

if TYPE_CHECKING:
    from pipelines.shared_rate import SharedRate

MAX_BODY_BYTES = 8 * 2**20
PAGE_SIZE = 200
NOTEBOOKS_PAGE_SIZE = 100

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_CONNECT_SECONDS = 10.0
_MAX_BACKOFF_SECONDS = 30.0
# While the endpoint cannot be reached: time between the common tries, doubling.
_FIRST_OUTAGE_PAUSE, _MAX_OUTAGE_PAUSE = 0.25, 5.0
_DNS_TRIES = 2
# A token is renewed this long before it ends, or after nine tenths of a short life.
_RENEW_BEFORE_SECONDS = 300.0
# Nothing but faults for `stall_seconds`, and so many of them: the endpoint is down although it accepts connections.
_STALL_FAULTS = 50
# So many images answered by something that is not the API before the API was ever seen: it is not there.
_STRANGE_ANSWERS = 20
# Refusals of a signature in a row, after which the keys have been withdrawn.
_SIGNATURE_REFUSALS = 20
_STRANGE_CODES = {"client.not_json", "client.not_object", "client.redirect"}

_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "image-snapshots"}

_NO_BODY = httpx.ByteStream(b"")

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Stats:
    """Counts since the client was made; `bytes_received` are those of bodies, as transferred."""

    requests: int = 0
    retries: int = 0
    throttled: int = 0
    token_renewals: int = 0
    bytes_received: int = 0


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a list: `items` that no earlier page had, each with a string `id`; the body as received."""

    items: list[dict[str, Any]]
    body: bytes
    observed_at: dt.datetime
    total: int | None


@dataclass(frozen=True, slots=True)
class Notebook:
    """What is kept of a notebook. The API sends more, access tokens among it: nothing of that leaves this module."""

    id: str
    name: str | None
    status: str | None
    image_id: str | None
    observed_at: dt.datetime


@dataclass(slots=True)
class _Paging:
    """How far the reading of a list has come; `skipped` items had no id."""

    what: str
    path: str
    page_size: int
    seen: set[str] = field(default_factory=set)
    skipped: int = 0
    offset: int = 0
    total: int | None = None


@dataclass(slots=True)
class _Token:
    """`headers` are those of a request with the token; `renew_at` is by the monotonic clock, None when unknown."""

    headers: httpx.Headers = field(repr=False)
    renew_at: float | None = None
    # Whether the API took it at least once, and whether it replaced one that the API refused.
    accepted: bool = False
    replaces_refused: bool = False


@dataclass(slots=True)
class _Reply:
    status: int
    headers: httpx.Headers
    body: bytes


@dataclass(slots=True)
class _Result:
    """The last answer to one call, or its absence (`status` or `body` are None)."""

    verdict: Verdict
    status: int | None
    body: bytes | None
    attempts: int
    elapsed_ms: int
    observed_at: dt.datetime


class _NoAnswerError(Exception):
    """No whole answer came; `status` is set when its beginning did."""

    def __init__(self, verdict: Verdict, status: int | None) -> None:
        super().__init__(verdict.error_code)
        self.verdict = verdict
        self.status = status


Judge = Callable[[int, httpx.Headers, bytes], Verdict]


class ModelArtsClient:
    """A client of one project, shared by all workers; use it as an async context manager.

    Entering fetches a token (with a password) and sets `project_id`. At most `concurrency` connections are open; calls
    beyond that wait for one within their time-out. `timeout_seconds` is for one request, from connecting to the last
    byte. `rate_limit` is in requests per second; `shared_rate`, in its place, is a limit for all processes together,
    and is closed with the client. `ca_bundle` wins over the credentials' own.

    An image is given up after `max_attempts` faults or `max_seconds_per_image`. The run is given up when the endpoint
    cannot be reached for `first_contact_seconds` (`outage_seconds` once it had answered), or answers nothing but
    faults for `stall_seconds`.
    """

    def __init__(
        self,
        endpoint: str,
        credentials: Credentials,
        *,
        concurrency: int = 32,
        timeout_seconds: float = 30.0,
        rate_limit: float | None = None,
        shared_rate: "SharedRate | None" = None,
        ca_bundle: Path | None = None,
        max_attempts: int = 6,
        max_seconds_per_image: float = 300.0,
        max_body_bytes: int = MAX_BODY_BYTES,
        backoff_seconds: float = 0.5,
        first_contact_seconds: float = 5.0,
        outage_seconds: float = 60.0,
        stall_seconds: float = 300.0,
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._host = urlsplit(endpoint).netloc
        self._credentials = credentials
        self._concurrency = concurrency
        self._timeout_seconds = timeout_seconds
        self._ca_bundle = ca_bundle or credentials.ca_bundle
        self._max_attempts = max_attempts
        self._max_seconds = max_seconds_per_image
        self._max_body_bytes = max_body_bytes
        self._backoff_seconds = backoff_seconds
        self._first_contact_seconds = first_contact_seconds
        self._outage_seconds = outage_seconds
        self._stall_seconds = stall_seconds
        self.stats = Stats()
        # How many images of the list's `total` were not on its pages; None before a list was read.
        self.list_shortfall: int | None = None
        # How many items of the notebook list had no id; None before it was read.
        self.notebooks_skipped: int | None = None
        self._project_id: str | None = credentials.project_id
        # Requests name their target beside this URL: parsing one for each image costs more than sending to it.
        self._origin = f"{urlsplit(endpoint).scheme}://{self._host}"
        self._origin_url = httpx.URL(self._origin)
        self._images_path = self._notebooks_path = ""
        self._throttle = Throttle(rate_limit)
        self._shared_rate = shared_rate
        self._ssl_context: ssl.SSLContext | None = None
        self._transport: httpx.AsyncBaseTransport | None = None
        self._request_extensions: dict[str, Any] = {}
        # Why no request can succeed; known to all workers at once.
        self._stop: PipelineError | None = None
        self._stopped = asyncio.Event()
        self._in_flight: set[asyncio.Timeout] = set()
        self._token: _Token | None = None
        self._renewal = asyncio.Lock()
        self._ever_accepted = False
        self._refusals = 0
        # The outage: a common try is one that began after the last one was seen to fail.
        self._ever_answered = False
        self._outage_since: float | None = None
        self._outage_tries = 0
        self._outage_seen = 0.0
        self._fault_since: float | None = None
        self._faults = 0
        self._api_seen = False
        self._strange_answers = 0

    @property
    def project_id(self) -> str:
        """The project's id; known after entering."""
        assert self._project_id is not None, "enter the client first"  # noqa: S101
        return self._project_id

    @property
    def was_accepted(self) -> bool:
        """Whether the API has accepted a request, so that endpoint, project and credentials are right."""
        return self._ever_accepted

    async def __aenter__(self) -> Self:
        """Open connections and fetch the token.

        Raises:
            PipelineError: the credentials are refused, or the identity service cannot be reached.
        """
        seconds = self._timeout_seconds
        # The whole exchange is limited in `_send`. Waiting for a connection of the pool has no limit of its own: it
        # must not pass for an endpoint that accepts none.
        timeout = httpx.Timeout(connect=min(_CONNECT_SECONDS, seconds / 2), read=seconds, write=seconds, pool=None)
        self._request_extensions = {"timeout": timeout.as_dict()}
        self._transport = self._open_transport(self._endpoint, self._concurrency)
        try:
            if isinstance(self._credentials, PasswordLogin):
                self._token = await self._fetch_token(self._credentials, self._first_contact_seconds)
            elif isinstance(self._credentials, ReadyToken):
                self._token = self._token_of(self._credentials.token, None)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        project_path = f"{urlsplit(self._endpoint).path}/v1/{self.project_id}"
        self._images_path, self._notebooks_path = f"{project_path}/images", f"{project_path}/notebooks/all"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all connections."""
        if self._shared_rate is not None:
            await self._shared_rate.aclose()
        if self._transport is not None:
            await self._transport.aclose()

    async def show_image(self, image_id: str) -> Answer:
        """Ask for one image, again as often as is worth it. What concerns only this image is in the answer.

        `image_id` is a UUID with hyphens; anything else raises ValueError, because it must never reach a URL.

        Raises:
            AccountSuspendedError, AccessDeniedError, ConfigurationError, EndpointUnreachableError: no request can
                succeed; from now on every call raises the same.
        """
        asked = image_id.lower()
        if _UUID.fullmatch(asked) is None:
            raise ValueError("not a UUID, so it cannot be asked for")
        result = await self._ask(
            f"{self._images_path}/{asked}", lambda status, headers, body: classify(asked, status, headers, body)
        )
        verdict = result.verdict
        return Answer(
            asked,
            verdict.outcome,
            result.status,
            verdict.error_code,
            verdict.error_msg,
            result.attempts,
            result.elapsed_ms,
            result.observed_at,
            result.body,
        )

    async def list_images(self, page_size: int = PAGE_SIZE) -> AsyncIterator[ListPage]:
        """Read the API's own list, page by page, each image once; a list that is cut short is logged as a warning.

        Raises:
            ListUnreadableError: a page cannot be read.
            PipelineError: no request can succeed.
        """
        paging = _Paging("image", self._images_path, page_size)
        while (page := await self._next_page(paging)) is not None:
            yield page
        total, seen = paging.total or 0, len(paging.seen)
        self.list_shortfall = max(0, total - seen)
        if self.list_shortfall:
            _logger.warning("The image list of %s has %d images, but its pages held %d.", self._host, total, seen)

    async def list_notebooks(self, page_size: int = NOTEBOOKS_PAGE_SIZE) -> AsyncIterator[list[Notebook]]:
        """Read the notebooks of the project, page by page, each once. Those without an id are counted and logged.

        Raises:
            ListUnreadableError: a page cannot be read, or the pages held fewer notebooks than the list counts.
            PipelineError: no request can succeed.
        """
        paging = _Paging("notebook", self._notebooks_path, page_size)
        while (notebooks := await self._next_notebooks(paging)) is not None:
            yield notebooks
        self.notebooks_skipped = paging.skipped
        if paging.skipped:
            _logger.warning("The notebook list of %s has %d items without an id.", self._host, paging.skipped)
        total, found = paging.total or 0, len(paging.seen) + paging.skipped
        if found < total:
            # Unlike an image that is not listed, a notebook that is not listed makes an image look unused.
            raise ListUnreadableError(
                f"The notebook list of {self._host} has {total} notebooks, but its pages held {found}."
            )

    async def _next_notebooks(self, paging: _Paging) -> list[Notebook] | None:
        # No generator: what it had read would live on in it while its caller is at work.
        page = await self._next_page(paging)
        return None if page is None else [_reduce_notebook(item, page.observed_at) for item in page.items]

    async def _next_page(self, paging: _Paging) -> ListPage | None:
        """Read the next page of a list; None at its end. Offsets may not be what they seem, so several things end it.

        Raises:
            PipelineError: the page cannot be read, or no request can succeed.
        """
        if paging.total is not None and len(paging.seen) >= paging.total:
            return None
        result = await self._ask(f"{paging.path}?limit={paging.page_size}&offset={paging.offset}", self._judge_page)
        verdict, body = result.verdict, result.body
        if verdict.error_code == PAST_THE_END_CODE and paging.offset > 0:
            return None
        if verdict.outcome is not Outcome.OK or body is None:
            came = _what_came(result)
            # Whoever holds the exception holds these.
            del result, body
            error = ListDeniedError if verdict.outcome is Outcome.FORBIDDEN else ListUnreadableError
            raise error(f"The {paging.what} list of {self._host} cannot be read ({came}).")
        page = orjson.loads(body)
        paging.total = _count(page.get("total"))
        items = []
        for item in page["data"]:
            id_ = item.get("id") if isinstance(item, dict) else None
            key = id_.strip().lower() if isinstance(id_, str) else ""
            if not key:
                paging.skipped += 1
            elif key not in paging.seen:
                paging.seen.add(key)
                items.append(item)
        paging.offset += len(page["data"])
        return ListPage(items, body, result.observed_at, paging.total) if items else None

    def _judge_page(self, status: int, headers: httpx.Headers, body: bytes) -> Verdict:
        verdict = classify_list(status, headers, body)
        if verdict.error_code in WRONG_PATH_CODES and self._ever_accepted:
            # The endpoint serves the API, but not this list: that is no reason to stop everything.
            return Verdict(Kind.FINAL, Outcome.FAILED, verdict.error_code)
        return verdict

    # -- one call: requests until there is a verdict

    async def _ask(self, target: str, judge: Judge) -> _Result:
        # The event loop's clock, without asking for the loop: that is a system call each time.
        clock = time.monotonic
        attempts = faults = 0
        started = 0.0
        while True:
            await self._throttle.acquire()
            if self._shared_rate is not None and self._stop is None:
                try:
                    await self._shared_rate.acquire()
                except PipelineError as error:
                    self._halt(error)
            if self._stop is not None:
                self._raise_stop()
            token = self._token
            if token is not None and token.renew_at is not None and clock() >= token.renew_at:
                token = await self._renew(token, refused=False)
            sent_at = clock()
            if attempts:
                self.stats.retries += 1
            else:
                started = sent_at
            attempts += 1
            status: int | None
            body: bytes | None
            try:
                reply = await self._send(self._request(target, token))
            except _NoAnswerError as error:
                verdict, status, body = error.verdict, error.status, None
            else:
                status, body = reply.status, reply.body
                verdict = judge(status, reply.headers, body)
                self._ever_answered = True
                self._outage_since = None
            now = clock()
            observed_at = dt.datetime.now(dt.UTC)
            if self._stop is not None:
                self._raise_stop()
            delay = 0.0
            if verdict.kind is Kind.FINAL:
                self._throttle.accepted(sent_at)
                self._note_accepted(token)
                self._fault_since = None
            else:
                delay = await self._handle(verdict, status, token, sent_at, faults)
                if verdict.kind is not Kind.UNREACHABLE:
                    faults += 1
            elapsed = now - started
            if verdict.kind is Kind.FINAL or faults >= self._max_attempts or elapsed + delay > self._max_seconds:
                self._note_stranger(verdict, status)
                return _Result(verdict, status, body, attempts, round(elapsed * 1000), observed_at)
            if delay:
                await self._sleep(delay)

    async def _handle(
        self, verdict: Verdict, status: int | None, token: _Token | None, sent_at: float, faults: int
    ) -> float:
        """Do what an answer that is not final asks for, and return the seconds to wait; raises when it is the end."""
        if verdict.kind is Kind.STOP:
            assert verdict.stop is not None  # noqa: S101
            self._halt(verdict.stop(f"{verdict.error_msg} ({self._host}: {_brief(status, verdict)})."))
        if verdict.kind is Kind.UNREACHABLE:
            self._throttle.pause(self._outage_pause(verdict, sent_at))
            return 0.0
        if verdict.kind is Kind.RENEW_TOKEN:
            return await self._refused(token, status, verdict, faults)
        if verdict.kind is Kind.THROTTLED:
            self.stats.throttled += 1
            self._throttle.refused(sent_at, verdict.retry_after)
        else:
            self._throttle.accepted(sent_at)
        self._note_fault(status, verdict)
        return max(verdict.retry_after or 0.0, self._backoff(faults))

    def _backoff(self, faults: int) -> float:
        # Full jitter: workers that failed together do not come back together.
        return random.uniform(0, min(_MAX_BACKOFF_SECONDS, self._backoff_seconds * 2.0**faults))  # noqa: S311

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    # -- stopping

    def _halt(self, error: PipelineError) -> NoReturn:
        """Make `error` known to every worker, wherever it waits, and raise it."""
        if self._stop is None:
            self._stop = error
            self._stopped.set()
            self._throttle.stop()
            if self._shared_rate is not None:
                self._shared_rate.stop()
            for exchange in self._in_flight:
                if not exchange.expired():
                    exchange.reschedule(0.0)
        self._raise_stop()

    def _raise_stop(self) -> NoReturn:
        assert self._stop is not None  # noqa: S101
        # A new one each time: workers must not share a traceback.
        raise type(self._stop)(str(self._stop))

    def _outage_pause(self, verdict: Verdict, sent_at: float) -> float:
        now = asyncio.get_running_loop().time()
        if self._outage_since is None:
            self._outage_since, self._outage_tries, self._outage_seen = sent_at, 0, 0.0
        if sent_at >= self._outage_seen:
            self._outage_tries += 1
            self._outage_seen = now
        patience = self._outage_seconds if self._ever_answered else self._first_contact_seconds
        left = self._outage_since + patience - now
        is_unknown_name = verdict.error_code == "client.dns" and not self._ever_answered
        if left <= 0 or (is_unknown_name and self._outage_tries >= _DNS_TRIES):
            raise_as = _unreachable_error(self._host, verdict, "IMAGE_SNAPSHOTS_ENDPOINT", now - self._outage_since)
            self._halt(raise_as)
        return min(left, _MAX_OUTAGE_PAUSE, _FIRST_OUTAGE_PAUSE * 2.0 ** min(self._outage_tries - 1, 10))

    def _note_fault(self, status: int | None, verdict: Verdict) -> None:
        now = time.monotonic()
        if self._fault_since is None:
            self._fault_since, self._faults = now, 0
        self._faults += 1
        if self._faults >= _STALL_FAULTS and now - self._fault_since >= self._stall_seconds:
            self._halt(
                EndpointUnreachableError(
                    f"{self._host} has answered nothing but errors for {self._stall_seconds:.0f} seconds "
                    f"(the last: {_brief(status, verdict)}): run again when it has recovered."
                )
            )

    def _note_stranger(self, verdict: Verdict, status: int | None) -> None:
        if self._api_seen or status is None:
            return
        if verdict.error_code not in _STRANGE_CODES:
            self._api_seen = True
            return
        self._strange_answers += 1
        if self._strange_answers >= _STRANGE_ANSWERS:
            self._halt(
                ConfigurationError(
                    f"What answers at {self._host} is not the ModelArts API ({_brief(status, verdict)}): "
                    "correct IMAGE_SNAPSHOTS_ENDPOINT."
                )
            )

    # -- who we are

    def _request(self, target: str, token: _Token | None) -> httpx.Request:
        if isinstance(self._credentials, AccessKey):
            key = self._credentials
            identity = {"X-Project-Id": key.project_id}
            now = dt.datetime.now(dt.UTC)
            signed = sign_headers("GET", self._origin + target, identity, b"", key.access_key, key.secret_key, now)
            headers = httpx.Headers(_HEADERS | identity | signed)
        else:
            assert token is not None  # noqa: S101
            headers = token.headers
        extensions = self._request_extensions | {"target": target.encode()}
        return httpx.Request("GET", self._origin_url, headers=headers, stream=_NO_BODY, extensions=extensions)

    def _note_accepted(self, token: _Token | None) -> None:
        self._ever_accepted = True
        self._refusals = 0
        if token is not None:
            token.accepted = True

    async def _refused(self, token: _Token | None, status: int | None, verdict: Verdict, faults: int) -> float:
        came = _brief(status, verdict)
        if isinstance(self._credentials, ReadyToken):
            self._halt(
                AccessDeniedError(f"{self._host} refuses the token ({came}): it has ended; set OS_TOKEN to a new one.")
            )
        if token is None:
            self._refusals += 1
            if not self._ever_accepted or self._refusals >= _SIGNATURE_REFUSALS:
                self._halt(
                    AccessDeniedError(
                        f"{self._host} refuses the access key ({came}): check OS_ACCESS_KEY, OS_SECRET_KEY and "
                        "this machine's clock."
                    )
                )
            return self._backoff(faults)
        if token is self._token and token.replaces_refused and not token.accepted:
            self._halt(
                AccessDeniedError(
                    f"{self._host} refuses a token that was just fetched for the project {self.project_id} ({came}): "
                    "check that the user may use ModelArts there, and that endpoint and OS_AUTH_URL belong together."
                )
            )
        await self._renew(token, refused=True)
        return 0.0

    async def _renew(self, old: _Token, *, refused: bool) -> _Token:
        """One renewal for all workers: who comes while it goes on, or with a token already replaced, shares it."""
        async with self._renewal:
            if self._stop is not None:
                self._raise_stop()
            if self._token is old:
                assert isinstance(self._credentials, PasswordLogin)  # noqa: S101
                try:
                    self._token = await self._fetch_token(self._credentials, self._outage_seconds)
                except PipelineError as error:
                    self._halt(error)
                self._token.replaces_refused = refused
                self.stats.token_renewals += 1
            assert self._token is not None  # noqa: S101
            return self._token

    async def _fetch_token(self, login: PasswordLogin, patience: float) -> _Token:
        host = urlsplit(login.auth_url).netloc
        request = httpx.Request(
            "POST",
            f"{login.auth_url}/auth/tokens",
            headers=_HEADERS,
            json=token_request(login),
            extensions=self._request_extensions,
        )
        started = time.monotonic()
        faults = tries = 0
        async with self._open_transport(login.auth_url, 1) as transport:
            while True:
                delay = self._backoff(faults)
                try:
                    reply = await self._send(request, transport)
                except _NoAnswerError as error:
                    verdict, came = error.verdict, _brief(error.status, error.verdict)
                    waited = time.monotonic() - started
                    if verdict.stop is not None:
                        raise verdict.stop(f"{verdict.error_msg} ({host}: {came}).") from None
                    if verdict.kind is Kind.UNREACHABLE:
                        tries += 1
                        is_unknown_name = verdict.error_code == "client.dns" and self._token is None
                        if waited >= patience or (is_unknown_name and tries >= _DNS_TRIES):
                            raise _unreachable_error(host, verdict, "OS_AUTH_URL", waited) from None
                        delay = min(_MAX_OUTAGE_PAUSE, _FIRST_OUTAGE_PAUSE * 2.0 ** min(tries - 1, 10))
                        delay = max(0.0, min(delay, patience - waited))
                    else:
                        faults += 1
                else:
                    if reply.status in (200, 201):
                        issued = read_token(login, host, reply.headers, reply.body)
                        self._project_id = issued.project_id
                        return self._token_of(issued.value, issued.life)
                    came = f"HTTP {reply.status}"
                    if reply.status != 429 and reply.status != 408 and reply.status < 500:
                        raise refused_login(login, host, reply.status)
                    faults += 1
                    wait = retry_after(reply.headers, dt.datetime.now(dt.UTC))
                    delay = max(delay, wait or 0.0)
                if faults >= self._max_attempts:
                    raise EndpointUnreachableError(
                        f"The identity service at {host} gives no token ({came}): run again when it has recovered."
                    )
                await self._sleep(delay)
                if self._stop is not None:
                    self._raise_stop()

    def _token_of(self, value: str, life: float | None) -> _Token:
        renew_at = None if life is None else time.monotonic() + life - min(_RENEW_BEFORE_SECONDS, life / 10)
        # Made once for each token, not for each request.
        return _Token(httpx.Headers({"Host": self._host, "X-Auth-Token": value} | _HEADERS), renew_at)

    # -- one exchange

    async def _send(self, request: httpx.Request, transport: httpx.AsyncBaseTransport | None = None) -> _Reply:
        transport = transport or self._transport
        assert transport is not None, "enter the client first"  # noqa: S101
        self.stats.requests += 1
        status = None
        # Around everything: a body that dribbles satisfies every time-out between two bytes.
        exchange = asyncio.timeout_at(time.monotonic() + self._timeout_seconds)
        try:
            async with exchange:
                self._in_flight.add(exchange)
                response = await transport.handle_async_request(request)
                assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101
                try:
                    # Any bytes, and httpx need not look for the encoding of each header.
                    response.headers.encoding = "latin-1"
                    status = response.status_code
                    body = await self._body(response, response.stream)
                finally:
                    await response.stream.aclose()
        except (httpx.HTTPError, aiohttp.ClientError, OSError) as error:
            raise _NoAnswerError(classify_failure(error), status) from None
        finally:
            self._in_flight.discard(exchange)
        return _Reply(status, response.headers, body)

    async def _body(self, response: httpx.Response, stream: httpx.AsyncByteStream) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in stream:
            size += len(chunk)
            if size > self._max_body_bytes:
                raise _NoAnswerError(self._too_large(), response.status_code)
            chunks.append(chunk)
        self.stats.bytes_received += size
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        encoding = response.headers.get("content-encoding")
        if not body or encoding is None or encoding.strip().lower() == "identity":
            return body
        # By hand, because httpx has no limit to what a small body may unpack to, and takes half a gzip for a whole.
        inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            plain = inflater.decompress(body, self._max_body_bytes + 1)
        except zlib.error:
            plain, is_whole = b"", False
        else:
            is_whole = inflater.eof
        if len(plain) > self._max_body_bytes:
            raise _NoAnswerError(self._too_large(), response.status_code)
        if not is_whole:
            broken = Verdict(Kind.RETRY, error_code="client.bad_encoding", error_msg="the body cannot be unpacked")
            raise _NoAnswerError(broken, response.status_code)
        return plain

    def _too_large(self) -> Verdict:
        message = f"the body is larger than {self._max_body_bytes} bytes"
        return Verdict(Kind.FINAL, Outcome.FAILED, "client.body_too_large", message)

    def _open_transport(self, url: str, connections: int) -> httpx.AsyncBaseTransport:
        self._ssl_context = self._ssl_context or tls_context(self._ca_bundle)
        return PooledTransport(httpx.URL(url), connections, self._ssl_context, proxy_for(url))


def _reduce_notebook(item: dict[str, Any], observed_at: dt.datetime) -> Notebook:
    image = item.get("image")
    image_id = _string(image.get("id")) if isinstance(image, dict) else None
    return Notebook(
        item["id"].strip().lower(),
        _string(item.get("name")),
        _string(item.get("status")),
        (image_id or "").strip().lower() or None,
        observed_at,
    )


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _unreachable_error(host: str, verdict: Verdict, variable: str, seconds: float) -> EndpointUnreachableError:
    return EndpointUnreachableError(
        f"{host} cannot be reached: {verdict.error_msg} (tried for {seconds:.0f} s); check {variable}, the network "
        "and the proxy."
    )


def _brief(status: int | None, verdict: Verdict) -> str:
    """Status and code, never the server's message: it may quote what we sent."""
    return " ".join(part for part in (f"HTTP {status}" if status else "", verdict.error_code or "") if part)


def _what_came(result: _Result) -> str:
    return _brief(result.status, result.verdict)


def _count(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
