"""The cloud's AK/SK signature, SDK-HMAC-SHA256: pure functions to sign and to verify.

The API client signs each request with `sign_headers`; the sandbox recomputes the same `signature` from the request it
received. Reading keys and handling refusals do not belong here.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self
from urllib.parse import parse_qsl, quote, unquote

ALGORITHM = "SDK-HMAC-SHA256"
DATE_FORMAT = "%Y%m%dT%H%M%SZ"

_EMPTY_BODY_SHA256 = hashlib.sha256(b"").hexdigest()
_AUTHORIZATION = re.compile(
    ALGORITHM
    + r" Access=(?P<access_key>[^,\s]+), ?SignedHeaders=(?P<names>[^,\s]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class Authorization:
    """The parts of an `Authorization` header; `signed_headers` are lower-case names in signed order."""

    access_key: str = field(repr=False)
    signed_headers: tuple[str, ...]
    signature: str = field(repr=False)

    @classmethod
    def parse(cls, value: str) -> Self | None:
        """Parse the header's value; None if it does not use this scheme."""
        match = _AUTHORIZATION.fullmatch(value.strip())
        if match is None:
            return None
        return cls(match["access_key"], tuple(match["names"].split(";")), match["signature"])


def sign_headers(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    access_key: str,
    secret_key: str,
    now: datetime,
) -> dict[str, str]:
    """Sign one request and return the headers to add to it: `Host`, `X-Sdk-Date` and `Authorization`.

    `url` is absolute and percent-encoded as it is sent; `now` is aware. All `headers` are signed, so they must arrive
    unchanged: pass those that identify the call (such as `X-Project-Id`), not those that the transport adds.
    Names with an underscore are left out, because gateways drop such headers.
    """
    _, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    if not slash:
        host, mark, query = rest.partition("?")
        path = mark + query
    date = now.astimezone(UTC).strftime(DATE_FORMAT)
    added = {"Host": host.rpartition("@")[2], "X-Sdk-Date": date}
    signed = {name.lower(): value for name, value in headers.items() if "_" not in name}
    signed["x-sdk-date"] = date
    signed.setdefault("host", added["Host"])
    added["Host"] = signed["host"]
    pairs = sorted(signed.items())
    value = signature(method, "/" + path, pairs, body, date, secret_key)
    names = ";".join(name for name, _ in pairs)
    added["Authorization"] = f"{ALGORITHM} Access={access_key}, SignedHeaders={names}, Signature={value}"
    return added


def signature(
    method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes, date: str, secret_key: str
) -> str:
    """Compute the signature, 64 hexadecimal digits.

    `target` is the path and query of the request line; `headers` are (lower-case name, value) in signed order;
    `date` is the value of `X-Sdk-Date`.
    """
    path, _, query = target.partition("#")[0].partition("?")
    canonical = "\n".join(
        (
            method.upper(),
            _canonical_path(path),
            _canonical_query(query) if query else "",
            *[f"{name}:{value.strip()}" for name, value in headers],
            "",
            ";".join([name for name, _ in headers]),
            hashlib.sha256(body).hexdigest() if body else _EMPTY_BODY_SHA256,
        )
    )
    to_sign = f"{ALGORITHM}\n{date}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    return hmac.digest(secret_key.encode(), to_sign.encode(), "sha256").hex()


def _canonical_path(path: str) -> str:
    # "/" is not encoded: an encoded slash counts as a separator, too.
    encoded = quote(unquote(path), safe="/~")
    return encoded if encoded.endswith("/") else encoded + "/"


def _canonical_query(query: str) -> str:
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    return "&".join([f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs])
