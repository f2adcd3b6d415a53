"""The faults that a sandbox can be told to show."""

import base64
import socket
import struct
import time
from urllib.parse import urlsplit

import httpx
import pytest
from sandbox_calls import ALPHA, CATALOGUE, DAY, error_of, set_faults, token_of, token_request

from pipelines.sandbox import CannedAnswer, Faults, SandboxOptions, running_sandbox
from pipelines.sandbox.catalogue import Catalogue


def test_latency_delays_responses(authorised, some_id):
    set_faults(authorised, latency_ms=150)
    started = time.perf_counter()
    assert authorised.get(f"/v1/{ALPHA}/images/{some_id}").status_code == 200
    assert time.perf_counter() - started >= 0.15


@pytest.mark.parametrize("retry_after", ["7", "0", "Wed, 21 Oct 2026 07:28:00 GMT", "soon", "99999999999"])
def test_throttling_sends_retry_after(authorised, some_id, retry_after):
    set_faults(authorised, ratio_429=1, retry_after=retry_after)
    for path in (f"/v1/{ALPHA}/images/{some_id}", f"/v1/{ALPHA}/images"):
        answer = authorised.get(path)
        assert error_of(answer) == (429, "APIG.0308")
        assert answer.headers["Retry-After"] == retry_after


def test_throttling_can_omit_retry_after(authorised, some_id):
    set_faults(authorised, ratio_429=1, retry_after=None)
    assert "Retry-After" not in authorised.get(f"/v1/{ALPHA}/images/{some_id}").headers


def test_server_errors_are_sent(authorised, some_id):
    set_faults(authorised, ratio_500=1)
    assert error_of(authorised.get(f"/v1/{ALPHA}/images/{some_id}")) == (500, "ModelArts.0010")


def test_html_page_with_status_200_is_sent(authorised, some_id):
    set_faults(authorised, ratio_html=1)
    answer = authorised.get(f"/v1/{ALPHA}/images/{some_id}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html")
    assert answer.text.startswith("<html>")


def raw_get(sandbox, path, token):
    """Everything the server sends for one request, and how it ended."""
    address = urlsplit(sandbox.endpoint)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nX-Auth-Token: {token}\r\n\r\n"
        connection.sendall(request.encode())
        received = b""
        while True:
            try:
                chunk = connection.recv(65536)
            except ConnectionResetError:
                return received, "reset"
            if not chunk:
                return received, "closed"
            received += chunk


def test_resets_are_resets_on_the_wire(authorised, sandbox, some_id):
    set_faults(authorised, ratio_reset=1)
    path = f"/v1/{ALPHA}/images/{some_id}"
    assert raw_get(sandbox, path, authorised.headers["X-Auth-Token"]) == (b"", "reset")
    with pytest.raises(httpx.ReadError):
        authorised.get(path)


def test_truncated_bodies_are_shorter_than_announced(authorised, sandbox, some_id):
    path = f"/v1/{ALPHA}/images/{some_id}"
    whole = authorised.get(path).content
    set_faults(authorised, ratio_truncated=1)
    received, end = raw_get(sandbox, path, authorised.headers["X-Auth-Token"])
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert f"content-length: {len(whole)}".encode() in head.lower()
    assert body == whole[: len(whole) // 2]
    assert end == "closed"
    with pytest.raises(httpx.RemoteProtocolError):
        authorised.get(path)


def test_rate_limit_accepts_its_rate(authorised, some_id):
    set_faults(authorised, rate_limit=5, retry_after="2")
    time.sleep(0.3)
    started = time.perf_counter()
    answers = [authorised.get(f"/v1/{ALPHA}/images/{some_id}") for _ in range(60)]
    elapsed = time.perf_counter() - started
    passed = sum(answer.status_code == 200 for answer in answers)
    assert 1 <= passed <= 5 + 5 * elapsed + 1
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 60 - passed > 0
    assert {answer.headers["Retry-After"] for answer in refused} == {"2"}


@pytest.mark.parametrize(
    "path", ["images", "images/group", "notebooks/all", "images/278e88d1-5b71-4766-8502-b3ba72e824d9"]
)
def test_suspended_account_gets_only_tokens(authorised, sandbox, path):
    set_faults(authorised, suspended=True)
    assert error_of(authorised.get(f"/v1/{ALPHA}/{path}")) == (401, "ModelArts.6201")
    assert token_of(authorised, sandbox)


def test_the_identity_service_can_be_down(authorised, sandbox, some_id):
    set_faults(authorised, iam_down=True)
    answer = authorised.post("/v3/auth/tokens", json=token_request(sandbox.env))
    assert answer.status_code == 503
    assert authorised.get(f"/v1/{ALPHA}/images/{some_id}").status_code == 200


def test_random_faults_spare_tokens_notebooks_and_controls(authorised, sandbox):
    set_faults(authorised, ratio_500=1)
    assert token_of(authorised, sandbox)
    assert authorised.get(f"/v1/{ALPHA}/notebooks/all").status_code == 200
    assert authorised.get("/sandbox/stats").status_code == 200


@pytest.mark.parametrize(
    ("canned", "status", "content", "content_type"),
    [
        ({"body": {"id": "other"}}, 200, b'{"id":"other"}', "application/json"),
        ({"status": 400, "body": "not json"}, 400, b"not json", "application/json"),
        ({"status": 502, "headers": {"content-type": "text/html"}, "body": "<p>"}, 502, b"<p>", "text/html"),
        ({"body_base64": base64.b64encode(b"\xff\x00").decode()}, 200, b"\xff\x00", "application/json"),
        ({"status": 404}, 404, b"", "application/json"),
    ],
)
def test_any_response_can_replace_an_image(authorised, some_id, canned, status, content, content_type):
    set_faults(authorised, answers={some_id: canned})
    answer = authorised.get(f"/v1/{ALPHA}/images/{some_id}")
    assert (answer.status_code, answer.content) == (status, content)
    assert answer.headers["Content-Type"] == content_type
    other = CATALOGUE.storylines(DAY)["odd"]
    assert authorised.get(f"/v1/{ALPHA}/images/{other}").json() == CATALOGUE.image(other, DAY)
    del authorised.headers["X-Auth-Token"]
    assert authorised.get(f"/v1/{ALPHA}/images/{some_id}").status_code == 401


def test_canned_response_may_have_headers(authorised, some_id):
    canned = {"status": 302, "headers": {"Location": "http://127.0.0.1:9/"}}
    set_faults(authorised, answers={some_id: canned})
    answer = authorised.get(f"/v1/{ALPHA}/images/{some_id}")
    assert (answer.status_code, answer.headers["Location"]) == (302, "http://127.0.0.1:9/")


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ({"ratio_429": 2}, "ratio_429"),
        ({"ratio_429": 0.6, "ratio_500": 0.6}, "must not add up"),
        ({"no_such": 1}, "no_such"),
        ({"retry_after": "1\r\nX: y"}, "retry_after"),
        ([], "JSON object"),
    ],
)
def test_impossible_faults_are_refused_and_change_nothing(client, wanted, named):
    before = client.get("/sandbox/faults").json()
    answer = client.put("/sandbox/faults", json=wanted)
    assert answer.status_code == 400
    assert named in answer.json()["error"]
    assert client.get("/sandbox/faults").json() == before


