"""Where no endpoint is stated: the catalogue of a token, the region, and the first line of a run."""

import asyncio
import json

import pytest
from scripted_server import ID, http, replies, serving
from typer.testing import CliRunner

from assets.cli import app
from pipelines.cloud.credentials import AccessKey, PasswordLogin, Region
from pipelines.cloud.discovery import find_endpoint
from pipelines.cloud.options import Timeouts
from pipelines.errors import AccessDeniedError, ConfigurationError
from pipelines.sandbox.identity import REGION


def token(*services, project="team"):
    described = {"project": {"id": "p1", "name": project}, "catalog": list(services)}
    return http(201, json.dumps({"token": described}).encode(), X_Subject_Token="t")


def modelarts(region, url):
    return {"type": "modelarts", "name": "modelarts", "endpoints": [{"region": region, "url": url}]}


async def found(response, region=None, status=None):
    async with serving(replies(response)) as server:
        login = PasswordLogin(
            f"{server.url}/v3",
            "u",
            False,
            "hidden",
            {"name": "d"},
            "p1",
            None,
            None,
            region=region and Region(region, "R"),
        )
        endpoint = await asyncio.to_thread(find_endpoint, login, Timeouts(request=5), None)
        return endpoint.url, endpoint.origin.replace(server.url.removeprefix("http://"), "HOST")


GATEWAY = modelarts("eu-de", "https://gateway.example/v1/p1")
PRIVATE = modelarts("RegionOne", "https://modelarts.private.example/v1/p1")


@pytest.mark.parametrize(
    ("response", "region", "url", "origin"),
    [
        # The catalogue wins over the address that the region would have.
        (token(GATEWAY), "eu-de", "https://gateway.example", "the catalogue of HOST (region eu-de)"),
        (
            token(GATEWAY, PRIVATE),
            "RegionOne",
            "https://modelarts.private.example",
            "the catalogue of HOST (region RegionOne)",
        ),
        (token(PRIVATE), None, "https://modelarts.private.example", "the catalogue of HOST (region RegionOne)"),
        (
            token(GATEWAY, PRIVATE, project="eu-de_a"),
            None,
            "https://gateway.example",
            "the catalogue of HOST (region eu-de)",
        ),
        (token(), "eu-nl", "https://modelarts.eu-nl.otc.t-systems.com", "the region eu-nl (R)"),
        (token(GATEWAY), "eu-nl", "https://modelarts.eu-nl.otc.t-systems.com", "the region eu-nl (R)"),
        (
            token(project="cn-north-4_a"),
            None,
            "https://modelarts.cn-north-4.myhuaweicloud.com",
            "the region cn-north-4 (the project's name cn-north-4_a)",
        ),
    ],
)
async def test_catalogue_wins_over_the_region(response, region, url, origin):
    assert await found(response, region) == (url, origin)


@pytest.mark.parametrize(
    ("response", "region", "error", "says"),
    [
        (
            token(GATEWAY, PRIVATE),
            None,
            ConfigurationError,
            r"set OS_REGION_NAME \(.*`region` in .*\) to one of RegionOne, eu-de\.$",
        ),
        (token(), None, ConfigurationError, "No endpoint and no region are stated beside the"),
        (
            token(),
            "nowhere",
            ConfigurationError,
            "R names the region 'nowhere', which is not one of Huawei Cloud, China: cn-",
        ),
        (http(401), "eu-de", AccessDeniedError, "Wrong user name or password for u"),
    ],
)
async def test_endpoint_that_is_not_found_is_one_sentence(response, region, error, says):
    with pytest.raises(error, match=says):
        await found(response, region)


def test_key_without_a_region_has_no_endpoint():
    with pytest.raises(ConfigurationError, match="beside the access key from OS_ACCESS_KEY: set OS_REGION_NAME"):
        find_endpoint(AccessKey("AK", "SK", "p1", source="access key from OS_ACCESS_KEY"), Timeouts(), None)


@pytest.mark.parametrize(
    ("region", "works", "says"), [("RegionOne", True, ""), ("RegionTwo", False, "OS_REGION_NAME names the region 'Reg")]
)
async def test_region_that_only_the_catalogue_knows_works(monkeypatch, region, works, says):
    async def script(request, writer):
        place = modelarts("RegionOne", f"{server.url}/v1/p1")
        images = json.dumps({"data": [{"id": ID}], "total_count": 1}).encode()
        writer.write(token(place) if request.path == "/v3/auth/tokens" else http(200, images))

    async with serving(script) as server:
        login = {
            "AUTH_URL": server.url,
            "USER_ID": "u",
            "PASSWORD": "hidden",
            "PROJECT_ID": "p1",
            "REGION_NAME": region,
        }
        for name, value in login.items():
            monkeypatch.setenv(f"OS_{name}", value)
        invoke = CliRunner().invoke
        listed = await asyncio.to_thread(invoke, app, ["projects", "--json"])
        assert server.requests == []
        checked = await asyncio.to_thread(invoke, app, ["projects", "--check", "--json"])
    (found,) = json.loads(listed.stdout)
    assert (listed.exit_code, found["endpoint_origin"], found["error"]) == (0, "the login", None)
    (found,) = json.loads(checked.stdout)
    assert (checked.exit_code, found["works"], (found["error"] or "")[: len(says)]) == (0 if works else 1, works, says)


def test_run_without_an_endpoint_begins_with_the_one_that_was_found(image_snapshots, start_sandbox, tmp_path):
    sandbox = start_sandbox(size=20)
    names = ("OS_AUTH_URL", "OS_USERNAME", "OS_USER_DOMAIN_NAME", "OS_PROJECT_ID")
    password = tmp_path / "password"
    password.write_text(f"{sandbox.env['OS_PASSWORD']}\n")
    env = {name: sandbox.env[name] for name in names} | {"OS_PASSWORD_FILE": str(password)}
    result = image_snapshots("run", env=env)
    assert result.returncode == 0, result.stderr
    host = sandbox.auth_url.removeprefix("http://").removesuffix("/v3")
    assert result.stderr.splitlines()[0] == (
        f"No endpoint is stated: http://{host} follows from the catalogue of {host} (region {REGION})."
    )


def test_run_without_an_endpoint_and_with_an_unknown_region_is_one_sentence(image_snapshots):
    env = {"HW_ACCESS_KEY": "AK", "HW_SECRET_KEY": "hidden", "HW_PROJECT_ID": "p1", "HW_REGION_NAME": "eu-dee"}
    result = image_snapshots("run", env=env)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(
        "Error: HW_REGION_NAME names the region 'eu-dee', which is not one of Huawei Cloud, China: cn-east-2"
    )
