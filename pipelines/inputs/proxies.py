"""Reads and checks the proxy variables of the environment, before any library reads them by itself."""

import ipaddress
import re
import urllib.request
from urllib.parse import urlsplit

from pipelines.errors import ConfigurationError
from pipelines.inputs.endpoints import LOOPBACK_HOSTS
from pipelines.inputs.secret_urls import SecretUrl, parse_secret_url

_PORTS = {"https": 443, "http": 80}


def check_proxies() -> dict[str, SecretUrl]:
    """The environment's proxies by scheme (`all` for the rest), checked because libraries read them by themselves.

    Raises:
        ConfigurationError: a proxy's URL is malformed; names the variable, never the URL.
    """
    found = {}
    for scheme, text in urllib.request.getproxies().items():
        # `getproxies` returns NO_PROXY, too, as a list of hosts.
        if scheme in ("http", "https", "all") and text:
            try:
                found[scheme] = parse_secret_url(
                    text if "://" in text else f"http://{text}", "http://user:password@proxy.example:3128"
                )
            except ValueError as reason:
                raise ConfigurationError(f"The variable {scheme.upper()}_PROXY is wrong: it {reason}.") from None
    return found


def stated_proxy(url: str) -> SecretUrl | None:
    """The proxy for a URL by `HTTPS_PROXY` and `NO_PROXY`; loopback never has one.

    Raises:
        ConfigurationError: as for `check_proxies`.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = check_proxies()
    stated = proxies.get(parts.scheme) or proxies.get("all")
    if not stated or host in LOOPBACK_HOSTS or is_asked_directly(host, parts.port or _PORTS.get(parts.scheme)):
        return None
    return stated


def is_asked_directly(host: str, port: int | None) -> bool:
    """Whether `NO_PROXY` excludes a host from the proxy.

    Its entries are separated by commas or blanks: `*` for all hosts, `name` or `.name` (with all subdomains), `*.name`
    (only the subdomains), an address, or a network such as `10.0.0.0/8`. All but a network may end with `:port`. Other
    entries are for other programs and match nothing.
    """
    host = host.lower().rstrip(".")
    entries = re.split(r"[,\s]+", urllib.request.getproxies().get("no", "").lower())
    return any(_leaves_out(entry, host, port) for entry in entries if entry)


def _leaves_out(entry: str, host: str, port: int | None) -> bool:
    if entry == "*":
        return True
    # A port follows brackets or a single colon: an IPv6 address has several colons.
    parts = re.fullmatch(r"\[(?P<six>[^\]]+)\](:(?P<port6>\d+))?|(?P<name>[^:]+):(?P<port>\d+)", entry)
    if parts is not None:
        stated_port = parts["port6"] or parts["port"]
        if stated_port and int(stated_port) != port:
            return False
        entry = parts["six"] or parts["name"]
    address = _address(host)
    if address is not None:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    if entry.startswith("*."):
        return host.endswith(entry[1:].rstrip("."))
    name = entry.strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
