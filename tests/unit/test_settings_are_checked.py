"""Settings that cannot work are refused when they are read, before anything else happens."""

import json

import pytest
from dagster._utils.schedules import is_valid_cron_schedule

from pipelines.errors import ConfigurationError
from pipelines.inputs.cron import check_cron
from pipelines.inputs.proxies import check_proxies
from pipelines.lake.layout import Lake
from pipelines.settings import Settings
from pipelines.warehouse.loading import check_warehouse


def refusal(monkeypatch, setting, value):
    monkeypatch.setenv(f"IMAGE_SNAPSHOTS_{setting}", value)
    with pytest.raises(ConfigurationError) as raised:
        Settings.load()
    assert raised.value.exit_status == 2
    assert raised.value.__cause__ is None
    start = f"The setting IMAGE_SNAPSHOTS_{setting} is wrong: "
    assert str(raised.value).startswith(start)
    return str(raised.value).removeprefix(start)


CRON = [
    "17 2 * * *",
    "0 0 * * *",
    "*/15 * * * *",
    "5,35 0-6,20-23/2 1-7 jan-mar,12 mon-fri",
    "0 4 29 2 *",
    "0 4 31 * sun",
    "59 23 31 12 7",
    "0/20 1 * * 0",
]


@pytest.mark.parametrize("line", CRON)
def test_valid_cron_lines_are_accepted_here_and_by_dagster(monkeypatch, line):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_SCHEDULE", f" {line.replace(' ', '  ')} ")
    assert Settings.load().schedule == line
    assert is_valid_cron_schedule(line)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("2:17", "must be a cron line with 5 fields (minute, hour, day of the month, month, day of the week)"),
        ("17 2 * *", "but has 4."),
        ("0 17 2 * * *", "but has 6."),
        ("@daily", "but has 1."),
        ("60 2 * * *", "has '60' for the minute: write numbers from 0 to 59, *, a-b, */n or a,b."),
        ("0 24 * * *", "has '24' for the hour: "),
        ("0 0 0 * *", "has '0' for the day of the month: "),
        ("0 0 * 13 *", "has '13' for the month: "),
        ("0 0 * sun *", "has 'sun' for the month: "),
        ("0 0 * * 8", "has '8' for the day of the week: "),
        ("0 0 * * jan", "has 'jan' for the day of the week: "),
        ("*/0 2 * * *", "has '*/0' for the minute: "),
        ("30-10 2 * * *", "has '30-10' for the minute: "),
        ("5, 2 * * *", "has '5,' for the minute: "),
        ("a 2 * * *", "has 'a' for the minute: "),
        ("-5 2 * * *", "has '-5' for the minute: "),
        ("٣ 2 * * *", "for the minute: "),
        ("0 0 30 2 *", "never runs: month 2 has no day 30."),
        ("0 0 31 feb,4,jun *", "never runs: month feb,4,jun has no day 31."),
    ],
)
def test_invalid_schedule_is_refused(monkeypatch, line, says):
    assert says in refusal(monkeypatch, "SCHEDULE", line)


def test_cron_steps_and_names_give_the_same_days():
    # A day that only the longest of several months has.
    assert check_cron("0 0 31 apr-may *") == "0 0 31 apr-may *"
    with pytest.raises(ValueError, match="never runs"):
        check_cron("0 0 31 4,6,9,11 *")


BAD_HOSTS = [
    (":0", "has a port that is not one of 1 to 65535"),
    (":", "has a port that is not one of 1 to 65535"),
    (":65536", "has a port that is not one of 1 to 65535"),
    (":99999", "has a port that is not one of 1 to 65535"),
    ("..example", "has a host that is not a valid name or address"),
    (f".{'a' * 64}.example", "has a host that is not a valid name or address"),
]


@pytest.mark.parametrize(("end", "says"), BAD_HOSTS)
@pytest.mark.parametrize(
    ("setting", "start", "rest"),
    [
        ("ENDPOINT", "https://modelarts", ""),
        ("NOTIFY", "https://chat", "/hook"),
        ("RATE_LIMITER", "redis://redis", "/0"),
    ],
)
def test_impossible_host_is_refused(monkeypatch, setting, start, rest, end, says):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_RATE_LIMIT", "5")
    assert refusal(monkeypatch, setting, f"{start}{end}{rest}") == f"{says}."


def test_invalid_ipv6_address_is_refused(monkeypatch):
    assert refusal(monkeypatch, "ENDPOINT", "https://[:::]:443") == (
        "has an address in brackets that is not an IPv6 address."
    )


