"""What is issued for a time, against the sandbox: agencies, temporary keys, their renewal, and their refusal."""

import asyncio
import datetime as dt
import json
import time
import urllib.request

import httpx
import orjson
import pytest
from scripted_server import ID, described, error, fetch, http, ids, replies, serving
from scripted_server import client as scripted_client
from virtual_clock import by_virtual_clock

from pipelines.cloud.credentials import AccessKey, Agency, PasswordLogin, ServerAgency, load_credentials
from pipelines.cloud.modelarts import ModelArtsClient
from pipelines.cloud.options import Limits, RetryPolicy, Timeouts
from pipelines.cloud.sender import HTTPSender
from pipelines.errors import AccessDeniedError, ConfigurationError, EndpointUnreachableError
from pipelines.sandbox import Faults, SandboxConnection, SandboxOptions, running_sandbox
from pipelines.sandbox.identity import AGENCY, AGENCY_DOMAIN
from pipelines.tables import Outcome

PROJECTS = {"eu-de_one": "1" * 32, "eu-de_two": "2" * 32}
ONE = PROJECTS["eu-de_one"]


@pytest.fixture(scope="module")
def started():
    with running_sandbox(SandboxOptions(size=400, projects=PROJECTS)) as connection:
        yield connection


def control(sandbox: SandboxConnection, what: str, value: dict | None = None, method: str = "PUT"):
    body = None if value is None else orjson.dumps(value)
    request = urllib.request.Request(f"{sandbox.endpoint}/sandbox/{what}", body, method=method if body else "GET")
    with urllib.request.urlopen(request) as response:
        return orjson.loads(response.read())


@pytest.fixture
def sandbox(started: SandboxConnection):
    """The sandbox without faults."""
    control(started, "faults", Faults().model_dump(mode="json"))
    return started


def client(sandbox: SandboxConnection, credentials) -> ModelArtsClient:
    return ModelArtsClient(
        sandbox.endpoint,
        credentials,
        timeouts=Timeouts(request=10),
        retry_policy=RetryPolicy(backoff_seconds=0.02),
    )


def delegate(sandbox: SandboxConnection, **changes) -> PasswordLogin:
    names = ("OS_AUTH_URL", "OS_USERNAME", "OS_PASSWORD", "OS_USER_DOMAIN_NAME")
    env = {name: sandbox.env[name] for name in names} | {"OS_PROJECT_NAME": "eu-de_two"}
    env |= {"OS_AGENCY_NAME": AGENCY, "OS_AGENCY_DOMAIN_NAME": AGENCY_DOMAIN} | changes
    login = load_credentials(None, env)
    assert isinstance(login, PasswordLogin)
    return login


def temporary_key(sandbox: SandboxConnection) -> dict[str, str]:
    """A temporary key as a person gets it from the identity service, as variables."""
    env = sandbox.env
    user = {"name": env["OS_USERNAME"], "password": env["OS_PASSWORD"], "domain": {"name": env["OS_USER_DOMAIN_NAME"]}}
    identity = {"methods": ["password"], "password": {"user": user}}
    token = httpx.post(f"{sandbox.auth_url}/auth/tokens", json={"auth": {"identity": identity}})
    key = httpx.post(
        f"{sandbox.endpoint}/v3.0/OS-CREDENTIAL/securitytokens",
        headers={"X-Auth-Token": token.headers["X-Subject-Token"]},
        json={"auth": {"identity": {"methods": ["token"], "token": {"duration_seconds": 900}}}},
    ).json()["credential"]
    return {
        "OS_ACCESS_KEY": key["access"],
        "OS_SECRET_KEY": key["secret"],
        "OS_SECURITY_TOKEN": key["securitytoken"],
        "OS_PROJECT_ID": ONE,
    }


async def all_ids(modelarts: ModelArtsClient) -> list[str]:
    return [item["id"] async for page in modelarts.list_images(["0"]) for item in page.items]


