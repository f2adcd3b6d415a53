"""Four projects of two accounts in two regions, in one run: a sandbox for each, with secrets and limits of its own.

One signs with a key of its account, one logs in with a password, one has the agency of a server whose keys live for
five seconds, and one has a wrong key.
"""

import hashlib
import json
import os
import re
import shutil
from contextlib import ExitStack
from types import SimpleNamespace

import httpx
import pytest

from pipelines.sandbox import Faults, SandboxOptions

pytestmark = pytest.mark.slow

# project key: project id, images, requests per second, faults of its sandbox
PROJECTS = {
    "prod.de": ("1" * 32, 20, 200, Faults(rate_limit=500)),
    "prod.nl": ("2" * 32, 20, 100, Faults(rate_limit=400)),
    # So slow that its keys end during the run.
    "lab.de": ("3" * 32, 160, 20, Faults(rate_limit=300, key_seconds=5)),
    "lab.nl": ("4" * 32, 20, 50, Faults(rate_limit=200)),
}
REGIONS = {"de": "eu-de", "nl": "eu-nl"}
WRONG_KEY = "a-secret-key-that-is-wrong"
SENTENCE = "The access key or secret key is wrong: correct the cloud 'lab.nl' in clouds.yaml ("


def auth_of(key, sandbox):
    """The entry of `clouds.yaml` for a project."""
    env = sandbox.env
    if key == "lab.de":
        return {"auth_type": "agency", "metadata_url": sandbox.endpoint}
    if key == "prod.nl":
        names = {"auth_url": "OS_AUTH_URL", "username": "OS_USERNAME", "password": "OS_PASSWORD"}
        login = {name: env[variable] for name, variable in names.items()}
        return {"auth": login | {"user_domain_name": env["OS_USER_DOMAIN_NAME"]}}
    secret = WRONG_KEY if key == "lab.nl" else env["OS_SECRET_KEY"]
    return {"auth": {"access_key": env["OS_ACCESS_KEY"], "secret_key": secret}}


@pytest.fixture(scope="module")
def four(command_server, dagster_home, tmp_path_factory):
    """Four sandboxes after one run of their four projects: the run's result, its directory, and what each saw."""
    root = tmp_path_factory.mktemp("four")
    work, configuration = root / "work", root / "configuration"
    work.mkdir()
    configuration.mkdir()
    with ExitStack() as stack:
        sandboxes, clouds, tables = {}, {}, []
        for key, (project_id, size, rate, faults) in PROJECTS.items():
            options = SandboxOptions(seed=key, size=size, projects={key: project_id}, faults=faults)
            sandboxes[key] = stack.enter_context(command_server.sandbox(options))
            clouds[key] = auth_of(key, sandboxes[key])
            tables.append(
                f'["{key}"]\ncloud = "{key}"\nproject_id = "{project_id}"\nregion = "{REGIONS[key[-2:]]}"\n'
                f'endpoint = "{sandboxes[key].endpoint}"\nrate_limit = {rate}\n'
            )
        (configuration / "clouds.yaml").write_text(json.dumps({"clouds": clouds}))
        (configuration / "projects.toml").write_text("\n".join(tables))
        env = {
            **os.environ,
            "IMAGE_SNAPSHOTS_PROJECTS": str(configuration / "projects.toml"),
            "OS_CLIENT_CONFIG_FILE": str(configuration / "clouds.yaml"),
            # Compressed files would hide what is searched for.
            "IMAGE_SNAPSHOTS_PARQUET_COMPRESSION": "none",
            "DAGSTER_HOME": str(shutil.copytree(dagster_home, work / "dagster")),
        }

        def run(*arguments, **changes):
            return command_server.run(arguments, env=env | changes, cwd=work, timeout=600, keeps_runs=True)

        result = run("run", "--json")
        yield SimpleNamespace(result=result, run=run, work=work, configuration=configuration, sandboxes=sandboxes)


def asked(sandbox, what):
    return httpx.get(f"{sandbox.endpoint}/sandbox/{what}", trust_env=False).json()


def test_three_days_are_complete_and_the_fourth_is_one_sentence(four):
    assert four.result.returncode == 2, four.result.stderr
    reports = {report["project"]: report for report in json.loads(four.result.stdout)}
    assert {key: report["state"] for key, report in reports.items()} == {
        "lab.de": "complete",
        "lab.nl": "failed",
        "prod.de": "complete",
        "prod.nl": "complete",
    }
    assert {key: report["exit_status"] for key, report in reports.items()} == {
        "lab.de": 0,
        "lab.nl": 2,
        "prod.de": 0,
        "prod.nl": 0,
    }
    errors = [line for line in four.result.stderr.splitlines() if line.startswith("Error:")]
    assert errors == [f"Error: {reports['lab.nl']['error']}"]
    assert errors[0].startswith(f"Error: {SENTENCE}")
    for key in ("lab.de", "prod.de", "prod.nl"):
        manifest = json.loads((four.work / reports[key]["manifest"]).read_text())
        host = four.sandboxes[key].endpoint.partition("//")[2]
        assert (manifest["fetch"]["project_id"], manifest["fetch"]["endpoint_host"]) == (PROJECTS[key][0], host)
        assert manifest["fetch"]["outcomes"]["ok"] > 0


