"""An httpx transport that keeps HTTP/1.1 connections to one server open and reuses them.

A run sends one small request for each image. asyncio with a parser in C needs a third of the processor time of the
general transports. It has only what is needed: no cookies, redirects, unpacking, requests of unknown length, automatic
retries, or time-outs between two bytes (the caller limits the whole request).

It raises httpx's errors: ConnectTimeout, ConnectError (caused by the operating system's or TLS's error), ProxyError,
ReadError for a connection that ends before the response does, RemoteProtocolError for a response that is not HTTP.
Their meaning for an image belongs to `cloud.classification`.
"""

import asyncio
import base64
import os
import socket
import ssl
import stat
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import aiohappyeyeballs
import httptools
import httpx

from pipelines.errors import ConfigurationError
from pipelines.inputs import local_files
from pipelines.inputs.proxies import stated_proxy
from pipelines.inputs.secret_urls import SecretUrl

_KEEP_ALIVE_SECONDS = 60.0
_DNS_CACHE_SECONDS = 60.0
_MAX_HEAD_BYTES = 65_536
# Reading from the socket pauses when this much of a body is waiting for the caller.
_MAX_WAITING_BYTES = 262_144
_HAPPY_EYEBALLS_SECONDS = 0.25
_PORTS = {"https": 443, "http": 80}
# Other programs' variables for trusted authorities; the first that is set is used.
_AUTHORITY_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


class ProxyRefusedError(httpx.ProxyError):
    """The proxy refuses to open a tunnel. Only the status is kept: the rest of its response may quote the login."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the proxy answered {status}")
        self.status = status


class PooledTransport(httpx.AsyncBaseTransport):
    """At most `connections` connections to the server of `origin`, through `proxy` if it is given.

    `context` is for TLS with the server and with an https proxy. Only `connect` of a request's time-outs is used. The
    extension `target` replaces the URL's path and query. The body of a response must be read or closed.
    """

    def __init__(self, origin: httpx.URL, connections: int, context: ssl.SSLContext, proxy: httpx.Proxy | None) -> None:
        self._origin = origin
        self._context = context
        self._proxy = proxy
        self._is_tls = origin.scheme == "https"
        # A proxy is asked for plain HTTP by the full URL, and for TLS by a tunnel.
        self._absolute = b""
        self._added: list[tuple[bytes, bytes]] = []
        if proxy is not None and not self._is_tls:
            self._absolute = b"http://" + origin.netloc
            self._added = proxy.headers.raw
        self._leases = asyncio.Semaphore(connections)
        self._open: set[_Connection] = set()
        self._idle: list[_Connection] = []
        self._look_up = asyncio.Lock()
        self._known: Sequence[Any] = ()
        self._known_until = 0.0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return as soon as the response's headers have arrived."""
        message = self._message(request)
        await self._leases.acquire()
        try:
            connection = self._take_idle() or await self._connect(request.extensions["timeout"]["connect"])
            try:
                await connection.exchange(message)
            except BaseException:
                connection.abort()
                raise
        except BaseException:
            self._leases.release()
            raise
        return httpx.Response(
            connection.status, headers=connection.headers, stream=_Body(connection, self._give_back), request=request
        )

    async def aclose(self) -> None:
        """Close all connections."""
        connections = list(self._open)
        for connection in connections:
            connection.abort()
        for connection in connections:
            await connection.closed.wait()

    def _message(self, request: httpx.Request) -> bytes:
        target = request.extensions.get("target") or request.url.raw_path
        lines = [b"%b %b%b HTTP/1.1" % (request.method.encode(), self._absolute, target)]
        lines += [b"%b: %b" % header for header in (*request.headers.raw, *self._added)]
        head = b"\r\n".join(lines)
        if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1:
            raise httpx.LocalProtocolError("a line break in a header")
        return head + b"\r\n\r\n" + (b"" if request.method == "GET" else request.content)

    # -- the pool

    def _take_idle(self) -> "_Connection | None":
        # The same clock as the event loop's, without fetching the loop: that would cost a system call each time.
        now = time.monotonic()
        while self._idle:
            # Take the one used last: the server is least likely to have closed it.
            connection = self._idle.pop()
            if connection.is_open and now - connection.idle_since < _KEEP_ALIVE_SECONDS:
                return connection
            connection.abort()
        return None

    def _give_back(self, connection: "_Connection") -> None:
        if connection.end_exchange():
            self._idle.append(connection)
        else:
            connection.abort()
        self._leases.release()

    async def _connect(self, seconds: float) -> "_Connection":
        try:
            async with asyncio.timeout(seconds):
                if self._proxy is not None:
                    return await self._through(self._proxy)
                return await self._dial(self._origin, self._is_tls)
        except TimeoutError as error:
            raise httpx.ConnectTimeout(f"no connection within {seconds} s") from error
        except (OSError, httpx.ReadError) as error:
            raise httpx.ConnectError("no connection") from error

    async def _through(self, proxy: httpx.Proxy) -> "_Connection":
        connection = await self._dial(proxy.url, proxy.url.scheme == "https")
        if not self._is_tls:
            return connection
        host = self._origin.raw_host
        host = b"%b:%d" % (b"[%b]" % host if b":" in host else host, self._port(self._origin))
        lines = [b"CONNECT %b HTTP/1.1" % host, b"Host: %b" % host]
        lines += [b"%b: %b" % header for header in proxy.headers.raw]
        try:
            await connection.exchange(b"\r\n".join(lines) + b"\r\n\r\n")
            if not 200 <= connection.status < 300:
                raise ProxyRefusedError(connection.status)  # noqa: TRY301
            # From here on the loop calls `secured` instead of `connection`.
            self._open.discard(connection)
            secured = _Connection(self._open)
            transport = await asyncio.get_running_loop().start_tls(
                connection.transport, secured, self._context, server_hostname=self._origin.raw_host.decode()
            )
        except BaseException:
            connection.abort()
            raise
        assert transport is not None  # noqa: S101
        secured.connection_made(transport)
        return secured

    async def _dial(self, url: httpx.URL, is_tls: bool) -> "_Connection":
        # The loop's own happy eyeballs leak a socket when cancelled, so aiohappyeyeballs connects.
        sock = await aiohappyeyeballs.start_connection(
            await self._addresses(url), happy_eyeballs_delay=_HAPPY_EYEBALLS_SECONDS, interleave=1
        )
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self._open),
            sock=sock,
            ssl=self._context if is_tls else None,
            server_hostname=url.raw_host.decode() if is_tls else None,
        )
        return connection

    async def _addresses(self, url: httpx.URL) -> Sequence[Any]:
        # Resolve once, not for each of a thousand connections that open together.
        async with self._look_up:
            loop = asyncio.get_running_loop()
            if loop.time() >= self._known_until:
                self._known = await loop.getaddrinfo(url.raw_host, self._port(url), type=socket.SOCK_STREAM)
                self._known_until = loop.time() + _DNS_CACHE_SECONDS
            return self._known

    def _port(self, url: httpx.URL) -> int:
        return url.port or _PORTS[url.scheme]


