"""The verdict for each response and failure; each case is named after what happened."""

import datetime as dt
import errno
import socket
import ssl

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.cloud.classification import Kind, Verdict, classify, classify_failure, classify_list, retry_after
from pipelines.cloud.transport import ProxyRefusedError
from pipelines.errors import AccessDeniedError, AccountSuspendedError, ConfigurationError
from pipelines.tables import Outcome

ID = "0e1f2a3b-4c5d-6e7f-8091-a2b3c4d5e6f7"
NOW = dt.datetime(2026, 11, 23, 12, 0, 0, tzinfo=dt.UTC)
FINAL, RETRY, THROTTLED, RENEW, STOP = Kind.FINAL, Kind.RETRY, Kind.THROTTLED, Kind.RENEW_TOKEN, Kind.STOP


def judge(status: int, body: bytes, headers: dict[str, str] | None = None) -> Verdict:
    return classify(ID, status, headers or {}, body, NOW)


def error(code: str, message: str = "a message") -> bytes:
    return f'{{"error_code": "{code}", "error_msg": "{message}"}}'.encode()


@pytest.mark.parametrize(
    ("happened", "body", "outcome"),
    [
        ("the image was described", f'{{"id": "{ID}", "status": "ACTIVE"}}', Outcome.OK),
        ("only the id was sent", f'{{"id": "{ID}"}}', Outcome.OK),
        ("the id came in upper case", f'{{"id": "{ID.upper()}"}}', Outcome.OK),
        ("the id came with blanks", f'{{"id": " {ID}\\n"}}', Outcome.OK),
        ("error_code was null", f'{{"id": "{ID}", "error_code": null}}', Outcome.OK),
        ("error_code was empty", f'{{"id": "{ID}", "error_code": ""}}', Outcome.OK),
        ("the image is deleted", f'{{"id": "{ID}", "status": "DELETED"}}', Outcome.DELETED),
        ("the image is deleted in lower case", f'{{"id": "{ID}", "status": "deleted "}}', Outcome.DELETED),
        ("the status is a number", f'{{"id": "{ID}", "status": 7}}', Outcome.OK),
        ("the status is unknown", f'{{"id": "{ID}", "status": "ARCHIVED"}}', Outcome.OK),
    ],
)
def test_classify_gives_the_outcome_of_an_image_body(happened, body, outcome):
    assert judge(200, body.encode()) == Verdict(FINAL, outcome)


