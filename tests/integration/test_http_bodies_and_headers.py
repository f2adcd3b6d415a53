"""Unusual but valid responses: bodies in every encoding of HTTP, and old-style headers."""

import gzip
import zlib

import pytest
from scripted_server import GOOD, ID, client, http, replies, serving
from virtual_clock import by_virtual_clock

from pipelines.cloud.options import Limits
from pipelines.tables import Outcome


def raw_deflate(plain: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(plain) + packer.flush()


def members(*parts: bytes) -> bytes:
    return b"".join(gzip.compress(part) for part in parts)


NOISE = bytes(range(256)) * 4
# Larger than one unpacking step, on both sides.
LARGE = GOOD[:-1] + b', "pad": "' + b"".join(b"%x" % (number * number) for number in range(40_000)) + b'"}'


async def _ask(*answers: bytes, **options):
    async with serving(replies(*answers)) as server, client(server, **options) as modelarts:
        answered = await modelarts.show_image(ID)
        return answered, modelarts.stats.requests


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(GOOD)),
        ("gzip", members(GOOD[:10], GOOD[10:])),
        ("gzip", members(*(GOOD[at : at + 1] for at in range(len(GOOD))))),
        ("gzip", members(b"", GOOD, b"")),
        ("gzip", members(GOOD[:10], GOOD[10:]) + bytes(512)),
        ("x-gzip", members(GOOD[:10], GOOD[10:])),
        ("gzip", gzip.compress(LARGE)),
        ("gzip", members(LARGE[:100_000], LARGE[100_000:])),
        ("deflate", zlib.compress(GOOD)),
        ("deflate", raw_deflate(GOOD)),
        ("Deflate", raw_deflate(LARGE)),
        ("", GOOD),
    ],
    ids=[
        "one member",
        "two members",
        "a member for each byte",
        "empty members",
        "zeros after the last member",
        "by its old name",
        "a large member",
        "large members",
        "deflate",
        "raw deflate",
        "large raw deflate",
        "an empty name",
    ],
)
@by_virtual_clock
async def test_valid_body_is_read_in_any_encoding(encoding, body):
    answered, requests = await _ask(http(200, body, Content_Encoding=encoding))
    assert (answered.outcome, requests) == (Outcome.OK, 1)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", members(GOOD[:10], GOOD[10:])[:-1]),
        ("gzip", gzip.compress(GOOD) + gzip.compress(NOISE)[:12]),
        ("gzip", gzip.compress(LARGE)[:-9]),
        ("gzip", raw_deflate(GOOD)),
        ("deflate", raw_deflate(GOOD)[:-1]),
        ("deflate", zlib.compress(GOOD)[:-1]),
    ],
    ids=["half a last member", "a head alone", "half a large member", "gzip that is none", "half raw", "half"],
)
@by_virtual_clock
async def test_truncated_packed_body_is_refused(encoding, body):
    answered, requests = await _ask(http(200, body, Content_Encoding=encoding))
    assert (answered.outcome, answered.error_code, requests) == (Outcome.FAILED, "client.bad_encoding", 3)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", members(*[bytes(60_000)] * 20)),
        ("gzip", gzip.compress(bytes(1_000_001))),
        ("deflate", raw_deflate(bytes(1_000_001))),
    ],
    ids=["members", "one member", "raw deflate"],
)
@by_virtual_clock
async def test_body_that_unpacks_beyond_the_limit_is_refused_at_once(encoding, body):
    answered, requests = await _ask(http(200, body, Content_Encoding=encoding), limits=Limits(body_bytes=1_000_000))
    assert (answered.outcome, answered.error_code, requests) == (Outcome.FAILED, "client.body_too_large", 1)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\nContent-Length: %d\n\n",
        b"HTTP/1.1 200 OK\r\nServer: a\nContent-Length: %d\r\n\n",
        b"HTTP/1.1 200 OK\r\nX-Policy: one\r\n two\r\n\tthree\r\nContent-Length: %d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n %d\r\n\r\n",
        b"HTTP/1.1 200 OK\nX-Policy: one\n two\nContent-Length: %d\n\n",
    ],
    ids=["LF alone", "LF now and then", "folded", "folded before its value", "folded by LF alone"],
)
@by_virtual_clock
async def test_valid_old_style_headers_are_read_and_the_connection_kept(head):
    raw = head % len(GOOD) + GOOD
    async with serving(replies(raw)) as server, client(server) as modelarts:
        for _ in range(3):
            assert (await modelarts.show_image(ID)).outcome is Outcome.OK
        assert (len(server.requests), server.connections) == (3, 1)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: %d\r\n\r\n",
    ],
    ids=["two framings", "two lengths", "a folded length", "CR alone"],
)
@by_virtual_clock
async def test_ambiguous_body_length_is_refused(head):
    answered, _ = await _ask(head % len(GOOD) + GOOD)
    assert (answered.outcome, answered.error_code) == (Outcome.FAILED, "client.bad_http")
