"""How the client of an object store connects: the authorities it trusts and the proxy it uses, as the API's client.

The library reads the environment, too, but knows fewer of the variables and of the forms of `NO_PROXY`.
"""

import os
import re
import ssl
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipelines.errors import ConfigurationError
from pipelines.inputs import local_files
from pipelines.inputs.environment import OURS, at_home
from pipelines.inputs.proxies import check_proxies, stated_proxy

if TYPE_CHECKING:
    from obstore.store import ClientConfig

# The first variable that is set names all authorities to trust.
_AUTHORITIES = (f"{OURS}CA_BUNDLE", "AWS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

# What `connection_options` depends on, besides files.
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
VARIABLES = frozenset((*_AUTHORITIES, *_PROXIES, *map(str.lower, _PROXIES)))


def connection_options(endpoint: str | None) -> "ClientConfig":
    """Options of obstore's client for an endpoint; None: the endpoint of the region, which the library knows.

    Raises:
        ConfigurationError: the authorities cannot be read, or a proxy is malformed; names the variable.
    """
    options: ClientConfig = {}
    # Checked even where the library reads them by itself, so that an error is one sentence.
    proxies = check_proxies()
    if endpoint is None or endpoint.startswith("https:"):
        options |= _authorities()
    if endpoint is not None:
        parts = urlsplit(endpoint)
        stated = proxies.get(parts.scheme) or proxies.get("all")
        if stated is not None:
            options["proxy_url"] = stated.text
            if stated_proxy(endpoint) is None:
                options["proxy_excludes"] = parts.hostname or ""
    return options


def _authorities() -> "ClientConfig":
    name = next((name for name in _AUTHORITIES if os.environ.get(name)), None)
    if name is None:
        return {}
    stated = os.environ[name]
    found: list[bytes] = []
    try:
        for part in stated.split(os.pathsep) if name == "SSL_CERT_DIR" else [stated]:
            place = Path(at_home(part))
            is_directory = stat.S_ISDIR(place.stat().st_mode)
            for path in local_files.matching(place, "*") if is_directory else [place]:
                found += _CERTIFICATE.findall(path.read_bytes())
        pem = b"\n".join(dict.fromkeys(found))
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii"))
    except (OSError, ValueError):
        # An `SSLError` is an `OSError`.
        raise ConfigurationError(
            f"The certificate authorities in {stated} cannot be read: correct {name} to "
            f"{'a directory of PEM files' if name == 'SSL_CERT_DIR' else 'a PEM file'}."
        ) from None
    # The library knows the second option, and its types do not.
    return {"root_certificate": pem, "disable_system_certificates": True}  # type: ignore[typeddict-unknown-key]
