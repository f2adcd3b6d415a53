"""The outcome of an image's own responses and faults, for any bytes that a server sends."""

import asyncio
import datetime as dt
import gzip
import itertools
import json
import logging
import time
import zlib
from dataclasses import replace
from email.utils import format_datetime

import pytest
from scripted_server import (
    GOOD,
    HTML,
    ID,
    QUICK,
    TOKEN,
    Request,
    client,
    described,
    error,
    fetch,
    good,
    http,
    ids,
    replies,
    serving,
)
from virtual_clock import by_virtual_clock

from pipelines.cloud.options import Limits, RetryPolicy, Timeouts
from pipelines.tables import Outcome

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
async def test_each_response_gets_its_outcome(happened, raw, outcome, status, code, attempts):
    async with serving(replies(raw)) as server, client(server, limits=Limits(body_bytes=1_000_000)) as modelarts:
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
async def test_truncated_response_is_retried(happened, raw, code):
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


@by_virtual_clock
async def test_slow_headers_and_slow_body_time_out():
    async def never(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async def dribble(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    for script, status in ((never, None), (dribble, 200)):
        async with (
            serving(script) as server,
            client(
                server, timeouts=Timeouts(request=0.2), retry_policy=RetryPolicy(attempts=2, backoff_seconds=0.01)
            ) as modelarts,
        ):
            started = time.monotonic()
            answer = await modelarts.show_image(ID)
            assert (answer.outcome, answer.http_status, answer.error_code) == (Outcome.FAILED, status, "client.timeout")
            assert answer.attempts == 2
            assert 0.4 <= time.monotonic() - started < 0.5


async def test_endless_body_is_cut_off():
    sent = 0

    async def endless(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            sent += 0x10000
            await writer.drain()

    async with serving(endless) as server, client(server, limits=Limits(body_bytes=500_000)) as modelarts:
        answer = await modelarts.show_image(ID)
        assert (answer.outcome, answer.error_code, answer.attempts) == (Outcome.FAILED, "client.body_too_large", 1)
        await asyncio.sleep(0.05)
        assert sent < 20_000_000


@pytest.mark.parametrize(
    ("stated", "least", "most"),
    [
        ("1", 1.0, 1.5),
        ("0", 0.0, 0.5),
        ("-3", 0.0, 0.5),
        (None, 0.5, 1.5),
        ("soon", 0.5, 1.5),
        # By the wall clock, which continues while the test runs.
        ("date", 60, 100),
    ],
)
@by_virtual_clock
async def test_retry_after_is_honoured(stated, least, most):
    if stated == "date":
        stated = format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=99), usegmt=True)
    headers = {} if stated is None else {"Retry_After": stated}
    async with serving(replies(error(429, "APIG.0308", **headers), http(200, GOOD))) as server:
        async with client(server) as modelarts:
            answer = await modelarts.show_image(ID)
        assert (answer.outcome, answer.attempts, modelarts.stats.throttled) == (Outcome.OK, 2, 1)
        assert least <= server.requests[1].at - server.requests[0].at < most


@by_virtual_clock
async def test_absurd_retry_after_is_limited():
    async with serving(replies(error(429, "APIG.0308", Retry_After="31536000"))) as server:
        async with client(server, retry_policy=replace(QUICK, seconds=1)) as modelarts:
            answer = await modelarts.show_image(ID)
    assert (answer.outcome, answer.error_code, answer.attempts) == (Outcome.FAILED, "APIG.0308", 1)
    assert answer.elapsed_ms < 1000


@by_virtual_clock
async def test_retry_after_of_a_503_is_honoured():
    async with serving(replies(http(503, Retry_After="1"), http(200, GOOD))) as server, client(server) as modelarts:
        assert (await modelarts.show_image(ID)).outcome is Outcome.OK
        assert server.requests[1].at - server.requests[0].at >= 1.0


@by_virtual_clock
async def test_response_429_pauses_all_workers():
    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        is_refused = len(server.requests) > 20 and request is server.requests[20]
        writer.write(error(429, "APIG.0308", Retry_After="1") if is_refused else described(request))

    async with serving(script) as server, client(server) as modelarts:
        answers = await fetch(modelarts, ids(60), workers=8)
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(server.requests)]
    assert max(gaps) >= 0.95
    # Only requests in flight with the refused one still arrive.
    assert gaps.index(max(gaps)) <= 20 + 8


async def test_redirect_to_another_host_is_not_followed():
    async with serving(good) as other:
        elsewhere = http(307, Location=f"{other.url}/v1/p1/images/{ID}")
        async with serving(replies(elsewhere)) as server, client(server) as modelarts:
            answer = await modelarts.show_image(ID)
        assert (answer.outcome, answer.http_status, answer.error_code) == (Outcome.FAILED, 307, "client.redirect")
        assert (other.connections, len(server.requests)) == (0, 1)


async def test_connections_are_kept_and_bounded_but_cookies_are_dropped():
    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.001)
        body = json.dumps({"id": request.id}).encode()
        writer.write(http(200, body, Set_Cookie="session=abc; Path=/"))

    async with serving(script) as server, client(server, limits=Limits(connections=8)) as modelarts:
        answers = await fetch(modelarts, ids(200), workers=16)
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert (server.connections, len(server.requests)) == (8, 200)
    assert not any("cookie" in request.headers for request in server.requests)
    assert {request.headers["x-auth-token"] for request in server.requests} == {TOKEN}


@pytest.mark.parametrize("image_id", ["group", "", "../x", ID + "/..", ID.replace("-", ""), f"{ID}\n", f" {ID}"])
async def test_invalid_id_never_reaches_a_url(image_id):
    async with serving(good) as server, client(server) as modelarts:
        with pytest.raises(ValueError, match="not a UUID"):
            await modelarts.show_image(image_id)
        assert server.connections == 0


async def test_no_image_and_no_secret_is_logged(caplog):
    caplog.set_level(logging.DEBUG)
    async with serving(replies(http(500), http(200, GOOD))) as server, client(server) as modelarts:
        await modelarts.show_image(ID)
        shown = repr(modelarts) + repr(modelarts.__dict__) + repr(modelarts._authentication.__dict__)
    assert [record for record in caplog.records if record.name.startswith(("httpx", "aiohttp", "pipelines"))] == []
    assert TOKEN not in caplog.text
    assert TOKEN not in shown


@by_virtual_clock
async def test_configured_rate_is_kept():
    async with serving(good) as server, client(server, limits=Limits(rate=30)) as modelarts:
        await fetch(modelarts, ids(61))
    seconds = server.requests[-1].at - server.requests[0].at
    # Some may be sent at once at the beginning: those due within a tenth of a second.
    assert 57 / 30 <= seconds <= 60.1 / 30


@by_virtual_clock
async def test_server_s_rate_limit_is_found():
    allowed, left, counted_at = 40, 40.0, time.monotonic()

    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal left, counted_at
        left = min(allowed, left + (request.at - counted_at) * allowed)
        counted_at = request.at
        if left < 1:
            writer.write(error(429, "APIG.0308", Retry_After="1"))
        else:
            left -= 1
            writer.write(described(request))

    async with (
        serving(script) as server,
        client(server, retry_policy=replace(QUICK, attempts=9)) as modelarts,
    ):
        answers = await fetch(modelarts, ids(240))
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    # The bucket had one second's worth at the beginning.
    assert 200 / (server.requests[-1].at - server.requests[0].at) > 0.7 * allowed
    assert modelarts.stats.throttled <= 32 + 0.05 * 240
