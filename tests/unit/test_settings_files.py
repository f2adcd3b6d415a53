"""Settings files as they occur: other encodings, line ends, byte order marks, quotes, homes, and no permission."""

import json
from pathlib import Path

import pytest
from permissions import unreadable
from published_days import day_of, publish_snapshot

from pipelines.cloud.credentials import PasswordLogin, load_credentials
from pipelines.derive.audit import read_rules, read_suppressions
from pipelines.derive.prices import read_price_book
from pipelines.errors import ConfigurationError
from pipelines.inputs.environment import prepare_environment
from pipelines.inputs.projects import Project
from pipelines.inventory.sources import read_source
from pipelines.lake.witnesses import read_witnesses
from pipelines.settings import ROOT, Settings
from pipelines.warehouse.loading import check_warehouse


def prepared(path: Path, text: str | bytes, environ: dict[str, str] | None = None) -> dict[str, str]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    environ = dict(environ or {})
    prepare_environment(path, environ)
    return environ


def refusal(path: Path, text: str | bytes, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigurationError) as raised:
        prepared(path, text, environ)
    assert raised.value.exit_status == 2
    return str(raised.value)


# .env


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
def test_env_file_in_another_encoding_is_refused(tmp_path, encoding):
    text = "# für uns\nIMAGE_SNAPSHOTS_LAKE=lake\n" if encoding == "latin-1" else "IMAGE_SNAPSHOTS_LAKE=lake\n"
    says = refusal(tmp_path / ".env", text.encode(encoding))
    assert says == f"The settings file {tmp_path}/.env is not UTF-8 text: save it as UTF-8."


def test_unreadable_env_file_is_refused(tmp_path):
    path = tmp_path / ".env"
    path.write_text("IMAGE_SNAPSHOTS_LAKE=lake\n")
    with unreadable(path), pytest.raises(ConfigurationError, match=r"\.env cannot be read: Permission denied\.$"):
        prepare_environment(path, {})


def test_byte_order_mark_and_windows_line_ends_are_removed(tmp_path):
    lines = [
        "\ufeffIMAGE_SNAPSHOTS_LAKE=a",
        "export OS_CLOUD='b'",
        'OS_REGION_NAME="c"',
        "IMAGE_SNAPSHOTS_MODE = full # d",
        "",
    ]
    assert prepared(tmp_path / ".env", "\r\n".join(lines)) == {
        "IMAGE_SNAPSHOTS_LAKE": "a",
        "OS_CLOUD": "b",
        "OS_REGION_NAME": "c",
        "IMAGE_SNAPSHOTS_MODE": "full",
    }


@pytest.mark.parametrize("spelt", ["OS_PASSWORD='{}'", "export OS_PASSWORD = '{}'", "'OS_PASSWORD'='{}' # ours"])
@pytest.mark.parametrize("password", ["pa${HOME}ss", "${", "a}b${c:-d}"])
def test_single_quoted_value_is_kept_as_it_is(tmp_path, spelt, password):
    assert prepared(tmp_path / ".env", spelt.format(password), {"HOME": "/h"})["OS_PASSWORD"] == password


def test_variables_are_replaced_from_environment_and_earlier_lines(tmp_path):
    text = 'ROOT=/data\nIMAGE_SNAPSHOTS_LAKE=${ROOT}/${NAME}\nIMAGE_SNAPSHOTS_WITNESS="${NONE:-/w}/x"\nROOT=/late\n'
    assert prepared(tmp_path / ".env", text, {"NAME": "lake"}) == {
        "NAME": "lake",
        "ROOT": "/late",
        "IMAGE_SNAPSHOTS_LAKE": "/data/lake",
        "IMAGE_SNAPSHOTS_WITNESS": "/w/x",
    }


@pytest.mark.parametrize("line", ["OS_PASSWORD=pa${4711}ss", 'OS_PASSWORD="pa${4711}ss"'])
def test_unset_variable_is_refused_without_its_name(tmp_path, line):
    says = refusal(tmp_path / ".env", f"# a\n\n{line}\n")
    assert says == (
        f"Line 3 of the settings file {tmp_path}/.env uses a variable, ${{...}}, that is not set: set it, or write the "
        "value in single quotes to keep it as it is."
    )


def test_environment_overrides_the_env_file(tmp_path):
    environ = {"IMAGE_SNAPSHOTS_LAKE": "there"}
    assert prepared(tmp_path / ".env", "IMAGE_SNAPSHOTS_LAKE=here\n", environ) == environ


# The environment