class _Connection(asyncio.Protocol):
    """One connection, with at most one request at a time."""

    transport: asyncio.Transport

    def __init__(self, is_among: "set[_Connection]") -> None:
        self.is_open = False
        self.closed = asyncio.Event()
        self.idle_since = 0.0
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._is_among = is_among
        self._parser = httptools.HttpResponseParser(self)
        # Allow folded headers and lines that end with LF alone. Ambiguous responses are still refused.
        self._parser.set_dangerous_leniencies(lenient_headers=True, lenient_optional_cr_before_lf=True)
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._in_exchange = False
        self._has_head = self._is_complete = self._may_be_kept = False
        self._error: Exception | None = None
        self._chunks: list[bytes] = []
        self._waiting_bytes = self._head_bytes = 0
        self._is_paused = False

    async def exchange(self, message: bytes) -> None:
        """Send a request; afterwards `status` and `headers` are the response's."""
        self._in_exchange = True
        self._has_head = self._is_complete = self._may_be_kept = False
        self._head_bytes = 0
        self.transport.write(message)
        while not self._has_head:
            await self._news()

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the body's chunks as they arrive, until it is complete."""
        while True:
            chunks, self._chunks, self._waiting_bytes = self._chunks, [], 0
            for chunk in chunks:
                yield chunk
            if self._chunks:
                continue
            if self._is_complete:
                return
            if self._is_paused:
                self._is_paused = False
                self.transport.resume_reading()
            await self._news()

    def end_exchange(self) -> bool:
        """End a request and return whether the connection can be reused."""
        self._in_exchange = False
        self._chunks, self._waiting_bytes = [], 0
        self.idle_since = time.monotonic()
        if self._is_paused and self.is_open:
            self._is_paused = False
            self.transport.resume_reading()
        return self.is_open and self._is_complete and self._may_be_kept

    def abort(self) -> None:
        """Close at once, without sending waiting data and without TLS's closing handshake."""
        self.is_open = False
        self.transport.abort()

    async def _news(self) -> None:
        if self._error is None:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._error is not None and not self._is_complete:
            raise self._error

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self._may_be_kept = False
        self._wake()

    # -- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.is_open = True
        self._is_among.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self.closed.set()
        self._is_among.discard(self)
        if not self._in_exchange or self._is_complete:
            return
        if self._has_head and error is None and self._ends_with_connection():
            self._is_complete = True
            self._wake()
        else:
            lost = httpx.ReadError("the connection ended before the response")
            lost.__cause__ = error
            self._fail(lost)

    def data_received(self, data: bytes) -> None:
        if not self._in_exchange:
            # No request is open.
            self.abort()
            return
        if not self._has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._not_http("the response is not HTTP")
        else:
            if not self._has_head and self._head_bytes > _MAX_HEAD_BYTES:
                self._not_http("the response's headers are too long")

    def _not_http(self, message: str) -> None:
        # Data after a complete response does not harm that response, but the connection cannot be reused.
        self._may_be_kept = False
        if not self._is_complete:
            self._fail(httpx.RemoteProtocolError(message))
            self.abort()

    def _ends_with_connection(self) -> bool:
        return not any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self.headers)

    # -- called by the parser

    def on_message_begin(self) -> None:
        if self._is_complete:
            self._may_be_kept = False
        else:
            self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        # Statuses below 200 come before the final response.
        if status >= 200 and not self._is_complete:
            self.status = status
            self._has_head = True
            self._wake()

    def on_body(self, data: bytes) -> None:
        if self._is_complete:
            return
        self._chunks.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > _MAX_WAITING_BYTES and not self._is_paused and self.is_open:
            self._is_paused = True
            self.transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if self._has_head and not self._is_complete:
            self._is_complete = True
            self._may_be_kept = self._parser.should_keep_alive()
            self._wake()


