"""The command `projects`: what each project resolves to, and whether a run of it would work."""

import json

import pytest
from sandbox_calls import set_faults
from typer.testing import CliRunner

from assets.cli import app
from pipelines.cloud.registry import RegistryLogin
from pipelines.settings import Settings
from pipelines.snapshot.connection import Connection, load_credentials

HIDDEN = "hidden-in-a-url"


@pytest.fixture
def sandboxes(start_sandbox, monkeypatch, tmp_path):
    """Two sandboxes, an entry of `clouds.yaml` for each, and a projects file of six projects."""
    first = start_sandbox(seed="first", size=12, projects={"eu-de_a": "a" * 32, "eu-de_b": "b" * 32})
    second = start_sandbox(seed="second", size=5, projects={"eu-nl_c": "c" * 32})
    clouds = {}
    for name, sandbox in (("one", first), ("two", second), ("wrong", second)):
        env = sandbox.env
        clouds[name] = {
            "auth": {
                "auth_url": env["OS_AUTH_URL"],
                "username": env["OS_USERNAME"],
                "password": HIDDEN if name == "wrong" else env["OS_PASSWORD"],
                "user_domain_name": env["OS_USER_DOMAIN_NAME"],
                "project_name": env["OS_PROJECT_NAME"],
            }
        }
    (tmp_path / "clouds.yaml").write_text(json.dumps({"clouds": clouds}))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", "clouds.yaml")
    (tmp_path / "ids.csv").write_text("id\n")
    projects = {
        "a": f'cloud = "one"\nendpoint = "{first.endpoint}"\nworkspaces = ["0", "x"]\nrate_limit = 50\nusage="models"',
        "b": f'cloud = "one"\nproject_name = "eu-de_b"\nendpoint = "{first.endpoint}"\ninventory = "ids.csv"',
        "c": f'cloud = "two"\nendpoint = "{second.endpoint}"\ninventory = "postgresql://u:{HIDDEN}@db.example/images"',
        "refused": f'cloud = "wrong"\nendpoint = "{second.endpoint}"',
        "unknown": f'cloud = "nowhere"\nendpoint = "{second.endpoint}"',
        "unpriced": f'cloud = "two"\nendpoint = "{second.endpoint}"\nprice_book = "none.toml"',
    }
    (tmp_path / "projects.toml").write_text("\n".join(f"[{key}]\n{lines}" for key, lines in projects.items()))
    monkeypatch.setenv("IMAGE_SNAPSHOTS_PROJECTS", "projects.toml")
    return first, second


def shown(*arguments):
    result = CliRunner().invoke(app, ["projects", *arguments])
    assert HIDDEN not in result.output
    return result


def listed(*arguments):
    result = shown("--json", *arguments)
    return result.exit_code, {found["project"]: found for found in json.loads(result.stdout)}


def test_list_says_what_each_project_resolves_to_without_asking_anything(sandboxes):
    first, second = sandboxes
    code, found = listed()
    assert code == 2
    general = {"usage": "none", "concurrency": 32, "rate_limit": None, "price_book": str(Settings().price_book)}
    assert found["a"] == general | {
        "project": "a",
        "cloud_project": "eu-de_a",
        "endpoint": first.endpoint,
        "endpoint_origin": None,
        "credentials": "password from the cloud 'one' in clouds.yaml",
        "inventory": "modelarts:",
        "workspaces": "0,x",
        "usage": "models",
        "rate_limit": 50.0,
        "works": None,
        "images": None,
        "error": None,
    }
    assert {key: (each["cloud_project"], each["inventory"], each["endpoint"]) for key, each in found.items()} == {
        "a": ("eu-de_a", "modelarts:", first.endpoint),
        "b": ("eu-de_b", "ids.csv", first.endpoint),
        "c": ("eu-nl_c", "postgresql+psycopg://u:***@db.example/images", second.endpoint),
        "refused": ("eu-nl_c", "modelarts:", second.endpoint),
        "unknown": (None, None, None),
        "unpriced": ("eu-nl_c", "modelarts:", second.endpoint),
    }
    assert {key: each["error"] for key, each in found.items() if each["error"]} == {
        "unknown": found["unknown"]["error"]
    }
    assert "names the cloud 'nowhere', which " in found["unknown"]["error"]
    for sandbox in sandboxes:
        assert requests_of(sandbox) == {}


def test_endpoint_that_is_not_stated_is_derived_by_the_check_alone(sandboxes, monkeypatch, tmp_path):
    first, _ = sandboxes
    projects = {
        "a": 'cloud = "one"',
        "b": 'cloud = "one"\nregion = "eu-nl"',
        "key": 'project_id = "p1"\nregion = "cn-north-4"',
        "nowhere": 'project_id = "p1"\nregion = "xx-none-1"',
    }
    (tmp_path / "projects.toml").write_text("\n".join(f"[{key}]\n{lines}" for key, lines in projects.items()))
    monkeypatch.setenv("OS_ACCESS_KEY", "k")
    monkeypatch.setenv("OS_SECRET_KEY", HIDDEN)
    otc = "https://modelarts.{}.otc.t-systems.com"
    in_file, unless = "`region` of project {!r} in the projects file", ", unless the login names another"
    code, found = listed()
    assert code == 2
    assert {key: (each["endpoint"], each["endpoint_origin"]) for key, each in found.items()} == {
        "a": (otc.format("eu-de"), f"the region eu-de (the project's name eu-de_a){unless}"),
        "b": (otc.format("eu-nl"), f"the region eu-nl ({in_file.format('b')}){unless}"),
        "key": ("https://modelarts.cn-north-4.myhuaweicloud.com", f"the region cn-north-4 ({in_file.format('key')})"),
        "nowhere": (None, None),
    }
    said = f"{in_file.format('nowhere')} names the region 'xx-none-1', which is not one of Huawei Cloud, China: "
    assert found["nowhere"]["error"].startswith(said)
    assert requests_of(first) == {}
    host = first.endpoint.partition("//")[2]
    code, found = listed("--check", "--project", "a")
    assert (code, found["a"]["endpoint"]) == (0, first.endpoint)
    assert found["a"]["endpoint_origin"].startswith(f"the catalogue of {host} (region ")


