"""A proxy's responses to CONNECT: temporary faults are waited out, others end the run, and any 2xx is a success."""

import asyncio
import ssl
from contextlib import asynccontextmanager

import pytest
import trustme
from scripted_server import ID, client, forward, good, http, replies, serving
from virtual_clock import by_virtual_clock

from pipelines.cloud.options import Timeouts
from pipelines.errors import ConfigurationError, EndpointUnreachableError
from pipelines.tables import Outcome


@asynccontextmanager
async def proxy_that_answers(port: int, *answers: bytes):
    """A proxy that sends these responses to its CONNECTs, the last one for ever, and forwards after a success."""
    left = list(answers)
    tasks = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        await reader.readuntil(b"\r\n\r\n")
        answer = left.pop(0) if len(left) > 1 else left[0]
        writer.write(answer)
        if answer.startswith(b"HTTP/1.1 2"):
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(forward(inner_reader, writer), forward(reader, inner_writer))
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        await asyncio.gather(*tasks)


ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@pytest.mark.parametrize(
    "answers",
    [
        *([http(status), ESTABLISHED] for status in (408, 425, 429, 500, 502, 503, 504)),
        [b"HTTP/1.1 201 Made\r\n\r\n"],
        [b"HTTP/1.1 204 Nothing to say\r\n\r\n"],
        [b"HTTP/1.1 299 Said\r\nContent-Length: 0\r\n\r\n"],
    ],
    ids=lambda answers: answers[0].split()[1].decode(),
)
@by_virtual_clock
async def test_temporary_proxy_fault_costs_no_image(answers, monkeypatch, tmp_path):
    authority, bundle = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("modelarts.example").configure_cert(theirs)
    async with serving(good, theirs) as server, proxy_that_answers(server.port, *answers) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        async with client("https://modelarts.example", ca_bundle=bundle) as modelarts:
            assert (await modelarts.show_image(ID)).outcome is Outcome.OK


@pytest.mark.parametrize("status", [400, 403, 404, 405, 407])
@by_virtual_clock
async def test_proxy_refusal_ends_the_run_at_the_first_request(status, monkeypatch):
    async with serving(replies(http(status))) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with client("https://modelarts.example") as modelarts:
            with pytest.raises(ConfigurationError, match=rf"proxy refuses the connection.*{status}.*HTTPS_PROXY"):
                await modelarts.show_image(ID)
            assert modelarts.stats.requests == 1


@by_virtual_clock
async def test_lasting_proxy_fault_is_an_outage_that_names_the_proxy(monkeypatch):
    async with serving(replies(http(503))) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with client("https://modelarts.example", timeouts=Timeouts(first_contact=2, request=5)) as modelarts:
            with pytest.raises(EndpointUnreachableError, match="the proxy answered 503"):
                await modelarts.show_image(ID)
            assert modelarts.stats.requests > 1
