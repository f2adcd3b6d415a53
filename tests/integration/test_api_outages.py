"""Faults that concern all workers: an unreachable endpoint, TLS, proxies, and errors that end a run."""

import asyncio
import socket
import ssl
import time
from pathlib import Path

import pytest
import trustme
from scripted_server import (
    HTML,
    ID,
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

from pipelines.cloud.credentials import ReadyToken
from pipelines.cloud.modelarts import ModelArtsClient
from pipelines.cloud.options import RetryPolicy, Timeouts
from pipelines.errors import (
    AccessDeniedError,
    AccountSuspendedError,
    ConfigurationError,
    EndpointUnreachableError,
    PipelineError,
)
from pipelines.tables import Outcome


@by_virtual_clock
async def test_refused_connection_is_retried_until_it_is_back():
    async with serving(good) as server, client(server, timeouts=Timeouts(outage=10, request=5)) as modelarts:
        assert (await modelarts.show_image(ID)).outcome is Outcome.OK
        await server.stop()
        fetching = asyncio.create_task(fetch(modelarts, ids(50)))
        await asyncio.sleep(0.6)
        assert not fetching.done()
        await server.start()
        answers = await fetching
    assert len(answers) == 50
    assert {answer.outcome for answer in answers} == {Outcome.OK}


@by_virtual_clock
async def test_server_restart_during_a_run_costs_no_image():
    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.01)
        writer.write(described(request))

    async with (
        serving(slow) as server,
        client(
            server, retry_policy=RetryPolicy(attempts=6, backoff_seconds=0.01), timeouts=Timeouts(outage=10, request=5)
        ) as modelarts,
    ):
        fetching = asyncio.create_task(fetch(modelarts, ids(400), workers=16))
        while len(server.requests) < 100:
            await asyncio.sleep(0.01)
        await server.stop()
        await asyncio.sleep(0.2)
        await server.start()
        answers = await fetching
    assert len(answers) == 400
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert modelarts.stats.retries > 0


@by_virtual_clock
async def test_long_outage_ends_the_run():
    async with serving(good) as server, client(server, timeouts=Timeouts(outage=1, request=5)) as modelarts:
        await modelarts.show_image(ID)
        await server.stop()
        started = time.monotonic()
        results = await asyncio.gather(*(modelarts.show_image(one) for one in ids(32)), return_exceptions=True)
        assert 0.9 <= time.monotonic() - started < 2
        assert {type(result) for result in results} == {EndpointUnreachableError}
        assert len({str(result) for result in results}) == 1
        assert "was refused" in str(results[0])
        # All workers wait together and share each try.
        assert modelarts.stats.requests < 32 * 8
        await server.start()


@by_virtual_clock
async def test_endpoint_that_never_answered_is_given_up_soon():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    async with client(url, timeouts=Timeouts(first_contact=0.5, request=5)) as modelarts:
        started = time.monotonic()
        with pytest.raises(EndpointUnreachableError, match="IMAGE_SNAPSHOTS_ENDPOINT"):
            await fetch(modelarts, ids(100))
        assert 0.4 <= time.monotonic() - started < 1


async def test_unresolvable_name_is_given_up_after_two_tries():
    async with client("https://modelarts.invalid", timeouts=Timeouts(first_contact=60, request=5)) as modelarts:
        with pytest.raises(EndpointUnreachableError, match="does not resolve"):
            await modelarts.show_image(ID)
        assert modelarts.stats.requests == 2


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
@by_virtual_clock
async def test_fatal_error_stops_all_workers_at_once(raw, error_type):
    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        if request is not server.requests[0]:
            # A worker that waits longer than the test is stopped, too.
            await asyncio.sleep(20)
        writer.write(raw)

    async with serving(script) as server, client(server, timeouts=Timeouts(request=30)) as modelarts:
        started = time.monotonic()
        message = await _raises_for_all(modelarts, error_type)
        assert time.monotonic() - started < 2
        assert TOKEN not in message
        assert "as it was told" not in message


@by_virtual_clock
async def test_fatal_error_stops_waiting_workers():
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


async def test_endpoint_that_is_not_the_api_is_given_up():
    async with serving(replies(HTML)) as server, client(server) as modelarts:
        with pytest.raises(ConfigurationError, match=r"not the ModelArts API.*IMAGE_SNAPSHOTS_ENDPOINT"):
            await fetch(modelarts, ids(1000))
        assert len(server.requests) < 300


async def test_endpoint_that_answers_only_errors_is_given_up():
    async with (
        serving(replies(http(503))) as server,
        client(server, timeouts=Timeouts(stall=0.5, request=5)) as modelarts,
    ):
        with pytest.raises(EndpointUnreachableError, match="nothing but errors"):
            await fetch(modelarts, ids(100_000))
        assert modelarts.stats.requests < 20_000


async def test_html_for_some_images_fails_only_those_images():
    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(HTML if request.id in bad else described(request))

    wanted = ids(100)
    bad = set(wanted[10:70])
    async with serving(script) as server, client(server) as modelarts:
        answers = await fetch(modelarts, wanted, workers=4)
    assert {answer.id for answer in answers if answer.outcome is Outcome.FAILED} == bad


async def test_tls_trusts_only_the_configured_authority(tmp_path: Path):
    authority = trustme.CA()
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with serving(good, context) as server:
        async with client(server, ca_bundle=bundle) as modelarts:
            assert (await modelarts.show_image(ID)).outcome is Outcome.OK
        async with client(server, ReadyToken(TOKEN, "p1", ca_bundle=bundle)) as modelarts:
            assert (await modelarts.show_image(ID)).outcome is Outcome.OK
        async with client(server) as modelarts:
            with pytest.raises(ConfigurationError, match="IMAGE_SNAPSHOTS_CA_BUNDLE"):
                await modelarts.show_image(ID)
            assert modelarts.stats.requests == 1
    with pytest.raises(ConfigurationError, match="cannot be read"):
        async with client("https://127.0.0.1:1", ca_bundle=tmp_path / "none.pem"):
            pass


async def test_server_without_tls_is_an_error():
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http(400))
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, client(url, timeouts=Timeouts(first_contact=0.3, request=5)) as modelarts:
        with pytest.raises(EndpointUnreachableError, match="TLS handshake failed"):
            await modelarts.show_image(ID)


async def test_proxy_of_the_environment_is_used(monkeypatch):
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
