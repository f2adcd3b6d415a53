"""What an answer means: the one classification of everything the API, a gateway or the network can do to a request.

Pure functions from an answer (`classify`, `classify_list`) or from its absence (`classify_failure`) to a verdict. What
is then done, and when a request is sent again, belongs to `cloud.modelarts` and `cloud.retries`. Our own error codes
begin with `client.`.
"""

import datetime as dt
import math
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

import aiohttp
import httpx

from pipelines.bodies.json_text import NotJSONError, dumps, parse
from pipelines.errors import AccessDeniedError, AccountSuspendedError, ConfigurationError, PipelineError
from pipelines.tables import Outcome

MAX_RETRY_AFTER_SECONDS = 120.0
MAX_TEXT_CHARACTERS = 500


@dataclass(slots=True)
class Answer:
    """The last answer for one id, or its absence. `http_status` and `body` are None when no whole answer came."""

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
    """What a verdict asks of the client."""

    FINAL = "final"
    RETRY = "retry"
    THROTTLED = "throttled"
    RENEW_TOKEN = "renew_token"  # noqa: S105  (a name, no secret)
    UNREACHABLE = "unreachable"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`outcome` is the id's when `kind` is FINAL, and what it ends as when it cannot be asked again.

    `retry_after` is in seconds. With STOP, no request can succeed: `stop` is the error to raise and `error_msg` a
    sentence of ours, without full stop and without anything the server sent.
    """

    kind: Kind
    outcome: Outcome = Outcome.FAILED
    error_code: str | None = None
    error_msg: str | None = None
    retry_after: float | None = None
    stop: type[PipelineError] | None = None


_OK = Verdict(Kind.FINAL, Outcome.OK)
_DELETED = Verdict(Kind.FINAL, Outcome.DELETED)

_NO_IMAGE_CODE = "ModelArts.6404"
PAST_THE_END_CODE = "ModelArts.6400"
_WRONG_PROJECT_CODES = {"ModelArts.2786", "ModelArts.0210"}
_NO_PROJECT_CODE = "ModelArts.0204"
WRONG_PATH_CODES = {"ModelArts.2836", "APIG.0101"}
_WRONG_KEY_CODE = "ModelArts.0206"
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
_THROTTLED_CODES = {"ModelArts.2799", "ModelArts.4206", "ModelArts.6101", "APIG.0308"}
_FORBIDDEN_CODES = {"ModelArts.0108", "ModelArts.0112"}
# Of a proxy, beside those from 500 on: too slow, too early, too many.
_PASSING_PROXY_FAULTS = {408, 425, 429}
_THROTTLED_WORDS = re.compile(r"throttl|too\s*many|too\s*frequent|flow\s*control|rate\s*limit|\bbusy\b", re.IGNORECASE)


def classify(
    asked_id: str, status: int, headers: Mapping[str, str], body: bytes, now: dt.datetime | None = None
) -> Verdict:
    """Judge the answer to the details call for `asked_id`; `now` (aware) is what a dated Retry-After is relative to."""
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


def classify_list(status: int, headers: Mapping[str, str], body: bytes, now: dt.datetime | None = None) -> Verdict:
    """Judge a page of the list: OK when it is an object with a list `data`."""
    if status != 200:
        return _classify_error(status, headers, body, now)
    page = _json(body)
    if isinstance(page, dict) and page.get("error_code"):
        return _classify_error(status, headers, body, now)
    if not isinstance(page, dict) or not isinstance(page.get("data"), list):
        return _retry("client.not_a_page", "answered 200 with a body that is not a page of a list")
    return _OK


def _classify_error(status: int, headers: Mapping[str, str], body: bytes, now: dt.datetime | None) -> Verdict:
    parsed = _json(body)
    fields = parsed if isinstance(parsed, dict) else {}
    sent_code = _text(fields.get("error_code"))
    code = sent_code or f"client.http_{status}"
    message = _text(fields.get("error_msg"))
    wait = retry_after(headers, now or dt.datetime.now(dt.UTC))

    def verdict(kind: Kind, outcome: Outcome = Outcome.FAILED) -> Verdict:
        return Verdict(kind, outcome, code, message, wait)

    def stop(error: type[PipelineError], sentence: str) -> Verdict:
        return Verdict(Kind.STOP, Outcome.FAILED, code, sentence, stop=error)

    if status == 408 or status >= 500:
        return verdict(Kind.RETRY)
    if 300 <= status < 400:
        # Never followed, not even on the same host: the API has no redirects, and credentials would go along.
        return Verdict(Kind.FINAL, Outcome.FAILED, "client.redirect", f"answered {status}, a redirect")
    if status == 429 or sent_code in _THROTTLED_CODES:
        return verdict(Kind.THROTTLED)
    if sent_code in _SUSPENDED_CODES:
        return stop(
            AccountSuspendedError,
            "The cloud account is suspended, in arrears or not authorised for ModelArts: ask who owns the account",
        )
    if sent_code == _WRONG_KEY_CODE:
        return stop(AccessDeniedError, "The access key or secret key is wrong: correct OS_ACCESS_KEY and OS_SECRET_KEY")
    if sent_code in _WRONG_PROJECT_CODES or (status == 400 and sent_code == _NO_PROJECT_CODE):
        return stop(
            AccessDeniedError,
            "The credentials are not for this project: correct IMAGE_SNAPSHOTS_PROJECTS or OS_PROJECT_ID",
        )
    if sent_code in WRONG_PATH_CODES:
        return stop(ConfigurationError, "The endpoint does not serve this API: correct IMAGE_SNAPSHOTS_ENDPOINT")
    if status == 401 or sent_code in _TOKEN_CODES:
        return verdict(Kind.RENEW_TOKEN)
    if status == 403 or sent_code in _FORBIDDEN_CODES:
        return verdict(Kind.FINAL, Outcome.FORBIDDEN)
    if status in (200, 400) and sent_code == _NO_IMAGE_CODE:
        return verdict(Kind.FINAL, Outcome.NOT_FOUND)
    if status == 404:
        if not body.strip() or (sent_code or "").startswith("ModelArts."):
            return verdict(Kind.FINAL, Outcome.NOT_FOUND)
        # Some proxy's page: the API has not said that the image is gone.
        return _retry(sent_code or "client.not_json", message or "answered 404 with a body that is not the API's")
    if status in (200, 400) and _THROTTLED_WORDS.search(f"{sent_code} {message}"):
        return verdict(Kind.THROTTLED)
    if 400 <= status < 500:
        return verdict(Kind.FINAL)
    # 200 with an error of unknown meaning, and successes that are none (204, 206).
    return verdict(Kind.RETRY)


def classify_failure(error: BaseException) -> Verdict:
    """Judge an exchange that brought no whole answer, by the exception that ended it.

    The whole chain of causes is searched for what the operating system or aiohttp's classes say, because they name
    what an exchange can die of more exactly than httpx's.
    """
    chain = list(_causes(error))

    def caused_by(*types: type[BaseException]) -> bool:
        return any(isinstance(cause, types) for cause in chain)

    if caused_by(ssl.SSLCertVerificationError):
        return Verdict(
            Kind.STOP,
            error_code="client.certificate",
            error_msg="Its certificate is not trusted: name the authority to trust in IMAGE_SNAPSHOTS_CA_BUNDLE",
            stop=ConfigurationError,
        )
    for cause in chain:
        if isinstance(cause, aiohttp.ClientHttpProxyError):
            return _of_proxy(cause.status)
    if caused_by(socket.gaierror, aiohttp.ClientConnectorDNSError):
        return _unreachable("client.dns", "the name does not resolve")
    if caused_by(aiohttp.ClientConnectorSSLError):
        return _unreachable("client.tls", "the TLS handshake failed")
    if caused_by(aiohttp.ConnectionTimeoutError):
        return _unreachable("client.connect_timeout", "the connection was not accepted in time")
    if caused_by(ConnectionRefusedError):
        return _unreachable("client.connection_refused", "the connection was refused")
    if caused_by(aiohttp.ClientConnectorError):
        return _unreachable("client.no_connection", "no connection could be made")
    if caused_by(aiohttp.ClientPayloadError):
        return _retry("client.truncated", "the body ended before it was whole")
    if caused_by(TimeoutError):
        return _retry("client.timeout", "no whole answer came in time")
    if caused_by(OSError, aiohttp.ClientConnectionError):
        return _retry("client.connection_reset", "the connection was closed before an answer came")
    return _retry("client.bad_http", "the answer is not HTTP")


def retry_after(headers: Mapping[str, str], now: dt.datetime) -> float | None:
    """Seconds to wait by a `Retry-After` header (seconds or HTTP date), at most 120; None when absent or unreadable."""
    value = httpx.Headers(headers).get("retry-after", "").strip()
    if not value:
        return None
    if re.fullmatch(r"[+-]?\d+(\.\d*)?", value, re.ASCII):
        seconds = float(value)
    else:
        try:
            date = parsedate_to_datetime(value)
            # RFC 9110 dates are UTC; one without a zone is taken for UTC, too.
            seconds = (date if date.tzinfo else date.replace(tzinfo=dt.UTC)).timestamp() - now.timestamp()
        except (ValueError, OverflowError):
            return None
    return 0.0 if seconds < 0 else min(MAX_RETRY_AFTER_SECONDS, seconds if math.isfinite(seconds) else math.inf)


def _retry(code: str, message: str) -> Verdict:
    return Verdict(Kind.RETRY, error_code=code, error_msg=message)


def _of_proxy(status: int) -> Verdict:
    if status in _PASSING_PROXY_FAULTS or status >= 500:
        return _unreachable("client.proxy", f"the proxy answered {status}")
    return Verdict(
        Kind.STOP,
        error_code="client.proxy",
        error_msg=f"The proxy refuses the connection (it answered {status}): correct HTTPS_PROXY or NO_PROXY",
        stop=ConfigurationError,
    )


def _unreachable(code: str, message: str) -> Verdict:
    return Verdict(Kind.UNREACHABLE, error_code=code, error_msg=message)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += [current.__cause__, getattr(current, "os_error", None)]


def _json(body: bytes) -> Any:
    try:
        return parse(body, exactly=False)
    except NotJSONError:
        return None


def _same_id(sent: Any, asked: str) -> bool:
    return isinstance(sent, str) and sent.strip().lower() == asked.strip().lower()


def _text(value: Any) -> str | None:
    """Any JSON value as a short text; None for what says nothing. Half a character is written as its escape."""
    if value is None or value == "":
        return None
    text = value.strip() if isinstance(value, str) else dumps(value).decode()
    return text[:MAX_TEXT_CHARACTERS].encode("utf-8", "backslashreplace").decode()[:MAX_TEXT_CHARACTERS] or None
