"""The client of the ModelArts API: image details, the image list and the notebook list.

`ModelArtsClient` sends requests until there is a verdict. `cloud.authentication` signs them or adds the token,
`cloud.throttle` limits their rate, `cloud.sender` sends them, `cloud.classification` classifies the responses,
`cloud.retries` decides when to retry and when to stop, and `cloud.paging` puts the pages of a list together.
"""

import datetime as dt
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import httpx

from pipelines.cloud.authentication import Authentication, Token
from pipelines.cloud.classification import (
    PAST_THE_END_CODE,
    WRONG_PATH_CODES,
    ImageResponse,
    Kind,
    Verdict,
    classify,
    classify_list,
)
from pipelines.cloud.credentials import Credentials
from pipelines.cloud.options import Limits, RetryPolicy, Timeouts
from pipelines.cloud.paging import NOTEBOOKS_PAGE_SIZE, PAGE_SIZE, ListPage, Notebook, Paging, reduce_notebook
from pipelines.cloud.retries import Retries
from pipelines.cloud.sender import HTTPSender, NoResponseError, Reply, brief
from pipelines.cloud.throttle import Throttle
from pipelines.errors import ListDeniedError, ListUnreadableError, PipelineError
from pipelines.tables import Outcome

if TYPE_CHECKING:
    from pipelines.cloud.shared_rate import SharedRate

_LIMITS, _TIMEOUTS, _RETRY_POLICY = Limits(), Timeouts(), RetryPolicy()
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Result:
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