@pytest.mark.parametrize(
    ("stated", "meant"),
    [
        ("lake\r", "lake"),
        (" lake \r\n", "lake"),
        ('"lake"', "lake"),
        ("'lake'\r", "lake"),
        ('"a b"', "a b"),
        ('"', '"'),
        ("\"lake'", "\"lake'"),
        ("\r", ""),
    ],
)
@pytest.mark.parametrize("name", ["IMAGE_SNAPSHOTS_LAKE", "OS_USERNAME", "OS_SECRET_KEY", "AWS_SECRET_ACCESS_KEY"])
def test_quotes_and_line_ends_left_by_tools_are_removed(tmp_path, name, stated, meant):
    environ = {name: stated, "OTHER": stated}
    prepare_environment(tmp_path / ".env", environ)
    assert environ == {name: meant, "OTHER": stated}


def test_settings_are_read_from_a_file_that_kept_its_quotes_and_line_ends(monkeypatch):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_PROJECTS", '\'{"main": "p1"}\'\r')
    monkeypatch.setenv("IMAGE_SNAPSHOTS_ENDPOINT", '"https://modelarts.example"\r')
    settings = Settings.load()
    assert (settings.projects, settings.endpoint) == ({"main": Project("p1")}, "https://modelarts.example")


@pytest.mark.parametrize(("stated", "meant"), [(" p ", " p "), ("p \r", "p "), ('p"', 'p"'), ("p\r\n", "p")])
def test_password_loses_only_its_line_end(tmp_path, stated, meant):
    environ = {"OS_PASSWORD": stated}
    prepare_environment(tmp_path / ".env", environ)
    assert environ == {"OS_PASSWORD": meant}


def test_password_in_quotation_marks_is_refused_unless_the_env_file_has_it(tmp_path):
    says = refusal(tmp_path / ".env", "", {"OS_PASSWORD": "'hidden'"})
    assert says.startswith("OS_PASSWORD begins and ends with quotation marks")
    assert "hidden" not in says
    environ = prepared(tmp_path / ".env", "OS_PASSWORD='\"hidden\"'\nIMAGE_SNAPSHOTS_LAKE=\"'a'\"\n")
    assert environ == {"OS_PASSWORD": '"hidden"', "IMAGE_SNAPSHOTS_LAKE": "'a'"}
    # Child processes have them in their environment, too.
    again = dict(environ)
    prepare_environment(tmp_path / ".env", again)
    assert again == environ


def test_variable_that_is_not_text_is_refused(tmp_path):
    for name in ("IMAGE_SNAPSHOTS_LAKE", "OS_PASSWORD"):
        assert refusal(tmp_path / ".env", "", {name: "m\udcfcller"}) == (
            f"The variable {name} is not UTF-8 text: write it in UTF-8."
        )


# Homes

PATHS = ["INVENTORY_QUERY", "LAKE", "AUDIT_RULES", "SUPPRESSIONS", "PRICE_BOOK", "CA_BUNDLE", "WITNESS", "METRICS"]
FILES = {"INVENTORY": "images.csv", "WAREHOUSE": "w.duckdb"}


def test_every_path_setting_is_tested():
    paths = {name.upper() for name, field in Settings.model_fields.items() if "Path" in str(field.annotation)}
    assert paths < {*PATHS, *FILES}


@pytest.mark.parametrize("setting", [*PATHS, *FILES])
def test_path_may_begin_with_a_tilde(monkeypatch, tmp_path, setting):
    monkeypatch.setenv("HOME", str(tmp_path))
    name = FILES.get(setting, "place.prom")
    monkeypatch.setenv(f"IMAGE_SNAPSHOTS_{setting}", f"~/{name}")
    value = getattr(Settings.load(), setting.lower())
    assert str(value.get_secret_value() if setting in FILES else value) == f"{tmp_path}/{name}"


@pytest.mark.parametrize("setting", [*PATHS, *FILES])
def test_unknown_home_is_refused(monkeypatch, setting):
    monkeypatch.setenv(f"IMAGE_SNAPSHOTS_{setting}", "~nobody-of-this-name/images.csv")
    with pytest.raises(ConfigurationError) as raised:
        Settings.load()
    assert str(raised.value) == (
        f"The setting IMAGE_SNAPSHOTS_{setting} is wrong: begins with ~nobody-of-this-name, but there is no such home "
        "directory."
    )


