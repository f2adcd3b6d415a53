"""Classifies every response of the API, a gateway or a proxy, and every network failure.

Pure functions: `classify` and `classify_list` take a response, `classify_failure` an error; each returns a verdict.
Acting on a verdict and retrying belong to `cloud.modelarts` and `cloud.retries`. Error codes of our own begin with
`client.`.
"""

import datetime as dt
import math
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

import httpx

from pipelines.bodies.json_text import NotJSONError, dumps, parse
from pipelines.cloud.transport import ProxyRefusedError
from pipelines.errors import AccessDeniedError, AccountSuspendedError, ConfigurationError, PipelineError
from pipelines.tables import Outcome

MAX_RETRY_AFTER_SECONDS = 120.0
MAX_TEXT_CHARACTERS = 500


@dataclass(slots=True)
class ImageResponse:
    """The last response for one id. `http_status` and `body` are None when no complete response came."""

    id: str
    outcome: Outcome
    http_status: int | None
    error_code: str | None
    error_msg: str | None
    attempts: int
    elapsed_ms: int
    observed_at: dt.datetime
    body: bytes | None


class Kind(StrEnum):
    """What the client must do next."""

    FINAL = "final"
    RETRY = "retry"
    THROTTLED = "throttled"
    RENEW_TOKEN = "renew_token"  # noqa: S105  (a name, not a secret)
    UNREACHABLE = "unreachable"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The meaning of one response. `outcome` is the id's outcome if `kind` is FINAL or no retry is left.

    `retry_after` is in seconds. STOP means that no request can succeed: `stop` is the error to raise, and `error_msg`
    is our own sentence, without a full stop and without any text from the server.
    """

    kind: Kind
    outcome: Outcome = Outcome.FAILED
    error_code: str | None = None
    error_msg: str | None = None
    retry_after: float | None = None
    stop: type[PipelineError] | None = None


def _retry(code: str, message: str) -> Verdict:
    return Verdict(Kind.RETRY, error_code=code, error_msg=message)


def _unreachable(code: str, message: str) -> Verdict:
    return Verdict(Kind.UNREACHABLE, error_code=code, error_msg=message)


_OK = Verdict(Kind.FINAL, Outcome.OK)
_DELETED = Verdict(Kind.FINAL, Outcome.DELETED)

PAST_THE_END_CODE = "ModelArts.6400"
WRONG_PATH_CODES = {"ModelArts.2836", "APIG.0101"}
_NO_IMAGE_CODE = "ModelArts.6404"
_NO_PROJECT_CODE = "ModelArts.0204"
_WRONG_PROJECT_CODES = {"ModelArts.2786", "ModelArts.0210"}
WRONG_KEY_CODES = {"ModelArts.0206"}
_FORBIDDEN_CODES = {"ModelArts.0108", "ModelArts.0112"}
_THROTTLED_CODES = {"ModelArts.2799", "ModelArts.4206", "ModelArts.6101", "APIG.0308"}
_THROTTLED_WORDS = re.compile(r"throttl|too\s*many|too\s*frequent|flow\s*control|rate\s*limit|\bbusy\b", re.IGNORECASE)
_TOKEN_CODES = {
    "ModelArts.0201",
    "ModelArts.0202",
    "ModelArts.0203",
    "ModelArts.0204",
    "ModelArts.2784",
    "ModelArts.4127",
    "ModelArts.4201",
    "ModelArts.6608",
    "ModelArts.6620",
    "APIG.0301",
}
_SUSPENDED_CODES = {
    "ModelArts.0428",
    "ModelArts.2785",
    "ModelArts.4116",
    "ModelArts.4117",
    "ModelArts.4118",
    "ModelArts.6201",
    "ModelArts.6203",
}
# Proxy statuses worth a retry, besides all from 500 on: timeout, too early, too many requests.
_PASSING_PROXY_FAULTS = {408, 425, 429}


@dataclass(frozen=True, slots=True)
class _Error:
    """An error response, as the conditions of `_ERRORS` see it. `code` and `message` are as sent."""

    status: int
    code: str | None
    message: str | None
    has_body: bool


@dataclass(frozen=True, slots=True)
class _Row:
    """The meaning of an error for which `when` is true. `code` and `message`, if set, replace what was sent."""

    when: Callable[[_Error], bool]
    kind: Kind
    outcome: Outcome = Outcome.FAILED
    code: str | None = None
    message: str | None = None
    stop: type[PipelineError] | None = None


def _stop(codes: set[str], error: type[PipelineError], message: str) -> _Row:
    return _Row(lambda e: e.code in codes, Kind.STOP, message=message, stop=error)


_WRONG_PROJECT = "The credentials are not for this project: correct IMAGE_SNAPSHOTS_PROJECTS or OS_PROJECT_ID"

# The first row whose condition is true gives the verdict.
_ERRORS = (
    _Row(lambda e: e.status == 408 or e.status >= 500, Kind.RETRY),
    # A redirect is never followed, not even on the same host: the API has none, and it would carry the credentials.
    _Row(lambda e: 300 <= e.status < 400, Kind.FINAL, code="client.redirect", message="answered {status}, a redirect"),
    _Row(lambda e: e.status == 429 or e.code in _THROTTLED_CODES, Kind.THROTTLED),
    _stop(
        _SUSPENDED_CODES,
        AccountSuspendedError,
        "The cloud account is suspended, in arrears or not authorised for ModelArts: ask the account's owner",
    ),
    _stop(
        WRONG_KEY_CODES,
        AccessDeniedError,
        "The access key or secret key is wrong: correct OS_ACCESS_KEY and OS_SECRET_KEY",
    ),
    _stop(_WRONG_PROJECT_CODES, AccessDeniedError, _WRONG_PROJECT),
    _Row(
        lambda e: e.status == 400 and e.code == _NO_PROJECT_CODE,
        Kind.STOP,
        message=_WRONG_PROJECT,
        stop=AccessDeniedError,
    ),
    _stop(
        WRONG_PATH_CODES,
        ConfigurationError,
        "The endpoint does not serve this API: correct IMAGE_SNAPSHOTS_ENDPOINT",
    ),
    _Row(lambda e: e.status == 401 or e.code in _TOKEN_CODES, Kind.RENEW_TOKEN),
    _Row(lambda e: e.status == 403 or e.code in _FORBIDDEN_CODES, Kind.FINAL, Outcome.FORBIDDEN),
    _Row(lambda e: e.status in (200, 400) and e.code == _NO_IMAGE_CODE, Kind.FINAL, Outcome.NOT_FOUND),
    _Row(lambda e: e.status == 404 and not e.has_body, Kind.FINAL, Outcome.NOT_FOUND),
    _Row(lambda e: e.status == 404 and _is_of_modelarts(e.code), Kind.FINAL, Outcome.NOT_FOUND),
    # An error page of a proxy: it does not say that the image is gone.
    _Row(lambda e: e.status == 404 and e.code is not None, Kind.RETRY),
    _Row(
        lambda e: e.status == 404,
        Kind.RETRY,
        code="client.not_json",
        message="answered 404 with a body that is not the API's",
    ),
    _Row(lambda e: e.status in (200, 400) and _says_throttled(e), Kind.THROTTLED),
    _Row(lambda e: 400 <= e.status < 500, Kind.FINAL),
    # 200 with an unknown error code, and other 2xx statuses (204, 206).
    _Row(lambda _: True, Kind.RETRY),
)

# The transport's error, the cause of that error (None: any), and the verdict.
_FAILURES: tuple[tuple[type[Exception], type[Exception] | None, Verdict], ...] = (
    (
        httpx.ConnectError,
        ssl.SSLCertVerificationError,
        Verdict(
            Kind.STOP,
            error_code="client.certificate",
            error_msg="Its certificate is not trusted: name the authority to trust in IMAGE_SNAPSHOTS_CA_BUNDLE",
            stop=ConfigurationError,
        ),
    ),
    (httpx.ConnectError, socket.gaierror, _unreachable("client.dns", "the name does not resolve")),
    (httpx.ConnectError, ssl.SSLError, _unreachable("client.tls", "the TLS handshake failed")),
    (
        httpx.ConnectError,
        ConnectionRefusedError,
        _unreachable("client.connection_refused", "the connection was refused"),
    ),
    (httpx.ConnectError, None, _unreachable("client.no_connection", "no connection could be made")),
    (
        httpx.ConnectTimeout,
        None,
        _unreachable("client.connect_timeout", "the connection was not accepted in time"),
    ),
    (TimeoutError, None, _retry("client.timeout", "no complete response came in time")),
    (httpx.ReadError, None, _retry("client.connection_reset", "the connection was closed before a response came")),
    (Exception, None, _retry("client.bad_http", "the response is not HTTP")),
)


def classify(
    asked_id: str, status: int, headers: Mapping[str, str], body: bytes, now: dt.datetime | None = None
) -> Verdict:
    """Classify the response to the details call for `asked_id`; `now` (aware) resolves a Retry-After that is a date."""
    if status != 200:
        return _classify_error(status, headers, body, now)
    try:
        image = parse(body, exactly=False)
    except NotJSONError:
        return _retry("client.not_json", "answered 200 with a body that is not JSON")
    if not isinstance(image, dict):
        return _retry("client.not_object", "answered 200 with JSON that is not an object")
    if image.get("error_code"):
        return _classify_error(status, headers, body, now)
    sent_id = image.get("id")
    if sent_id != asked_id and not _same_id(sent_id, asked_id):
        return _retry("client.id_differs", f"answered with the id {_text(sent_id)}")
    state = image.get("status")
    if isinstance(state, str) and state.strip().upper() == "DELETED":
        return _DELETED
    return _OK


def classify_list(
    status: int, headers: Mapping[str, str], body: bytes, now: dt.datetime | None = None, *, items: str = "data"
) -> Verdict:
    """Classify one page of a list: OK if it is an object with a list under the name `items`."""
    verdict = classify_object(status, headers, body, now)
    if verdict is _OK and not isinstance(_json(body).get(items), list):
        return _retry("client.not_a_page", "answered 200 with a body that is not a page of a list")
    return verdict


def classify_object(status: int, headers: Mapping[str, str], body: bytes, now: dt.datetime | None = None) -> Verdict:
    """Classify a response that is OK if it is a JSON object without an error."""
    if status != 200:
        return _classify_error(status, headers, body, now)
    content = _json(body)
    if isinstance(content, dict) and content.get("error_code"):
        return _classify_error(status, headers, body, now)
    if not isinstance(content, dict):
        return _retry("client.not_a_page", "answered 200 with a body that is not a JSON object")
    return _OK


def classify_registry(
    status: int, headers: Mapping[str, str], body: bytes, now: dt.datetime | None = None, *, items: str | None = None
) -> Verdict:
    """Classify a response of the registry: OK if it is an object with a list under the name `items`.

    None for `items` stands for a bare list, "" for any object. Errors are an array of objects, alone or under `errors`.
    """
    content = _json(body)
    if status == 200:
        listed = content.get(items) if items and isinstance(content, dict) else content
        if isinstance(listed, dict if items == "" else list):
            return _OK
        return _retry("client.not_a_page", "answered 200 with a body that is not what the registry documents")
    errors = content.get("errors", content) if isinstance(content, dict) else content
    first = errors[0] if isinstance(errors, list) and errors else errors
    fields = first if isinstance(first, dict) else {}
    code, message = (
        next((text for name in names if (text := _text(fields.get(name)))), None)
        for names in (("errorCode", "error_code", "code"), ("errorMessage", "error_msg", "message"))
    )
    if status == 404 and code is not None:
        # Of a gateway: it does not serve this API. Of the registry: there is no such thing.
        outcome = Outcome.FAILED if code in WRONG_PATH_CODES else Outcome.NOT_FOUND
        return Verdict(Kind.FINAL, outcome, code, message)
    return _classify_error(status, headers, body, now, (code, message))


def _classify_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    now: dt.datetime | None,
    said: tuple[str | None, str | None] | None = None,
) -> Verdict:
    """Classify an error by its code and message: those that it `said`, or the fields of ModelArts."""
    if said is None:
        parsed = _json(body)
        fields = parsed if isinstance(parsed, dict) else {}
        said = _text(fields.get("error_code")), _text(fields.get("error_msg"))
    error = _Error(status, *said, bool(body.strip()))
    row = next(row for row in _ERRORS if row.when(error))
    return Verdict(
        row.kind,
        row.outcome,
        row.code or error.code or f"client.http_{status}",
        row.message.format(status=status) if row.message else error.message,
        retry_after(headers, now or dt.datetime.now(dt.UTC)),
        row.stop,
    )


def classify_failure(error: Exception, status: int | None = None) -> Verdict:
    """Classify a request without a complete response by its error; `status` is set if the response had begun."""
    if isinstance(error, ProxyRefusedError):
        return _of_proxy(error.status)
    if isinstance(error, httpx.ReadError) and status is not None:
        return _retry("client.truncated", "the body ended before it was complete")
    return next(
        verdict
        for raised, cause, verdict in _FAILURES
        if isinstance(error, raised) and (cause is None or isinstance(error.__cause__, cause))
    )


def retry_after(headers: Mapping[str, str], now: dt.datetime) -> float | None:
    """Seconds to wait from a `Retry-After` header (seconds or HTTP date), at most 120; None if absent or unreadable."""
    value = httpx.Headers(headers).get("retry-after", "").strip()
    if not value:
        return None
    if re.fullmatch(r"[+-]?\d+(\.\d*)?", value, re.ASCII):
        seconds = float(value)
    else:
        try:
            date = parsedate_to_datetime(value)
            # RFC 9110 dates are UTC; a date without a zone is read as UTC, too.
            seconds = (date if date.tzinfo else date.replace(tzinfo=dt.UTC)).timestamp() - now.timestamp()
        except (ValueError, OverflowError):
            return None
    return 0.0 if seconds < 0 else min(MAX_RETRY_AFTER_SECONDS, seconds if math.isfinite(seconds) else math.inf)


def _of_proxy(status: int) -> Verdict:
    if status in _PASSING_PROXY_FAULTS or status >= 500:
        return _unreachable("client.proxy", f"the proxy answered {status}")
    return Verdict(
        Kind.STOP,
        error_code="client.proxy",
        error_msg=f"The proxy refuses the connection (it answered {status}): correct HTTPS_PROXY or NO_PROXY",
        stop=ConfigurationError,
    )


def _json(body: bytes) -> Any:
    try:
        return parse(body, exactly=False)
    except NotJSONError:
        return None


def _is_of_modelarts(code: str | None) -> bool:
    return code is not None and code.startswith("ModelArts.")


def _says_throttled(error: _Error) -> bool:
    return _THROTTLED_WORDS.search(f"{error.code} {error.message}") is not None


def _same_id(sent: Any, asked: str) -> bool:
    return isinstance(sent, str) and sent.strip().lower() == asked.strip().lower()


def _text(value: Any) -> str | None:
    """Any JSON value as short text; None if it is empty. A lone surrogate is written as its escape."""
    if value is None or value == "":
        return None
    text = value.strip() if isinstance(value, str) else dumps(value).decode()
    return text[:MAX_TEXT_CHARACTERS].encode("utf-8", "backslashreplace").decode()[:MAX_TEXT_CHARACTERS] or None
