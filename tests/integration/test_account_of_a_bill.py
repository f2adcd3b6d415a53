"""Requests for bill lines are signed for the account, which is stated or looked up once, and for no project."""

import json

import httpx
import orjson
import pytest
from scripted_server import HTML, QUICK, http, replies, serving

from pipelines.cloud.classification import classify_list
from pipelines.cloud.credentials import load_credentials
from pipelines.cloud.service import ServiceClient
from pipelines.cloud.signing import Authorization
from pipelines.errors import AccessDeniedError, ConfigurationError, EndpointUnreachableError
from pipelines.sandbox import SandboxOptions, running_sandbox
from pipelines.settings import Settings
from pipelines.snapshot.connection import Connection

PATH = "/v2/bills/customer-bills/res-records/query"
ASKED = {
    "cycle": "2026-11",
    "statistic_type": 2,
    "query_type": "DAILY",
    "bill_cycle_begin": "2026-11-01",
    "bill_cycle_end": "2026-11-02",
}
KEY = {"OS_ACCESS_KEY": "hidden-ak", "OS_SECRET_KEY": "hidden-sk", "OS_PROJECT_ID": "p1"}
PAGE = http(200, b'{"monthly_records": [], "total_count": 0, "currency": "EUR"}')


@pytest.fixture(scope="module")
def sandbox():
    with running_sandbox(SandboxOptions(size=20)) as connection:
        yield connection


def lookups(sandbox):
    return httpx.get(f"{sandbox.endpoint}/sandbox/stats").json()["requests"].get("domains", 0)


def key_of(sandbox):
    return {name: sandbox.env[name] for name in ("OS_ACCESS_KEY", "OS_SECRET_KEY", "OS_PROJECT_ID")}


def temporary_key_of(sandbox):
    key = httpx.get(f"{sandbox.endpoint}/openstack/latest/securitykey").json()["credential"]
    parts = {"OS_ACCESS_KEY": "access", "OS_SECRET_KEY": "secret", "OS_SECURITY_TOKEN": "securitytoken"}
    return {name: key[part] for name, part in parts.items()} | {"OS_PROJECT_ID": sandbox.project_id}


def agency_of(sandbox):
    return {
        "OS_AUTH_TYPE": "agency",
        "OS_METADATA_URL": sandbox.endpoint,
        "OS_PROJECT_NAME": sandbox.env["OS_PROJECT_NAME"],
        "OS_AUTH_URL": sandbox.auth_url,
    }


def password_of(sandbox):
    names = ("OS_AUTH_URL", "OS_USERNAME", "OS_PASSWORD", "OS_USER_DOMAIN_NAME", "OS_PROJECT_ID")
    return {name: sandbox.env[name] for name in names}


def bill_client(endpoint, env):
    connection = Connection(Settings(bills="huawei:"), endpoint, load_credentials(None, env), "modelarts:")
    return connection.bill_access().open_bill_lines()


async def ask(client):
    result = await client.ask(
        client.path(PATH), lambda *answer: classify_list(*answer, items="monthly_records"), orjson.dumps(ASKED)
    )
    return result.status


@pytest.mark.parametrize("kind", [key_of, temporary_key_of, agency_of])
@pytest.mark.parametrize("stated", [{}, {"OS_DOMAIN_ID": "sandbox-domain"}], ids=["looked up", "stated"])
async def test_bill_lines_are_signed_for_the_account(sandbox, kind, stated):
    before = lookups(sandbox)
    async with bill_client(sandbox.endpoint, kind(sandbox) | stated) as client:
        assert [await ask(client), await ask(client)] == [200, 200]
    assert lookups(sandbox) - before == (0 if stated else 1)


async def test_account_outlives_the_key_that_it_was_looked_up_with(sandbox):
    before = lookups(sandbox)
    async with bill_client(sandbox.endpoint, agency_of(sandbox)) as client:
        assert await ask(client) == 200
        httpx.patch(f"{sandbox.endpoint}/sandbox/faults", json={"expire_tokens_now": True}).raise_for_status()
        assert await ask(client) == 200
        assert client.stats.token_renewals == 1
    assert lookups(sandbox) - before == 1


async def test_token_needs_no_account(sandbox):
    before = lookups(sandbox)
    async with bill_client(sandbox.endpoint, password_of(sandbox)) as client:
        assert await ask(client) == 200
    assert lookups(sandbox) == before


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (
            key_of,
            (
                "refuses the access key (HTTP 401 APIG.0301): check OS_ACCESS_KEY, OS_SECRET_KEY, OS_DOMAIN_ID and "
                "this machine's clock."
            ),
        ),
        (
            agency_of,
            (
                "refuses an access key that the metadata service just gave for the agency of this server (HTTP 401 "
                "APIG.0301): check that the agency may use this service for the account another, that the endpoint "
                "belongs to the server's cloud, and this machine's clock."
            ),
        ),
    ],
)
async def test_wrong_account_is_one_sentence(sandbox, kind, says):
    async with bill_client(sandbox.endpoint, kind(sandbox) | {"OS_DOMAIN_ID": "another"}) as client:
        with pytest.raises(AccessDeniedError) as raised:
            await ask(client)
    assert str(raised.value) == f"{sandbox.endpoint.removeprefix('http://')} {says}"


