"""The sandbox's calls for a client on the network: tokens, images, lists, permissions, the day."""

import csv
import hashlib
import time
from datetime import UTC, datetime, timedelta

import pytest
from sandbox_calls import ALPHA, BETA, CATALOGUE, DAY, SEED, SIZE, error_of, set_faults, signed, token_of, token_request

from pipelines.sandbox.catalogue import Catalogue

# -- the token call


def test_token_call_answers_like_the_identity_service(client, sandbox):
    answer = client.post("/v3/auth/tokens", json=token_request(sandbox.env, {"project": {"id": ALPHA}}))
    assert answer.status_code == 201
    assert len(answer.headers["X-Subject-Token"]) > 100
    token = answer.json()["token"]
    assert token["methods"] == ["password"]
    assert token["project"]["id"] == ALPHA
    assert token["project"]["name"] == "alpha"
    life = datetime.fromisoformat(token["expires_at"]) - datetime.fromisoformat(token["issued_at"])
    assert life == timedelta(hours=24)


def test_token_can_be_scoped_by_project_name(client, sandbox):
    scope = {"project": {"name": "beta", "domain": {"name": sandbox.env["OS_USER_DOMAIN_NAME"]}}}
    answer = client.post("/v3/auth/tokens", json=token_request(sandbox.env, scope))
    assert answer.json()["token"]["project"]["id"] == BETA


@pytest.mark.parametrize("user", [{"password": "wrong"}, {"name": "nobody"}, {"domain": {"name": "elsewhere"}}])
def test_wrong_user_is_refused(client, sandbox, user):
    answer = client.post("/v3/auth/tokens", json=token_request(sandbox.env, {"project": {"id": ALPHA}}, **user))
    assert answer.status_code == 401
    assert answer.json() == {
        "error": {"code": 401, "message": "The username or password is wrong.", "title": "Unauthorized"}
    }
    assert "X-Subject-Token" not in answer.headers


def test_unknown_project_is_refused(client, sandbox):
    for project in ({"id": "f" * 32}, {"name": "gamma"}):
        answer = client.post("/v3/auth/tokens", json=token_request(sandbox.env, {"project": project}))
        assert answer.status_code == 401
        assert "project" in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"auth": {}}', b'{"auth": {"identity": {"methods": ["token"]}}}'])
def test_malformed_token_request_is_refused(client, body):
    assert client.post("/v3/auth/tokens", content=body).status_code == 400


def test_openstacksdk_gets_a_token(sandbox, client, some_id):
    from keystoneauth1 import session as keystone_session
    from keystoneauth1.identity.generic import Password

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


def test_image_details_come_from_the_catalogue(authorised):
    ids = [row.id for row in CATALOGUE.inventory(DAY)]
    seen = set()
    for image_id in ids:
        answer = authorised.get(f"/v1/{ALPHA}/images/{image_id}")
        expected = CATALOGUE.answer(image_id, DAY)
        assert answer.status_code == expected.http_status
        assert (answer.json() if answer.content else None) == expected.body
        seen.add(answer.status_code)
    assert seen >= {200, 403}


def test_missing_image_is_answered_like_the_real_api(authorised):
    answer = authorised.get(f"/v1/{ALPHA}/images/278e88d1-5b71-4766-8502-b3ba72e824d9")
    assert answer.status_code in (400, 404)
    assert not answer.content or answer.json()["error_code"] == "ModelArts.6404"


def test_each_project_has_its_own_catalogue(client, sandbox, some_id):
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
def test_page_past_the_end_is_an_error(authorised, query):
    assert error_of(authorised.get(f"/v1/{ALPHA}/images?{query}")) == (400, "ModelArts.6400")


def test_the_list_can_be_filtered(authorised):
    data = authorised.get(f"/v1/{ALPHA}/images?type=BUILD_IN&limit=3").json()
    expected = [item["id"] for item in CATALOGUE.page(DAY, 0, SIZE) if item["type"] == "BUILD_IN"]
    assert [item["id"] for item in data["data"]] == expected[:3]
    assert data["total"] == len(expected)


def test_image_groups_share_the_details_path(authorised):
    groups = authorised.get(f"/v1/{ALPHA}/images/group").json()
    assert sum(group["version_count"] for group in groups["data"]) == CATALOGUE.count(DAY)
    assert "group" not in authorised.get("/sandbox/requested").json()


def test_notebooks_come_ten_at_a_time(authorised):
    notebooks = list(Catalogue(SEED, SIZE, "alpha").notebooks(DAY))
    assert len(notebooks) == 12
    first = authorised.get(f"/v1/{ALPHA}/notebooks/all").json()
    assert (first["size"], first["total"], first["data"]) == (10, 12, notebooks[:10])
    some = authorised.get(f"/v1/{ALPHA}/notebooks/all?limit=4&offset=8").json()
    assert some["data"] == notebooks[8:]


def test_unknown_path_is_a_configuration_error(authorised):
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


def test_token_of_another_project_is_refused(client, sandbox):
    client.headers["X-Auth-Token"] = token_of(client, sandbox, {"project": {"id": BETA}})
    assert error_of(client.get(f"/v1/{ALPHA}/images")) == (404, "ModelArts.2786")
    assert client.get(f"/v1/{BETA}/images").status_code == 200


def test_token_without_project_is_refused(client, sandbox):
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


def test_all_tokens_can_be_revoked_at_once(authorised, sandbox):
    set_faults(authorised, ratio_500=0.5)
    assert authorised.patch("/sandbox/faults", json={"expire_tokens_now": True}).json()["ratio_500"] == 0.5
    assert error_of(authorised.get(f"/v1/{ALPHA}/notebooks/all")) == (401, "APIG.0301")
    authorised.headers["X-Auth-Token"] = token_of(authorised, sandbox)
    assert authorised.get(f"/v1/{ALPHA}/notebooks/all").status_code == 200


