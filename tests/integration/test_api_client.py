"""The API client against the sandbox: tokens, signatures, lists, and the search for the rate."""

import asyncio
import urllib.request

import orjson
import pytest
from scripted_server import fetch

from pipelines.cloud.credentials import AccessKey, PasswordLogin, ReadyToken, load_credentials
from pipelines.cloud.modelarts import ModelArtsClient
from pipelines.cloud.options import RetryPolicy, Timeouts
from pipelines.errors import AccessDeniedError, AccountSuspendedError, ConfigurationError, EndpointUnreachableError
from pipelines.sandbox import Faults, SandboxConnection, SandboxOptions, running_sandbox
from pipelines.tables import Outcome

UNKNOWN = "ffffffff-0000-0000-0000-000000000000"
# The catalogue also lists images that cannot be read.
ANSWERED = {Outcome.OK, Outcome.DELETED, Outcome.FORBIDDEN}
PASSWORD_NAMES = ("OS_AUTH_URL", "OS_USERNAME", "OS_PASSWORD", "OS_USER_DOMAIN_NAME", "OS_PROJECT_ID")


@pytest.fixture(scope="module")
def started():
    with running_sandbox(SandboxOptions(size=3000)) as connection:
        yield connection


@pytest.fixture
def sandbox(started: SandboxConnection):
    """The sandbox without faults, with its counts read."""
    control(started, "faults", Faults().model_dump(mode="json"))
    return started


def control(sandbox: SandboxConnection, what: str, value: dict | None = None, method: str = "PUT"):
    body = None if value is None else orjson.dumps(value)
    request = urllib.request.Request(f"{sandbox.endpoint}/sandbox/{what}", body, method=method if body else "GET")
    with urllib.request.urlopen(request) as response:
        return orjson.loads(response.read())


def set_faults(sandbox: SandboxConnection, **faults):
    control(sandbox, "faults", faults, "PATCH")


def tokens_issued(sandbox: SandboxConnection) -> int:
    return control(sandbox, "stats")["tokens_issued"]


def password(sandbox: SandboxConnection, **changes: str | None) -> PasswordLogin:
    env = {name: sandbox.env[name] for name in PASSWORD_NAMES} | changes
    login = load_credentials(None, {name: value for name, value in env.items() if value is not None})
    assert isinstance(login, PasswordLogin)
    return login


def access_key(sandbox: SandboxConnection) -> AccessKey:
    key = load_credentials(None, sandbox.env)
    assert isinstance(key, AccessKey)
    return key


def client(sandbox: SandboxConnection, credentials=None, **options) -> ModelArtsClient:
    options = {"timeouts": Timeouts(request=10), "retry_policy": RetryPolicy(backoff_seconds=0.02)} | options
    return ModelArtsClient(sandbox.endpoint, credentials or password(sandbox), **options)


async def some_ids(modelarts: ModelArtsClient, count: int) -> list[str]:
    found: list[str] = []
    async for page in modelarts.list_images(["0"]):
        found += [item["id"] for item in page.items]
        if len(found) >= count:
            break
    return found[:count]


async def test_images_are_described_with_one_token(sandbox):
    before = tokens_issued(sandbox)
    async with client(sandbox) as modelarts:
        assert modelarts.project_id == sandbox.project_id
        wanted = await some_ids(modelarts, 200)
        answers = await fetch(modelarts, wanted)
        unknown = await modelarts.show_image(UNKNOWN)
    assert sorted(answer.id for answer in answers) == sorted(wanted)
    assert {answer.outcome for answer in answers} <= ANSWERED
    described = [answer for answer in answers if answer.outcome is Outcome.OK]
    assert len(described) > 150
    assert all(orjson.loads(answer.body)["id"] == answer.id for answer in described)
    assert unknown.outcome is Outcome.NOT_FOUND
    assert tokens_issued(sandbox) - before == 1
    assert modelarts.stats.requests == 1 + 1 + 201
    assert modelarts.stats.bytes_received > sum(len(answer.body) for answer in answers)


async def test_project_may_be_given_by_name(sandbox):
    login = password(sandbox, OS_PROJECT_ID=None, OS_PROJECT_NAME=sandbox.env["OS_PROJECT_NAME"])
    async with client(sandbox, login) as modelarts:
        assert modelarts.project_id == sandbox.project_id
        assert (await modelarts.show_image(UNKNOWN)).outcome is Outcome.NOT_FOUND


async def test_workers_share_one_renewal_for_each_expiry(sandbox):
    async with client(sandbox) as modelarts:
        wanted = await some_ids(modelarts, 1000)
        before = tokens_issued(sandbox)
        answers = await fetch(modelarts, wanted[:500])
        for _ in range(2):
            await asyncio.to_thread(set_faults, sandbox, expire_tokens_now=True)
            answers += await fetch(modelarts, wanted[500:750])
        fetching = asyncio.create_task(fetch(modelarts, wanted[750:]))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(set_faults, sandbox, expire_tokens_now=True)
        answers += await fetching
        answers.append(await modelarts.show_image(UNKNOWN))
    assert Outcome.FAILED not in {answer.outcome for answer in answers}
    assert tokens_issued(sandbox) - before == 3
    assert modelarts.stats.token_renewals == 3


