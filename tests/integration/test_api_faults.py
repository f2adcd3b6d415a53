"""The client against a server that sends any bytes at any time: what a real network and real gateways do."""

import asyncio
import datetime as dt
import gzip
import itertools
import json
import logging
import socket
import ssl
import struct
import time
import uuid
import zlib
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import format_datetime
from pathlib import Path
from traceback import walk_tb

import pytest
import trustme

from pipelines.answers import Outcome
from pipelines.api import ModelArtsClient
from pipelines.credentials import AccessKey, PasswordLogin, ReadyToken
from pipelines.errors import (
    AccessDeniedError,
    AccountSuspendedError,
    ConfigurationError,
    EndpointUnreachableError,
    ListDeniedError,
    ListUnreadableError,
    PipelineError,
)

ID = "0e1f2a3b-4c5d-6e7f-8091-a2b3c4d5e6f7"
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
    """Hands each request to a script, which writes whatever bytes it likes."""

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
    """Send these one after the other; the last one for ever. Empty bytes stand for a reset."""
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
    options = {"backoff_seconds": 0.01, "timeout_seconds": 5, "max_attempts": 3} | options
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
HALF_GZIP = gzip.compress(GOOD * 50)[:40]


@pytest.mark.parametrize(
    ("happened", "raw", "outcome", "status", "code", "attempts"),
    [
        ("described", http(200, GOOD), Outcome.OK, 200, None, 1),
        ("deleted", http(200, GOOD[:-1] + b', "status": "DELETED"}'), Outcome.DELETED, 200, None, 1),
        ("not found by 400", error(400, "ModelArts.6404"), Outcome.NOT_FOUND, 400, "ModelArts.6404", 1),
        ("not found by 404", error(404, "ModelArts.6404"), Outcome.NOT_FOUND, 404, "ModelArts.6404", 1),
        ("not found without a body", http(404), Outcome.NOT_FOUND, 404, "client.http_404", 1),
        ("forbidden", error(403, "ModelArts.0112"), Outcome.FORBIDDEN, 403, "ModelArts.0112", 1),
        ("unknown 4xx", error(409, "ModelArts.0001"), Outcome.FAILED, 409, "ModelArts.0001", 1),
        ("500", error(500, "ModelArts.0010"), Outcome.FAILED, 500, "ModelArts.0010", 3),
        ("502", http(502, b"<html>"), Outcome.FAILED, 502, "client.http_502", 3),
        ("HTML with 200", HTML, Outcome.FAILED, 200, "client.not_json", 3),
        ("a list with 200", http(200, b"[1]"), Outcome.FAILED, 200, "client.not_object", 3),
        ("another image", http(200, b'{"id": "x"}'), Outcome.FAILED, 200, "client.id_differs", 3),
        (
            "200 with an error",
            http(200, b'{"error_code": "ModelArts.6404"}'),
            Outcome.NOT_FOUND,
            200,
            "ModelArts.6404",
            1,
        ),
        ("gzip", http(200, gzip.compress(GOOD), Content_Encoding="gzip"), Outcome.OK, 200, None, 1),
        ("deflate", http(200, zlib.compress(GOOD), Content_Encoding="deflate"), Outcome.OK, 200, None, 1),
        ("bad gzip", http(200, GOOD, Content_Encoding="gzip"), Outcome.FAILED, 200, "client.bad_encoding", 3),
        ("half a gzip", http(200, HALF_GZIP, Content_Encoding="gzip"), Outcome.FAILED, 200, "client.bad_encoding", 3),
        (
            "a small body that unpacks to a large one",
            http(200, gzip.compress(bytes(4_000_000)), Content_Encoding="gzip"),
            Outcome.FAILED,
            200,
            "client.body_too_large",
            1,
        ),
        (
            "chunked",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n"
            % (GOOD[:5], len(GOOD) - 5, GOOD[5:]),
            Outcome.OK,
            200,
            None,
            1,
        ),
        ("a large body", http(200, b"x" * 2_000_000), Outcome.FAILED, 200, "client.body_too_large", 1),
        ("not HTTP", b"SSH-2.0-OpenSSH_9.6\r\n\r\n", Outcome.FAILED, None, "client.bad_http", 3),
        (
            "a header without end",
            b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
            Outcome.FAILED,
            None,
            "client.bad_http",
            3,
        ),
        ("reset", b"", Outcome.FAILED, None, "client.connection_reset", 3),
        ("redirect on the same host", http(302, Location="/login"), Outcome.FAILED, 302, "client.redirect", 1),
    ],
)
async def test_each_answer_has_its_outcome(happened, raw, outcome, status, code, attempts):
    async with serving(replies(raw)) as server, client(server, max_body_bytes=1_000_000) as modelarts:
        before = dt.datetime.now(dt.UTC)
        answer = await modelarts.show_image(ID.upper())
        assert (answer.id, answer.outcome, answer.http_status, answer.error_code) == (ID, outcome, status, code)
        assert answer.attempts == attempts
        assert before <= answer.observed_at <= dt.datetime.now(dt.UTC)
        assert 0 <= answer.elapsed_ms < 5000
        if outcome is Outcome.OK:
            assert answer.body == GOOD
        if status is None:
            assert answer.body is None
        assert {request.path for request in server.requests} == {f"/v1/p1/images/{ID}"}
        assert modelarts.stats.retries == attempts - 1