async def outlive(modelarts: ModelArtsClient, renewals: int) -> set[Outcome]:
    """Fetch every image again and again until what was issued was renewed so often; the outcomes."""
    outcomes: set[Outcome] = set()
    wanted = await all_ids(modelarts)
    while modelarts.stats.token_renewals < renewals:
        answers = await fetch(modelarts, wanted)
        assert sorted(answer.id for answer in answers) == sorted(wanted)
        outcomes |= {answer.outcome for answer in answers}
    return outcomes


# The catalogue also lists images that cannot be read.
ANSWERED = {Outcome.OK, Outcome.DELETED, Outcome.FORBIDDEN}


@pytest.mark.parametrize("needs_token", [False, True])
async def test_run_outlives_three_keys_of_the_servers_agency(sandbox, needs_token):
    control(sandbox, "faults", {"key_seconds": 0.5, "metadata_token_required": needs_token}, "PATCH")
    before = control(sandbox, "stats")["keys_issued"]
    async with client(sandbox, ServerAgency(ONE, metadata_url=sandbox.endpoint)) as modelarts:
        assert await outlive(modelarts, 3) <= ANSWERED
        renewals = modelarts.stats.token_renewals
    # One renewal at a time, for all workers.
    assert control(sandbox, "stats")["keys_issued"] - before == 1 + renewals


async def test_run_outlives_three_tokens_of_an_agency_of_another_account(sandbox):
    control(sandbox, "faults", {"token_seconds": 0.5}, "PATCH")
    before = control(sandbox, "stats")["tokens_issued"]
    async with client(sandbox, delegate(sandbox)) as modelarts:
        assert modelarts.project_id == PROJECTS["eu-de_two"]
        assert await outlive(modelarts, 3) <= ANSWERED
        renewals = modelarts.stats.token_renewals
    # The user's own token and the agency's.
    assert control(sandbox, "stats")["tokens_issued"] - before == 2 * (1 + renewals)


async def test_temporary_key_of_a_person_is_sent_with_its_security_token(sandbox):
    key = load_credentials(None, temporary_key(sandbox))
    async with client(sandbox, key) as modelarts:
        assert {answer.outcome for answer in await fetch(modelarts, await all_ids(modelarts))} <= ANSWERED


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"OS_SECURITY_TOKEN": "hidden-wrong"},
            "The access key or secret key is wrong: correct OS_ACCESS_KEY, OS_SECRET_KEY, OS_SECURITY_TOKEN",
        ),
        ({"OS_SECURITY_TOKEN": ""}, "The access key or secret key is wrong: correct OS_ACCESS_KEY, OS_SECRET_KEY ("),
        (
            {"OS_SECRET_KEY": "hidden-wrong"},
            "The access key or secret key is wrong: correct OS_ACCESS_KEY, OS_SECRET_KEY, OS_SECURITY_TOKEN",
        ),
    ],
)
async def test_temporary_key_that_is_wrong_is_refused(sandbox, changes, says):
    async with client(sandbox, load_credentials(None, temporary_key(sandbox) | changes)) as modelarts:
        with pytest.raises(AccessDeniedError) as raised:
            await all_ids(modelarts)
    assert str(raised.value).startswith(says)
    assert "hidden" not in str(raised.value)


async def test_temporary_key_that_has_expired_is_refused(sandbox):
    key = temporary_key(sandbox)
    control(sandbox, "faults", {"expire_tokens_now": True}, "PATCH")
    async with client(sandbox, load_credentials(None, key)) as modelarts:
        with pytest.raises(AccessDeniedError, match=r"refuses the temporary access key \(.*it may have expired; check"):
            await all_ids(modelarts)


async def test_keys_that_end_early_are_renewed_once_for_all_workers(sandbox):
    before = control(sandbox, "stats")["keys_issued"]
    async with client(sandbox, ServerAgency(ONE, metadata_url=sandbox.endpoint)) as modelarts:
        wanted = await all_ids(modelarts)
        control(sandbox, "faults", {"expire_tokens_now": True}, "PATCH")
        assert {answer.outcome for answer in await fetch(modelarts, wanted)} <= ANSWERED
        assert modelarts.stats.token_renewals == 1
    assert control(sandbox, "stats")["keys_issued"] - before == 2