class ModelArtsClient:
    """A client of one project, shared by all workers; use it as an async context manager.

    Entering fetches a token (for a password) and sets `project_id`. Calls beyond the connection limit wait for a free
    connection, within their time-out. `shared_rate` replaces `limits.rate` by one limit for all processes; it is closed
    with the client. `ca_bundle` overrides the credentials' own. `now` is the clock that sets `observed_at`; when the
    sandbox plays a day, this clock shows that day.
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
        now: Callable[[], dt.datetime] | None = None,
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._host = urlsplit(endpoint).netloc
        self._now = now or _utc_now
        self._connections = limits.connections
        self._retry_policy = retry_policy
        # How many images the list counts (`total`) but does not show; None until the list has been read.
        self.list_shortfall: int | None = None
        # How many items of the notebook list have no id; None until it has been read.
        self.notebooks_skipped: int | None = None
        self._images_path = self._notebooks_path = ""
        self._transport: httpx.AsyncBaseTransport | None = None
        self._throttle = Throttle(limits.rate)
        self._shared_rate = shared_rate
        self._sender = HTTPSender(limits, timeouts, ca_bundle or credentials.ca_bundle)
        self.stats = self._sender.stats
        self._retries = Retries(self._host, self._throttle, shared_rate, self._sender, timeouts, retry_policy)
        self._authentication = Authentication(self._endpoint, credentials, self._sender, self._retries)

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

    async def show_image(self, image_id: str) -> ImageResponse:
        """Fetch one image's details, with retries. A fault of this image alone is in the result, not raised.

        Raises:
            ValueError: `image_id` is not a UUID with hyphens; such a value must never reach a URL.
            AccountSuspendedError, AccessDeniedError, ConfigurationError, EndpointUnreachableError: no request can
                succeed; every later call raises the same error.
        """
        asked = image_id.lower()
        if _UUID.fullmatch(asked) is None:
            raise ValueError("not a UUID, so it cannot be requested")
        result = await self._ask(
            f"{self._images_path}/{asked}", lambda status, headers, body: classify(asked, status, headers, body)
        )
        verdict = result.verdict
        return ImageResponse(
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
        """Read the image list page by page, each image once. A warning is logged if images are missing on its pages.

        Raises:
            ListUnreadableError: a page cannot be read.
            PipelineError: no request can succeed.
        """
        paging = Paging("image", self._images_path, page_size)
        while (page := await self._next_page(paging)) is not None:
            yield page
        total, seen = paging.most, len(paging.seen)
        self.list_shortfall = max(0, total - seen)
        if self.list_shortfall:
            _logger.warning("The image list of %s has %d images, but its pages held %d.", self._host, total, seen)

    async def list_notebooks(self, page_size: int = NOTEBOOKS_PAGE_SIZE) -> AsyncIterator[list[Notebook]]:
        """Read the notebook list page by page, each notebook once. Items without an id are counted and logged.

        Raises:
            ListUnreadableError: a page cannot be read, or the pages hold fewer notebooks than the list counts.
            PipelineError: no request can succeed.
        """
        paging = Paging("notebook", self._notebooks_path, page_size)
        while (notebooks := await self._next_notebooks(paging)) is not None:
            yield notebooks
        self.notebooks_skipped = paging.skipped
        if paging.skipped:
            _logger.warning("The notebook list of %s has %d items without an id.", self._host, paging.skipped)
        total, found = paging.most, len(paging.seen) + paging.skipped
        if found < total:
            # A missing notebook would make its image look unused, so this is an error, not a warning.
            raise ListUnreadableError(
                f"The notebook list of {self._host} has {total} notebooks, but its pages held {found}."
            )

    async def _next_notebooks(self, paging: Paging) -> list[Notebook] | None:
        # Not a generator: a generator would keep the page alive while its caller works.
        page = await self._next_page(paging)
        return None if page is None else [reduce_notebook(item, page.observed_at) for item in page.items]

    async def _next_page(self, paging: Paging) -> ListPage | None:
        """Read the next page of a list; None at its end. Offsets are unreliable, so several conditions end a list.

        Raises:
            PipelineError: the page cannot be read, or no request can succeed.
        """
        if paging.is_whole:
            return None
        result = await self._ask(paging.target, self._judge_page)
        verdict, body = result.verdict, result.body
        if verdict.error_code == PAST_THE_END_CODE and paging.offset > 0:
            return None
        if verdict.outcome is not Outcome.OK or body is None:
            came = brief(result.status, result.verdict)
            # Drop the body here: a stored traceback would keep it alive.
            del result, body
            error = ListDeniedError if verdict.outcome is Outcome.FORBIDDEN else ListUnreadableError
            raise error(f"The {paging.what} list of {self._host} cannot be read ({came}).")
        return paging.take(body, result.observed_at)

    def _judge_page(self, status: int, headers: httpx.Headers, body: bytes) -> Verdict:
        verdict = classify_list(status, headers, body)
        if verdict.error_code in WRONG_PATH_CODES and self._authentication.was_accepted:
            # The endpoint serves the API but not this list, so only the list fails.
            return Verdict(Kind.FINAL, Outcome.FAILED, verdict.error_code)
        return verdict

    # -- one call: requests until there is a verdict

    async def _ask(self, target: str, judge: Judge) -> _Result:
        # The same clock as the event loop's, without fetching the loop: that would cost a system call each time.
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
            token = authentication.token
            if token is not None and token.renew_at is not None and clock() >= token.renew_at:
                token = await authentication.renew(token, refused=False)
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
                reply = await self._sender.send(authentication.request(target, token), transport)
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
                authentication.note_accepted(token)
            else:
                delay = await self._handle(verdict, status, token, sent_at, faults)
                if verdict.kind is not Kind.UNREACHABLE:
                    faults += 1
            elapsed = now - started
            if verdict.kind is Kind.FINAL or faults >= policy.attempts or elapsed + delay > policy.seconds:
                retries.note_last(verdict, status)
                return _Result(verdict, status, body, attempts, round(elapsed * 1000), observed_at)
            if delay:
                # Drop the body while waiting: it may be large, and every worker may be waiting.
                reply = body = None
                await retries.sleep(delay)

    async def _handle(
        self, verdict: Verdict, status: int | None, token: Token | None, sent_at: float, faults: int
    ) -> float:
        """Act on a response that is not final and return the seconds to wait; raises if no request can succeed."""
        if verdict.kind is Kind.STOP:
            assert verdict.stop is not None  # noqa: S101
            self._retries.halt(verdict.stop(f"{verdict.error_msg} ({self._host}: {brief(status, verdict)})."))
        if verdict.kind is Kind.UNREACHABLE:
            self._throttle.pause(self._retries.outage_pause(verdict, sent_at))
            return 0.0
        if verdict.kind is Kind.RENEW_TOKEN:
            return await self._authentication.refused(token, status, verdict, faults)
        if verdict.kind is Kind.THROTTLED:
            self.stats.throttled += 1
            self._throttle.refused(sent_at, verdict.retry_after)
        else:
            self._throttle.accepted(sent_at)
        self._retries.note_fault(status, verdict)
        return max(verdict.retry_after or 0.0, self._retries.backoff(faults))