@pytest.mark.parametrize(
    ("happened", "raw", "code"),
    [
        ("shorter than stated", b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + GOOD, "client.truncated"),
        ("ended within a chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nab", "client.truncated"),
        ("hung up before the headers", b"HTTP/1.1 200", "client.connection_reset"),
    ],
)
async def test_an_answer_that_ends_early_is_asked_for_again(happened, raw, code):
    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) > failures:
            writer.write(http(200, GOOD))
        else:
            writer.write(raw)
            await writer.drain()
            writer.close()

    failures = 3
    async with serving(script) as server, client(server) as modelarts:
        answer = await modelarts.show_image(ID)
        assert (answer.outcome, answer.error_code, answer.body) == (Outcome.FAILED, code, None)
        assert answer.attempts == 3
        answer = await modelarts.show_image(ID)
        assert (answer.outcome, answer.attempts, answer.body) == (Outcome.OK, 1, GOOD)


async def test_slow_headers_and_a_slow_body_end_with_the_time_out():
    async def never(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async def dribble(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    for script, status in ((never, None), (dribble, 200)):
        async with serving(script) as server, client(server, timeout_seconds=0.2, max_attempts=2) as modelarts:
            started = time.monotonic()
            answer = await modelarts.show_image(ID)
            assert (answer.outcome, answer.http_status, answer.error_code) == (Outcome.FAILED, status, "client.timeout")
            assert answer.attempts == 2
            assert 0.4 <= time.monotonic() - started < 1.5


async def test_an_endless_body_is_cut_off():
    sent = 0

    async def endless(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            sent += 0x10000
            await writer.drain()

    async with serving(endless) as server, client(server, max_body_bytes=500_000) as modelarts:
        answer = await modelarts.show_image(ID)
        assert (answer.outcome, answer.error_code, answer.attempts) == (Outcome.FAILED, "client.body_too_large", 1)
        await asyncio.sleep(0.05)
        assert sent < 20_000_000


@pytest.mark.parametrize(
    ("stated", "least", "most"),
    [
        ("1", 1.0, 2.5),
        ("0", 0.0, 0.5),
        ("-3", 0.0, 0.5),
        (None, 0.5, 1.5),
        ("soon", 0.5, 1.5),
        ("date", 0.9, 3.5),
    ],
)
async def test_retry_after_is_honoured(stated, least, most):
    if stated == "date":
        stated = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=2), usegmt=True)
    headers = {} if stated is None else {"Retry_After": stated}
    async with serving(replies(error(429, "APIG.0308", **headers), http(200, GOOD))) as server:
        async with client(server) as modelarts:
            answer = await modelarts.show_image(ID)
        assert (answer.outcome, answer.attempts, modelarts.stats.throttled) == (Outcome.OK, 2, 1)
        assert least <= server.requests[1].at - server.requests[0].at < most


async def test_an_absurd_retry_after_does_not_hold_an_image_longer_than_allowed():
    async with serving(replies(error(429, "APIG.0308", Retry_After="31536000"))) as server:
        async with client(server, max_seconds_per_image=1) as modelarts:
            answer = await modelarts.show_image(ID)
    assert (answer.outcome, answer.error_code, answer.attempts) == (Outcome.FAILED, "APIG.0308", 1)
    assert answer.elapsed_ms < 1000


async def test_retry_after_of_a_503_is_honoured():
    async with serving(replies(http(503, Retry_After="1"), http(200, GOOD))) as server, client(server) as modelarts:
        assert (await modelarts.show_image(ID)).outcome is Outcome.OK
        assert server.requests[1].at - server.requests[0].at >= 1.0


async def test_a_429_pauses_all_workers():
    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        is_refused = len(server.requests) > 20 and request is server.requests[20]
        writer.write(error(429, "APIG.0308", Retry_After="1") if is_refused else described(request))

    async with serving(script) as server, client(server) as modelarts:
        answers = await fetch(modelarts, ids(60), workers=8)
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(server.requests)]
    assert max(gaps) >= 0.95
    # Those in flight with the refused one still arrive, nobody else.
    assert gaps.index(max(gaps)) <= 20 + 8


