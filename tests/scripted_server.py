"""A server that sends any bytes at any time, as real networks and gateways do, and a client for it."""

import asyncio
import json
import socket
import ssl
import struct
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pipelines.cloud.credentials import ReadyToken
from pipelines.cloud.modelarts import ModelArtsClient
from pipelines.cloud.options import RetryPolicy, Timeouts

ID = "0e1f2a3b-4c5d-6e7f-8091-a2b3c4d5e6f7"
QUICK = RetryPolicy(attempts=3, backoff_seconds=0.01)
TOKEN = "secret-token-of-the-test"
GOOD = json.dumps({"id": ID, "name": "torch"}).encode()


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        return self.path.rsplit("/", 1)[-1]


Script = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """Passes each request to a script, which writes any bytes it likes."""

    script: Script
    tls: ssl.SSLContext | None = None
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    _server: asyncio.Server | None = None
    _open: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer, task in self._open.items():
            reset(writer)
            assert task is not None
            task.cancel()
        while self._open:
            await asyncio.sleep(0.001)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open[writer] = asyncio.current_task()
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, path, _ = head[0].split(" ")
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                request = Request(method, path, headers, body, time.monotonic())
                self.requests.append(request)
                await self.script(request, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, ssl.SSLError):
            pass
        finally:
            del self._open[writer]
            writer.close()


@asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None):
    server = Server(script, tls)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def reset(writer: asyncio.StreamWriter) -> None:
    if (sock := writer.get_extra_info("socket")) is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def http(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def error(status: int, code: str, **headers: str) -> bytes:
    return http(status, json.dumps({"error_code": code, "error_msg": "as it was told"}).encode(), **headers)


def described(request: Request) -> bytes:
    return http(200, json.dumps({"id": request.id}).encode())


def replies(*answers: bytes) -> Script:
    """Send these responses one after the other, and the last one for ever. Empty bytes mean a reset."""
    following = iter(answers)
    state = {"now": b""}

    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        state["now"] = next(following, state["now"])
        if state["now"]:
            writer.write(state["now"])
        else:
            reset(writer)

    return script


async def good(request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(described(request))


def client(server: Server | str, credentials=None, **options) -> ModelArtsClient:
    url = server if isinstance(server, str) else server.url
    options = {"timeouts": Timeouts(request=5), "retry_policy": QUICK} | options
    return ModelArtsClient(url, credentials or ReadyToken(TOKEN, "p1"), **options)


def ids(count: int) -> list[str]:
    return [str(uuid.UUID(int=number)) for number in range(1, count + 1)]


async def fetch(modelarts: ModelArtsClient, wanted: list[str], workers: int = 32):
    following = iter(wanted)
    answers = []

    async def work():
        answers.extend([await modelarts.show_image(image_id) for image_id in following])

    await asyncio.gather(*(work() for _ in range(workers)))
    return answers


HTML = http(200, b"<html>please wait</html>", Content_Type="text/html")


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand on what arrives, as a proxy does, until the connection ends."""
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.transport.abort()
