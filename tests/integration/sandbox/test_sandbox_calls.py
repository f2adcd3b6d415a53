"""The sandbox as a client on the network sees it: real processes, real sockets on 127.0.0.1."""

import base64
import csv
import os
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from keystoneauth1 import session as keystone_session
from keystoneauth1.identity.generic import Password

from pipelines.errors import ConfigurationError, PipelineError
from pipelines.sandbox import CannedAnswer, Faults, SandboxOptions, running_sandbox
from pipelines.sandbox.catalogue import Catalogue
from pipelines.signing import sign_headers

ROOT = Path(__file__).resolve().parents[2]
DAY = date(2026, 11, 23)
ALPHA, BETA = "a" * 32, "b" * 32
SEED, SIZE = "integration", 60
CATALOGUE = Catalogue(SEED, SIZE, "alpha")


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    options = SandboxOptions(
        seed=SEED,
        size=SIZE,
        day=DAY,
        projects={"alpha": ALPHA, "beta": BETA},
        inventory_file=tmp_path_factory.mktemp("sandbox") / "inventory of alpha.csv",
    )
    with running_sandbox(options) as connection:
        yield connection


@pytest.fixture
def client(sandbox):
    """A client without credentials; faults and day are as at the start."""
    with httpx.Client(base_url=sandbox.endpoint, trust_env=False) as client:
        client.put("/sandbox/faults", json={}).raise_for_status()
        client.put("/sandbox/day", json={"day": DAY.isoformat()}).raise_for_status()
        yield client


@pytest.fixture
def authorised(client, sandbox):
    """The same client with a token of project alpha."""
    client.headers["X-Auth-Token"] = token_of(client, sandbox)
    return client


@pytest.fixture
def some_id():
    return next(image_id for image_id in CATALOGUE.ids(DAY) if CATALOGUE.image(image_id, DAY))


def token_request(env, scope=None, **user):
    user = {
        "name": env["OS_USERNAME"],
        "password": env["OS_PASSWORD"],
        "domain": {"name": env["OS_USER_DOMAIN_NAME"]},
    } | user
    auth = {"identity": {"methods": ["password"], "password": {"user": user}}}
    return {"auth": auth | ({"scope": scope} if scope else {})}


def token_of(client, sandbox, scope=None):
    scope = scope or {"project": {"id": ALPHA}}
    answer = client.post("/v3/auth/tokens", json=token_request(sandbox.env, scope))
    assert answer.status_code == 201, answer.text
    return answer.headers["X-Subject-Token"]


def set_faults(client, **faults):
    client.put("/sandbox/faults", json=faults).raise_for_status()


def error_of(answer):
    return answer.status_code, answer.json()["error_code"]


def signed(client, sandbox, path, *, access_key=None, secret_key=None, now=None, headers=None, sent=None):
    """GET `path` with a signature; `sent` is what is really asked for, if not the same."""
    headers = headers or {}
    env = sandbox.env
    added = sign_headers(
        "GET",
        sandbox.endpoint + path,
        headers,
        b"",
        access_key or env["OS_ACCESS_KEY"],
        secret_key or env["OS_SECRET_KEY"],
        now or datetime.now(UTC),
    )
    return client.get(sent or path, headers=headers | added)


# -- the token call


def test_the_token_call_answers_in_the_shape_of_the_identity_service(client, sandbox):
    answer = client.post("/v3/auth/tokens", json=token_request(sandbox.env, {"project": {"id": ALPHA}}))
    assert answer.status_code == 201
    assert len(answer.headers["X-Subject-Token"]) > 100
    token = answer.json()["token"]
    assert token["methods"] == ["password"]
    assert token["project"]["id"] == ALPHA
    assert token["project"]["name"] == "alpha"
    life = datetime.fromisoformat(token["expires_at"]) - datetime.fromisoformat(token["issued_at"])
    assert life == timedelta(hours=24)


def test_a_project_can_be_named(client, sandbox):
    scope = {"project": {"name": "beta", "domain": {"name": sandbox.env["OS_USER_DOMAIN_NAME"]}}}
    answer = client.post("/v3/auth/tokens", json=token_request(sandbox.env, scope))
    assert answer.json()["token"]["project"]["id"] == BETA