async def test_project_is_not_enough_for_the_sandbox(sandbox):
    async with ServiceClient(sandbox.endpoint, load_credentials(None, key_of(sandbox))) as client:
        with pytest.raises(AccessDeniedError, match=r"\(HTTP 401 APIG\.0301\)"):
            await ask(client)


def domains(*ids):
    shown = [{"id": id_, "name": f"name of {id_}", "enabled": True} for id_ in ids]
    return http(200, json.dumps({"domains": shown, "links": {}}).encode())


def scripted_client(server, env):
    credentials = load_credentials(None, KEY | {"OS_AUTH_URL": server.url} | env)
    return ServiceClient(server.url, credentials, account=credentials.account, retry_policy=QUICK)


async def test_account_is_sent_and_signed_in_the_place_of_the_project():
    async with serving(replies(domains("d1"), PAGE)) as server:
        async with scripted_client(server, {"OS_SECURITY_TOKEN": "security-token"}) as client:
            assert await ask(client) == 200
    lookup, query = server.requests
    assert (lookup.method, lookup.path, query.path) == ("GET", "/v3/auth/domains", PATH)
    assert query.headers["x-domain-id"] == "d1"
    for request in (lookup, query):
        assert "x-project-id" not in request.headers
        assert request.headers["x-security-token"] == "security-token"
    assert "x-domain-id" not in lookup.headers
    authorization = Authorization.parse(query.headers["authorization"])
    assert authorization.signed_headers == ("host", "x-domain-id", "x-sdk-date", "x-security-token")


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (
            domains(),
            AccessDeniedError,
            "The identity service at {host} shows these credentials no account: set OS_DOMAIN_ID to the account's id.",
        ),
        (
            domains("d1", "d2"),
            AccessDeniedError,
            "The identity service at {host} shows these credentials 2 accounts: set OS_DOMAIN_ID to the account's id.",
        ),
        (
            domains("d1\r\nX: y"),
            AccessDeniedError,
            "The identity service at {host} shows these credentials no account: set OS_DOMAIN_ID to the account's id.",
        ),
        (
            http(403),
            AccessDeniedError,
            (
                "{host} refuses the access key (HTTP 403): check OS_ACCESS_KEY, OS_SECRET_KEY and this machine's "
                "clock, or set OS_DOMAIN_ID to the account's id."
            ),
        ),
        (
            http(404),
            ConfigurationError,
            (
                "The identity service at {host} does not show the account (HTTP 404): correct OS_AUTH_URL, or set "
                "OS_DOMAIN_ID to the account's id."
            ),
        ),
        (HTML, ConfigurationError, "The server at {host} is not an identity service: correct OS_AUTH_URL."),
        (
            http(503),
            EndpointUnreachableError,
            "The identity service at {host} does not show the account (HTTP 503): run again when it has recovered.",
        ),
    ],
    ids=["none", "two", "odd id", "refused", "not Keystone", "a page", "always 503"],
)
async def test_account_that_is_not_found_is_one_sentence(answer, error, says):
    async with serving(replies(answer)) as server:
        with pytest.raises(error) as raised:
            async with scripted_client(server, {}):
                pass
        host = server.url.removeprefix("http://")
    assert str(raised.value) == says.format(host=host)


@pytest.mark.parametrize(
    ("env", "says"),
    [
        (
            {},
            (
                "Bill lines need the id of the account, and no identity service is known to look it up: set "
                "OS_DOMAIN_ID, or OS_AUTH_URL."
            ),
        ),
        ({"OS_AUTH_URL": "http://u:hidden@iam.example"}, "OS_AUTH_URL must not hold credentials."),
        ({"OS_DOMAIN_ID": "hidden ä"}, "The account's id is malformed: correct OS_DOMAIN_ID."),
    ],
)
async def test_account_that_cannot_be_known_is_one_sentence(env, says):
    with pytest.raises(ConfigurationError) as raised:
        async with bill_client("https://gateway.example/modelarts", KEY | env):
            pass
    assert str(raised.value) == says


@pytest.mark.parametrize(
    ("endpoint", "env", "looked_up_at"),
    [
        ("https://modelarts.cn-north-4.myhuaweicloud.com", {}, "https://iam.cn-north-4.myhuaweicloud.com"),
        (
            "https://modelarts.cn-north-4.myhuaweicloud.com",
            {"OS_AUTH_URL": "https://iam.example"},
            "https://iam.example",
        ),
        ("https://gateway.example", {}, None),
    ],
)
def test_account_is_looked_up_at_the_stated_identity_service_or_beside_the_endpoint(endpoint, env, looked_up_at):
    account = Connection(Settings(), endpoint, load_credentials(None, KEY | env), "modelarts:").account
    assert (account.id, account.auth_url) == (None, looked_up_at)
    assert "hidden" not in repr(account)