async def test_a_redirect_is_never_followed_to_another_host():
    async with serving(good) as other:
        elsewhere = http(307, Location=f"{other.url}/v1/p1/images/{ID}")
        async with serving(replies(elsewhere)) as server, client(server) as modelarts:
            answer = await modelarts.show_image(ID)
        assert (answer.outcome, answer.http_status, answer.error_code) == (Outcome.FAILED, 307, "client.redirect")
        assert (other.connections, len(server.requests)) == (0, 1)


async def test_connections_are_kept_and_bounded_and_cookies_are_not():
    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.001)
        body = json.dumps({"id": request.id}).encode()
        writer.write(http(200, body, Set_Cookie="session=abc; Path=/"))

    async with serving(script) as server, client(server, concurrency=8) as modelarts:
        answers = await fetch(modelarts, ids(200), workers=16)
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert (server.connections, len(server.requests)) == (8, 200)
    assert not any("cookie" in request.headers for request in server.requests)
    assert {request.headers["x-auth-token"] for request in server.requests} == {TOKEN}


@pytest.mark.parametrize("image_id", ["group", "", "../x", ID + "/..", ID.replace("-", ""), f"{ID}\n", f" {ID}"])
async def test_what_is_no_uuid_never_reaches_a_url(image_id):
    async with serving(good) as server, client(server) as modelarts:
        with pytest.raises(ValueError, match="not a UUID"):
            await modelarts.show_image(image_id)
        assert server.connections == 0


async def test_the_connection_is_refused_then_back():
    async with serving(good) as server, client(server, outage_seconds=10) as modelarts:
        assert (await modelarts.show_image(ID)).outcome is Outcome.OK
        await server.stop()
        fetching = asyncio.create_task(fetch(modelarts, ids(50)))
        await asyncio.sleep(0.6)
        assert not fetching.done()
        await server.start()
        answers = await fetching
    assert len(answers) == 50
    assert {answer.outcome for answer in answers} == {Outcome.OK}


async def test_a_restart_in_mid_run_costs_no_image():
    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.01)
        writer.write(described(request))

    async with serving(slow) as server, client(server, max_attempts=6, outage_seconds=10) as modelarts:
        fetching = asyncio.create_task(fetch(modelarts, ids(400), workers=16))
        await asyncio.sleep(0.1)
        await server.stop()
        await asyncio.sleep(0.2)
        await server.start()
        answers = await fetching
    assert len(answers) == 400
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert modelarts.stats.retries > 0


async def test_an_outage_that_lasts_ends_the_run():
    async with serving(good) as server, client(server, outage_seconds=1) as modelarts:
        await modelarts.show_image(ID)
        await server.stop()
        started = time.monotonic()
        results = await asyncio.gather(*(modelarts.show_image(one) for one in ids(32)), return_exceptions=True)
        assert 0.9 <= time.monotonic() - started < 3
        assert {type(result) for result in results} == {EndpointUnreachableError}
        assert len({str(result) for result in results}) == 1
        assert "was refused" in str(results[0])
        # All wait together: not one try after the other for each worker.
        assert modelarts.stats.requests < 32 * 8
        await server.start()