@pytest.mark.parametrize("user", [{"password": "wrong"}, {"name": "nobody"}, {"domain": {"name": "elsewhere"}}])
def test_a_wrong_user_is_refused(client, sandbox, user):
    answer = client.post("/v3/auth/tokens", json=token_request(sandbox.env, {"project": {"id": ALPHA}}, **user))
    assert answer.status_code == 401
    assert answer.json() == {
        "error": {"code": 401, "message": "The username or password is wrong.", "title": "Unauthorized"}
    }
    assert "X-Subject-Token" not in answer.headers


def test_an_unknown_project_is_refused(client, sandbox):
    for project in ({"id": "f" * 32}, {"name": "gamma"}):
        answer = client.post("/v3/auth/tokens", json=token_request(sandbox.env, {"project": project}))
        assert answer.status_code == 401
        assert "project" in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"auth": {}}', b'{"auth": {"identity": {"methods": ["token"]}}}'])
def test_a_malformed_token_request_is_refused(client, body):
    assert client.post("/v3/auth/tokens", content=body).status_code == 400


def test_the_clouds_own_library_gets_a_token(sandbox, client, some_id):
    env = sandbox.env
    login = Password(
        auth_url=env["OS_AUTH_URL"],
        username=env["OS_USERNAME"],
        password=env["OS_PASSWORD"],
        user_domain_name=env["OS_USER_DOMAIN_NAME"],
        project_name=env["OS_PROJECT_NAME"],
        project_domain_name=env["OS_USER_DOMAIN_NAME"],
    )
    session = keystone_session.Session(auth=login)
    assert session.get_project_id() == ALPHA
    answer = client.get(f"/v1/{ALPHA}/images/{some_id}", headers=session.get_auth_headers())
    assert answer.status_code == 200


def test_projects_are_listed_for_a_token_and_for_a_signature(authorised, sandbox):
    by_token = authorised.get("/v3/projects").json()["projects"]
    assert [(one["name"], one["id"]) for one in by_token] == [("alpha", ALPHA), ("beta", BETA)]
    del authorised.headers["X-Auth-Token"]
    assert signed(authorised, sandbox, "/v3/projects").json()["projects"] == by_token
    assert [one["id"] for one in signed(authorised, sandbox, "/v3/projects?name=beta").json()["projects"]] == [BETA]
    assert authorised.get("/v3/projects").status_code == 401


# -- images, lists, notebooks


def test_image_details_are_those_of_the_catalogue(authorised):
    ids = [row.id for row in CATALOGUE.inventory(DAY)]
    seen = set()
    for image_id in ids:
        answer = authorised.get(f"/v1/{ALPHA}/images/{image_id}")
        expected = CATALOGUE.answer(image_id, DAY)
        assert answer.status_code == expected.http_status
        assert (answer.json() if answer.content else None) == expected.body
        seen.add(answer.status_code)
    assert seen >= {200, 403}


def test_a_missing_image_is_answered_like_the_real_api(authorised):
    answer = authorised.get(f"/v1/{ALPHA}/images/278e88d1-5b71-4766-8502-b3ba72e824d9")
    assert answer.status_code in (400, 404)
    assert not answer.content or answer.json()["error_code"] == "ModelArts.6404"


def test_each_project_has_a_catalogue_of_its_own(client, sandbox, some_id):
    client.headers["X-Auth-Token"] = token_of(client, sandbox, {"project": {"id": BETA}})
    assert client.get(f"/v1/{BETA}/images/{some_id}").status_code in (400, 404)
    listed = client.get(f"/v1/{BETA}/images").json()["data"]
    assert [item["id"] for item in listed] == list(Catalogue(SEED, SIZE, "beta").ids(DAY))


def test_the_list_is_paged_by_records(authorised):
    whole = authorised.get(f"/v1/{ALPHA}/images").json()
    total = CATALOGUE.count(DAY)
    assert (whole["current"], whole["size"], whole["total"], whole["pages"]) == (0, 200, total, 1)
    page = authorised.get(f"/v1/{ALPHA}/images", params={"limit": 25, "offset": 25}).json()
    assert page["data"] == whole["data"][25:50]
    assert (page["current"], page["pages"], page["size"]) == (1, 3, 25)
    assert not any("support_res_categories" in item for item in whole["data"])
    last = authorised.get(f"/v1/{ALPHA}/images", params={"limit": 25, "offset": total - 1}).json()
    assert len(last["data"]) == 1