def test_signature_replaces_a_token(client, sandbox, some_id):
    for path in (f"/v1/{ALPHA}/images/{some_id}", f"/v1/{ALPHA}/images?limit=2&offset=4", f"/v1/{BETA}/images"):
        assert signed(client, sandbox, path).status_code == 200
    answer = signed(client, sandbox, f"/v1/{ALPHA}/images/{some_id}", headers={"X-Project-Id": ALPHA})
    assert answer.json() == CATALOGUE.image(some_id, DAY)


@pytest.mark.parametrize("wrong", [{"access_key": "AK"}, {"secret_key": "SK"}])
def test_wrong_key_is_refused(client, sandbox, wrong):
    assert error_of(signed(client, sandbox, f"/v1/{ALPHA}/images", **wrong)) == (403, "ModelArts.0206")


def test_signature_of_another_request_is_refused(client, sandbox):
    path = f"/v1/{ALPHA}/images?limit=2"
    assert error_of(signed(client, sandbox, path, sent=f"/v1/{ALPHA}/images?limit=3")) == (403, "ModelArts.0206")


@pytest.mark.parametrize(("minutes", "status"), [(-16, 401), (-14, 200), (14, 200), (16, 401)])
def test_signature_is_valid_for_a_quarter_of_an_hour(client, sandbox, minutes, status):
    now = datetime.now(UTC) + timedelta(minutes=minutes)
    assert signed(client, sandbox, f"/v1/{ALPHA}/images", now=now).status_code == status


def test_malformed_authorization_is_refused(client):
    answer = client.get(f"/v1/{ALPHA}/images", headers={"Authorization": "Basic YTpi"})
    assert error_of(answer) == (401, "APIG.0301")


def test_signed_request_must_name_its_project(client, sandbox):
    answer = signed(client, sandbox, f"/v1/{ALPHA}/images", headers={"X-Project-Id": BETA})
    assert error_of(answer) == (404, "ModelArts.2786")
    assert error_of(signed(client, sandbox, f"/v1/{'f' * 32}/images")) == (400, "ModelArts.0210")


@pytest.mark.parametrize("path", [f"/v1/{ALPHA}/images", f"/v3/{ALPHA}/traces?trace_type=system", "/v2/manage/repos"])
def test_request_signed_for_the_account_has_no_project(client, sandbox, path):
    assert signed(client, sandbox, path, headers={"X-Domain-Id": "sandbox-domain"}).status_code == 400
    assert signed(client, sandbox, path, headers={"X-Project-Id": ALPHA}).status_code == 200


def test_account_is_shown_to_who_proves_to_belong_to_it(client, sandbox):
    assert error_of(client.get("/v3/auth/domains")) == (401, "ModelArts.0201")
    assert error_of(signed(client, sandbox, "/v3/auth/domains", secret_key="SK")) == (403, "ModelArts.0206")
    (domain,) = signed(client, sandbox, "/v3/auth/domains").json()["domains"]
    assert (domain["id"], domain["name"], domain["enabled"]) == ("sandbox-domain", "sandbox-domain", True)


# -- the day, the inventory


def read_inventory(sandbox):
    with sandbox.inventory_file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_inventory_file_registers_all_projects(sandbox, client):
    rows = read_inventory(sandbox)
    expected = [row._asdict() for name in ("alpha", "beta") for row in Catalogue(SEED, SIZE, name).inventory(DAY)]
    assert rows == expected
    assert {row["project"] for row in rows} == {"alpha", "beta"}


def test_changing_the_day_changes_the_inventory(authorised, sandbox):
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


def test_day_can_follow_the_clock(client):
    shown = client.put("/sandbox/day", json={"day": None}).json()
    assert shown == {"day": datetime.now(UTC).date().isoformat(), "follows_clock": True}


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"day": "yesterday"}', b"x"])
def test_impossible_day_is_refused(client, body):
    assert client.put("/sandbox/day", content=body).status_code == 400
    assert client.get("/sandbox/day").json()["day"] == DAY.isoformat()


def test_unknown_controls_are_refused(client):
    assert client.get("/sandbox/nothing").status_code == 404
    assert client.delete("/sandbox/faults").status_code == 404


def test_credentials_of_requests_are_counted_without_their_secrets(client, sandbox):
    def sha256(text):
        return hashlib.sha256(text.encode()).hexdigest()

    before = client.get("/sandbox/credentials").json()
    token = token_of(client, sandbox)
    client.post("/v3/auth/tokens", json=token_request(sandbox.env, name="stranger", password="hidden"))
    for _ in range(2):
        client.get(f"/v1/{ALPHA}/images", headers={"X-Auth-Token": token})
    signed(client, sandbox, f"/v1/{ALPHA}/images", access_key="OTHERKEY", headers={"X-Security-Token": "hidden"})
    client.get(f"/v1/{ALPHA}/images", headers={"Authorization": "Basic aGlkZGVu"})
    after = client.get("/sandbox/credentials").json()
    user = f"user {sandbox.env['OS_USERNAME']} with password {sha256(sandbox.env['OS_PASSWORD'])}"
    assert {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)} == {
        user: 1,
        f"user stranger with password {sha256('hidden')}": 1,
        f"token {sha256(token)}": 2,
        "access key OTHERKEY": 1,
        f"security token {sha256('hidden')}": 1,
        "access key that is malformed": 1,
    }