async def test_an_endpoint_that_never_answered_is_given_up_soon():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    async with client(url, first_contact_seconds=0.5) as modelarts:
        started = time.monotonic()
        with pytest.raises(EndpointUnreachableError, match="IMAGE_SNAPSHOTS_ENDPOINT"):
            await fetch(modelarts, ids(100))
        assert 0.4 <= time.monotonic() - started < 2


async def test_a_name_that_does_not_resolve_is_given_up_after_two_tries():
    async with client("https://modelarts.invalid", first_contact_seconds=60) as modelarts:
        started = time.monotonic()
        with pytest.raises(EndpointUnreachableError, match="does not resolve"):
            await modelarts.show_image(ID)
        assert modelarts.stats.requests == 2
        assert time.monotonic() - started < 30


async def _raises_for_all(modelarts: ModelArtsClient, error_type: type[PipelineError]) -> str:
    results = await asyncio.gather(*(modelarts.show_image(one) for one in ids(64)), return_exceptions=True)
    assert {type(result) for result in results} == {error_type}
    assert len({str(result) for result in results}) == 1
    sent = modelarts.stats.requests
    with pytest.raises(error_type):
        await modelarts.show_image(ID)
    assert modelarts.stats.requests == sent
    return str(results[0])


@pytest.mark.parametrize(
    ("raw", "error_type"),
    [
        (error(401, "ModelArts.6201"), AccountSuspendedError),
        (error(403, "ModelArts.2785"), AccountSuspendedError),
        (error(403, "ModelArts.0206"), AccessDeniedError),
        (error(404, "ModelArts.2786"), AccessDeniedError),
        (error(400, "ModelArts.0210"), AccessDeniedError),
        (error(404, "APIG.0101"), ConfigurationError),
        (error(401, "ModelArts.0203"), AccessDeniedError),
    ],
)
async def test_when_no_request_can_succeed_all_workers_learn_it_at_once(raw, error_type):
    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        if request is not server.requests[0]:
            # Who has to wait longer than the test for its answer learns it all the same.
            await asyncio.sleep(20)
        writer.write(raw)

    async with serving(script) as server, client(server, timeout_seconds=30) as modelarts:
        started = time.monotonic()
        message = await _raises_for_all(modelarts, error_type)
        assert time.monotonic() - started < 2
        assert TOKEN not in message
        assert "as it was told" not in message


async def test_workers_that_wait_learn_it_too():
    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        if request is server.requests[0]:
            writer.write(error(429, "APIG.0308", Retry_After="60"))
        else:
            await asyncio.sleep(0.2)
            writer.write(error(401, "ModelArts.6201"))

    async with serving(script) as server, client(server) as modelarts:
        started = time.monotonic()
        results = await asyncio.gather(*(modelarts.show_image(one) for one in ids(2)), return_exceptions=True)
        assert {type(result) for result in results} == {AccountSuspendedError}
        assert time.monotonic() - started < 2


async def test_an_endpoint_that_is_not_the_api_is_given_up():
    async with serving(replies(HTML)) as server, client(server) as modelarts:
        with pytest.raises(ConfigurationError, match=r"not the ModelArts API.*IMAGE_SNAPSHOTS_ENDPOINT"):
            await fetch(modelarts, ids(1000))
        assert len(server.requests) < 300


async def test_an_endpoint_that_answers_nothing_but_errors_is_given_up():
    async with serving(replies(http(503))) as server, client(server, stall_seconds=0.5) as modelarts:
        with pytest.raises(EndpointUnreachableError, match="nothing but errors"):
            await fetch(modelarts, ids(100_000))
        assert modelarts.stats.requests < 20_000


async def test_some_html_among_answers_of_the_api_is_a_failure_of_those_images():
    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(HTML if request.id in bad else described(request))

    wanted = ids(100)
    bad = set(wanted[10:70])
    async with serving(script) as server, client(server) as modelarts:
        answers = await fetch(modelarts, wanted, workers=4)
    assert {answer.id for answer in answers if answer.outcome is Outcome.FAILED} == bad