@pytest.mark.parametrize(
    ("happened", "status", "body", "kind", "outcome", "code"),
    [
        ("another image was described", 200, b'{"id": "x"}', RETRY, Outcome.FAILED, "client.id_differs"),
        ("no id was sent", 200, b"{}", RETRY, Outcome.FAILED, "client.id_differs"),
        ("the id was a number", 200, b'{"id": 5}', RETRY, Outcome.FAILED, "client.id_differs"),
        ("the id was a list", 200, b'{"id": [1]}', RETRY, Outcome.FAILED, "client.id_differs"),
        ("a list was sent", 200, b"[]", RETRY, Outcome.FAILED, "client.not_object"),
        ("null was sent", 200, b"null", RETRY, Outcome.FAILED, "client.not_object"),
        ("a text was sent", 200, b'"ok"', RETRY, Outcome.FAILED, "client.not_object"),
        ("HTML with 200", 200, b"<html></html>", RETRY, Outcome.FAILED, "client.not_json"),
        ("nothing with 200", 200, b"", RETRY, Outcome.FAILED, "client.not_json"),
        ("half an object", 200, b'{"id": "', RETRY, Outcome.FAILED, "client.not_json"),
        ("an id that is not UTF-8", 200, b'{"id": "\xff"}', RETRY, Outcome.FAILED, "client.id_differs"),
        ("200 says not found", 200, error("ModelArts.6404"), FINAL, Outcome.NOT_FOUND, "ModelArts.6404"),
        ("200 says forbidden", 200, error("ModelArts.0108"), FINAL, Outcome.FORBIDDEN, "ModelArts.0108"),
        ("200 says throttled", 200, error("APIG.0308"), THROTTLED, Outcome.FAILED, "APIG.0308"),
        ("200 says token expired", 200, error("APIG.0301"), RENEW, Outcome.FAILED, "APIG.0301"),
        ("200 with an unknown error", 200, error("ModelArts.9999"), RETRY, Outcome.FAILED, "ModelArts.9999"),
        ("204", 204, b"", RETRY, Outcome.FAILED, "client.http_204"),
        ("206", 206, b"{}", RETRY, Outcome.FAILED, "client.http_206"),
        ("400 says not found", 400, error("ModelArts.6404"), FINAL, Outcome.NOT_FOUND, "ModelArts.6404"),
        ("400 of unknown meaning", 400, error("ModelArts.0104"), FINAL, Outcome.FAILED, "ModelArts.0104"),
        ("400 without a body", 400, b"", FINAL, Outcome.FAILED, "client.http_400"),
        ("400 by code throttled", 400, error("ModelArts.2799"), THROTTLED, Outcome.FAILED, "ModelArts.2799"),
        ("400 busy", 400, error("X.1", "The system is busy."), THROTTLED, Outcome.FAILED, "X.1"),
        ("400 throttled", 400, error("X.1", "Request Throttled"), THROTTLED, Outcome.FAILED, "X.1"),
        ("400 too many", 400, error("X.1", "too many requests"), THROTTLED, Outcome.FAILED, "X.1"),
        ("400 code says so", 400, error("Gateway.Throttling"), THROTTLED, Outcome.FAILED, "Gateway.Throttling"),
        ("400 business", 400, error("X.1", "not your business"), FINAL, Outcome.FAILED, "X.1"),
        ("404 by the API", 404, error("ModelArts.6404"), FINAL, Outcome.NOT_FOUND, "ModelArts.6404"),
        ("404 with another code", 404, error("ModelArts.0105"), FINAL, Outcome.NOT_FOUND, "ModelArts.0105"),
        ("404 with nothing", 404, b"", FINAL, Outcome.NOT_FOUND, "client.http_404"),
        ("404 of a proxy", 404, b"<html>nginx</html>", RETRY, Outcome.FAILED, "client.not_json"),
        ("404 with foreign JSON", 404, b'{"detail": "no"}', RETRY, Outcome.FAILED, "client.not_json"),
        ("404 of the gateway", 404, error("APIG.0201"), RETRY, Outcome.FAILED, "APIG.0201"),
        ("401 token invalid", 401, error("ModelArts.0203"), RENEW, Outcome.FAILED, "ModelArts.0203"),
        ("401 without project", 401, error("ModelArts.0204"), RENEW, Outcome.FAILED, "ModelArts.0204"),
        ("401 by the gateway", 401, error("APIG.0301"), RENEW, Outcome.FAILED, "APIG.0301"),
        ("401 of any kind", 401, b"", RENEW, Outcome.FAILED, "client.http_401"),
        ("403 token", 403, error("ModelArts.2784"), RENEW, Outcome.FAILED, "ModelArts.2784"),
        ("403 token too", 403, error("ModelArts.0203"), RENEW, Outcome.FAILED, "ModelArts.0203"),
        ("403 image", 403, error("ModelArts.0108"), FINAL, Outcome.FORBIDDEN, "ModelArts.0108"),
        ("403 workspace", 403, error("ModelArts.0112"), FINAL, Outcome.FORBIDDEN, "ModelArts.0112"),
        ("403 of any kind", 403, b"<html>", FINAL, Outcome.FORBIDDEN, "client.http_403"),
        ("429", 429, error("ModelArts.4206"), THROTTLED, Outcome.FAILED, "ModelArts.4206"),
        ("429 without a body", 429, b"", THROTTLED, Outcome.FAILED, "client.http_429"),
        ("408", 408, b"", RETRY, Outcome.FAILED, "client.http_408"),
        ("409", 409, error("ModelArts.1"), FINAL, Outcome.FAILED, "ModelArts.1"),
        ("410 is not gone for us", 410, b"", FINAL, Outcome.FAILED, "client.http_410"),
        ("418", 418, b"", FINAL, Outcome.FAILED, "client.http_418"),
        ("500", 500, error("ModelArts.0010"), RETRY, Outcome.FAILED, "ModelArts.0010"),
        ("502 of a proxy", 502, b"<html>", RETRY, Outcome.FAILED, "client.http_502"),
        ("503 with a token code", 503, error("ModelArts.0203"), RETRY, Outcome.FAILED, "ModelArts.0203"),
        ("504", 504, b"", RETRY, Outcome.FAILED, "client.http_504"),
        ("redirect", 302, b"", FINAL, Outcome.FAILED, "client.redirect"),
        ("permanent redirect", 308, b"", FINAL, Outcome.FAILED, "client.redirect"),
    ],
)
def test_classify_rejects_bodies_without_an_image(happened, status, body, kind, outcome, code):
    verdict = judge(status, body)
    assert (verdict.kind, verdict.outcome, verdict.error_code) == (kind, outcome, code)


