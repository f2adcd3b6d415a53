"""Sends one request and reads the complete response, within limits of time and size.

The meaning of a response belongs to `cloud.classification`, retrying to `cloud.retries`.
"""

import asyncio
import datetime as dt
import ssl
import time
import zlib
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from pipelines.cloud.classification import Kind, Verdict, classify_failure
from pipelines.cloud.options import Limits, Timeouts
from pipelines.cloud.transport import PooledTransport, proxy_for, tls_context
from pipelines.inputs.endpoints import SANDBOX_HEADER
from pipelines.tables import Outcome

HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "image-snapshots"}

# The `Date` header is read from this many responses.
_DATES_READ = 8
# The sandbox's header is looked for in this many first responses only, to save time.
_ANSWERS_LOOKED_AT = 20
_UNPACKED_AT_A_TIME = 16_384
_GZIP_BEGINS = b"\x1f\x8b"


@dataclass(slots=True)
class Stats:
    """Counts since the client was made; `bytes_received` counts bodies as transferred.

    `clock_skew_seconds`: how far our clock is ahead of the server's, from `dates_read` response dates.
    """

    requests: int = 0
    retries: int = 0
    throttled: int = 0
    token_renewals: int = 0
    bytes_received: int = 0
    clock_skew_seconds: float | None = None
    dates_read: int = 0

    def note_date(self, header: str, now: float) -> None:
        """Compare the server's `Date` header with `now`, our clock in seconds since the epoch."""
        self.dates_read += 1
        try:
            date = parsedate_to_datetime(header)
        except (ValueError, OverflowError):
            return
        skew = now - date.replace(tzinfo=date.tzinfo or dt.UTC).timestamp()
        # A response may be slow or cached, which adds to the difference: keep the smallest.
        if self.clock_skew_seconds is None or abs(skew) < abs(self.clock_skew_seconds):
            self.clock_skew_seconds = round(skew, 1)


@dataclass(slots=True)
class Reply:
    """A complete response with its body unpacked."""

    status: int
    headers: httpx.Headers
    body: bytes


class NoResponseError(Exception):
    """No complete response came; `status` is set if the response had begun."""

    def __init__(self, verdict: Verdict, status: int | None) -> None:
        super().__init__(verdict.error_code)
        self.verdict = verdict
        self.status = status