def test_database_file_below_an_unknown_home_is_refused():
    source = "sqlite:///~nobody-of-this-name/i.db"
    with pytest.raises(ConfigurationError, match="begins with ~nobody-of-this-name, but there is no such home"):
        list(read_source(source, ROOT / "sql" / "inventory.sql", "main"))
    url = "duckdb:///~nobody-of-this-name/w.duckdb"
    with pytest.raises(ConfigurationError, match="IMAGE_SNAPSHOTS_WAREHOUSE begins with ~nobody-of-this-name"):
        check_warehouse(url)


@pytest.mark.parametrize("variable", ["OS_CLIENT_CONFIG_FILE", "OS_CLIENT_SECURE_FILE", "OS_CACERT"])
def test_credential_files_may_begin_with_a_tilde(monkeypatch, tmp_path, variable):
    monkeypatch.setenv("HOME", str(tmp_path))
    cloud = {"auth_url": "https://iam.example/v3", "user_id": "u", "project_id": "p1"}
    (tmp_path / "c.json").write_text(json.dumps({"clouds": {"otc": {"auth": cloud}}}))
    (tmp_path / "s.json").write_text(json.dumps({"clouds": {"otc": {"auth": {"password": "p"}}}}))
    stated = {
        "OS_CLOUD": "otc",
        "OS_CLIENT_CONFIG_FILE": "~/c.json",
        "OS_CLIENT_SECURE_FILE": "~/s.json",
        "OS_CACERT": "~/ca.pem",
    }
    login = load_credentials(None, stated)
    assert isinstance(login, PasswordLogin)
    assert login.password == "p"
    key = {"OS_ACCESS_KEY": "a", "OS_SECRET_KEY": "s", "OS_PROJECT_ID": "p1", "OS_CACERT": "~/ca.pem"}
    assert load_credentials(None, key).ca_bundle == tmp_path / "ca.pem"
    stated |= key if variable == "OS_CACERT" else {}
    with pytest.raises(
        ConfigurationError, match=f"^{variable} .*begins with ~nobody-of-this-name, but there is no such home"
    ):
        load_credentials(None, stated | {variable: "~nobody-of-this-name/f"})


# Byte order marks of other files


def with_mark(path: Path, text: str) -> Path:
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    return path


def test_price_book_may_have_a_byte_order_mark(tmp_path):
    text = (ROOT / "sql" / "cost" / "price-book.toml").read_text()
    assert read_price_book(with_mark(tmp_path / "p.toml", text)).currency == "EUR"


def test_suppressions_may_have_a_byte_order_mark(tmp_path):
    text = '[[suppression]]\nrule = "r"\nid = "i"\nuntil = 2027-01-01\nreason = "known"\n'
    (entry,) = read_suppressions(with_mark(tmp_path / "s.toml", text))
    assert (entry.rule, entry.reason) == ("r", "known")


def test_rule_may_have_a_byte_order_mark(tmp_path):
    text = "-- id: mine\n-- title: t\n-- severity: low\n-- why: w\n-- do: d\nSELECT id, name FROM current_images\n"
    with_mark(tmp_path / "mine.sql", text)
    (rule,) = [rule for rule in read_rules(tmp_path) if rule.name == "mine"]
    assert (rule.error, rule.title) == (None, "t")
    assert rule.sql is not None
    assert rule.sql.startswith("-- id: mine")


def test_witness_file_may_have_a_byte_order_mark(tmp_path):
    path = with_mark(tmp_path / "w", f"# ours\n{'a' * 64}\n")
    assert [witness.sha256 for witness in read_witnesses([str(path)])] == ["a" * 64]


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
@pytest.mark.parametrize("read", [read_price_book, read_suppressions])
def test_other_files_in_another_encoding_are_refused(tmp_path, read, encoding):
    path = tmp_path / "f.toml"
    path.write_bytes('# für uns\ncurrency = "EUR"\n'.encode(encoding))
    with pytest.raises(ConfigurationError, match=r"f\.toml is not UTF-8 text: save it as UTF-8\.$"):
        read(path)


def test_query_file_may_have_a_byte_order_mark(tmp_path, image_snapshots):
    publish_snapshot(day_of("2026-11-23"), images=[])
    path = with_mark(tmp_path / "q.sql", "SELECT 1 AS one\n")
    done = image_snapshots("query", "--file", str(path), "--format", "json")
    assert (done.returncode, json.loads(done.stdout or "null")) == (0, [{"one": 1}]), done.stderr
    path.write_bytes("SELECT 'ü'".encode("latin-1"))
    done = image_snapshots("query", "--file", str(path))
    assert (done.returncode, done.stderr) == (2, f"Error: --file {path} is not UTF-8 text: save it as UTF-8.\n")
