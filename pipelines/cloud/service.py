"""A client of one cloud service: sends a request until there is a verdict, and reads lists page by page.

`ServiceClient` holds the state of one endpoint. Its parts: `cloud.authentication` signs requests or adds the token,
`cloud.sender` sends them, `cloud.retries` decides when to retry and when to stop, `cloud.throttle` limits the rate, and
`cloud.paging` follows the pages of a list. What a response means belongs to `cloud.classification`.
"""

import datetime as dt
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx

from pipelines.bodies.json_text import parse
from pipelines.cloud.authentication import Authentication, Grant
from pipelines.cloud.classification import (
    PAST_THE_END_CODE,
    WRONG_PATH_CODES,
    Kind,
    Verdict,
    classify_list,
    classify_object,
)
from pipelines.cloud.credentials import Account, Credentials
from pipelines.cloud.options import Limits, RetryPolicy, Timeouts
from pipelines.cloud.paging import Listing, ListPage, Paging
from pipelines.cloud.retries import Retries
from pipelines.cloud.sender import HTTPSender, NoResponseError, Reply, brief
from pipelines.cloud.throttle import Throttle
from pipelines.errors import ListDeniedError, ListMissingError, ListUnreadableError, PipelineError
from pipelines.tables import Outcome

if TYPE_CHECKING:
    from pipelines.cloud.shared_rate import SharedRate

_LIMITS, _TIMEOUTS, _RETRY_POLICY = Limits(), Timeouts(), RetryPolicy()
_T = TypeVar("_T")


@dataclass(slots=True)
class Result:
    """The last response to one call; `status` and `body` are None if no complete response came."""

    verdict: Verdict
    status: int | None
    body: bytes | None
    attempts: int
    elapsed_ms: int
    observed_at: dt.datetime


Judge = Callable[[int, httpx.Headers, bytes], Verdict]


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(slots=True)
class Reading:
    """The reading of a list, one workspace after the other, and its totals.

    `items`: items shown, each counted once. `skipped`: items without an id. `shortfall`: items that the list counts but
    shows on no page. `requests`: requests sent, including those for single resources.
    """

    listing: Listing
    skipped: int = 0
    shortfall: int = 0
    requests: int = 0
    _shown: dict[str, int] = field(default_factory=dict)
    _begun: int = 0

    @property
    def items(self) -> int:
        """The number of items with an id that were shown."""
        return len(self._shown)

    def begin(self, project_path: str, workspace: str | None) -> Paging:
        """Begin to read a workspace; returns its paging."""
        self._begun += 1
        return Paging(self.listing, project_path, workspace, self._shown, self._begun)

    def end(self, paging: Paging) -> None:
        """Add the totals of a workspace that was read to its end."""
        self.skipped += paging.skipped
        self.shortfall += paging.shortfall


