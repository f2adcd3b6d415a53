"""A client of the billing dashboard: one GET whose response is a stream of lines, each a JSON object (ndjson).

The stream may be long, so its lines are passed on as they arrive. What they mean belongs to `snapshot.sources.bills`.
"""

import asyncio
import datetime as dt
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from pipelines.cloud.classification import Kind, Verdict, classify_failure, classify_object
from pipelines.cloud.options import Limits, RetryPolicy, Timeouts
from pipelines.cloud.sender import HTTPSender, brief
from pipelines.errors import ListDeniedError, ListUnreadableError

_LIMITS, _RETRY_POLICY = Limits(connections=1), RetryPolicy(attempts=4)
_MOST_LINE_BYTES = 2**20
_MOST_ERROR_BYTES = 2**16
_PATH = "/v2/daily/consumption"


class DashboardClient:
    """Reads the consumption of days; use it as an async context manager. `key` is sent as a bearer token only.

    `requests` counts the requests that were sent.
    """

    def __init__(
        self,
        endpoint: str,
        key: SecretStr,
        *,
        timeouts: Timeouts,
        ca_bundle: Path | None = None,
        retry_policy: RetryPolicy = _RETRY_POLICY,
    ) -> None:
        parts = urlsplit(endpoint)
        self.host = parts.netloc
        self.requests = 0
        self._endpoint, self._path = endpoint, f"{parts.path.rstrip('/')}{_PATH}"
        self._key = key
        self._policy = retry_policy
        self._stream_seconds = retry_policy.seconds
        self._sender = HTTPSender(_LIMITS, timeouts, ca_bundle)

    async def __aenter__(self) -> Self:
        """Open the transport."""
        self._transport = self._sender.open_transport(self._endpoint, 1)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def read(self, query: str, take: Callable[[bytes], None], begin: Callable[[], None]) -> str:
        """Read the response to a query; `take` gets each line that is not blank. Returns the SHA-256 of the body.

        After a passing fault the request is sent again: `begin` is called before each try, to drop what came before.

        Raises:
            ListDeniedError: the key is refused.
            ListUnreadableError: the response cannot be read.
        """
        tries = 0
        while True:
            begin()
            tries += 1
            self.requests += 1
            try:
                async with asyncio.timeout(self._stream_seconds):
                    status, verdict, digest = await self._try(f"{self._path}?{query}", take)
            except (httpx.TransportError, TimeoutError) as error:
                status, verdict, digest = None, classify_failure(error), ""
            if verdict is None:
                return digest
            if status in (401, 403):
                raise ListDeniedError(
                    f"{self.host} refuses the API key of the bill (HTTP {status}): check IMAGE_SNAPSHOTS_BILLS_KEY."
                )
            is_passing = verdict.kind in (Kind.RETRY, Kind.UNREACHABLE, Kind.THROTTLED)
            if not is_passing or tries >= self._policy.attempts:
                raise ListUnreadableError(f"The bill of {self.host} cannot be read ({brief(status, verdict)}).")
            await asyncio.sleep(max(verdict.retry_after or 0.0, self._policy.backoff_seconds * 2 ** (tries - 1)))

    async def _try(self, target: str, take: Callable[[bytes], None]) -> tuple[int, Verdict | None, str]:
        """Status, verdict (None if the lines were read to their end) and the SHA-256 of the body."""
        headers = {
            "Accept": "application/x-ndjson",
            "Accept-Encoding": "identity",
            "Authorization": f"Bearer {self._key.get_secret_value()}",
            "Host": self.host,
            "User-Agent": "image-snapshots",
        }
        extensions = self._sender.extensions | {"target": target.encode()}
        request = httpx.Request("GET", self._endpoint, headers=headers, extensions=extensions)
        response = await self._transport.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101
        try:
            if response.status_code != 200:
                return response.status_code, await self._refusal(response, response.stream), ""
            if "html" in response.headers.get("content-type", ""):
                return 200, Verdict(Kind.RETRY, error_code="client.not_a_page"), ""
            return 200, *await self._lines(response.stream, take)
        finally:
            await response.stream.aclose()

    async def _refusal(self, response: httpx.Response, stream: httpx.AsyncByteStream) -> Verdict:
        body = b""
        async for chunk in stream:
            body += chunk[: _MOST_ERROR_BYTES - len(body)]
        return classify_object(response.status_code, response.headers, body, dt.datetime.now(dt.UTC))

    async def _lines(self, stream: httpx.AsyncByteStream, take: Callable[[bytes], None]) -> tuple[Verdict | None, str]:
        digest = hashlib.sha256()
        rest = b""
        async for chunk in stream:
            digest.update(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.strip():
                    take(line)
            if len(rest) > _MOST_LINE_BYTES:
                return Verdict(Kind.FINAL, error_code="client.body_too_large"), ""
        if rest.strip():
            take(rest)
        return None, digest.hexdigest()