def test_run_outlives_the_keys_of_the_agency(four):
    assert asked(four.sandboxes["lab.de"], "stats")["requests"]["key"] >= 2


def test_no_credential_reaches_the_endpoint_of_another_project(four):
    seen = {key: set(asked(sandbox, "credentials")) for key, sandbox in four.sandboxes.items()}

    def key_of(key):
        return f"access key {four.sandboxes[key].env['OS_ACCESS_KEY']}"

    assert seen["prod.de"] == {key_of("prod.de")}
    assert seen["lab.nl"] == {key_of("lab.nl")}
    password = four.sandboxes["prod.nl"].env["OS_PASSWORD"]
    login = f"user sandbox-user with password {hashlib.sha256(password.encode()).hexdigest()}"
    assert login in seen["prod.nl"]
    assert {one.split()[0] for one in seen["prod.nl"] - {login}} == {"token"}
    assert {one.split()[0] for one in seen["lab.de"]} == {"access", "security"}
    assert all(re.match(r"access key HST|security token ", one) for one in seen["lab.de"])
    together = [one for each in seen.values() for one in each]
    assert len(together) == len(set(together))
    # A sandbox refuses tokens that it has not issued.
    assert "401" not in asked(four.sandboxes["prod.nl"], "stats")["answers"]


def test_no_secret_is_in_any_file(four):
    env = [sandbox.env for sandbox in four.sandboxes.values()]
    secrets = [each[name].encode() for each in env for name in ("OS_PASSWORD", "OS_SECRET_KEY")] + [WRONG_KEY.encode()]
    # Tokens, security tokens and temporary secret keys, which only the sandboxes know.
    issued = re.compile(rb"MII[\w-]{120}|gQ[\w-]{150}|HST[0-9A-F]{18}")
    files = [path for path in four.work.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".parquet", ".json", ".html", ".duckdb", ".db"}
    for content in [four.result.stdout.encode(), four.result.stderr.encode(), *(path.read_bytes() for path in files)]:
        assert [secret for secret in secrets if secret in content] == []
        assert issued.search(content) is None


def test_check_says_which_of_the_four_would_work(four):
    done = four.run("projects", "--check", "--json")
    assert done.returncode == 1
    found = {each["project"]: each for each in json.loads(done.stdout)}
    assert {key: (each["works"], each["cloud_project"], each["rate_limit"]) for key, each in found.items()} == {
        key: (key != "lab.nl", project_id, rate) for key, (project_id, _, rate, _) in PROJECTS.items()
    }
    assert {key: each["images"] is not None for key, each in found.items()} == {
        key: key != "lab.nl" for key in PROJECTS
    }
    assert found["lab.nl"]["error"].startswith(SENTENCE)
    assert WRONG_KEY not in done.stdout + done.stderr
    assert [each["credentials"] for each in found.values()] == [
        "agency of this server, by the cloud 'lab.de' in clouds.yaml",
        "access key of the cloud 'lab.nl' in clouds.yaml",
        "access key of the cloud 'prod.de' in clouds.yaml",
        "password from the cloud 'prod.nl' in clouds.yaml",
    ]


def test_project_that_is_taken_out_keeps_its_days(four):
    text = (four.configuration / "projects.toml").read_text()
    left = four.configuration / "without.toml"
    left.write_text(text[: text.index('["prod.nl"]')] + text[text.index('["lab.de"]') :])
    now = {"IMAGE_SNAPSHOTS_PROJECTS": str(left)}
    done = four.run("status", "--json", **now)
    assert {day["project"]: (day["state"], day["is_configured"]) for day in json.loads(done.stdout)} == {
        "prod.de": ("complete", True),
        "prod.nl": ("complete", False),
        "lab.de": ("complete", True),
        "lab.nl": ("unfinished", True),
    }
    shown = {line.split("\t")[1]: line.split("\t")[2] for line in four.run("status", **now).stdout.splitlines()}
    assert shown["prod.nl"].endswith(", project no longer configured")
    verified = four.run("verify", "--project", "prod.nl", **now)
    assert verified.returncode == 0, verified.stdout
    assert "verified 1 partition: 0 problems" in verified.stdout
    query = "SELECT project, count(*) > 0 AS there FROM images GROUP BY ALL ORDER BY ALL"
    rows = json.loads(four.run("query", query, "--format", "json", **now).stdout)
    assert [row["project"] for row in rows] == ["lab.de", "prod.de", "prod.nl"]