async def test_tls(tmp_path: Path):
    authority = trustme.CA()
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with serving(good, context) as server:
        async with client(server, ca_bundle=bundle) as modelarts:
            assert (await modelarts.show_image(ID)).outcome is Outcome.OK
        async with client(server, ReadyToken(TOKEN, "p1", bundle)) as modelarts:
            assert (await modelarts.show_image(ID)).outcome is Outcome.OK
        async with client(server) as modelarts:
            started = time.monotonic()
            with pytest.raises(ConfigurationError, match="IMAGE_SNAPSHOTS_CA_BUNDLE"):
                await modelarts.show_image(ID)
            assert modelarts.stats.requests == 1
            assert time.monotonic() - started < 2
    with pytest.raises(ConfigurationError, match="cannot be read"):
        async with client("https://127.0.0.1:1", ca_bundle=tmp_path / "none.pem"):
            pass


async def test_a_server_that_speaks_no_tls():
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http(400))
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, client(url, first_contact_seconds=0.3) as modelarts:
        with pytest.raises(EndpointUnreachableError, match="TLS handshake failed"):
            await modelarts.show_image(ID)


async def test_the_proxy_of_the_environment_is_asked(monkeypatch):
    async with serving(replies(http(407))) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//user:hidden@"))
        monkeypatch.setenv("NO_PROXY", "elsewhere.example")
        async with client("https://modelarts.invalid") as modelarts:
            with pytest.raises(ConfigurationError, match="HTTPS_PROXY") as raised:
                await modelarts.show_image(ID)
        assert "hidden" not in str(raised.value)
        assert (proxy.requests[0].method, proxy.requests[0].path) == ("CONNECT", "modelarts.invalid:443")
        assert proxy.requests[0].headers["proxy-authorization"] == "Basic dXNlcjpoaWRkZW4="
        assert "x-auth-token" not in proxy.requests[0].headers
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        async with serving(good) as server, client(server) as modelarts:
            assert (await modelarts.show_image(ID)).outcome is Outcome.OK


async def test_nothing_is_logged_for_an_image_and_no_secret_anywhere(caplog):
    caplog.set_level(logging.DEBUG)
    async with serving(replies(http(500), http(200, GOOD))) as server, client(server) as modelarts:
        await modelarts.show_image(ID)
        shown = repr(modelarts) + repr(modelarts.__dict__) + repr(modelarts._authentication.__dict__)
    assert [record for record in caplog.records if record.name.startswith(("httpx", "aiohttp", "pipelines"))] == []
    assert TOKEN not in caplog.text
    assert TOKEN not in shown


# -- tokens, where the order of events must be exact


def _login(server: Server, **changes) -> PasswordLogin:
    stated = {
        "auth_url": f"{server.url}/v3",
        "user": "auditor",
        "user_is_id": False,
        "password": "hidden-password",
        "user_domain": {"name": "d1"},
        "project_id": None,
        "project_name": "eu-de",
        "project_domain": {"name": "d1"},
    }
    return PasswordLogin(**(stated | changes))


def _token(value: str, project: dict[str, str] | None = None, life: float = 86_400) -> bytes:
    now = dt.datetime.now(dt.UTC)
    token = {"issued_at": now.isoformat(), "expires_at": (now + dt.timedelta(seconds=life)).isoformat()}
    body = json.dumps({"token": token | {"project": project or {"id": "p1", "name": "eu-de"}}}).encode()
    return http(201, body, X_Subject_Token=value)


def tokens_and_images(is_valid: Callable[[str, Request], bool], life: float = 86_400):
    """A script that issues token-1, token-2 …, and describes images to who holds one that is valid."""
    issued: list[Request] = []

    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path == "/v3/auth/tokens":
            issued.append(request)
            await asyncio.sleep(0.02)
            writer.write(_token(f"token-{len(issued)}", life=life))
        elif is_valid(request.headers["x-auth-token"], request):
            writer.write(described(request))
        else:
            writer.write(error(401, "APIG.0301"))

    return script, issued


async def test_the_token_call_asks_for_the_stated_project():
    script, issued = tokens_and_images(lambda *_: True)
    async with serving(script) as server:
        async with client(server, _login(server)) as modelarts:
            assert modelarts.project_id == "p1"
        async with client(server, _login(server, project_id="p1", project_name=None)):
            pass
    by_name, by_id = (json.loads(request.body)["auth"] for request in issued)
    assert by_name["scope"] == {"project": {"name": "eu-de", "domain": {"name": "d1"}}}
    assert by_id["scope"] == {"project": {"id": "p1"}}
    user = {"name": "auditor", "password": "hidden-password", "domain": {"name": "d1"}}
    assert by_id["identity"] == {"methods": ["password"], "password": {"user": user}}


