"""The authorities that are trusted if CA_BUNDLE is unset, in order, and the hosts that NO_PROXY excludes."""

import ssl
from pathlib import Path

import pytest
import trustme

from pipelines.cloud.transport import proxy_for, tls_context
from pipelines.errors import ConfigurationError

VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")


@pytest.fixture(autouse=True)
def _nothing_stated(monkeypatch):
    for name in (*VARIABLES, "NO_PROXY", "no_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def authority(path: Path, name: str) -> Path:
    trustme.CA(organization_name=name).cert_pem.write_to_path(str(path))
    return path


def trusted(context: ssl.SSLContext) -> list[str]:
    return [
        value
        for certificate in context.get_ca_certs()
        for ((key, value),) in certificate["subject"]
        if key == "organizationName"
    ]


def test_first_configured_authorities_are_trusted_exclusively(monkeypatch, tmp_path):
    bundle = authority(tmp_path / "setting.pem", "setting")
    assert trusted(tls_context(bundle)) == ["setting"]
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority(tmp_path / "requests.pem", "requests")))
    assert trusted(tls_context(None)) == ["requests"]
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    assert trusted(tls_context(None)) == []
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "requests.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    # From a directory, each authority is loaded when it is needed.
    assert trusted(tls_context(None)) == []
    monkeypatch.setenv("SSL_CERT_FILE", str(authority(tmp_path / "file.pem", "file")))
    assert trusted(tls_context(None)) == ["file"]
    assert trusted(tls_context(bundle)) == ["setting"]


def test_default_is_the_operating_system_s_store(monkeypatch, tmp_path):
    store = authority(tmp_path / "system.pem", "system")
    paths = ssl.DefaultVerifyPaths(str(store), None, "SSL_CERT_FILE", str(store), "SSL_CERT_DIR", str(tmp_path / "no"))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    assert trusted(tls_context(None)) == ["system"]


def test_system_without_a_store_trusts_certifi(monkeypatch, tmp_path):
    none = str(tmp_path / "none")
    paths = ssl.DefaultVerifyPaths(None, None, "SSL_CERT_FILE", none, "SSL_CERT_DIR", none)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    assert len(tls_context(None).get_ca_certs()) > 50


@pytest.mark.parametrize("name", VARIABLES)
@pytest.mark.parametrize("what", ["missing", "no certificates"])
def test_unreadable_authorities_are_one_sentence_with_the_name(monkeypatch, tmp_path, name, what):
    place = tmp_path / "authorities"
    if what != "missing":
        place.write_text("not a certificate")
    monkeypatch.setenv(name, str(place))
    with pytest.raises(ConfigurationError) as raised:
        tls_context(None)
    assert name in str(raised.value)
    assert str(place) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_empty_variable_is_ignored(monkeypatch, tmp_path):
    for name in VARIABLES[:2]:
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority(tmp_path / "requests.pem", "requests")))
    assert trusted(tls_context(None)) == ["requests"]


@pytest.mark.parametrize(
    ("stated", "url", "is_direct"),
    [
        ("*", "https://modelarts.example", True),
        ("modelarts.example", "https://modelarts.example", True),
        ("modelarts.example", "https://MODELARTS.example", True),
        ("MODELARTS.example.", "https://modelarts.example", True),
        ("example", "https://modelarts.example", True),
        (".example", "https://modelarts.example", True),
        ("*.example", "https://modelarts.example", True),
        ("*.example", "https://example", False),
        ("ample", "https://modelarts.example", False),
        ("other.test, *.example", "https://modelarts.example", True),
        ("other.test *.example", "https://modelarts.example", True),
        ("modelarts.example:443", "https://modelarts.example", True),
        ("modelarts.example:8443", "https://modelarts.example", False),
        ("modelarts.example:8443", "https://modelarts.example:8443", True),
        ("*.example:443", "https://modelarts.example", True),
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.1.2.9/8", "https://10.1.2.3:8443", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.0.0.0/8", "https://modelarts.example", False),
        ("10.1.2.3", "https://10.1.2.3", True),
        ("10.1.2.3:443", "https://10.1.2.3", True),
        ("2.3", "https://10.1.2.3", False),
        ("fd00::/8", "https://[fd00::1]", True),
        ("fd00:0::1", "https://[fd00::1]", True),
        ("[fd00::1]:443", "https://[fd00::1]", True),
        ("[fd00::1]:8443", "https://[fd00::1]", False),
        ("fd00::/8", "https://10.1.2.3", False),
        ("10.0.0.0/99", "https://10.1.2.3", False),
        ("", "https://modelarts.example", False),
        (",, ", "https://modelarts.example", False),
    ],
)
def test_no_proxy_excludes_these_hosts(monkeypatch, stated, url, is_direct):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", stated)
    assert (proxy_for(url) is None) is is_direct
