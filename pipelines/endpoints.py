"""Which addresses credentials may be sent to: https anywhere, http on this machine alone."""

from urllib.parse import urlsplit

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


def check_endpoint(url: str, example: str) -> str:
    """Return the URL without a trailing slash.

    Raises:
        ValueError: what the URL must be, as the end of a sentence; never the URL itself, which may hold a password.
    """
    parts = urlsplit(url)
    if parts.username or parts.password:
        raise ValueError("must not hold credentials")
    if not parts.hostname or parts.scheme not in ("https", "http") or parts.query or parts.fragment:
        raise ValueError(f"must look like {example}")
    if parts.scheme == "http" and parts.hostname not in LOOPBACK_HOSTS:
        raise ValueError("must be https (http is accepted on loopback only)")
    return url.rstrip("/")