async def test_a_refused_token_is_renewed_once_for_all_workers():
    refused_at_first = asyncio.Event()

    def is_valid(token: str, request: Request) -> bool:
        if len(server.requests) > 300:
            refused_at_first.set()
        return token == "token-2" or not refused_at_first.is_set()

    script, issued = tokens_and_images(is_valid)
    async with serving(script) as server, client(server, _login(server)) as modelarts:
        answers = await fetch(modelarts, ids(600))
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert (len(answers), len(issued), modelarts.stats.token_renewals) == (600, 2, 1)


async def test_a_token_is_renewed_before_it_ends():
    script, issued = tokens_and_images(lambda token, _: True, life=0.5)
    async with serving(script) as server, client(server, _login(server)) as modelarts:
        started = time.monotonic()
        while time.monotonic() - started < 1.2:
            answers = await fetch(modelarts, ids(32))
            assert {answer.attempts for answer in answers} == {1}
        seconds = time.monotonic() - started
    # One at the beginning, and one every 0.45 s; the last answers may be late.
    assert 2 <= modelarts.stats.token_renewals <= seconds / 0.45
    assert len(issued) == 1 + modelarts.stats.token_renewals


async def test_a_token_that_is_refused_right_after_a_renewal_ends_the_run():
    script, issued = tokens_and_images(lambda token, _: token == "token-1" and len(server.requests) < 40)
    async with serving(script) as server, client(server, _login(server)) as modelarts:
        with pytest.raises(AccessDeniedError, match=r"just fetched.*p1.*HTTP 401 APIG\.0301") as raised:
            await fetch(modelarts, ids(200))
        assert len(issued) == 2
        assert "token-" not in str(raised.value)
        assert "hidden-password" not in str(raised.value)


@pytest.mark.parametrize(
    ("happened", "answers", "error_type", "says", "requests"),
    [
        ("wrong password", [http(401)], AccessDeniedError, "Wrong user name or password for auditor", 1),
        ("locked", [http(403)], AccessDeniedError, "may not log in", 1),
        ("not Keystone", [http(404)], ConfigurationError, "OS_AUTH_URL", 1),
        ("a redirect", [http(302, Location="/")], ConfigurationError, "OS_AUTH_URL", 1),
        ("HTML", [HTML], ConfigurationError, "OS_AUTH_URL", 1),
        ("no project", [_token("t", {"name": "x"})], AccessDeniedError, "OS_PROJECT_ID", 1),
        ("an id that is none", [_token("t", {"id": "../x"})], AccessDeniedError, "OS_PROJECT_ID", 1),
        ("always 503", [http(503)], EndpointUnreachableError, "HTTP 503", 3),
        ("always reset", [b""], EndpointUnreachableError, r"client\.connection_reset", 3),
        ("503, then fine", [http(503), _token("t")], None, "", 2),
        ("429, then fine", [http(429, Retry_After="0"), _token("t")], None, "", 2),
    ],
)
async def test_the_token_call(happened, answers, error_type, says, requests):
    async with serving(replies(*answers)) as server:
        modelarts = client(server, _login(server))
        if error_type is None:
            async with modelarts:
                assert modelarts.project_id == "p1"
        else:
            with pytest.raises(error_type, match=says) as raised:
                await modelarts.__aenter__()
            assert "hidden-password" not in str(raised.value)
        assert len(server.requests) == requests


async def test_a_token_of_another_project_is_not_used():
    async with serving(replies(_token("t", {"id": "p2"}))) as server:
        with pytest.raises(AccessDeniedError, match="another project than p1"):
            await client(server, _login(server, project_id="p1")).__aenter__()


async def test_an_identity_service_that_cannot_be_reached():
    async with serving(good) as server:
        gone = _login(server, auth_url="http://127.0.0.1:9/v3")
        with pytest.raises(EndpointUnreachableError, match="OS_AUTH_URL"):
            await client(server, gone, first_contact_seconds=0.2).__aenter__()
        unknown = _login(server, auth_url="https://iam.invalid/v3")
        with pytest.raises(EndpointUnreachableError, match="does not resolve"):
            await client(server, unknown).__aenter__()