@pytest.mark.parametrize("query", ["offset=60", "offset=1000&limit=5", "limit=0", "offset=-1", "limit=many"])
def test_a_page_past_the_end_or_impossible_is_an_error(authorised, query):
    assert error_of(authorised.get(f"/v1/{ALPHA}/images?{query}")) == (400, "ModelArts.6400")


def test_the_list_can_be_filtered(authorised):
    data = authorised.get(f"/v1/{ALPHA}/images?type=BUILD_IN&limit=3").json()
    expected = [item["id"] for item in CATALOGUE.page(DAY, 0, SIZE) if item["type"] == "BUILD_IN"]
    assert [item["id"] for item in data["data"]] == expected[:3]
    assert data["total"] == len(expected)


def test_groups_share_the_path_of_the_details_call(authorised):
    groups = authorised.get(f"/v1/{ALPHA}/images/group").json()
    assert sum(group["version_count"] for group in groups["data"]) == CATALOGUE.count(DAY)
    assert "group" not in authorised.get("/sandbox/requested").json()


def test_notebooks_come_ten_at_a_time(authorised):
    notebooks = list(Catalogue(SEED, SIZE, "alpha").notebooks(DAY))
    assert len(notebooks) == 9
    first = authorised.get(f"/v1/{ALPHA}/notebooks/all").json()
    assert (first["size"], first["total"], first["data"]) == (10, 9, notebooks)
    some = authorised.get(f"/v1/{ALPHA}/notebooks/all?limit=4&offset=8").json()
    assert some["data"] == notebooks[8:]


def test_an_unknown_path_is_a_configuration_error(authorised):
    assert error_of(authorised.get(f"/v2/{ALPHA}/images")) == (404, "APIG.0101")
    assert error_of(authorised.delete(f"/v1/{ALPHA}/images")) == (404, "APIG.0101")


# -- authentication


@pytest.mark.parametrize(
    "path", ["images", "images/group", "notebooks/all", "images/278e88d1-5b71-4766-8502-b3ba72e824d9"]
)
def test_every_call_needs_credentials(client, path):
    assert error_of(client.get(f"/v1/{ALPHA}/{path}")) == (401, "ModelArts.0201")
    refused = client.get(f"/v1/{ALPHA}/{path}", headers={"X-Auth-Token": "invented"})
    assert error_of(refused) == (401, "ModelArts.0203")


def test_a_token_of_another_project_is_refused(client, sandbox):
    client.headers["X-Auth-Token"] = token_of(client, sandbox, {"project": {"id": BETA}})
    assert error_of(client.get(f"/v1/{ALPHA}/images")) == (404, "ModelArts.2786")
    assert client.get(f"/v1/{BETA}/images").status_code == 200


def test_a_token_without_project_is_refused(client, sandbox):
    token = client.post("/v3/auth/tokens", json=token_request(sandbox.env)).headers["X-Subject-Token"]
    answer = client.get(f"/v1/{ALPHA}/images", headers={"X-Auth-Token": token})
    assert error_of(answer) == (400, "ModelArts.0204")


def test_tokens_expire(client, sandbox):
    set_faults(client, token_seconds=0.3)
    token = token_of(client, sandbox)
    headers = {"X-Auth-Token": token}
    assert client.get(f"/v1/{ALPHA}/images", headers=headers).status_code == 200
    time.sleep(0.35)
    assert error_of(client.get(f"/v1/{ALPHA}/images", headers=headers)) == (401, "APIG.0301")


def test_all_tokens_can_be_ended_at_once(authorised, sandbox):
    set_faults(authorised, ratio_500=0.5)
    assert authorised.patch("/sandbox/faults", json={"expire_tokens_now": True}).json()["ratio_500"] == 0.5
    assert error_of(authorised.get(f"/v1/{ALPHA}/notebooks/all")) == (401, "APIG.0301")
    authorised.headers["X-Auth-Token"] = token_of(authorised, sandbox)
    assert authorised.get(f"/v1/{ALPHA}/notebooks/all").status_code == 200


def test_a_signature_stands_for_a_token(client, sandbox, some_id):
    for path in (f"/v1/{ALPHA}/images/{some_id}", f"/v1/{ALPHA}/images?limit=2&offset=4", f"/v1/{BETA}/images"):
        assert signed(client, sandbox, path).status_code == 200
    answer = signed(client, sandbox, f"/v1/{ALPHA}/images/{some_id}", headers={"X-Project-Id": ALPHA})
    assert answer.json() == CATALOGUE.image(some_id, DAY)


