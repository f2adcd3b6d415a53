"""HTTP/1.1 connections to one server, kept open and used again: the transport of httpx that the API client sends with.

It exists because a day is one small request for each image: asyncio and a parser in C take a third of the processor
time of the transports that do everything. What is not needed is left out: cookies, redirects, unpacking, requests of
unknown length, a time-out between two bytes (who sends limits the whole exchange), and sending again by itself.

Errors are httpx's: ConnectTimeout and ConnectError (its cause is what the operating system or TLS said), ProxyError,
ReadError for a connection that ends before its answer does, RemoteProtocolError for what is not HTTP. What they mean
for an image belongs to `cloud.classification`.
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
# Of a body that is not read as fast as it comes.
_MAX_WAITING_BYTES = 262_144
_HAPPY_EYEBALLS_SECONDS = 0.25
_PORTS = {"https": 443, "http": 80}
# What other programs of the machine are told about authorities, in the order in which it is looked at.
_AUTHORITY_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


class ProxyRefusedError(httpx.ProxyError):
    """The proxy opens no tunnel. Of its answer only the status is kept: the rest may quote the login."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the proxy answered {status}")
        self.status = status


class PooledTransport(httpx.AsyncBaseTransport):
    """At most `connections` to the server of `origin`, through `proxy` if there is one.

    `context` is for TLS, with the server and with an https proxy. Of a request's time-outs only `connect` is used;
    its extension `target` stands for the URL's path and query. The body of a response must be read or closed.
    """

    def __init__(self, origin: httpx.URL, connections: int, context: ssl.SSLContext, proxy: httpx.Proxy | None) -> None:
        self._origin = origin
        self._context = context
        self._proxy = proxy
        self._is_tls = origin.scheme == "https"
        # Through a proxy, plain HTTP is asked for by its whole URL, and TLS in a tunnel.
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
        """Send a request and return as soon as the headers of its answer are here."""
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
        # The event loop's clock, without asking for the loop: that is a system call each time.
        now = time.monotonic()
        while self._idle:
            # The one that was used last: it is the least likely to have been closed by the server.
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
            # From here on the loop calls `secured` in its place.
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
        # Not by the loop itself, whose happy eyeballs lose a socket when they are cancelled.
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
        # Asked for once, not by each of a thousand connections that open together.
        async with self._look_up:
            loop = asyncio.get_running_loop()
            if loop.time() >= self._known_until:
                self._known = await loop.getaddrinfo(url.raw_host, self._port(url), type=socket.SOCK_STREAM)
                self._known_until = loop.time() + _DNS_CACHE_SECONDS
            return self._known

    def _port(self, url: httpx.URL) -> int:
        return url.port or _PORTS[url.scheme]


class _Connection(asyncio.Protocol):
    """One connection, and the one exchange that goes on over it."""

    transport: asyncio.Transport

    def __init__(self, is_among: "set[_Connection]") -> None:
        self.is_open = False
        self.closed = asyncio.Event()
        self.idle_since = 0.0
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._is_among = is_among
        self._parser = httptools.HttpResponseParser(self)
        # Folded headers, and lines that end by LF alone, are sound. What could be read in two ways stays refused.
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
        """Send a request; `status` and `headers` are the answer's afterwards."""
        self._in_exchange = True
        self._has_head = self._is_complete = self._may_be_kept = False
        self._head_bytes = 0
        self.transport.write(message)
        while not self._has_head:
            await self._news()

    async def body(self) -> AsyncIterator[bytes]:
        """What has come of the body, until it is whole."""
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
        """Whether another exchange may follow."""
        self._in_exchange = False
        self._chunks, self._waiting_bytes = [], 0
        self.idle_since = time.monotonic()
        if self._is_paused and self.is_open:
            self._is_paused = False
            self.transport.resume_reading()
        return self.is_open and self._is_complete and self._may_be_kept

    def abort(self) -> None:
        """Close at once: nothing that is still to be sent matters, and no farewell of TLS is waited for."""
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
            lost = httpx.ReadError("the connection ended before the answer")
            lost.__cause__ = error
            self._fail(lost)

    def data_received(self, data: bytes) -> None:
        if not self._in_exchange:
            # Nobody asked.
            self.abort()
            return
        if not self._has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._not_http("the answer is not HTTP")
        else:
            if not self._has_head and self._head_bytes > _MAX_HEAD_BYTES:
                self._not_http("the answer has headers without end")

    def _not_http(self, message: str) -> None:
        # What follows a whole answer does not concern that answer, only those who come after.
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
        # Those below 200 come before the answer.
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
    """What to trust: the authorities of a PEM file, or else the system's.

    The system's are those of the first of `SSL_CERT_FILE`, `SSL_CERT_DIR` and `REQUESTS_CA_BUNDLE` that is set, or
    else the operating system's store; of a system without a store, those that certifi brings.

    Raises:
        ConfigurationError: what is stated cannot be read; names the setting or variable.
    """
    place, name = stated_authorities(ca_bundle)
    try:
        if place is None:
            return _system_context()
        if name == "SSL_CERT_DIR" or (name == "REQUESTS_CA_BUNDLE" and stat.S_ISDIR(place.stat().st_mode)):
            # OpenSSL itself says nothing of a directory that is not there.
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
    """Where the authorities are that were stated, and the name of the setting or variable; None for the system's."""
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
    """The proxy that `HTTPS_PROXY` and `NO_PROXY` state for a URL; loopback never has one.

    Raises:
        ConfigurationError: the proxy is of a kind that is not supported, or its URL is malformed.
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
    """The header value by which user name and password of a URL are sent."""
    login = f"{url.username or ''}:{url.password or ''}"
    return f"Basic {base64.b64encode(login.encode()).decode()}"
