"""The trust and the proxy of the object store's client: the same as the API client's."""

import ssl
from contextlib import contextmanager

import httpx
import pytest
import trustme
from s3_server import S3Server

from pipelines.errors import ConfigurationError, StorageError
from pipelines.lake.layout import Lake
from pipelines.lake.object_connection import VARIABLES, connection_options

OBS = "https://obs.example.com"
FILES = ["IMAGE_SNAPSHOTS_CA_BUNDLE", "AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"]
BROKEN = b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"


@pytest.fixture(autouse=True)
def nothing_of_the_machine(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@contextmanager
def serving_tls(authority, monkeypatch):
    """An S3 server behind TLS, and an environment that points this process to it."""
    server = S3Server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
    server.endpoint = server.endpoint.replace("http://", "https://")
    server.env["AWS_ENDPOINT_URL"] = server.endpoint
    monkeypatch.setattr(httpx, "post", lambda url: httpx.Client(verify=False).post(url))
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    with server.running():
        yield server


@pytest.mark.parametrize("name", [*FILES, "SSL_CERT_DIR"])
def test_configured_authority_is_trusted(monkeypatch, tmp_path, name):
    authority = trustme.CA()
    place = tmp_path / "authorities"
    place.mkdir()
    authority.cert_pem.write_to_path(str(place / "ours.pem"))
    (place / "README").write_text("no certificate")
    monkeypatch.setenv(name, str(place if name == "SSL_CERT_DIR" else place / "ours.pem"))
    with serving_tls(authority, monkeypatch):
        root = Lake("s3://authorities/lake").root
        # It responds, so it is trusted.
        with pytest.raises(ConfigurationError, match="there is no such bucket"):
            (root / "x").write_whole(b"y")


def test_unknown_authority_is_not_trusted(monkeypatch, tmp_path):
    monkeypatch.setattr("pipelines.lake.buckets._RETRIES", 0)
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "other.pem"))
    with serving_tls(trustme.CA(), monkeypatch), pytest.raises(StorageError, match="cannot be reached"):
        (Lake("s3://not-trusted/lake").root / "x").write_whole(b"y")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [None, b"no certificate", BROKEN])
def test_unreadable_authorities_are_one_sentence(monkeypatch, tmp_path, name, content):
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv(name, str(path))
    with pytest.raises(ConfigurationError) as raised:
        connection_options(OBS)
    assert str(raised.value) == f"The certificate authorities in {path} cannot be read: correct {name} to a PEM file."
    assert connection_options("http://127.0.0.1:9000") == {}


@pytest.mark.parametrize(
    ("no_proxy", "is_direct"),
    [
        ("", False),
        ("other.example.com", False),
        ("*.example.com", True),
        (".example.com", True),
        ("obs.example.com:443", True),
        ("obs.example.com:8443", False),
        ("10.0.0.0/8 obs.example.com", True),
        ("*", True),
    ],
)
def test_no_proxy_means_the_same_as_for_the_api(monkeypatch, no_proxy, is_direct):
    monkeypatch.setenv("HTTPS_PROXY", "http://u:p%40ss@proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    options = connection_options(OBS)
    assert options.get("proxy_url") == "http://u:p%40ss@proxy.example:3128"
    assert options.get("proxy_excludes") == ("obs.example.com" if is_direct else None)
    assert connection_options(None) == {}


def test_store_on_loopback_is_reached_without_proxy(monkeypatch, s3):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    url = "s3://direct"
    with pytest.raises(ConfigurationError, match="there is no such bucket"):
        (Lake(f"{url}/lake").root / "x").write_whole(b"y")
    assert "127.0.0.1:1" not in repr(Lake(f"{url}/lake").root.bucket.store)