def requests_of(sandbox):
    import httpx

    return httpx.get(f"{sandbox.endpoint}/sandbox/stats", trust_env=False).json()["requests"]


def test_check_says_in_one_sentence_which_projects_would_work(sandboxes, tmp_path):
    first, second = sandboxes
    code, found = listed("--check")
    assert code == 1
    assert {key: (each["works"], each["cloud_project"], each["images"]) for key, each in found.items()} == {
        "a": (True, "a" * 32, 12),
        "b": (True, "b" * 32, 12),
        "c": (True, "c" * 32, 5),
        "refused": (False, "eu-nl_c", None),
        "unknown": (False, None, None),
        "unpriced": (False, "eu-nl_c", None),
    }
    host = second.endpoint.partition("//")[2]
    assert found["refused"]["error"].startswith(f"Wrong user name or password for sandbox-user at {host} (HTTP 401)")
    assert found["unpriced"]["error"].startswith("The price book none.toml cannot be read: No such file or directory.")
    # One login and one page each; nothing is written.
    assert requests_of(first) == {"token": 2, "list": 2}
    assert requests_of(second) == {"token": 2, "list": 1}
    assert not (tmp_path / "lake").exists()


def test_check_of_projects_that_work_succeeds(sandboxes):
    result = shown("--check", "--project", "c", "--project", "a")
    assert result.exit_code == 0
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [(line[0], line[-1]) for line in lines] == [
        ("project", "result"),
        ("a", "would work: the API accepts the credentials, and its image list counts 12 images."),
        ("c", "would work: the API accepts the credentials, and its image list counts 5 images."),
    ]
    assert result.stderr == "Trying a.\nTrying c.\n"


def test_check_fails_where_the_image_list_is_denied(sandboxes):
    import httpx

    first, _ = sandboxes
    with httpx.Client(base_url=first.endpoint, trust_env=False) as client:
        set_faults(client, lists_forbidden=True)
    code, found = listed("--check", "--project", "a")
    assert (code, found["a"]["works"]) == (1, False)
    assert "(HTTP 403" in found["a"]["error"]


def test_unknown_project_is_refused(sandboxes, image_snapshots):
    done = image_snapshots("projects", "--project", "none")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: --project none is not configured: choose from a, b, c, refused, unknown, unpriced.\n"
    )


def test_embedded_sandbox_is_listed_without_starting_it():
    code, found = listed()
    assert code == 0
    assert (found["default"]["endpoint"], found["default"]["inventory"]) == (
        "the embedded sandbox",
        "that of the sandbox",
    )


def test_limit_is_counted_by_endpoint_and_by_project_where_the_project_states_it(monkeypatch, tmp_path, redis_server):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_RATE_LIMITER", redis_server.url)
    monkeypatch.setenv("IMAGE_SNAPSHOTS_RATE_LIMIT", "10")
    monkeypatch.setenv("IMAGE_SNAPSHOTS_PROJECTS", "projects.toml")
    endpoints = {"a": "https://modelarts.one.example", "b": "https://modelarts.two.example"}
    own = "".join(
        f"[own-{key}]\nproject_id = 'x'\nendpoint = '{url}'\nrate_limit = 4\n" for key, url in endpoints.items()
    )
    general = "".join(f"[{key}]\nproject_id = 'x'\nendpoint = '{url}'\n" for key, url in endpoints.items())
    (tmp_path / "projects.toml").write_text(own + general + f"[c]\nproject_id = 'y'\nendpoint = '{endpoints['a']}'\n")
    credentials = load_credentials("x", {"OS_ACCESS_KEY": "k", "OS_SECRET_KEY": "s"})

    def limits(make):
        return {
            settings._project or "": (
                client._shared_rate._key.partition("next-turn:")[2],
                1 / client._shared_rate._interval,
            )
            for settings in Settings.load().of_each_project
            for client in [make(Connection(settings, settings.endpoint, credentials, "modelarts:"))]
        }

    assert limits(Connection.client) == {
        "a": ("modelarts.one.example", 10),
        "b": ("modelarts.two.example", 10),
        "c": ("modelarts.one.example", 10),
        "own-a": ("modelarts.one.example:own-a", 4),
        "own-b": ("modelarts.two.example:own-b", 4),
    }
    for make, host in {
        Connection.traces_client: "cts",
        Connection.registry_client: "swr-api",
        lambda own: own.manifest_client(RegistryLogin(f"https://pull.{own.host.partition('.')[2]}", "x")): "pull",
    }.items():
        assert limits(make) == {
            "a": (f"{host}.one.example", 10),
            "b": (f"{host}.two.example", 10),
            "c": (f"{host}.one.example", 10),
            "own-a": (f"{host}.one.example:own-a", 4),
            "own-b": (f"{host}.two.example:own-b", 4),
        }
    monkeypatch.setenv("IMAGE_SNAPSHOTS_BILLS", "huawei:")
    bills = limits(lambda own: own.bill_access().open_bill_lines())
    assert (bills["b"], bills["own-b"]) == (("bss.myhuaweicloud.com", 10), ("bss.myhuaweicloud.com:own-b", 4))
