"""Parses URLs that may hold a secret. No other code takes such a URL apart.

Errors never quote any part of the URL. An ambiguous URL is refused: if a password holds an unescaped `/`, `@`, `#` or
`?`, two parsers find different hosts, and part of the password could end up in an error or in a DNS query.
"""

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

# Names of options after the question mark that hold a secret.
_SECRET_OPTION = re.compile(r"pass|pwd|secret|token|key|credential", re.IGNORECASE)
_HOST = r"(?:(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})+|\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._~-]+)?\])"
# No part of the URL may hold a character that begins another part. PostgreSQL names replicas by several hosts.
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?:(?P<login>[^@/?#\s\\]*)@)?"
    rf"(?P<hosts>{_HOST}(?::[0-9]{{0,5}})?(?:,{_HOST}(?::[0-9]{{0,5}})?)*)?"
    r"(?P<path>/[^@?#\s\\]*)?"
    r"(?:\?(?P<query>[^@#\s\\]*))?"
)
# A file instead of a server: it has no login, and its path may hold any character.
_FILE = re.compile(r"(?P<scheme>(?:sqlite|duckdb)(?:\+[a-z]+)?)://(?P<path>/.*)", re.IGNORECASE | re.DOTALL)
_LAST_PORT = 65_535
_LONGEST_LABEL = 63
_HALF_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# A malformed URL with a login: `postgresql:/user:password@host/database`.
_LOGIN_WITHOUT_SLASHES = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?!//).*@", re.DOTALL)

_ENCODE = "percent-encode @ / ? # \\ % and blanks in the user name and the password, such as %40 for @"


@dataclass(frozen=True, slots=True)
class SecretUrl:
    """The decoded parts of a URL; only `scheme`, `hosts` (with ports) and `where` may be shown.

    `host` is the first host without its port. `where` is scheme and hosts, for messages. `text` is the whole URL, for
    the library that connects.
    """

    scheme: str
    hosts: str
    text: str = field(repr=False)
    username: str | None = field(repr=False)
    password: str | None = field(repr=False)
    path: str = field(repr=False)
    query: str = field(repr=False)

    @property
    def host(self) -> str:
        """The first host, in lower case, without its port and without the brackets of an IPv6 address."""
        first = self.hosts.partition(",")[0]
        return first[1:].partition("]")[0].lower() if first.startswith("[") else first.partition(":")[0].lower()

    @property
    def where(self) -> str:
        """Scheme and hosts: the part of the URL that a message may show."""
        return f"{self.scheme}://{self.hosts}"

    def hide(self, said: str) -> str:
        """A library's message with each secret of this URL replaced, in any spelling."""
        for secret in sorted(self._secrets(), key=len, reverse=True):
            said = said.replace(secret, "***")
        return said

    def _secrets(self) -> set[str]:
        authority = self.text.partition("://")[2].partition("@")[0] if self.password is not None else ""
        stated = {self.text, self.password or "", authority.partition(":")[2]}
        for option in self.query.split("&"):
            name, _, value = option.partition("=")
            if _SECRET_OPTION.search(name):
                stated |= {value, unquote(value), dict(parse_qsl(option)).get(name, "")}
        return stated - {""}


def parse_secret_url(text: str, example: str, schemes: Collection[str] | None = None) -> SecretUrl:
    """Parse a URL.

    Raises:
        ValueError: the URL is malformed, ambiguous or of another scheme. The message says how it must be, as the end of
            a sentence, and quotes no part of it.
    """
    found = _FILE.fullmatch(text)
    if found is not None and (schemes is None or found["scheme"].lower() in schemes):
        return SecretUrl(found["scheme"].lower(), "", text, None, None, found["path"], "")
    found = _URL.fullmatch(text)
    if found is None or _HALF_ESCAPE.search(found["login"] or ""):
        raise ValueError(f"must look like {example} ({_ENCODE})")
    scheme = found["scheme"].lower()
    if schemes is not None and scheme not in schemes:
        raise ValueError(f"must look like {example}")
    for host in (found["hosts"] or "").split(",") if found["hosts"] else ():
        _check_host(host)
    user, colon, password = (found["login"] or "").partition(":")
    return SecretUrl(
        scheme,
        found["hosts"] or "",
        text,
        unquote(user) if found["login"] is not None else None,
        unquote(password) if colon else None,
        found["path"] or "",
        found["query"] or "",
    )


def _check_host(text: str) -> None:
    """Refuse a host or port that would fail only on connecting, with an unclear error."""
    name, colon, port = (
        text.rpartition(":") if re.search(r":[0-9]*$", text) and not text.endswith("]") else (text, "", "")
    )
    if colon and not (port and 0 < int(port) <= _LAST_PORT):
        raise ValueError(f"has a port that is not one of 1 to {_LAST_PORT}")
    if name.startswith("["):
        try:
            ipaddress.IPv6Address(unquote(name[1:-1]))
        except ValueError:
            raise ValueError("has an address in brackets that is not an IPv6 address") from None
    # A percent-encoded host is the path of a socket.
    elif "%" not in name and not all(0 < len(label) <= _LONGEST_LABEL for label in name.removesuffix(".").split(".")):
        raise ValueError("has a host that is not a valid name or address")


def looks_like_url(text: str) -> bool:
    """Whether a text is meant as a URL, even a malformed one, rather than as a path."""
    return "://" in text or _LOGIN_WITHOUT_SLASHES.match(text) is not None