@pytest.mark.parametrize(
    ("happened", "status", "code", "error_type", "says"),
    [
        ("the account is suspended", 401, "ModelArts.6201", AccountSuspendedError, "suspended"),
        ("the account is in arrears", 401, "ModelArts.6203", AccountSuspendedError, "suspended"),
        ("not authorised", 401, "ModelArts.4117", AccountSuspendedError, "suspended"),
        ("restricted", 401, "ModelArts.0428", AccountSuspendedError, "suspended"),
        ("frozen", 403, "ModelArts.4116", AccountSuspendedError, "suspended"),
        ("frozen too", 403, "ModelArts.4118", AccountSuspendedError, "suspended"),
        ("no agency", 403, "ModelArts.2785", AccountSuspendedError, "suspended"),
        ("wrong AK/SK", 403, "ModelArts.0206", AccessDeniedError, "OS_SECRET_KEY"),
        ("the token's project is not the URL's", 404, "ModelArts.2786", AccessDeniedError, "OS_PROJECT_ID"),
        ("the token has no project", 400, "ModelArts.0204", AccessDeniedError, "OS_PROJECT_ID"),
        ("wrong project id", 400, "ModelArts.0210", AccessDeniedError, "OS_PROJECT_ID"),
        ("wrong path", 404, "ModelArts.2836", ConfigurationError, "IMAGE_SNAPSHOTS_ENDPOINT"),
        ("no such API", 404, "APIG.0101", ConfigurationError, "IMAGE_SNAPSHOTS_ENDPOINT"),
    ],
)
def test_classify_stops_when_no_request_can_succeed(happened, status, code, error_type, says):
    verdict = judge(status, error(code, "secret text of the server"))
    assert (verdict.kind, verdict.stop, verdict.error_code) == (STOP, error_type, code)
    assert says in (verdict.error_msg or "")
    assert "secret text" not in (verdict.error_msg or "")


TOKEN_CODES = ["0201", "0202", "0203", "0204", "4127", "4201", "6608", "6620"]


@pytest.mark.parametrize("code", [*(f"ModelArts.{number}" for number in TOKEN_CODES), "APIG.0301"])
def test_every_token_code_renews_the_token(code):
    verdict = judge(401, error(code))
    assert (verdict.kind, verdict.outcome, verdict.error_code) == (RENEW, Outcome.FAILED, code)


@pytest.mark.parametrize("code", ["ModelArts.2799", "ModelArts.4206", "ModelArts.6101", "APIG.0308"])
@pytest.mark.parametrize("status", [200, 400, 429])
def test_every_throttling_code_is_throttled(status, code):
    verdict = judge(status, error(code), {"Retry-After": "3"})
    assert (verdict.kind, verdict.error_code, verdict.retry_after) == (THROTTLED, code, 3.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('"short"', "short"),
        ('"' + "x" * 5000 + '"', "x" * 500),
        ("null", None),
        ("5", "5"),
        ('{"a": [1]}', '{"a":[1]}'),
        ('["a", null]', '["a",null]'),
        ("true", "true"),
        ('" "', None),
    ],
)
def test_error_text_of_any_type_becomes_text(value, text):
    verdict = judge(400, f'{{"error_code": {value}, "error_msg": {value}}}'.encode())
    assert (verdict.error_code, verdict.error_msg) == (text or "client.http_400", text)