class HTTPSender:
    """Sends the requests of one client and counts them in `stats`. Every request must carry `extensions`.

    `met_sandbox`: the server says that it is this software's sandbox.
    """

    def __init__(self, limits: Limits, timeouts: Timeouts, ca_bundle: Path | None) -> None:
        self._timeout_seconds = timeouts.request
        self._max_body_bytes = limits.body_bytes
        self._ca_bundle = ca_bundle
        self._ssl_context: ssl.SSLContext | None = None
        self._in_flight: set[asyncio.Timeout] = set()
        self.stats = Stats()
        self.met_sandbox = False
        self._looked_at = 0
        # `send` limits the whole request. Waiting for a pooled connection has no limit of its own: it must not look
        # like an endpoint that accepts no connection.
        timeout = httpx.Timeout(timeouts.request, connect=timeouts.connect, pool=None)
        self.extensions = {"timeout": timeout.as_dict()}

    def open_transport(self, url: str, connections: int, *, is_direct: bool = False) -> httpx.AsyncBaseTransport:
        """Open a transport to the server of `url` with at most `connections` connections; `is_direct`: without a proxy.

        Raises:
            ConfigurationError: the CA bundle or the proxy of the environment cannot be used.
        """
        origin, proxy = httpx.URL(url), None if is_direct else proxy_for(url)
        if "https" not in (origin.scheme, proxy and proxy.url.scheme):
            # Without TLS, skip reading the trusted authorities: that takes a tenth of a second.
            return PooledTransport(origin, connections, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), proxy)
        self._ssl_context = self._ssl_context or tls_context(self._ca_bundle)
        return PooledTransport(origin, connections, self._ssl_context, proxy)

    async def send(self, request: httpx.Request, transport: httpx.AsyncBaseTransport) -> Reply:
        """Send a request and read the response.

        Raises:
            NoResponseError: there is no response, or it is incomplete or too large.
        """
        self.stats.requests += 1
        status = None
        # One time-out around everything: a slow body never exceeds a time-out between two bytes.
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
                    if self.stats.dates_read < _DATES_READ and (date := response.headers.get("date")):
                        self.stats.note_date(date, time.time())
                    if self._looked_at < _ANSWERS_LOOKED_AT:
                        self._looked_at += 1
                        self.met_sandbox = self.met_sandbox or SANDBOX_HEADER in response.headers
                    body = await self._body(response, response.stream)
                finally:
                    await response.stream.aclose()
        except (httpx.TransportError, TimeoutError) as error:
            raise NoResponseError(classify_failure(error, status), status) from None
        finally:
            self._in_flight.discard(exchange)
        return Reply(status, response.headers, body)

    def cut_short(self) -> None:
        """End all requests in flight as if they had timed out."""
        for exchange in self._in_flight:
            if not exchange.expired():
                exchange.reschedule(0.0)

    async def _body(self, response: httpx.Response, stream: httpx.AsyncByteStream) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in stream:
            size += len(chunk)
            if size > self._max_body_bytes:
                raise NoResponseError(self._too_large(), response.status_code)
            chunks.append(chunk)
        self.stats.bytes_received += size
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        encoding = response.headers.get("content-encoding")
        if not body or encoding is None or (encoding := encoding.strip().lower()) in ("", "identity"):
            return body
        try:
            plain = _unpacked(body, self._max_body_bytes, zlib.MAX_WBITS | 32)
            if plain is None and encoding == "deflate":
                # "deflate" means the zlib format, but many servers send raw deflate.
                plain = _unpacked(body, self._max_body_bytes, -zlib.MAX_WBITS)
        except _UnpacksToTooMuchError:
            raise NoResponseError(self._too_large(), response.status_code) from None
        if plain is None:
            broken = Verdict(Kind.RETRY, error_code="client.bad_encoding", error_msg="the body cannot be unpacked")
            raise NoResponseError(broken, response.status_code)
        return plain

    def _too_large(self) -> Verdict:
        message = f"the body is larger than {self._max_body_bytes} bytes"
        return Verdict(Kind.FINAL, Outcome.FAILED, "client.body_too_large", message)


class _UnpacksToTooMuchError(Exception):
    pass


def _unpacked(body: bytes, max_bytes: int, wbits: int) -> bytes | None:
    """Unpack a body of one or several gzip members; None if it is broken or incomplete.

    httpx cannot do this: it does not limit the unpacked size, and it accepts a truncated gzip.
    """
    inflater = zlib.decompressobj(wbits)
    parts: list[bytes] = []
    size = at = 0
    while at < len(body):
        # In small parts: zlib copies what follows a member, and there may be very many members.
        packed = body[at : at + _UNPACKED_AT_A_TIME]
        try:
            part = inflater.decompress(packed, max_bytes - size + 1)
        except zlib.error:
            return None
        size += len(part)
        if size > max_bytes:
            raise _UnpacksToTooMuchError
        parts.append(part)
        at += len(packed) - len(inflater.unused_data)
        if inflater.eof:
            if not body.startswith(_GZIP_BEGINS, at):
                # Ignore what follows, as gzip does: some servers pad with zeros.
                break
            inflater = zlib.decompressobj(wbits)
    return b"".join(parts) if inflater.eof else None


def brief(status: int | None, verdict: Verdict) -> str:
    """Status and error code as text. The server's message is left out: it may quote what we sent."""
    return " ".join(part for part in (f"HTTP {status}" if status else "", verdict.error_code or "") if part)
