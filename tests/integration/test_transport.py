"""Connections to a server that sends any bytes at any time: when they are reused, when not, and through a proxy."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
import trustme
from scripted_server import forward

from pipelines.cloud.transport import PooledTransport, ProxyRefusedError

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Script = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Passes each request's headers to a script; counts connections."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.heads: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.url = httpx.URL()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                await self.script(head, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            self.open -= 1
            writer.transport.abort()


@asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"):
    server = Server(script)
    listener = await asyncio.start_server(server.serve, host, 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    server.url = httpx.URL(f"{'https' if tls else 'http'}://{shown}:{port}")
    try:
        yield server
    finally:
        listener.close()
        async with asyncio.timeout(5):
            while server.open:
                await asyncio.sleep(0.001)


def always(raw: bytes) -> Script:
    async def script(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return script


def then_close(raw: bytes) -> Script:
    async def script(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        writer.close()

    return script


def pool(url: httpx.URL, connections: int = 4, proxy: httpx.Proxy | None = None, context: ssl.SSLContext | None = None):
    return PooledTransport(url, connections, context or ssl.create_default_context(), proxy)


async def ask(transport: PooledTransport, url: httpx.URL, path: str = "/x", **options) -> tuple[int, bytes]:
    extensions = {"timeout": {"connect": 2.0}}
    async with asyncio.timeout(5):
        request = httpx.Request("GET", url.join(path), extensions=extensions, **options)
        response = await transport.handle_async_request(request)
        try:
            return response.status_code, b"".join([chunk async for chunk in response.stream])
        finally:
            await response.aclose()


@pytest.mark.parametrize(
    ("happened", "raw", "body", "connections"),
    [
        ("a plain answer", ANSWER, b"ok", 1),
        ("no body", b"HTTP/1.1 204 No Content\r\n\r\n", b"", 1),
        ("an early hint first", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + ANSWER, b"ok", 1),
        (
            "chunks and a trailer",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n",
            b"ok",
            1,
        ),
        ("close is announced", ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), b"ok", 3),
        ("HTTP/1.0", ANSWER.replace(b"1.1", b"1.0"), b"ok", 3),
        ("more than was stated", ANSWER + b"garbage", b"ok", 3),
        ("two answers at once", ANSWER + ANSWER, b"ok", 3),
    ],
)
async def test_connection_is_reused_only_after_a_clean_response(happened, raw, body, connections):
    async with serving(always(raw)) as server:
        transport = pool(server.url)
        for _ in range(3):
            assert (await ask(transport, server.url))[1] == body
        assert server.connections == connections
        await transport.aclose()


async def test_body_without_length_ends_with_the_connection():
    async with serving(then_close(b"HTTP/1.1 200 OK\r\n\r\nok")) as server:
        transport = pool(server.url)
        assert await ask(transport, server.url) == (200, b"ok")
        await transport.aclose()


@pytest.mark.parametrize(
    ("happened", "raw", "error"),
    [
        (
            "two lengths",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
            httpx.RemoteProtocolError,
        ),
        (
            "a length and chunks",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            httpx.RemoteProtocolError,
        ),
        ("another protocol", b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", httpx.RemoteProtocolError),
        ("not HTTP", b"220 mail.example ESMTP\r\n", httpx.RemoteProtocolError),
        ("nothing", b"", httpx.ReadError),
        ("half of the headers", b"HTTP/1.1 200 OK\r\nConte", httpx.ReadError),
        ("half of the body", ANSWER[:-1], httpx.ReadError),
        (
            "half of a chunk",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok",
            httpx.ReadError,
        ),
    ],
)
async def test_incomplete_response_is_an_error(happened, raw, error):
    async with serving(then_close(raw)) as server:
        transport = pool(server.url, connections=1)
        for _ in range(2):
            with pytest.raises(error):
                await ask(transport, server.url)
        # The connection's slot is free again.
        server.script = always(ANSWER)
        assert await ask(transport, server.url) == (200, b"ok")
        await transport.aclose()


async def test_connections_are_bounded_and_waiting_can_be_cancelled():
    release = asyncio.Event()

    async def script(head: bytes, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(ANSWER)

    async with serving(script) as server:
        transport = pool(server.url, connections=2)
        asking = [asyncio.create_task(ask(transport, server.url)) for _ in range(10)]
        while len(server.heads) < 2:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert server.connections == 2
        # One waits for a slot, and one for its response.
        asking.pop().cancel()
        asking.pop(0).cancel()
        await asyncio.sleep(0)
        release.set()
        assert await asyncio.gather(*asking) == [(200, b"ok")] * 8
        assert server.connections == 3
        await transport.aclose()


async def test_connection_closed_by_the_server_is_not_reused():
    async with serving(then_close(ANSWER)) as server:
        transport = pool(server.url)
        for _ in range(3):
            assert await ask(transport, server.url) == (200, b"ok")
            await asyncio.sleep(0.02)
        assert server.connections == 3
        await transport.aclose()


async def test_unrequested_response_is_never_used():
    async def script(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(ANSWER)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(ANSWER.replace(b"ok", b"no"))

    async with serving(script) as server:
        transport = pool(server.url)
        for _ in range(3):
            assert await ask(transport, server.url) == (200, b"ok")
            await asyncio.sleep(0.05)
        assert server.connections == 3
        await transport.aclose()


async def test_slowly_read_body_is_complete_and_bounded_in_memory():
    size = 8_000_000
    async with serving(always(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))) as server:
        transport = pool(server.url)
        for _ in range(2):
            request = httpx.Request("GET", server.url, extensions={"timeout": {"connect": 2.0}})
            response = await transport.handle_async_request(request)
            await asyncio.sleep(0.1)
            assert response.stream._connection._waiting_bytes < 1_000_000
            assert sum([len(chunk) async for chunk in response.stream]) == size
            await response.aclose()
        assert server.connections == 1
        await transport.aclose()


async def test_unread_body_costs_only_its_connection():
    async with serving(always(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + bytes(5_000_000))) as server:
        transport = pool(server.url, connections=1)
        for _ in range(3):
            request = httpx.Request("GET", server.url, extensions={"timeout": {"connect": 2.0}})
            await (await transport.handle_async_request(request)).aclose()
        assert server.connections == 3
        await transport.aclose()


async def test_line_break_in_a_header_is_refused():
    async with serving(always(ANSWER)) as server:
        transport = pool(server.url)
        with pytest.raises(httpx.LocalProtocolError):
            await ask(transport, server.url, headers={"X-Auth-Token": "a\r\nX-Other: b"})
        assert server.connections == 0
        await transport.aclose()


async def test_ipv6_address_is_reached():
    try:
        async with serving(always(ANSWER), host="::1") as server:
            transport = pool(server.url)
            assert await ask(transport, server.url) == (200, b"ok")
            assert b"Host: [::1]:" in server.heads[0]
            await transport.aclose()
    except OSError:
        pytest.skip("this machine has no IPv6")


# -- through a proxy


@asynccontextmanager
async def tunnelling(port: int, tls: ssl.SSLContext | None):
    """A proxy that takes every CONNECT to 127.0.0.1:`port`."""
    heads: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        tasks.add(asyncio.create_task(forward(inner_reader, writer)))
        await forward(reader, inner_writer)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    scheme = "https" if tls else "http"
    proxy = httpx.Proxy(
        f"{scheme}://127.0.0.1:{listener.sockets[0].getsockname()[1]}", headers={"Proxy-Authorization": "Basic eDp5"}
    )
    try:
        yield proxy, heads
    finally:
        listener.close()
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("is_secured", [False, True], ids=["http proxy", "https proxy"])
async def test_tls_uses_a_tunnel_through_the_proxy(is_secured):
    authority = trustme.CA()
    ours, theirs = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(ours)
    authority.issue_cert("127.0.0.1", "modelarts.example").configure_cert(theirs)
    async with serving(always(ANSWER), theirs) as server:
        async with tunnelling(server.url.port, theirs if is_secured else None) as (proxy, heads):
            # The proxy resolves the name; it is checked here against the certificate.
            url = httpx.URL("https://modelarts.example")
            transport = pool(url, proxy=proxy, context=ours)
            for _ in range(3):
                assert await ask(transport, url) == (200, b"ok")
            await transport.aclose()
            if not is_secured:
                # Within the TLS of a proxy, asyncio before Python 3.11.8 fails on its own error handling.
                wrong = httpx.URL("https://other.example")
                transport = pool(wrong, proxy=proxy, context=ours)
                with pytest.raises(httpx.ConnectError) as caught:
                    await ask(transport, wrong)
                assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
                await transport.aclose()
        assert heads[0] == (
            b"CONNECT modelarts.example:443 HTTP/1.1\r\nHost: modelarts.example:443\r\n"
            b"Proxy-Authorization: Basic eDp5\r\n\r\n"
        )
        assert len(heads) == (1 if is_secured else 2)
        assert all(b"Proxy" not in head and head.startswith(b"GET /x HTTP/1.1\r\n") for head in server.heads)


async def test_plain_http_through_a_proxy_sends_the_full_url():
    async with serving(always(ANSWER)) as server:
        url = httpx.URL("http://iam.example:8080")
        transport = pool(url, proxy=httpx.Proxy(str(server.url), headers={"Proxy-Authorization": "Basic eDp5"}))
        assert await ask(transport, url) == (200, b"ok")
        await transport.aclose()
        assert server.heads[0].startswith(b"GET http://iam.example:8080/x HTTP/1.1\r\nHost: iam.example:8080\r\n")
        assert b"Proxy-Authorization: Basic eDp5\r\n" in server.heads[0]


async def test_proxy_refusal_is_an_error():
    async with serving(always(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")) as server:
        url = httpx.URL("https://modelarts.example")
        transport = pool(url, proxy=httpx.Proxy(str(server.url)))
        with pytest.raises(ProxyRefusedError) as caught:
            await ask(transport, url)
        assert caught.value.status == 407
        await transport.aclose()


async def test_proxy_that_hangs_up_is_a_connect_error():
    async with serving(then_close(b"")) as server:
        url = httpx.URL("https://modelarts.example")
        transport = pool(url, proxy=httpx.Proxy(str(server.url)))
        with pytest.raises(httpx.ConnectError):
            await ask(transport, url)
        await transport.aclose()