async def test_server_without_an_agency_is_one_sentence(sandbox):
    control(sandbox, "faults", {"no_agency": True}, "PATCH")
    host = sandbox.endpoint.removeprefix("http://")
    with pytest.raises(ConfigurationError) as raised:
        async with client(sandbox, ServerAgency(ONE, metadata_url=sandbox.endpoint)):
            pass
    assert str(raised.value) == (
        f"The metadata service at {host} gives no access key (HTTP 404): give this server an agency, or state other "
        "credentials than `agency` in OS_AUTH_TYPE or auth_type."
    )


async def test_metadata_service_that_cannot_be_reached_is_one_sentence(sandbox, unused_tcp_port):
    agency = ServerAgency(ONE, metadata_url=f"http://127.0.0.1:{unused_tcp_port}")
    modelarts = ModelArtsClient(sandbox.endpoint, agency, timeouts=Timeouts(request=5, first_contact=0.1))
    with pytest.raises(EndpointUnreachableError, match="check that this is a server of the cloud"):
        async with modelarts:
            pass


@pytest.mark.parametrize(
    ("name", "value"), [("OS_AGENCY_NAME", "sandbox-agencies"), ("OS_AGENCY_DOMAIN_NAME", "elsewhere")]
)
async def test_agency_that_the_user_may_not_take_on_is_one_sentence(sandbox, name, value):
    with pytest.raises(AccessDeniedError) as raised:
        async with client(sandbox, delegate(sandbox, **{name: value})):
            pass
    assert str(raised.value).startswith("The user sandbox-user may not take on the agency 'sandbox-agenc")
    assert "(HTTP 403)" in str(raised.value)


async def test_project_of_a_key_is_found_by_its_name(sandbox):
    env = {name: sandbox.env[name] for name in ("OS_ACCESS_KEY", "OS_SECRET_KEY", "OS_AUTH_URL")}
    key = load_credentials(None, env | {"OS_PROJECT_NAME": "eu-de_two"})
    async with client(sandbox, key) as modelarts:
        assert modelarts.project_id == PROJECTS["eu-de_two"]
        assert await all_ids(modelarts)
    agency = ServerAgency(None, "eu-de_two", sandbox.auth_url, sandbox.endpoint)
    async with client(sandbox, agency) as modelarts:
        assert modelarts.project_id == PROJECTS["eu-de_two"]
        assert await all_ids(modelarts)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"OS_PROJECT_NAME": "eu-de_three"}, "shows these credentials no project named 'eu-de_three'"),
        ({"OS_SECRET_KEY": "hidden-wrong"}, r"refuses the access key \(HTTP 403\): check OS_ACCESS_KEY, OS_SECRET_KEY"),
    ],
)
async def test_project_that_is_not_found_is_one_sentence(sandbox, changes, says):
    env = {name: sandbox.env[name] for name in ("OS_ACCESS_KEY", "OS_SECRET_KEY", "OS_AUTH_URL")}
    key = load_credentials(None, env | {"OS_PROJECT_NAME": "eu-de_two"} | changes)
    with pytest.raises(AccessDeniedError, match=says):
        async with client(sandbox, key):
            pass


def keys_and_images(is_valid, life: float):
    """A script of a metadata service that issues key-1, key-2 …, and of an API that describes images."""
    issued = []

    async def script(request, writer: asyncio.StreamWriter) -> None:
        if request.path == "/openstack/latest/securitykey":
            issued.append(request)
            await asyncio.sleep(0.02)
            ends = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=life)
            number = len(issued)
            key = {"access": f"key-{number}", "secret": "hidden", "securitytoken": f"token-{number}"}
            writer.write(http(200, json.dumps({"credential": key | {"expires_at": ends.isoformat()}}).encode()))
        elif is_valid(request.headers["x-security-token"]):
            writer.write(described(request))
        else:
            writer.write(error(401, "APIG.0301"))

    return script, issued


