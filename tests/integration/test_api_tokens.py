"""Tokens and signatures, where the exact order of events matters."""

import asyncio
import datetime as dt
import json
import time
from collections.abc import Callable

import pytest
from scripted_server import (
    HTML,
    ID,
    Request,
    Server,
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

from pipelines.cloud.credentials import AccessKey, PasswordLogin
from pipelines.cloud.options import Timeouts
from pipelines.errors import (
    AccessDeniedError,
    ConfigurationError,
    EndpointUnreachableError,
)
from pipelines.tables import Outcome


def _login(server: Server, **changes) -> PasswordLogin:
    stated = {
        "auth_url": f"{server.url}/v3",
        "user": "auditor",
        "user_is_id": False,
        "password": "hidden-password",
        "user_domain": {"name": "d1"},
        "project_id": None,
        "project_name": "eu-de",
        "project_domain": {"name": "d1"},
    }
    return PasswordLogin(**(stated | changes))


def _token(value: str, project: dict[str, str] | None = None, life: float = 86_400) -> bytes:
    now = dt.datetime.now(dt.UTC)
    token = {"issued_at": now.isoformat(), "expires_at": (now + dt.timedelta(seconds=life)).isoformat()}
    body = json.dumps({"token": token | {"project": project or {"id": "p1", "name": "eu-de"}}}).encode()
    return http(201, body, X_Subject_Token=value)


def tokens_and_images(is_valid: Callable[[str, Request], bool], life: float = 86_400):
    """A script that issues token-1, token-2 …, and describes images to holders of a valid one."""
    issued: list[Request] = []

    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path == "/v3/auth/tokens":
            issued.append(request)
            await asyncio.sleep(0.02)
            writer.write(_token(f"token-{len(issued)}", life=life))
        elif is_valid(request.headers["x-auth-token"], request):
            writer.write(described(request))
        else:
            writer.write(error(401, "APIG.0301"))

    return script, issued


async def test_token_call_requests_the_configured_project():
    script, issued = tokens_and_images(lambda *_: True)
    async with serving(script) as server:
        async with client(server, _login(server)) as modelarts:
            assert modelarts.project_id == "p1"
        async with client(server, _login(server, project_id="p1", project_name=None)):
            pass
    by_name, by_id = (json.loads(request.body)["auth"] for request in issued)
    assert by_name["scope"] == {"project": {"name": "eu-de", "domain": {"name": "d1"}}}
    assert by_id["scope"] == {"project": {"id": "p1"}}
    user = {"name": "auditor", "password": "hidden-password", "domain": {"name": "d1"}}
    assert by_id["identity"] == {"methods": ["password"], "password": {"user": user}}


async def test_refused_token_is_renewed_once_for_all_workers():
    refused_at_first = asyncio.Event()

    def is_valid(token: str, request: Request) -> bool:
        if len(server.requests) > 300:
            refused_at_first.set()
        return token == "token-2" or not refused_at_first.is_set()

    script, issued = tokens_and_images(is_valid)
    async with serving(script) as server, client(server, _login(server)) as modelarts:
        answers = await fetch(modelarts, ids(600))
    assert {answer.outcome for answer in answers} == {Outcome.OK}
    assert (len(answers), len(issued), modelarts.stats.token_renewals) == (600, 2, 1)


@by_virtual_clock
async def test_token_is_renewed_before_it_expires():
    script, issued = tokens_and_images(lambda token, _: True, life=100)
    async with serving(script) as server, client(server, _login(server)) as modelarts:
        began = time.monotonic()
        for _ in range(40):
            answers = await fetch(modelarts, ids(32))
            assert {answer.attempts for answer in answers} == {1}
            await asyncio.sleep(7)
    # With the first request after nine tenths of its life.
    assert [round(request.at - began) for request in issued[1:]] == [91, 182, 273]
    assert modelarts.stats.token_renewals == 3


async def test_refusal_right_after_a_renewal_ends_the_run():
    script, issued = tokens_and_images(lambda token, _: token == "token-1" and len(server.requests) < 40)
    async with serving(script) as server, client(server, _login(server)) as modelarts:
        with pytest.raises(AccessDeniedError, match=r"just fetched.*p1.*HTTP 401 APIG\.0301") as raised:
            await fetch(modelarts, ids(200))
        assert len(issued) == 2
        assert "token-" not in str(raised.value)
        assert "hidden-password" not in str(raised.value)


@pytest.mark.parametrize(
    ("happened", "answers", "error_type", "says", "requests"),
    [
        ("wrong password", [http(401)], AccessDeniedError, "Wrong user name or password for auditor", 1),
        ("locked", [http(403)], AccessDeniedError, "may not log in", 1),
        ("not Keystone", [http(404)], ConfigurationError, "OS_AUTH_URL", 1),
        ("a redirect", [http(302, Location="/")], ConfigurationError, "OS_AUTH_URL", 1),
        ("HTML", [HTML], ConfigurationError, "OS_AUTH_URL", 1),
        ("a token that cannot be sent", [_token("hidden-ü")], ConfigurationError, "OS_AUTH_URL", 1),
        ("no project", [_token("t", {"name": "x"})], AccessDeniedError, "OS_PROJECT_ID", 1),
        ("an id that is none", [_token("t", {"id": "../x"})], AccessDeniedError, "OS_PROJECT_ID", 1),
        ("always 503", [http(503)], EndpointUnreachableError, "HTTP 503", 3),
        ("always reset", [b""], EndpointUnreachableError, r"client\.connection_reset", 3),
        ("503, then fine", [http(503), _token("t")], None, "", 2),
        ("429, then fine", [http(429, Retry_After="0"), _token("t")], None, "", 2),
    ],
)
async def test_token_call_retries_or_fails(happened, answers, error_type, says, requests):
    async with serving(replies(*answers)) as server:
        modelarts = client(server, _login(server))
        if error_type is None:
            async with modelarts:
                assert modelarts.project_id == "p1"
        else:
            with pytest.raises(error_type, match=says) as raised:
                await modelarts.__aenter__()
            assert "hidden-password" not in str(raised.value)
        assert len(server.requests) == requests


async def test_token_of_another_project_is_not_used():
    async with serving(replies(_token("t", {"id": "p2"}))) as server:
        with pytest.raises(AccessDeniedError, match="another project than p1"):
            await client(server, _login(server, project_id="p1")).__aenter__()


async def test_unreachable_identity_service_is_an_error():
    async with serving(good) as server:
        gone = _login(server, auth_url="http://127.0.0.1:9/v3")
        with pytest.raises(EndpointUnreachableError, match="OS_AUTH_URL"):
            await client(server, gone, timeouts=Timeouts(first_contact=0.2, request=5)).__aenter__()
        unknown = _login(server, auth_url="https://iam.invalid/v3")
        with pytest.raises(EndpointUnreachableError, match="does not resolve"):
            await client(server, unknown).__aenter__()


async def test_signature_refused_after_success_fails_the_image_first():
    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        assert request.headers["x-project-id"] == "p1"
        writer.write(error(401, "APIG.0301") if request.id == ID else described(request))

    async with serving(script) as server, client(server, AccessKey("AK", "SK", "p1")) as modelarts:
        assert (await modelarts.show_image(ids(1)[0])).outcome is Outcome.OK
        answer = await modelarts.show_image(ID)
        assert (answer.outcome, answer.error_code, answer.attempts) == (Outcome.FAILED, "APIG.0301", 3)


async def test_signature_that_never_worked_ends_the_run():
    async with serving(replies(error(401, "APIG.0301"))) as server:
        async with client(server, AccessKey("hidden-ak", "hidden-sk", "p1")) as modelarts:
            with pytest.raises(AccessDeniedError, match="OS_ACCESS_KEY") as raised:
                await modelarts.show_image(ID)
            assert "hidden" not in str(raised.value)