class ServiceClient:
    """A client for one project, shared by all workers; use it as an async context manager.

    Entering fetches a token (if there is a password) and sets `project_id`. Calls beyond the connection limit wait for
    a free connection, within their time-out. `shared_rate` replaces `limits.rate` by one limit for all processes; it is
    closed with the client. `ca_bundle` overrides the one in the credentials. With an `account`, requests are signed for
    it and not for the project. `now` is the clock that sets `observed_at`; if the sandbox plays a day, this clock shows
    that day.
    """

    def __init__(
        self,
        endpoint: str,
        credentials: Credentials,
        *,
        limits: Limits = _LIMITS,
        timeouts: Timeouts = _TIMEOUTS,
        retry_policy: RetryPolicy = _RETRY_POLICY,
        shared_rate: "SharedRate | None" = None,
        ca_bundle: Path | None = None,
        account: Account | None = None,
        now: Callable[[], dt.datetime] | None = None,
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self.host = urlsplit(endpoint).netloc
        self._now = now or _utc_now
        self._connections = limits.connections
        self._retry_policy = retry_policy
        self._transport: httpx.AsyncBaseTransport | None = None
        self._throttle = Throttle(limits.rate)
        self._shared_rate = shared_rate
        self._sender = HTTPSender(limits, timeouts, ca_bundle or credentials.ca_bundle)
        self.stats = self._sender.stats
        self._retries = Retries(self.host, self._throttle, shared_rate, self._sender, timeouts, retry_policy)
        self._authentication = Authentication(self._endpoint, credentials, self._sender, self._retries, account)

    @property
    def project_id(self) -> str:
        """The project's id, known after entering."""
        project_id = self._authentication.project_id
        assert project_id is not None, "enter the client first"  # noqa: S101
        return project_id

    @property
    def was_accepted(self) -> bool:
        """Whether the API has accepted a request. If so, endpoint, project and credentials are right."""
        return self._authentication.was_accepted

    @property
    def met_sandbox(self) -> bool:
        """Whether the server says that it is this software's sandbox, whose images are invented."""
        return self._sender.met_sandbox

    async def __aenter__(self) -> Self:
        """Open connections and fetch the token.

        Raises:
            PipelineError: the credentials are refused, or the identity service cannot be reached.
        """
        self._transport = self._sender.open_transport(self._endpoint, self._connections)
        try:
            await self._authentication.begin()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all connections."""
        if self._shared_rate is not None:
            await self._shared_rate.aclose()
        if self._transport is not None:
            await self._transport.aclose()

    async def rows(
        self, reading: "Reading", workspace: str | None, reduce: Callable[[dict[str, Any], dt.datetime], _T]
    ) -> AsyncIterator[list[_T]]:
        """Read a list in one workspace, page by page; `reduce` turns each item into what is kept of it.

        Raises:
            ListUnreadableError: a page cannot be read.
            PipelineError: no request can succeed.
        """
        paging = reading.begin(self.path(reading.listing.path), workspace)
        while (rows := await self._next_rows(reading, paging, reduce)) is not None:
            yield rows
        reading.end(paging)

    async def pages(self, reading: "Reading", workspace: str | None) -> AsyncGenerator[ListPage, None]:
        """Read a list in one workspace, page by page, each item once. Raises the same errors as `rows`."""
        paging = reading.begin(self.path(reading.listing.path), workspace)
        while (page := await self._next_page(reading, paging)) is not None:
            yield page
        reading.end(paging)

    async def show(
        self, reading: "Reading", path: str, reduce: Callable[[dict[str, Any], dt.datetime], _T]
    ) -> _T | None:
        """Read one resource below the endpoint; `reduce` turns it into what is kept. None if it does not exist.

        Raises:
            ListUnreadableError: the resource cannot be read.
            PipelineError: no request can succeed.
        """
        result = await self.ask(self.path(path), self._judge(classify_object))
        reading.requests += result.attempts
        verdict, body = result.verdict, result.body
        if verdict.outcome is Outcome.NOT_FOUND:
            return None
        if verdict.outcome is not Outcome.OK or body is None:
            # Drop the body here: a stored traceback would keep it alive, with the secrets in it.
            came = brief(result.status, verdict)
            del result, body
            raise _unreadable(verdict, f"A {reading.listing.what} of {self.host} cannot be read ({came}).")
        return reduce(parse(body), result.observed_at)

    def path(self, path: str) -> str:
        """The path of a request below the endpoint; `{project_id}` in it becomes the project's id."""
        return f"{urlsplit(self._endpoint).path}{path.format(project_id=self.project_id)}"

    async def _next_rows(
        self, reading: "Reading", paging: Paging, reduce: Callable[[dict[str, Any], dt.datetime], _T]
    ) -> list[_T] | None:
        # Not a generator, because a generator would keep the page alive while its caller works.
        page = await self._next_page(reading, paging)
        return None if page is None else [reduce(item, page.observed_at) for item in page.items]

    async def _next_page(self, reading: "Reading", paging: Paging) -> ListPage | None:
        """Read the next page of a list; None at its end. Several conditions end a list, because offsets are unreliable.

        Raises:
            PipelineError: the page cannot be read, or no request can succeed.
        """
        if paging.is_whole:
            return None
        listing = reading.listing
        judge = self._judge(
            lambda *answer: classify_list(*answer, items=listing.items), may_be_missing=listing.may_be_missing
        )
        while True:
            result = await self.ask(paging.target, judge, paging.body)
            reading.requests += result.attempts
            verdict = result.verdict
            if verdict.error_code == PAST_THE_END_CODE and paging.offset > 0:
                return None
            if not (result.status == 400 and paging.use_smaller_pages()):
                break
        body = result.body
        if verdict.outcome is not Outcome.OK or body is None:
            # Drop the body here: a stored traceback would keep it alive, with the secrets in it.
            came = brief(result.status, verdict)
            del result, body
            raise _unreadable(verdict, f"The {reading.listing.what} list of {self.host} cannot be read ({came}).")
        return paging.take(body, result.observed_at)

    def _judge(self, classify: Judge, *, may_be_missing: bool = False) -> Judge:
        def judge(status: int, headers: httpx.Headers, body: bytes) -> Verdict:
            verdict = classify(status, headers, body)
            if verdict.error_code in WRONG_PATH_CODES and (may_be_missing or self._authentication.was_accepted):
                # The endpoint serves the API but not this list, so only the list fails.
                return Verdict(Kind.FINAL, Outcome.FAILED, verdict.error_code)
            return verdict

        return judge

    async def ask(self, target: str, judge: Judge, posted: bytes = b"") -> Result:
        """Send a request until there is a verdict: a GET of `target` (path and query), or a POST of `posted`.

        Raises:
            PipelineError: no request can succeed; every later call raises the same error.
        """
        # This is the event loop's clock too. Fetching the loop would cost a system call each time.
        clock = time.monotonic
        transport, authentication, retries = self._transport, self._authentication, self._retries
        policy = self._retry_policy
        assert transport is not None, "enter the client first"  # noqa: S101
        attempts = faults = 0
        started = 0.0
        while True:
            await self._throttle.acquire()
            if self._shared_rate is not None and retries.stop is None:
                try:
                    await self._shared_rate.acquire()
                except PipelineError as error:
                    retries.halt(error)
            if retries.stop is not None:
                retries.raise_stop()
            grant = authentication.grant
            assert grant is not None, "enter the client first"  # noqa: S101
            if grant.renew_at is not None and clock() >= grant.renew_at:
                grant = await authentication.renew(grant, refused=False)
            sent_at = clock()
            if attempts:
                self.stats.retries += 1
            else:
                started = sent_at
            attempts += 1
            status: int | None
            body: bytes | None
            reply: Reply | None
            try:
                reply = await self._sender.send(authentication.request(target, grant, posted), transport)
            except NoResponseError as error:
                verdict, status, body = error.verdict, error.status, None
            else:
                status, body = reply.status, reply.body
                verdict = judge(status, reply.headers, body)
                retries.note_response()
            now = clock()
            observed_at = self._now()
            if retries.stop is not None:
                retries.raise_stop()
            delay = 0.0
            if verdict.kind is Kind.FINAL:
                self._throttle.accepted(sent_at)
                if verdict.error_code not in WRONG_PATH_CODES:
                    authentication.note_accepted(grant)
            else:
                delay = await self._handle(verdict, status, grant, sent_at, faults)
                if verdict.kind is not Kind.UNREACHABLE:
                    faults += 1
            elapsed = now - started
            if verdict.kind is Kind.FINAL or faults >= policy.attempts or elapsed + delay > policy.seconds:
                retries.note_last(verdict, status)
                return Result(verdict, status, body, attempts, round(elapsed * 1000), observed_at)
            if delay:
                # Drop the body while waiting: it may be large, and every worker may be waiting.
                reply = body = None
                await retries.sleep(delay)

    async def _handle(self, verdict: Verdict, status: int | None, grant: Grant, sent_at: float, faults: int) -> float:
        """Act on a response that is not final; returns the seconds to wait, or raises if no request can succeed."""
        if verdict.kind is Kind.STOP:
            assert verdict.stop is not None  # noqa: S101
            said = self._authentication.why_stopped(verdict)
            self._retries.halt(verdict.stop(f"{said} ({self.host}: {brief(status, verdict)})."))
        if verdict.kind is Kind.UNREACHABLE:
            self._throttle.pause(self._retries.outage_pause(verdict, sent_at))
            return 0.0
        if verdict.kind is Kind.RENEW_TOKEN:
            return await self._authentication.refused(grant, status, verdict, faults)
        if verdict.kind is Kind.THROTTLED:
            self.stats.throttled += 1
            self._throttle.refused(sent_at, verdict.retry_after)
        else:
            self._throttle.accepted(sent_at)
        self._retries.note_fault(status, verdict)
        return max(verdict.retry_after or 0.0, self._retries.backoff(faults))


def _unreadable(verdict: Verdict, sentence: str) -> ListUnreadableError:
    if verdict.outcome is Outcome.FORBIDDEN:
        return ListDeniedError(sentence)
    if verdict.error_code in WRONG_PATH_CODES or verdict.outcome is Outcome.NOT_FOUND:
        return ListMissingError(sentence)
    return ListUnreadableError(sentence)
