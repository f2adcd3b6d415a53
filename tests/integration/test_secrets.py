"""All output and files of a run are searched for its secrets."""

import base64
import datetime as dt
import json
import os
from pathlib import Path

import httpx
import pytest

from pipelines.sandbox import Faults
from pipelines.sandbox.catalogue import Catalogue
from pipelines.sandbox.identity import AGENCY, AGENCY_DOMAIN
from pipelines.sandbox.series import SECRET_MARK
from pipelines.sandbox.temporary_keys import ACCESS_KEY_MARK


def everything_below(root, result):
    """All bytes that a run wrote: files of any kind below `root`, and both streams."""
    yield "stdout", result.stdout.encode()
    yield "stderr", result.stderr.encode()
    for path in Path(root).rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()


def spellings(secret):
    """A secret in plain form and in its encodings."""
    return {secret.encode(), base64.b64encode(secret.encode()), json.dumps(secret)[1:-1].encode()}


@pytest.mark.parametrize(
    ("login", "ending"),
    [
        ("password", "complete"),
        ("access_key", "complete"),
        ("token", "complete"),
        ("password", "refused"),
        ("access_key", "refused"),
        ("token", "refused"),
        ("password", "suspended"),
        ("password", "faulty"),
    ],
)
def test_no_secret_is_written(image_snapshots, start_sandbox, tmp_path, login, ending):
    faults = Faults(ratio_500=0.2, ratio_reset=0.1, ratio_429=0.1, retry_after="0") if ending == "faulty" else Faults()
    sandbox = start_sandbox(size=30, inventory_file=tmp_path / "inventory.csv", faults=faults)
    env = dict(sandbox.env)
    response = httpx.post(
        f"{sandbox.auth_url}/auth/tokens",
        json={
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {
                        "user": {
                            "name": env["OS_USERNAME"],
                            "password": env["OS_PASSWORD"],
                            "domain": {"name": env["OS_USER_DOMAIN_NAME"]},
                        }
                    },
                },
                "scope": {"project": {"id": sandbox.project_id}},
            }
        },
    )
    token = response.headers["X-Subject-Token"]
    secrets = {env["OS_PASSWORD"], env["OS_SECRET_KEY"], env["OS_ACCESS_KEY"], token}
    if login != "access_key":
        del env["OS_ACCESS_KEY"], env["OS_SECRET_KEY"]
    if login == "token":
        del env["OS_PASSWORD"], env["OS_USERNAME"], env["OS_USER_DOMAIN_NAME"]
        env |= {"OS_TOKEN": token, "OS_AUTH_TYPE": "v3token"}
    if ending == "refused":
        # Wrong secrets are secrets, too: most often they differ from the right one by a letter.
        for name in {"OS_PASSWORD", "OS_SECRET_KEY", "OS_TOKEN"} & set(env):
            env[name] = f"{env[name][:-1]}~"
            secrets.add(env[name])
    if ending == "suspended":
        httpx.put(f"{sandbox.endpoint}/sandbox/faults", json={"suspended": True}).raise_for_status()
    for notebook in Catalogue("sandbox", 30, env["OS_PROJECT_NAME"]).notebooks(dt.datetime.now(dt.UTC).date()):
        # The URL ends with the token.
        secrets |= {notebook["token"], notebook["url"].partition("?")[0]}
    env["IMAGE_SNAPSHOTS_USAGE"] = "all"
    secrets.add(SECRET_MARK)
    # A secret in a compressed file would not be found.
    env["IMAGE_SNAPSHOTS_PARQUET_COMPRESSION"] = "none"
    env["IMAGE_SNAPSHOTS_NOTIFY"] = "http://127.0.0.1:9/hook/webhook-secret-4711"
    secrets.add("webhook-secret-4711")

    result = image_snapshots("run", env=env, keeps_runs=True)
    assert result.returncode == {"complete": 0, "faulty": 0, "refused": 2, "suspended": 1}[ending], result.stderr
    searched = dict(everything_below(tmp_path, result))
    assert any(".dagster" in name and name.endswith(".db") for name in searched)
    if result.returncode == 0:
        (table,) = (content for name, content in searched.items() if name.endswith("/image_references.parquet"))
        assert b"-notebook-0" in table
    found = {
        (name, secret)
        for name, content in searched.items()
        for secret in secrets
        for s in spellings(secret)
        if s in content
    }
    assert found == set()