async def test_a_signature_that_is_refused_after_it_worked_concerns_the_image_first():
    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        assert request.headers["x-project-id"] == "p1"
        writer.write(error(401, "APIG.0301") if request.id == ID else described(request))

    async with serving(script) as server, client(server, AccessKey("AK", "SK", "p1")) as modelarts:
        assert (await modelarts.show_image(ids(1)[0])).outcome is Outcome.OK
        answer = await modelarts.show_image(ID)
        assert (answer.outcome, answer.error_code, answer.attempts) == (Outcome.FAILED, "APIG.0301", 3)


async def test_a_signature_that_never_worked_ends_the_run():
    async with serving(replies(error(401, "APIG.0301"))) as server:
        async with client(server, AccessKey("hidden-ak", "hidden-sk", "p1")) as modelarts:
            with pytest.raises(AccessDeniedError, match="OS_ACCESS_KEY") as raised:
                await modelarts.show_image(ID)
            assert "hidden" not in str(raised.value)


# -- the list


def page(names: list[str], total: object) -> bytes:
    return http(200, json.dumps({"data": [{"id": name} for name in names], "total": total}).encode())


@pytest.mark.parametrize(
    ("happened", "answers", "pages", "shortfall"),
    [
        ("all were seen", [page(["a", "b"], 3), page(["c"], 3)], [["a", "b"], ["c"]], 0),
        ("total came as text", [page(["a", "b"], "2")], [["a", "b"]], 0),
        ("an image moved to the next page", [page(["a", "b"], 3), page(["B", "c"], 3)], [["a", "b"], ["c"]], 0),
        ("an empty page", [page(["a"], 9), page([], 9)], [["a"]], 8),
        ("a page with nothing new", [page(["a"], 9), page(["a"], 9)], [["a"]], 8),
        ("past the end", [page(["a"], 9), error(400, "ModelArts.6400")], [["a"]], 8),
        ("no total", [page(["a"], None), page(["b"], None), page([], None)], [["a"], ["b"]], 0),
        ("nothing at all", [page([], 0)], [], 0),
        ("a passing fault", [http(503), page(["a"], 1)], [["a"]], 0),
        ("no JSON once", [HTML, page(["a"], 1)], [["a"]], 0),
        (
            "items without an id",
            [http(200, b'{"data": [{"id": "a"}, {"id": 5}, {}, null, 7], "total": 1}')],
            [["a"]],
            0,
        ),
    ],
)
async def test_the_list(happened, answers, pages, shortfall, caplog):
    async with serving(replies(*answers)) as server, client(server) as modelarts:
        read = [one async for one in modelarts.list_images(page_size=2)]
        assert [[item["id"] for item in one.items] for one in read] == pages
        assert modelarts.list_shortfall == shortfall
        assert server.requests[0].path == "/v1/p1/images?limit=2&offset=0"
    warnings = [record.getMessage() for record in caplog.records if record.name == "pipelines.api"]
    assert len(warnings) == (1 if shortfall else 0)


async def test_the_next_page_begins_after_the_records_of_the_last():
    answers = [page(["a", "b"], 4), page(["b", "c"], 4), page(["d"], 4)]
    async with serving(replies(*answers)) as server, client(server) as modelarts:
        read = [one async for one in modelarts.list_images(page_size=2)]
        assert [request.path.rpartition("=")[2] for request in server.requests] == ["0", "2", "4"]
    assert read[0].body == answers[0].partition(b"\r\n\r\n")[2]
    assert (read[0].total, read[0].observed_at.tzinfo) == (4, dt.UTC)


@pytest.mark.parametrize(
    ("raw", "error_type"),
    [
        (error(400, "ModelArts.6400"), PipelineError),
        (error(400, "ModelArts.0104"), PipelineError),
        (error(403, "ModelArts.0108"), ListDeniedError),
        (error(403, "ModelArts.0108"), AccessDeniedError),
        (error(404, "APIG.0101"), ConfigurationError),
        (http(500), ListUnreadableError),
        (HTML, ListUnreadableError),
    ],
)
async def test_a_list_that_cannot_be_read(raw, error_type):
    async with serving(replies(raw)) as server, client(server) as modelarts:
        with pytest.raises(error_type):
            [one async for one in modelarts.list_images()]