class _Body(httpx.AsyncByteStream):
    def __init__(self, connection: _Connection, give_back: Callable[[_Connection], None]) -> None:
        self._connection: _Connection | None = connection
        self._give_back = give_back

    def __aiter__(self) -> AsyncIterator[bytes]:
        assert self._connection is not None, "read before closing"  # noqa: S101
        return self._connection.body()

    async def aclose(self) -> None:
        if self._connection is not None:
            self._give_back(self._connection)
            self._connection = None


def tls_context(ca_bundle: Path | None) -> ssl.SSLContext:
    """A TLS context that trusts the authorities of a PEM file, or else the system's.

    The system's authorities are those of the first of `SSL_CERT_FILE`, `SSL_CERT_DIR` and `REQUESTS_CA_BUNDLE` that is
    set, else the operating system's store, else certifi's.

    Raises:
        ConfigurationError: the authorities cannot be read; names the setting or variable.
    """
    place, name = stated_authorities(ca_bundle)
    try:
        if place is None:
            return _system_context()
        if name == "SSL_CERT_DIR" or (name == "REQUESTS_CA_BUNDLE" and stat.S_ISDIR(place.stat().st_mode)):
            # OpenSSL reports no error for a missing directory.
            if not all(local_files.matching(Path(part), "*") for part in str(place).split(os.pathsep)):
                raise FileNotFoundError(place)
            return ssl.create_default_context(capath=str(place))
        return ssl.create_default_context(cafile=str(place))
    except (OSError, ssl.SSLError):
        if place is None:
            raise ConfigurationError(
                "The operating system's certificate authorities cannot be read: name a PEM file in "
                "IMAGE_SNAPSHOTS_CA_BUNDLE."
            ) from None
        what = "a directory of PEM files" if name == "SSL_CERT_DIR" else "a PEM file"
        raise ConfigurationError(
            f"The certificate authorities in {place} cannot be read: correct {name} to {what}."
        ) from None


def stated_authorities(ca_bundle: Path | None) -> tuple[Path | None, str]:
    """The configured path of the authorities, and the name of its setting or variable; None for the system's."""
    stated = [(ca_bundle, "IMAGE_SNAPSHOTS_CA_BUNDLE (or cacert)")]
    stated += [(Path(os.environ[name]), name) for name in _AUTHORITY_VARIABLES if os.environ.get(name)]
    return next(((place, name) for place, name in stated if place is not None), (None, ""))


def _system_context() -> ssl.SSLContext:
    paths = ssl.get_default_verify_paths()
    has_file = local_files.exists(Path(paths.openssl_cafile))
    has_directory = bool(local_files.matching(Path(paths.openssl_capath), "*"))
    if not has_file and not has_directory:
        return httpx.create_ssl_context(trust_env=False)
    return ssl.create_default_context(
        cafile=paths.openssl_cafile if has_file else None, capath=paths.openssl_capath if has_directory else None
    )


def proxy_for(url: str) -> httpx.Proxy | None:
    """The proxy for a URL by `HTTPS_PROXY` and `NO_PROXY`; loopback never has one.

    Raises:
        ConfigurationError: the kind of proxy is not supported, or its URL is malformed.
    """
    stated = stated_proxy(url)
    if stated is None:
        return None
    if stated.scheme not in ("http", "https") or not stated.host:
        raise ConfigurationError("HTTPS_PROXY must look like http://proxy.example:3128 (SOCKS is not supported).")
    headers = {}
    if stated.username or stated.password:
        headers["Proxy-Authorization"] = basic_login(stated)
    return httpx.Proxy(stated.where, headers=headers)


def basic_login(url: SecretUrl) -> str:
    """The header value that carries a URL's user name and password."""
    login = f"{url.username or ''}:{url.password or ''}"
    return f"Basic {base64.b64encode(login.encode()).decode()}"