@pytest.mark.parametrize("wrong", [{"access_key": "AK"}, {"secret_key": "SK"}])
def test_a_wrong_key_is_refused(client, sandbox, wrong):
    assert error_of(signed(client, sandbox, f"/v1/{ALPHA}/images", **wrong)) == (403, "ModelArts.0206")


def test_a_signature_of_another_request_is_refused(client, sandbox):
    path = f"/v1/{ALPHA}/images?limit=2"
    assert error_of(signed(client, sandbox, path, sent=f"/v1/{ALPHA}/images?limit=3")) == (403, "ModelArts.0206")


@pytest.mark.parametrize(("minutes", "status"), [(-16, 401), (-14, 200), (14, 200), (16, 401)])
def test_a_signature_holds_for_a_quarter_of_an_hour(client, sandbox, minutes, status):
    now = datetime.now(UTC) + timedelta(minutes=minutes)
    assert signed(client, sandbox, f"/v1/{ALPHA}/images", now=now).status_code == status


def test_a_malformed_authorization_is_refused(client):
    answer = client.get(f"/v1/{ALPHA}/images", headers={"Authorization": "Basic YTpi"})
    assert error_of(answer) == (401, "APIG.0301")


def test_a_signed_request_names_its_project(client, sandbox):
    answer = signed(client, sandbox, f"/v1/{ALPHA}/images", headers={"X-Project-Id": BETA})
    assert error_of(answer) == (404, "ModelArts.2786")
    assert error_of(signed(client, sandbox, f"/v1/{'f' * 32}/images")) == (400, "ModelArts.0210")


# -- faults


def test_latency(authorised, some_id):
    set_faults(authorised, latency_ms=150)
    started = time.perf_counter()
    assert authorised.get(f"/v1/{ALPHA}/images/{some_id}").status_code == 200
    assert time.perf_counter() - started >= 0.15


@pytest.mark.parametrize("retry_after", ["7", "0", "Wed, 21 Oct 2026 07:28:00 GMT", "soon", "99999999999"])
def test_throttling_says_when_to_come_back(authorised, some_id, retry_after):
    set_faults(authorised, ratio_429=1, retry_after=retry_after)
    for path in (f"/v1/{ALPHA}/images/{some_id}", f"/v1/{ALPHA}/images"):
        answer = authorised.get(path)
        assert error_of(answer) == (429, "APIG.0308")
        assert answer.headers["Retry-After"] == retry_after


def test_throttling_may_not_say_when_to_come_back(authorised, some_id):
    set_faults(authorised, ratio_429=1, retry_after=None)
    assert "Retry-After" not in authorised.get(f"/v1/{ALPHA}/images/{some_id}").headers


def test_server_errors(authorised, some_id):
    set_faults(authorised, ratio_500=1)
    assert error_of(authorised.get(f"/v1/{ALPHA}/images/{some_id}")) == (500, "ModelArts.0010")


def test_an_html_page_with_status_200(authorised, some_id):
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


def test_a_rate_limit_lets_through_what_it_says(authorised, some_id):
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
def test_a_suspended_account_gets_nothing_but_tokens(authorised, sandbox, path):
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
def test_any_answer_can_be_put_in_an_images_place(authorised, some_id, canned, status, content, content_type):
    set_faults(authorised, answers={some_id: canned})
    answer = authorised.get(f"/v1/{ALPHA}/images/{some_id}")
    assert (answer.status_code, answer.content) == (status, content)
    assert answer.headers["Content-Type"] == content_type
    other = CATALOGUE.storylines(DAY)["odd"]
    assert authorised.get(f"/v1/{ALPHA}/images/{other}").json() == CATALOGUE.image(other, DAY)
    del authorised.headers["X-Auth-Token"]
    assert authorised.get(f"/v1/{ALPHA}/images/{some_id}").status_code == 401


def test_a_canned_answer_may_carry_headers(authorised, some_id):
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
    """Status of each of three requests for each id, or the error that it met."""
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


def test_faults_follow_from_the_seed_whatever_the_order():
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