@given(body=st.binary(max_size=200), status=st.integers(100, 599))
def test_classify_returns_a_verdict_for_any_body(body, status):
    verdict = judge(status, body)
    assert verdict.outcome is Outcome.FAILED or status in (403, 404)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("1.5", 1.5),
        (" 3 ", 3.0),
        ("-5", 0.0),
        ("120", 120.0),
        ("121", 120.0),
        ("31536000", 120.0),
        ("9" * 400, 120.0),
        ("Mon, 23 Nov 2026 12:00:30 GMT", 30.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0.0),
        ("Tue, 23 Nov 2027 12:00:00 GMT", 120.0),
        ("Monday, 23-Nov-26 12:00:05 GMT", 5.0),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("\u0661", None),
        ("Mon, 99 Nov 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after_header_gives_seconds(value, seconds):
    assert retry_after(httpx.Headers([("Retry-After", value.encode())]), NOW) == seconds


def test_absent_retry_after_gives_none():
    assert retry_after({}, NOW) is None


@given(st.text(max_size=60))
def test_retry_after_of_any_text_never_raises(value):
    seconds = retry_after(httpx.Headers([(b"retry-after", value.encode())]), NOW)
    assert seconds is None or 0 <= seconds <= 120


def test_verdict_of_a_refused_request_has_retry_after():
    assert judge(429, b"", {"Retry-After": "9"}).retry_after == 9.0
    assert judge(503, b"", {"retry-after": "Mon, 23 Nov 2026 12:00:04 GMT"}).retry_after == 4.0


@pytest.mark.parametrize(
    ("happened", "status", "body", "kind", "outcome", "code"),
    [
        ("a page", 200, b'{"data": [], "total": 0}', FINAL, Outcome.OK, None),
        ("no page", 200, b'{"images": []}', RETRY, Outcome.FAILED, "client.not_a_page"),
        ("data is no list", 200, b'{"data": {}}', RETRY, Outcome.FAILED, "client.not_a_page"),
        ("HTML", 200, b"<html>", RETRY, Outcome.FAILED, "client.not_a_page"),
        ("past the end", 400, error("ModelArts.6400"), FINAL, Outcome.FAILED, "ModelArts.6400"),
        ("200 says throttled", 200, error("APIG.0308"), THROTTLED, Outcome.FAILED, "APIG.0308"),
        ("forbidden", 403, b"", FINAL, Outcome.FORBIDDEN, "client.http_403"),
    ],
)
def test_classify_list_accepts_pages_and_rejects_other_bodies(happened, status, body, kind, outcome, code):
    verdict = classify_list(status, {}, body, NOW)
    assert (verdict.kind, verdict.outcome, verdict.error_code) == (kind, outcome, code)


UNREACHABLE = Kind.UNREACHABLE


def no_connection(cause: Exception) -> httpx.ConnectError:
    error = httpx.ConnectError("no connection")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("happened", "error", "kind", "code"),
    [
        ("the name does not resolve", no_connection(socket.gaierror(-2, "unknown")), UNREACHABLE, "client.dns"),
        (
            "refused",
            no_connection(ConnectionRefusedError(errno.ECONNREFUSED, "refused")),
            UNREACHABLE,
            "client.connection_refused",
        ),
        ("no route", no_connection(OSError(errno.EHOSTUNREACH, "no route")), UNREACHABLE, "client.no_connection"),
        ("a proxy hung up", no_connection(httpx.ReadError("x")), UNREACHABLE, "client.no_connection"),
        ("connecting took too long", httpx.ConnectTimeout("t"), UNREACHABLE, "client.connect_timeout"),
        (
            "the certificate is not trusted",
            no_connection(ssl.SSLCertVerificationError(1, "self-signed")),
            STOP,
            "client.certificate",
        ),
        ("the server speaks no TLS", no_connection(ssl.SSLError(1, "wrong version")), UNREACHABLE, "client.tls"),
        ("the server hung up", httpx.ReadError("x"), RETRY, "client.connection_reset"),
        ("everything took too long", TimeoutError(), RETRY, "client.timeout"),
        ("no HTTP", httpx.RemoteProtocolError("bad"), RETRY, "client.bad_http"),
        ("the proxy refused", ProxyRefusedError(407), STOP, "client.proxy"),
        ("the proxy is overloaded", ProxyRefusedError(503), UNREACHABLE, "client.proxy"),
    ],
)
def test_transport_error_gets_its_error_code(happened, error, kind, code):
    verdict = classify_failure(error)
    assert (verdict.kind, verdict.outcome, verdict.error_code) == (kind, Outcome.FAILED, code)


def test_connection_end_within_the_body_is_truncated():
    verdict = classify_failure(httpx.ReadError("x"), status=200)
    assert (verdict.kind, verdict.error_code) == (RETRY, "client.truncated")


def test_untrusted_certificate_stops_and_names_the_setting():
    verdict = classify_failure(no_connection(ssl.SSLCertVerificationError(1, "self-signed")))
    assert verdict.stop is ConfigurationError
    assert "IMAGE_SNAPSHOTS_CA_BUNDLE" in (verdict.error_msg or "")