def test_addresses_of_all_kinds_are_accepted(monkeypatch):
    for url in ("https://[::1]:8443", "https://127.0.0.1:1", "https://a.example.:65535", "http://localhost:3000"):
        monkeypatch.setenv("IMAGE_SNAPSHOTS_ENDPOINT", url)
        assert Settings.load().endpoint == url


def test_ports_of_a_warehouse_and_of_proxies_are_checked(monkeypatch):
    with pytest.raises(
        ConfigurationError, match=r"port that is not one of 1 to 65535 \(setting IMAGE_SNAPSHOTS_WAREHOUSE"
    ):
        check_warehouse("postgresql://loader@one.example:5432,two.example:70000/images")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:70000")
    with pytest.raises(ConfigurationError, match=r"HTTPS_PROXY is wrong: it has a port that is not one of 1 to 65535"):
        check_proxies()


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/0123456789abcdef/images", "/v2.0"])
def test_endpoint_with_an_api_version_is_refused(monkeypatch, path):
    says = refusal(monkeypatch, "ENDPOINT", f"https://modelarts.example{path}")
    assert says == "must end before the API's version, such as /v1."


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("PROJECTS", '{"main": ', 'must be the path of a .toml file, or JSON, such as {"main": "0123456789abcdef"}.'),
        ("PROJECTS", "main=p1", 'must be the path of a .toml file, or JSON, such as {"main": "0123456789abcdef"}.'),
        ("PROJECTS", "7", 'must be the path of a .toml file, or JSON, such as {"main": "0123456789abcdef"}.'),
        ("PROJECTS", '{"main": 7}', "the project id of 'main' must be text in quotes."),
        ("PROJECTS", '{"main": "p1", "lab": "p2", "main": "p3"}', "key 'main' is stated twice."),
        ("PROJECTS", '{"main": "p/1"}', "the project id of 'main' must be letters and digits only."),
        ("PROJECTS", "[" * 50_000, "it is nested too deeply."),
        ("TAG_KEYS", '{"owner":' * 10_000, "it is nested too deeply."),
        ("ALLOWED_NAMESPACES", "[" * 50_000, "it is nested too deeply."),
        ("ALLOWED_NAMESPACES", "team,base", 'must be JSON, such as ["team", "base"].'),
        ("INVENTORY_MAX_AGE_HOURS", "inf", "Input should be less than or equal to 87600."),
        ("INVENTORY_MAX_AGE_HOURS", "1e300", "Input should be less than or equal to 87600."),
        ("RATE_LIMIT", "inf", "Input should be a finite number."),
        ("RETENTION_RESPONSES_DAYS", "4000000", "Input should be less than or equal to 36500."),
        ("RETENTION_SNAPSHOTS_DAYS", "4000000", "Input should be less than or equal to 36500."),
        ("FIRST_DAY", "20260101", "must be a day, written as YYYY-MM-DD."),
        ("FIRST_DAY", "1767225600", "must be a day, written as YYYY-MM-DD."),
    ],
)
def test_invalid_or_ambiguous_value_is_refused(monkeypatch, setting, value, says):
    assert refusal(monkeypatch, setting, value) == says


@pytest.mark.parametrize("root", ["s3:/bucket/lake", "S3://bucket/lake", "file:///data/lake", "gs:/bucket", "C://lake"])
def test_unknown_kind_of_lake_is_refused_before_a_directory_is_made(tmp_path, root):
    if root.startswith("C:"):
        # A directory may have such a name.
        assert Lake(root).root == tmp_path / "C:/lake"
        return
    with pytest.raises(ConfigurationError, match="must be a local path or s3://bucket/directory"):
        Lake(root)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("ui", "--port", "0"),
        ("ui", "--port", "65536"),
        ("retention", "--responses-days", "4000000"),
        ("sandbox", "--port", "65536"),
    ],
)
def test_option_out_of_range_is_refused_before_a_directory_is_made(tmp_path, image_snapshots, arguments):
    before = sorted(tmp_path.rglob("*"))
    done = image_snapshots(*arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_wrong_schedule_ends_every_command_at_once(tmp_path, image_snapshots):
    before = sorted(tmp_path.rglob("*"))
    done = image_snapshots("run", env={"IMAGE_SNAPSHOTS_SCHEDULE": "daily", "IMAGE_SNAPSHOTS_PROJECTS": json.dumps({})})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: The setting IMAGE_SNAPSHOTS_")
    assert sorted(tmp_path.rglob("*")) == before