def test_faults_can_be_set_from_the_start(some_id):
    canned = CannedAnswer(status=418, body_base64=base64.b64encode(b"\x00tea"))
    faults = Faults(retry_after=None, suspended=True, answers={some_id: canned}, token_seconds=60)
    with running_sandbox(SandboxOptions(size=5, faults=faults)) as connection:
        shown = httpx.get(f"{connection.endpoint}/sandbox/faults", trust_env=False).json()
    assert Faults.model_validate(shown) == faults


# -- the day, the inventory


def read_inventory(sandbox):
    with sandbox.inventory_file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_inventory_file_registers_all_projects(sandbox, client):
    rows = read_inventory(sandbox)
    expected = [row._asdict() for name in ("alpha", "beta") for row in Catalogue(SEED, SIZE, name).inventory(DAY)]
    assert rows == expected
    assert {row["project"] for row in rows} == {"alpha", "beta"}


def test_the_day_can_be_moved_and_the_inventory_moves_with_it(authorised, sandbox):
    assert authorised.get("/sandbox/day").json() == {"day": "2026-11-23", "follows_clock": False}
    later = DAY + timedelta(days=7)
    moved = authorised.put("/sandbox/day", json={"day": later.isoformat()})
    assert moved.json() == {"day": "2026-11-30", "follows_clock": False}
    listed = authorised.get(f"/v1/{ALPHA}/images").json()["data"]
    assert [item["id"] for item in listed] == list(CATALOGUE.ids(later)) != list(CATALOGUE.ids(DAY))
    registered = [row["id"] for row in read_inventory(sandbox) if row["project"] == "alpha"]
    assert registered == [row.id for row in CATALOGUE.inventory(later)]
    short_lived = CATALOGUE.storylines(DAY)["short-lived"]
    assert authorised.get(f"/v1/{ALPHA}/images/{short_lived}").status_code in (400, 404)


def test_the_day_can_follow_the_clock(client):
    shown = client.put("/sandbox/day", json={"day": None}).json()
    assert shown == {"day": datetime.now(UTC).date().isoformat(), "follows_clock": True}


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"day": "yesterday"}', b"x"])
def test_an_impossible_day_is_refused(client, body):
    assert client.put("/sandbox/day", content=body).status_code == 400
    assert client.get("/sandbox/day").json()["day"] == DAY.isoformat()


def test_unknown_controls_are_refused(client):
    assert client.get("/sandbox/nothing").status_code == 404
    assert client.delete("/sandbox/faults").status_code == 404


# -- the process


def test_it_starts_from_any_working_directory(tmp_path, monkeypatch):
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__init__.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.chdir(tmp_path)
    with running_sandbox(SandboxOptions(size=1, inventory_file=Path("inventory.csv"))) as connection:
        assert connection.inventory_file == tmp_path / "inventory.csv"
        assert connection.inventory_file.read_text().startswith("id,project,owner,")


def is_listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition, seconds=10):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.02)


def test_the_connection_says_how_to_reach_it_and_hides_secrets(sandbox):
    assert sandbox.endpoint == sandbox.env["IMAGE_SNAPSHOTS_ENDPOINT"]
    assert sandbox.auth_url == sandbox.env["OS_AUTH_URL"] == f"{sandbox.endpoint}/v3"
    assert sandbox.inventory_file == Path(sandbox.env["IMAGE_SNAPSHOTS_INVENTORY"])
    assert sandbox.env["IMAGE_SNAPSHOTS_PROJECTS"] == f'{{"alpha":"{ALPHA}","beta":"{BETA}"}}'
    assert (sandbox.env["OS_PROJECT_NAME"], sandbox.project_id) == ("alpha", ALPHA)
    for name in ("OS_PASSWORD", "OS_ACCESS_KEY", "OS_SECRET_KEY"):
        assert len(sandbox.env[name]) >= 20
        assert sandbox.env[name] not in repr(sandbox)


def test_it_ends_with_the_context_and_keys_differ_from_start_to_start():
    with running_sandbox(SandboxOptions(size=1)) as first:
        port = urlsplit(first.endpoint).port
        assert is_listening(port)
        assert "IMAGE_SNAPSHOTS_PROJECTS" not in first.env
        assert first.inventory_file is None
        with running_sandbox(SandboxOptions(size=1)) as second:
            for name in ("OS_PASSWORD", "OS_ACCESS_KEY", "OS_SECRET_KEY"):
                assert first.env[name] != second.env[name]
            assert first.project_id == second.project_id
    assert not is_listening(port)
    with pytest.raises(ProcessLookupError):
        os.kill(first.pid, 0)