@by_virtual_clock
async def test_key_is_renewed_before_it_expires():
    script, issued = keys_and_images(lambda _: True, 100)
    async with serving(script) as server, scripted_client(server, ServerAgency("p1", metadata_url=server.url)) as api:
        began = time.monotonic()
        for _ in range(40):
            assert {answer.attempts for answer in await fetch(api, ids(32))} == {1}
            await asyncio.sleep(7)
    # With the first request after nine tenths of its life.
    assert [round(request.at - began) for request in issued[1:]] == [91, 182, 273]


async def test_key_that_is_refused_right_after_it_was_issued_ends_the_run():
    script, issued = keys_and_images(lambda token: token == "token-1" and len(server.requests) < 40, 1000)
    async with serving(script) as server, scripted_client(server, ServerAgency("p1", metadata_url=server.url)) as api:
        with pytest.raises(
            AccessDeniedError, match="metadata service just gave for the agency of this server"
        ) as raised:
            await fetch(api, ids(200))
    assert len(issued) == 2
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    "answers",
    [
        [http(200, body)]
        for body in (
            b"",
            b"<html>",
            b"[]",
            b'{"credential": {"access": "a", "secret": 1}}',
            b'{"credential": {"access": "", "secret": "b", "securitytoken": "c"}}',
            '{"credential": {"access": "hidden-ü", "secret": "b", "securitytoken": "c"}}'.encode(),
            b'{"credential": {"access": "a", "secret": "b", "securitytoken": "hidden\\nX-Other: c"}}',
        )
    ]
    + [[http(401), http(200, body)] for body in (b"", "hidden-ü".encode(), b"<html>\n<body>hidden")],
)
async def test_metadata_service_that_is_another_server_is_one_sentence(answers):
    async with serving(replies(*answers)) as server:
        with pytest.raises(ConfigurationError, match="answers with no access key") as raised:
            async with scripted_client(server, ServerAgency("p1", metadata_url=server.url)):
                pass
    assert "hidden" not in str(raised.value)


def test_metadata_service_is_asked_without_a_proxy(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    sender = HTTPSender(Limits(), Timeouts(), None)
    by_proxy, directly = (
        sender.open_transport("http://169.254.169.254", 1, is_direct=is_direct) for is_direct in (False, True)
    )
    assert "proxy.example" in str(vars(by_proxy))
    assert "proxy.example" not in str(vars(directly))


async def test_each_server_gets_only_what_is_meant_for_it():
    """The password goes to the identity service alone, and the keys' secret and the agency's password to no API."""
    login = {"project": {"id": "p1", "name": "eu-de"}, "expires_at": "2099-01-01T00:00:00Z"}
    async with (
        serving(replies(http(201, json.dumps({"token": login}).encode(), X_Subject_Token="token-of-p1"))) as identity,
        serving(replies(http(200, json.dumps({"id": ID}).encode()))) as api,
    ):
        password = PasswordLogin(
            f"{identity.url}/v3",
            "u",
            False,
            "hidden-password",
            {"name": "d"},
            "p1",
            None,
            None,
            Agency("a", {"name": "x"}),
        )
        for credentials in (password, AccessKey("AK", "hidden-secret", "p1", "security-token-of-p1")):
            async with scripted_client(api, credentials) as modelarts:
                await modelarts.show_image(ID)
    sent = [" ".join(str(vars(request)) for request in server.requests) for server in (identity, api)]
    assert [name in sent[0] for name in ("hidden-password", "hidden-secret", "security-token-of-p1", "AK")] == [
        True,
        False,
        False,
        False,
    ]
    assert [
        name in sent[1] for name in ("hidden-password", "hidden-secret", "security-token-of-p1", "token-of-p1")
    ] == [
        False,
        False,
        True,
        True,
    ]