def outcomes(connection, ids):
    """The status, or the error, of three requests for each id."""
    seen = {}
    with httpx.Client(base_url=connection.endpoint, trust_env=False) as client:
        scope = {"project": {"id": connection.project_id}}
        client.headers["X-Auth-Token"] = client.post(
            "/v3/auth/tokens", json=token_request(connection.env, scope)
        ).headers["X-Subject-Token"]
        for nth in range(3):
            for image_id in ids:
                try:
                    answer = client.get(f"/v1/{connection.project_id}/images/{image_id}")
                    seen[image_id, nth] = "html" if answer.text.startswith("<") else answer.status_code
                except httpx.TransportError as error:
                    seen[image_id, nth] = type(error).__name__
        return seen, client.get("/sandbox/stats").json(), client.get("/sandbox/requested").json()


def test_faults_depend_on_the_seed_not_on_the_order():
    faults = Faults(ratio_429=0.1, ratio_500=0.1, ratio_reset=0.1, ratio_truncated=0.1, ratio_html=0.1)
    options = SandboxOptions(seed="faults", size=80, day=DAY, faults=faults)
    ids = list(Catalogue("faults", 80).ids(DAY))
    with running_sandbox(options) as first, running_sandbox(options) as second:
        seen, stats, requested = outcomes(first, ids)
        again, _, _ = outcomes(second, ids[::-1])
    assert seen == again
    total = 3 * len(ids)
    counts = {one: sum(value == one for value in seen.values()) for one in set(seen.values())}
    for fault in (429, 500, "html", "ReadError", "RemoteProtocolError"):
        assert 0.04 * total < counts[fault] < 0.18 * total, counts
    assert requested == dict.fromkeys(ids, 3)
    assert stats["requests"] == {"token": 1, "image": total}
    assert stats["tokens_issued"] == 1
    expected = {"201": 1, "429": counts[429], "500": counts[500], "html": counts["html"]}
    expected |= {"reset": counts["ReadError"], "truncated": counts["RemoteProtocolError"]}
    assert {key: stats["answers"][key] for key in expected} == expected
    assert sum(stats["answers"].values()) == total + 1


def test_faults_can_be_set_at_start(some_id):
    canned = CannedAnswer(status=418, body_base64=base64.b64encode(b"\x00tea"))
    faults = Faults(retry_after=None, suspended=True, answers={some_id: canned}, token_seconds=60)
    with running_sandbox(SandboxOptions(size=5, faults=faults)) as connection:
        shown = httpx.get(f"{connection.endpoint}/sandbox/faults", trust_env=False).json()
    assert Faults.model_validate(shown) == faults


def test_client_that_hangs_up_causes_no_error(sandbox, authorised, some_id):
    set_faults(authorised, latency_ms=100, ratio_truncated=1)
    address = urlsplit(sandbox.endpoint)
    for _ in range(3):
        connection = socket.create_connection((address.hostname, address.port))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        token = authorised.headers["X-Auth-Token"]
        connection.sendall(
            f"GET /v1/{ALPHA}/images/{some_id} HTTP/1.1\r\nHost: h\r\nX-Auth-Token: {token}\r\n\r\n".encode()
        )
        connection.close()
    set_faults(authorised)
    assert authorised.get(f"/v1/{ALPHA}/images/{some_id}").status_code == 200