def test_a_port_in_use_is_one_clear_error(sandbox):
    port = urlsplit(sandbox.endpoint).port
    expected = rf"did not start: The sandbox cannot listen on 127.0.0.1:{port} \(Address already in use\)"
    with pytest.raises(PipelineError, match=expected), running_sandbox(SandboxOptions(port=port)):
        pass


def test_an_inventory_that_cannot_be_written_is_one_clear_error(tmp_path):
    options = SandboxOptions(inventory_file=tmp_path / "missing" / "inventory.csv")
    with pytest.raises(PipelineError, match=r"cannot write its inventory to .*No such file"), running_sandbox(options):
        pass


@pytest.mark.parametrize("wrong", [{"port": -1}, {"port": 65536}, {"size": -1}, {"size": 10**12}])
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ConfigurationError, match="is wrong: give 0 to"):
        SandboxOptions(**wrong)


def command(*words):
    return [sys.executable, "-m", "pipelines.sandbox", "--size=5", *words]


def announced(process):
    lines = {}
    for line in process.stdout:
        if line == "\n":
            return lines
        name, _, value = line.rstrip("\n").partition("=")
        lines[name] = shlex.split(value)[0]
    raise AssertionError("it ended before it was ready")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_on_a_signal(number, tmp_path):
    environment = os.environ | {"SANDBOX_PASSWORD": "p w", "SANDBOX_ACCESS_KEY": "AK1", "SANDBOX_SECRET_KEY": "SK1"}
    inventory = tmp_path / "inventory.csv"
    with subprocess.Popen(
        command("--projects=eu-de_team=0123", f"--inventory-file={inventory}", "--latency-ms=5", "--suspended"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT,
    ) as process:  # fmt: skip
        env = announced(process)
        assert env == {
            "IMAGE_SNAPSHOTS_ENDPOINT": env["OS_AUTH_URL"].removesuffix("/v3"),
            "IMAGE_SNAPSHOTS_INVENTORY": str(inventory),
            "IMAGE_SNAPSHOTS_PROJECTS": '{"eu-de_team":"0123"}',
            "OS_AUTH_URL": env["OS_AUTH_URL"],
            "OS_USERNAME": "sandbox-user",
            "OS_PASSWORD": "p w",
            "OS_USER_DOMAIN_NAME": "sandbox-domain",
            "OS_PROJECT_NAME": "eu-de_team",
            "OS_PROJECT_ID": "0123",
            "OS_ACCESS_KEY": "AK1",
            "OS_SECRET_KEY": "SK1",
        }
        # An idle connection that is kept alive must not hold up the end.
        with httpx.Client(base_url=env["IMAGE_SNAPSHOTS_ENDPOINT"], trust_env=False) as client:
            faults = client.get("/sandbox/faults").json()
            assert (faults["latency_ms"], faults["suspended"]) == (5, True)
            assert client.get("/sandbox/day").json()["follows_clock"] is True
            process.send_signal(number)
            assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_it_ends_when_its_parent_is_killed():
    parent_code = (
        "import time; from pipelines.sandbox import *\n"
        "with running_sandbox(SandboxOptions(size=1)) as connection:\n"
        "    print(connection.endpoint, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent_code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        port = urlsplit(parent.stdout.readline().strip()).port
        assert is_listening(port)
        parent.kill()
    wait_until(lambda: not is_listening(port))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ratio-429=2"], "ratio_429: Input should be less than or equal to 1"),
        (["--projects=alpha"], "'alpha' must be NAME=ID"),
        (["--day=soon"], "invalid fromisoformat value: 'soon'"),
        (["--port=99999"], "The sandbox's port 99999 is wrong"),
        (["--faults=[]"], "must be a JSON object"),
        (["--faults={"], "must be a JSON object"),
    ],
)
def test_wrong_arguments_are_one_clear_error(words, said):
    ended = subprocess.run(command(*words), capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=ROOT)
    assert ended.returncode == 2
    assert said in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_a_client_that_hangs_up_leaves_no_trace(sandbox, authorised, some_id):
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
