"""The proxies that the environment states, taken apart before any library reads them by itself."""

import urllib.request

from pipelines.errors import ConfigurationError
from pipelines.secret_urls import SecretUrl, parse_secret_url


def check_proxies() -> dict[str, SecretUrl]:
    """The proxies that the environment states, by scheme (`all` for the rest); libraries read them by themselves.

    Raises:
        ConfigurationError: the URL of one is malformed; names the variable, never the URL.
    """
    found = {}
    for scheme, text in urllib.request.getproxies().items():
        # Of NO_PROXY it gives a list of hosts.
        if scheme in ("http", "https", "all") and text:
            try:
                found[scheme] = parse_secret_url(
                    text if "://" in text else f"http://{text}", "http://user:password@proxy.example:3128"
                )
            except ValueError as reason:
                raise ConfigurationError(f"The variable {scheme.upper()}_PROXY is wrong: it {reason}.") from None
    return found
