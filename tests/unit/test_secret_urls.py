"""An ambiguous URL with a password is refused wherever it is used, and no part of it is shown."""

import traceback

import pytest

from pipelines.cloud.transport import proxy_for
from pipelines.errors import ConfigurationError
from pipelines.inputs.endpoints import check_endpoint
from pipelines.inputs.proxies import check_proxies
from pipelines.inputs.secret_urls import parse_secret_url
from pipelines.inventory.sources import check_source, describe_source
from pipelines.lake.layout import Lake
from pipelines.settings import ROOT, Settings
from pipelines.warehouse.loading import check_warehouse

# The two halves of a password, around an unescaped character.
SPECIAL = ["/", "@", "#", "?", "\\", " ", "%", ":12/"]


def assert_hidden(raised):
    # Everything that a log would show, except lines of code.
    shown, told = raised.value, ""
    while shown is not None:
        told += "".join(traceback.format_exception_only(shown))
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)
    assert isinstance(raised.value, ConfigurationError)
    assert "percent-encode" in str(raised.value)
    assert "first4711" not in told
    assert "second4712" not in told


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize(
    ("variable", "url"),
    [
        ("IMAGE_SNAPSHOTS_RATE_LIMITER", "redis://:{}@redis.example:6379/0"),
        ("IMAGE_SNAPSHOTS_RATE_LIMITER", "rediss://user:{}@redis.example/0"),
        ("IMAGE_SNAPSHOTS_NOTIFY", "https://user:{}@chat.example/hook"),
        ("IMAGE_SNAPSHOTS_ENDPOINT", "https://user:{}@modelarts.example"),
    ],
)
def test_setting_with_an_unescaped_password_is_refused_unquoted(monkeypatch, variable, url, special):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_RATE_LIMIT", "5")
    monkeypatch.setenv(variable, url.format(f"first4711{special}second4712"))
    with pytest.raises(ConfigurationError) as raised:
        Settings.load()
    assert variable in str(raised.value)
    assert_hidden(raised)


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_proxy_with_an_unescaped_password_is_refused_unquoted(monkeypatch, name, scheme, special):
    monkeypatch.setenv(name, f"{scheme}user:first4711{special}second4712@proxy.example:3128")
    with pytest.raises(ConfigurationError, match=name.upper()) as raised:
        proxy_for("https://modelarts.example")
    assert_hidden(raised)


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("scheme", ["postgresql://", "mysql+pymysql://", "postgresql:/", "postgresql:"])
def test_inventory_with_an_unescaped_password_is_refused_unquoted(scheme, special):
    with pytest.raises(ConfigurationError) as raised:
        describe_source(f"{scheme}reader:first4711{special}second4712@db.example/images")
    assert_hidden(raised)


@pytest.mark.parametrize("special", SPECIAL)
def test_warehouse_with_an_unescaped_password_is_refused_unquoted(special):
    with pytest.raises(ConfigurationError, match="IMAGE_SNAPSHOTS_WAREHOUSE") as raised:
        check_warehouse(f"postgresql://loader:first4711{special}second4712@db.example/images")
    assert_hidden(raised)


@pytest.mark.parametrize("special", "/@#?")
@pytest.mark.parametrize(
    "name",
    ["PROJECTS", "PRICE_BOOK", "SUPPRESSIONS", "AUDIT_RULES", "CA_BUNDLE", "WITNESS", "METRICS", "OWNERS"],
)
def test_url_in_the_place_of_a_path_is_refused_unquoted(monkeypatch, name, special):
    ending = {"PROJECTS": ".toml", "METRICS": ".prom"}.get(name, "")
    monkeypatch.setenv(f"IMAGE_SNAPSHOTS_{name}", f"https://user:secret{special}word@host.example/x{ending}")
    with pytest.raises(ConfigurationError) as raised:
        Settings.load()
    assert f"IMAGE_SNAPSHOTS_{name} is wrong: " in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "word" not in str(raised.value)


def test_malformed_proxy_is_refused_before_a_bucket_is_opened(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:first4711/second4712@proxy.example")
    with pytest.raises(ConfigurationError) as raised:
        Lake("s3://a-bucket-of-the-test/lake")
    assert_hidden(raised)


def test_encoded_password_is_decoded_and_hidden():
    url = parse_secret_url("redis://user:p%40%2F%23s%25@redis.example:6379/0", "")
    assert (url.username, url.password, url.host, url.where) == (
        "user",
        "p@/#s%",
        "redis.example",
        "redis://redis.example:6379",
    )
    assert "p%40" not in repr(url)
    assert "p@" not in repr(url)
    assert url.hide("no login with p@/#s% or p%40%2F%23s%25") == "no login with *** or ***"


def test_password_in_the_options_is_hidden():
    url = parse_secret_url("postgresql:///images?user=reader&password=hidden%404711", "")
    assert url.hide("refused hidden@4711 and hidden%404711") == "refused *** and ***"


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("postgresql://u:p@[::1]:5432/db", "::1"),
        ("postgresql://u:p@one.example:1,two.example/db?target_session_attrs=any", "one.example"),
        ("postgresql+psycopg://u@%2Frun%2Fpg/db", "%2frun%2fpg"),
        ("unix:///run/redis.sock?db=1", ""),
        ("sqlite:////data/a@b#c?d.db", ""),
        ("https://Chat.example/hooks/T0/B0", "chat.example"),
    ],
)
def test_unambiguous_url_is_accepted(text, host):
    assert parse_secret_url(text, "").host == host


def test_proxy_gets_the_login_in_a_header_only(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://user:p%40ss@proxy.example:3128")
    proxy = proxy_for("https://modelarts.example")
    assert str(proxy.url) == "http://proxy.example:3128"
    # user:p@ss
    assert proxy.headers["Proxy-Authorization"] == "Basic dXNlcjpwQHNz"
    assert check_proxies()["https"].host == "proxy.example"


def test_endpoint_with_a_password_like_a_port_is_refused():
    with pytest.raises(ValueError, match="must look like") as raised:
        check_endpoint("https://user:4711/secret@modelarts.example", "https://modelarts.example")
    assert "4711" not in str(raised.value)


def test_path_that_is_not_a_url_is_a_file(tmp_path):
    (tmp_path / "a@b.txt").write_text("")
    check_source(str(tmp_path / "a@b.txt"), ROOT / "sql" / "inventory.sql")