async def test_a_list_that_the_api_does_not_have_stops_nothing_else():
    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(error(404, "APIG.0101") if "notebooks" in request.path else described(request))

    async with serving(script) as server, client(server) as modelarts:
        assert (await modelarts.show_image(ID)).outcome is Outcome.OK
        with pytest.raises(ListUnreadableError, match=r"The notebook list of .* \(HTTP 404 APIG\.0101\)\.$"):
            [one async for one in modelarts.list_notebooks()]
        assert (await modelarts.show_image(ID)).outcome is Outcome.OK


# -- the notebooks


SECRET = "3eff13f2-3d70-5456-6dc7-e3f99f562022"


def notebook(**fields: object) -> dict[str, object]:
    return {"id": "n1", "token": SECRET, "url": f"https://n.invalid/?token={SECRET}", "lease": {}} | fields


def notebooks_page(*items: object, total: int) -> bytes:
    return http(200, json.dumps({"data": items, "total": total}).encode())


@pytest.mark.parametrize(
    ("happened", "item", "kept"),
    [
        (
            "as documented",
            notebook(id=" N1 ", name="a", status="RUNNING", image={"id": "E1A07296-22A8-4F05-8BC8-E936C8E54090"}),
            ("n1", "a", "RUNNING", "e1a07296-22a8-4f05-8bc8-e936c8e54090"),
        ),
        ("nothing but an id", {"id": "n1"}, ("n1", None, None, None)),
        ("no image", notebook(image=None), ("n1", None, None, None)),
        ("an image without an id", notebook(image={"name": "i"}), ("n1", None, None, None)),
        ("an image with a blank id", notebook(image={"id": " "}), ("n1", None, None, None)),
        ("an image that is no object", notebook(image="e1a07296"), ("n1", None, None, None)),
        ("an image id that is no text", notebook(image={"id": 7}), ("n1", None, None, None)),
        ("a name and a status that are no text", notebook(name={"a": 1}, status=5), ("n1", None, None, None)),
    ],
)
async def test_a_notebook_is_reduced(happened, item, kept):
    async with serving(replies(notebooks_page(item, total=1))) as server, client(server) as modelarts:
        (read,) = [one async for one in modelarts.list_notebooks()]
        assert [request.path for request in server.requests] == ["/v1/p1/notebooks/all?limit=100&offset=0"]
    (only,) = read
    assert (only.id, only.name, only.status, only.image_id) == kept
    assert only.observed_at.tzinfo == dt.UTC
    assert SECRET not in repr(read)


async def test_notebooks_without_an_id_are_counted(caplog):
    items = [notebook(), notebook(id=None), notebook(id=" "), {}, None, 7]
    async with serving(replies(notebooks_page(*items, total=6), notebooks_page(total=6))) as server:
        async with client(server) as modelarts:
            read = [book.id async for books in modelarts.list_notebooks() for book in books]
            assert (read, modelarts.notebooks_skipped) == (["n1"], 5)
    told = [record.getMessage() for record in caplog.records if record.name == "pipelines.api"]
    assert [sentence.partition(" has ")[2] for sentence in told] == ["5 items without an id."]
    assert SECRET not in caplog.text


async def test_notebooks_that_are_not_on_the_pages_are_missed():
    pages = [notebooks_page(notebook(), total=3), notebooks_page(notebook(id="N1"), total=3)]
    async with serving(replies(*pages)) as server, client(server) as modelarts:
        with pytest.raises(ListUnreadableError, match="has 3 notebooks, but its pages held 1"):
            [one async for one in modelarts.list_notebooks()]


async def test_no_frame_that_is_alive_holds_a_token():
    """Neither while a page is at work, nor in the traceback of what went wrong with one."""
    wrong = http(200, json.dumps({"data": notebook()}).encode())
    async with serving(replies(notebooks_page(notebook(), total=2), wrong)) as server, client(server) as modelarts:
        reading = modelarts.list_notebooks()
        await anext(reading)
        assert SECRET not in repr(reading.ag_frame.f_locals)
        with pytest.raises(ListUnreadableError) as raised:
            await anext(reading)
    frames = [frame for frame, _ in walk_tb(raised.value.__traceback__) if frame.f_code.co_filename.endswith("api.py")]
    assert len(frames) == 3
    assert SECRET not in repr([frame.f_locals for frame in frames])