def by_agency_of_the_server(sandbox, directory):
    """The keys of the server's agency live so short that the run outlives several."""
    httpx.patch(f"{sandbox.endpoint}/sandbox/faults", json={"key_seconds": 1}).raise_for_status()
    return {
        "OS_AUTH_TYPE": "agency",
        "OS_METADATA_URL": sandbox.endpoint,
        "OS_PROJECT_ID": sandbox.project_id,
        "IMAGE_SNAPSHOTS_RATE_LIMIT": "30",
    }


def by_temporary_key_in_files(sandbox, directory):
    key = httpx.get(f"{sandbox.endpoint}/openstack/latest/securitykey").json()["credential"]
    env = {"HUAWEICLOUD_SDK_PROJECT_ID": sandbox.project_id}
    for name, part in {"AK": "access", "SK": "secret", "SECURITY_TOKEN": "securitytoken"}.items():
        (directory / name).write_text(f"{key[part]}\n")
        env[f"HUAWEICLOUD_SDK_{name}_FILE"] = str(directory / name)
    return env


def by_agency_of_another_account(sandbox, directory):
    names = ("OS_AUTH_URL", "OS_USERNAME", "OS_USER_DOMAIN_NAME", "OS_PROJECT_NAME")
    (directory / "password").write_text(sandbox.env["OS_PASSWORD"])
    return {name: sandbox.env[name] for name in names} | {
        "OS_PASSWORD_FILE": str(directory / "password"),
        "OS_AGENCY_NAME": AGENCY,
        "OS_AGENCY_DOMAIN_NAME": AGENCY_DOMAIN,
    }


@pytest.mark.parametrize("login", [by_agency_of_the_server, by_temporary_key_in_files, by_agency_of_another_account])
def test_no_short_lived_secret_is_written(image_snapshots, start_sandbox, tmp_path, tmp_path_factory, login):
    sandbox = start_sandbox(size=150 if login is by_agency_of_the_server else 30)
    # Not below the directory that is searched.
    env = login(sandbox, tmp_path_factory.mktemp("secrets"))
    env |= {"IMAGE_SNAPSHOTS_ENDPOINT": sandbox.endpoint, "IMAGE_SNAPSHOTS_PARQUET_COMPRESSION": "none"}
    result = image_snapshots("run", env=env, keeps_runs=True)
    assert result.returncode == 0, result.stderr
    (manifest,) = (json.loads(path.read_text()) for path in (tmp_path / "lake" / "_manifests").rglob("dt=*/*.json"))
    if login is by_agency_of_the_server:
        assert manifest["fetch"]["token_renewals"] >= 3
    secrets = {SECRET_MARK, ACCESS_KEY_MARK, sandbox.env["OS_PASSWORD"]}
    searched = dict(everything_below(tmp_path, result))
    found = {(name, secret) for name, content in searched.items() for secret in secrets if secret.encode() in content}
    assert found == set()


def test_a_database_password_is_not_written(image_snapshots, tmp_path, postgres):
    url = f"postgresql://reader:db-secret-4711@127.0.0.1:{postgres.port}/postgres"
    result = image_snapshots("run", env={"IMAGE_SNAPSHOTS_INVENTORY": url}, keeps_runs=True)
    assert result.returncode in (1, 2)
    assert "reader" in result.stderr
    found = [name for name, content in everything_below(tmp_path, result) if b"db-secret-4711" in content]
    assert found == []
    assert os.path.exists(tmp_path / ".dagster")
