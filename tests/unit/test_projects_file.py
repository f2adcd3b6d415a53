"""The projects file: what each project resolves to, and one sentence with project and key for whatever is wrong."""

import datetime as dt
import json
from pathlib import Path

import pytest
from permissions import unreadable

from pipelines.cloud.credentials import PasswordLogin, load_credentials
from pipelines.errors import ConfigurationError
from pipelines.inputs.projects import PROJECT_SETTINGS, Project
from pipelines.lake.layout import Partition
from pipelines.preflight import check_inputs
from pipelines.run import Run
from pipelines.settings import Settings
from pipelines.snapshot.connection import connect, project_environment
from pipelines.snapshot.snapshot_run import SnapshotRun

DATE = dt.date(2026, 11, 23)
REGIONS = {"cn": "cn-north-4", "de": "eu-de"}
FILE = """
[prod]
project_id = "0123"
cloud = "otc"
endpoint = "https://modelarts.eu-de.otc.t-systems.com/"
inventory = "postgresql://reader:hidden@db.example/images"
inventory_query = "prod.sql"
workspaces = ["0", "abc"]
usage = ["notebooks", "services"]
concurrency = 4
rate_limit = 2.5
price_book = "prod.toml"
allowed_namespaces = ["team"]

["lab.two"]
project_name = "eu-nl_lab"
region = "eu-nl"
usage = "none"
"""


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Write a projects file and read the settings with it."""

    def load(text: str | bytes) -> Settings:
        path = tmp_path / "projects.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        monkeypatch.setenv("IMAGE_SNAPSHOTS_PROJECTS", str(path))
        return Settings.load()

    return load


def stated(settings: Settings) -> dict[str, object]:
    """The values of the settings that a project may state, secrets included."""
    values = {name: getattr(settings, name) for name in PROJECT_SETTINGS}
    return values | {"inventory": settings.inventory.get_secret_value() if settings.inventory else None}


def test_every_setting_of_a_project_is_a_general_one():
    assert set(PROJECT_SETTINGS) < set(Settings.model_fields)


def test_project_has_its_own_values_and_else_the_general_ones(monkeypatch, load):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_CONCURRENCY", "7")
    monkeypatch.setenv("IMAGE_SNAPSHOTS_INVENTORY", "all.csv")
    monkeypatch.setenv("IMAGE_SNAPSHOTS_MODE", "changed")
    settings = load(FILE)
    assert settings.project_keys == ["lab.two", "prod"]
    lab, prod = settings.of_each_project
    assert stated(prod) == {
        "endpoint": "https://modelarts.eu-de.otc.t-systems.com",
        "inventory": "postgresql://reader:hidden@db.example/images",
        "inventory_query": Path("prod.sql"),
        "workspaces": "0,abc",
        "usage": "notebooks,services",
        "concurrency": 4,
        "rate_limit": 2.5,
        "price_book": Path("prod.toml"),
        "allowed_namespaces": frozenset({"team"}),
    }
    assert stated(lab) == stated(settings) | {"usage": "none"}
    assert (lab.concurrency, lab.inventory.get_secret_value()) == (7, "all.csv")
    # What a project cannot state holds for all.
    assert {own.mode for own in (settings, lab, prod)} == {"changed"}
    assert prod.project_keys == settings.project_keys
    assert (prod.own("rate_limit"), prod.own("mode"), lab.own("rate_limit")) == ("prod", None, None)


def test_run_has_the_settings_of_its_project(load):
    settings = load(FILE).model_copy(update={"mode": "changed"})
    run = Run(Partition(DATE, "prod"), "run", settings)
    assert (run.settings.concurrency, run.settings.mode) == (4, "changed")
    # A project that was taken out has the general ones.
    assert Run(Partition(DATE, "gone"), "run", settings).settings.concurrency == 32
    with pytest.raises(ValueError, match=r"settings of project 'prod' are not those of 'lab\.two'"):
        Run(Partition(DATE, "lab.two"), "run", run.settings)


def test_no_secret_is_in_the_repr(load):
    settings = load(FILE)
    assert "hidden" not in repr(settings)
    assert "hidden" not in repr(settings.for_project("prod"))


def test_json_object_has_the_general_settings_for_each_project(monkeypatch):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_PROJECTS", '{"prod": "0123", "lab": "4567"}')
    settings = Settings.load()
    assert settings.projects == {"prod": Project("0123"), "lab": Project("4567")}
    assert settings.of_each_project == [settings, settings]


def test_path_may_begin_with_a_tilde_and_the_file_with_a_byte_order_mark(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("IMAGE_SNAPSHOTS_PROJECTS", "~/P.TOML")
    (tmp_path / "P.TOML").write_bytes(b"\xef\xbb\xbf[a]\r\nproject_id = 'p1'\r\n")
    assert Settings.load().projects == {"a": Project("p1", file=tmp_path / "P.TOML")}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it names no project: write a table for each, such as [prod]."),
        ("[a\n", "it is no valid TOML (Expected ']' at the end of a table declaration (at line 1, column 3))."),
        ("[a]\ncloud='x'\n[a]\n", "it is no valid TOML (Cannot declare ('a',) twice (at line 3, column 3))."),
        ('cloud = "x"', "`cloud` stands outside of a project: write it below [KEY], the key of its project."),
        ("[A]", "the project key 'A' must be lower-case letters, digits and _ . - only, at most 63, and begin with "),
        ("[null]", "the project key 'null' must not be a word that table readers convert to a value other than text."),
        ("[a]\nconcurency = 1", "project 'a' has the unknown key `concurency`: did you mean `concurrency`?"),
        ("[a]\nProject_ID = 'x'", "project 'a' has the unknown key `Project_ID`: did you mean `project_id`?"),
        ("[a]\nhue = 1", "project 'a' has the unknown key `hue`: known are project_id, project_name, cloud, "),
        (
            "[a.eu]\nproject_id = 'x'",
            "project 'a' has the unknown key `eu`: a project key with a dot stands in quotes, [\"a.eu\"].",
        ),
        (
            "[a]\nconcurrency = 1",
            "project 'a' does not say which project it is: state `project_id`, `project_name`, or `cloud`, ",
        ),
        (
            "[a]\nproject_id = 'x'\nproject_name = 'y'",
            "project 'a' states both `project_id` and `project_name`: keep one.",
        ),
        ("[a]\nproject_id = 123", "`project_id` of project 'a' must be text in quotes that is not empty."),
        ("[a]\nproject_id = ' '", "`project_id` of project 'a' must be text in quotes that is not empty."),
        ("[a]\nproject_id = 'x/y'", "`project_id` of project 'a' must be letters and digits only."),
        (f"[a]\nworkspaces = {'[' * 9000}", "it is no valid TOML (too many brackets within brackets)."),
        (f"[a]\nconcurrency = {'9' * 5000}", "it is no valid TOML (a number has too many digits)."),
        (
            '[a]\ncloud = "x"\nprice_book = "a\\u0000b"',
            "`price_book` of project 'a' must not hold a line break or another control character.",
        ),
        (
            '[a]\ncloud = "x"\nusage = ["models", "jobs\\n"]',
            "`usage` of project 'a' must not hold a line break or another control character.",
        ),
        ("[a]\nregion = 'EU DE'\ncloud = 'x'", "`region` of project 'a' must look like eu-de or cn-north-4."),
    ],
)
def test_wrong_file_is_one_sentence_with_project_and_key(load, tmp_path, text, says):
    with pytest.raises(ConfigurationError) as raised:
        load(text)
    assert str(raised.value).startswith(f"The projects file {tmp_path}/projects.toml is wrong: {says}")
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("endpoint = 1", "must be text in quotes that is not empty."),
        ("endpoint = 'http://hidden.example'", "is wrong: must be https (http is accepted on loopback only)."),
        ("endpoint = 'https://u:hidden@a.example'", "is wrong: must not hold credentials."),
        ("inventory = ['hidden.csv']", "must be text in quotes that is not empty."),
        ("inventory_query = true", "must be text in quotes that is not empty."),
        ("workspaces = 0", 'must be text in quotes, or a list, such as ["0"].'),
        ("workspaces = []", 'must be text in quotes, or a list, such as ["0"].'),
        ("workspaces = ['all', '0']", "is wrong: must be `all`, or ids of workspaces with commas between them."),
        ("usage = false", 'must be text in quotes, or a list, such as ["0"].'),
        ("usage = 'notebook'", "is wrong: there is no source 'notebook'; use notebooks."),
        ("concurrency = '4'", "must be a whole number without quotes."),
        ("concurrency = 4.5", "must be a whole number without quotes."),
        ("concurrency = true", "must be a whole number without quotes."),
        ("concurrency = 0", "is wrong: Input should be greater than or equal to 1."),
        ("rate_limit = '5'", "must be a number without quotes."),
        ("rate_limit = nan", "is wrong: Input should be a finite number."),
        ("rate_limit = inf", "is wrong: Input should be a finite number."),
        ("price_book = 2026-01-01", "must be text in quotes that is not empty."),
        ("allowed_namespaces = 'team'", 'must be a list of texts in quotes, such as ["team", "base"].'),
        ("allowed_namespaces = []", 'must be a list of texts in quotes, such as ["team", "base"].'),
    ],
)
def test_wrong_value_is_one_sentence_with_project_and_key_but_not_the_value(load, tmp_path, line, says):
    with pytest.raises(ConfigurationError) as raised:
        load(f"[lab]\nproject_id = 'p1'\n\n[prod]\nproject_id = 'p2'\n{line}\n")
    name = line.partition(" ")[0]
    assert (
        str(raised.value) == f"The projects file {tmp_path}/projects.toml is wrong: `{name}` of project 'prod' {says}"
    )


def test_every_setting_of_a_project_is_tested_with_a_wrong_value():
    (marks,) = test_wrong_value_is_one_sentence_with_project_and_key_but_not_the_value.pytestmark
    assert {line.partition(" ")[0] for line, _ in marks.args[1]} == set(PROJECT_SETTINGS)


def test_file_that_cannot_be_read_is_refused(monkeypatch, load, tmp_path):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_PROJECTS", "none.toml")
    with pytest.raises(ConfigurationError) as raised:
        Settings.load()
    assert str(raised.value) == (
        "The projects file none.toml cannot be read: No such file or directory. Correct IMAGE_SNAPSHOTS_PROJECTS."
    )
    monkeypatch.setenv("IMAGE_SNAPSHOTS_PROJECTS", "~nobody-of-this-name/p.toml")
    with pytest.raises(ConfigurationError, match="begins with ~nobody-of-this-name, but there is no such home"):
        Settings.load()
    with pytest.raises(ConfigurationError, match=r"projects\.toml is not UTF-8 text: save it as UTF-8\.$"):
        load("[a]\nproject_id = 'ü'".encode("latin-1"))
    with unreadable(tmp_path / "projects.toml"), pytest.raises(ConfigurationError, match="Permission denied"):
        Settings.load()


def test_limit_of_one_project_may_be_shared_without_a_general_one(monkeypatch, load):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_RATE_LIMITER", "redis://127.0.0.1:6379/0")
    prod, test = load("[prod]\nproject_id = 'p1'\nrate_limit = 5\n[test]\nproject_id = 'p2'\n").of_each_project
    assert (prod.rate_limit, test.rate_limit) == (5, None)
    with pytest.raises(ConfigurationError, match="so set that, too"):
        load("[prod]\nproject_id = 'p1'\n")


def test_project_with_a_cloud_has_nothing_of_the_general_credentials():
    environ = {
        "OS_ACCESS_KEY": "general",
        "OS_SECRET_KEY": "general",
        "OS_PASSWORD": "general",
        "OS_PROJECT_ID": "general",
        "OS_CLIENT_CONFIG_FILE": "clouds.yaml",
        "HOME": "/home/us",
    }
    files = {"OS_CLIENT_CONFIG_FILE": "clouds.yaml", "HOME": "/home/us"}
    assert project_environment(Project("p1", cloud="otc"), environ) == files | {"OS_CLOUD": "otc"}
    named = Project(project_name="eu-de_a", cloud="otc", region="eu-de")
    regional = files | {"OS_CLOUD": "otc", "OS_REGION_NAME": "eu-de"}
    assert project_environment(named, environ | {"HW_ACCESS_KEY": "general"}) == regional
    assert project_environment(Project("p1"), environ) == environ


def test_name_of_a_project_wins_over_the_project_that_its_credentials_name(monkeypatch, tmp_path):
    auth = {"auth_url": "https://iam.example/v3", "username": "u", "password": "p", "user_domain_name": "d"}
    clouds = {"clouds": {"otc": {"auth": auth | {"project_id": "other"}}}}
    (tmp_path / "clouds.yaml").write_text(json.dumps(clouds))
    for environ in (
        {"OS_CLOUD": "otc", "OS_CLIENT_CONFIG_FILE": "clouds.yaml", "OS_PROJECT_ID": "another"},
        {f"OS_{name.upper()}": value for name, value in auth.items()} | {"OS_PROJECT_ID": "other"},
    ):
        login = load_credentials(None, environ, "eu-de_a")
        assert isinstance(login, PasswordLogin)
        assert (login.project_id, login.project_name, login.project_domain) == (None, "eu-de_a", {"name": "d"})
        assert load_credentials("p1", environ).project_id == "p1"


@pytest.fixture
def clouds(monkeypatch, tmp_path):
    """A `clouds.yaml` with an access key of a region in `cn`, and one of no region in `any`; returns its path."""
    keys = {"access_key": "hidden", "secret_key": "hidden"}
    entries = {"cn": {"auth": keys, "region_name": "cn-north-4"}, "any": {"auth": keys}}
    (tmp_path / "clouds.yaml").write_text(json.dumps({"clouds": entries}))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    return tmp_path / "clouds.yaml"


def endpoint_of(settings: Settings, key: str) -> str:
    with connect(settings, Partition(DATE, key)) as connection:
        return connection.endpoint


def test_region_of_a_project_wins_over_the_general_endpoint(monkeypatch, load, clouds):
    text = "[cn]\nproject_id = 'p1'\ncloud = 'any'\nregion = 'cn-north-4'\n"
    text += "[de]\nproject_id = 'p2'\ncloud = 'any'\n"
    text += "[own]\nproject_id = 'p3'\ncloud = 'any'\nregion = 'eu-nl'\nendpoint = 'https://gateway.example'\n"
    monkeypatch.setenv("IMAGE_SNAPSHOTS_ENDPOINT", "https://modelarts.eu-de.otc.t-systems.com")
    settings = load(text)
    assert {key: endpoint_of(settings, key) for key in settings.project_keys} == {
        "cn": "https://modelarts.cn-north-4.myhuaweicloud.com",
        "de": "https://modelarts.eu-de.otc.t-systems.com",
        "own": "https://gateway.example",
    }
    monkeypatch.setenv("IMAGE_SNAPSHOTS_ENDPOINT", "sandbox")
    assert [own.uses_sandbox for own in load(text).of_each_project] == [True, True, False]


def test_own_credentials_are_not_sent_to_the_general_endpoint_of_another_region(monkeypatch, load, clouds):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_ENDPOINT", "https://modelarts.eu-de.otc.t-systems.com")
    with pytest.raises(ConfigurationError) as raised:
        endpoint_of(load("[lab]\nproject_id = 'p1'\ncloud = 'cn'\n"), "lab")
    assert str(raised.value) == (
        "Project 'lab' has credentials for the region cn-north-4 (region_name of the cloud 'cn' in clouds.yaml), and "
        "IMAGE_SNAPSHOTS_ENDPOINT is an endpoint of the region eu-de: state `region` or `endpoint` of the project in "
        "the projects file."
    )
    # An address that names no known region may serve any.
    monkeypatch.setenv("IMAGE_SNAPSHOTS_ENDPOINT", "https://modelarts.private.example")
    assert endpoint_of(load("[lab]\nproject_id = 'p1'\ncloud = 'cn'\n"), "lab") == "https://modelarts.private.example"


def test_region_without_credentials_does_not_mean_the_sandbox(load):
    settings = load("[lab]\nproject_id = 'p1'\nregion = 'eu-de'\n")
    assert not settings.for_project("lab").uses_sandbox
    says = (
        "^Project 'lab' states `region` in the projects file, and there are no credentials for it: state `cloud` there"
    )
    with pytest.raises(ConfigurationError, match=says):
        SnapshotRun(Partition(DATE, "lab"), "run", settings).check_source()


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (
            "cloud = 'nowhere'",
            (
                "`cloud` of project 'lab' in the projects file names the cloud 'nowhere', which {clouds} does not "
                "describe (it describes any, cn): correct `cloud` of project 'lab' in the projects file, or the file "
                "(OS_CLIENT_CONFIG_FILE says which)."
            ),
        ),
        (
            "cloud = 'any'\nregion = 'eu-dee'",
            "`region` of project 'lab' in the projects file names the region 'eu-dee', which is not one of ",
        ),
        (
            "cloud = 'any'",
            (
                "Credentials of a cloud are stated (`cloud` of project 'lab' in the projects file) and no endpoint and "
                "no region, so invented images of the sandbox would be taken: set OS_REGION_NAME (region_name in "
                "clouds.yaml, `region` in the projects file), or "
            ),
        ),
    ],
)
def test_credentials_that_cannot_be_used_are_one_sentence_with_project_and_key(load, clouds, lines, says):
    settings = load(f"[lab]\nproject_id = 'p1'\n{lines}\n")
    with pytest.raises(ConfigurationError) as raised:
        SnapshotRun(Partition(DATE, "lab"), "run", settings).check_source()
    assert str(raised.value).startswith(says.format(clouds=clouds))
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("inventory = 'none.csv'", "correct `inventory` of project 'lab' in the projects file."),
        ("price_book = 'none.toml'", "`price_book` of project 'lab' in the projects file"),
        (
            "inventory = 'sqlite:///x.db'\ninventory_query = 'q'",
            "`inventory_query` of project 'lab' in the projects file",
        ),
    ],
)
def test_what_a_project_names_is_refused_with_project_and_key(load, line, says):
    settings = load(f"[lab]\nproject_id = 'p1'\n{line}\n")
    with pytest.raises(ConfigurationError) as raised:
        check_inputs(settings.for_project("lab"))
    assert says in str(raised.value)
    assert "IMAGE_SNAPSHOTS_" not in str(raised.value)
    assert "hidden" not in str(raised.value)


def test_credentials_are_not_sent_to_the_service_of_another_region_or_cloud(monkeypatch, load, clouds):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_TRACES", "https://cts.eu-de.otc.t-systems.com")
    monkeypatch.setenv("IMAGE_SNAPSHOTS_REGISTRY", "https://swr-api.eu-de.otc.t-systems.com")
    monkeypatch.setenv("IMAGE_SNAPSHOTS_BILLS", "huawei:")
    cn, de = (f"[{key}]\nproject_id = 'p1'\ncloud = 'any'\nregion = '{name}'\n" for key, name in REGIONS.items())

    def opened(settings, key):
        with connect(settings, Partition(DATE, key)) as connection:
            access = connection.bill_access()
            return [connection.traces_client, connection.registry_client, access.open_bill_lines]

    traces, registry, bills = opened(load(cn + de), "cn")
    assert bills().host == "bss.myhuaweicloud.com"
    for make, name in ((traces, "TRACES"), (registry, "REGISTRY")):
        with pytest.raises(
            ConfigurationError, match=f"^IMAGE_SNAPSHOTS_{name} is an endpoint of the region eu-de, and "
        ):
            make()
    traces, registry, bills = opened(load(cn + de), "de")
    assert (traces().host, registry().host) == ("cts.eu-de.otc.t-systems.com", "swr-api.eu-de.otc.t-systems.com")
    with pytest.raises(ConfigurationError, match=r"^Bill lines of Huawei Cloud .* are not those of modelarts\.eu-de\."):
        bills()
    # What is stated for one project alone is meant for it.
    traces, registry, _ = opened(load(cn), "cn")
    assert (traces().host, registry().host) == ("cts.eu-de.otc.t-systems.com", "swr-api.eu-de.otc.t-systems.com")