async def test_access_key_signs_requests(sandbox):
    async with client(sandbox, access_key(sandbox)) as modelarts:
        wanted = await some_ids(modelarts, 100)
        answers = await fetch(modelarts, wanted)
    assert len(answers) == 100
    assert {answer.outcome for answer in answers} <= ANSWERED


async def test_wrong_secret_key_ends_the_run(sandbox):
    key = access_key(sandbox)
    wrong = AccessKey(key.access_key, "hidden" + key.secret_key, key.project_id)
    async with client(sandbox, wrong) as modelarts:
        with pytest.raises(AccessDeniedError, match=r"OS_SECRET_KEY.*HTTP 403 ModelArts\.0206") as raised:
            await modelarts.show_image(UNKNOWN)
    assert key.access_key not in str(raised.value)
    assert key.secret_key not in str(raised.value)


async def test_refused_ready_made_token_ends_the_run(sandbox):
    async with client(sandbox, ReadyToken("hidden-token", sandbox.project_id)) as modelarts:
        with pytest.raises(AccessDeniedError, match="OS_TOKEN to a new one") as raised:
            await fetch(modelarts, [UNKNOWN] * 100)
    assert "hidden" not in str(raised.value)
    assert modelarts.stats.requests <= 32


async def test_wrong_password_ends_the_run_at_the_start(sandbox):
    with pytest.raises(AccessDeniedError, match="Wrong user name or password for sandbox-user at 127") as raised:
        await client(sandbox, password(sandbox, OS_PASSWORD="hidden-password")).__aenter__()
    assert "hidden" not in str(raised.value)


async def test_identity_service_that_is_down_is_an_error(sandbox):
    set_faults(sandbox, iam_down=True)
    with pytest.raises(EndpointUnreachableError, match=r"issues no token \(HTTP 503\)"):
        await client(sandbox, retry_policy=RetryPolicy(attempts=3, backoff_seconds=0.02)).__aenter__()


async def test_identity_service_at_another_path_is_an_error(sandbox):
    with pytest.raises(ConfigurationError, match="OS_AUTH_URL"):
        await client(sandbox, password(sandbox, OS_AUTH_URL=f"{sandbox.endpoint}/identity")).__aenter__()


async def test_wrong_project_ends_the_run(sandbox):
    async with client(sandbox) as modelarts:
        token = modelarts._authentication.grant.headers["X-Auth-Token"]
    async with client(sandbox, ReadyToken(token, "0" * 32)) as modelarts:
        with pytest.raises(AccessDeniedError, match="OS_PROJECT_ID"):
            await modelarts.show_image(UNKNOWN)


async def test_wrong_path_ends_the_run(sandbox):
    async with ModelArtsClient(f"{sandbox.endpoint}/modelarts", password(sandbox)) as modelarts:
        with pytest.raises(ConfigurationError, match="IMAGE_SNAPSHOTS_ENDPOINT"):
            await modelarts.show_image(UNKNOWN)


async def test_suspended_account_ends_the_run(sandbox):
    async with client(sandbox) as modelarts:
        wanted = await some_ids(modelarts, 1000)
        set_faults(sandbox, suspended=True)
        with pytest.raises(AccountSuspendedError, match="suspended"):
            await fetch(modelarts, wanted)
        assert modelarts.stats.requests <= 32 + 10


async def test_list_has_every_image_once(sandbox):
    async with client(sandbox) as modelarts:
        pages = [page async for page in modelarts.list_images(["0"])]
    found = [item["id"] for page in pages for item in page.items]
    assert len(found) == len(set(found)) == pages[0].total
    assert len(found) > 2000
    assert [len(page.items) for page in pages[:-1]] == [200] * (len(pages) - 1)
    assert modelarts.list_shortfall == 0


async def test_faults_of_every_kind_cost_no_image(sandbox):
    set_faults(sandbox, ratio_500=0.04, ratio_reset=0.04, ratio_truncated=0.04, ratio_html=0.04, ratio_429=0.02)
    set_faults(sandbox, retry_after="0")
    async with client(sandbox, retry_policy=RetryPolicy(attempts=12, backoff_seconds=0.02)) as modelarts:
        wanted = await some_ids(modelarts, 600)
        answers = await fetch(modelarts, wanted)
    assert len(answers) == 600
    assert {answer.outcome for answer in answers} <= ANSWERED
    assert sum(answer.attempts for answer in answers) > 660


async def test_random_refusals_do_not_slow_the_client_to_a_crawl(sandbox):
    set_faults(sandbox, ratio_429=0.1, retry_after="0")
    async with client(sandbox) as modelarts:
        wanted = await some_ids(modelarts, 1500)
        answers = await fetch(modelarts, wanted)
    assert {answer.outcome for answer in answers} <= ANSWERED
    # The throttle's own tests define a crawl, with a clock that does not wait.
    assert 0.05 * 1500 < modelarts.stats.throttled < 0.25 * 1500
