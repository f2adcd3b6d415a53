"""Checks the addresses that credentials may be sent to: https anywhere, http on this machine only."""

from pipelines.inputs.secret_urls import parse_secret_url

# The prefix of an object store's address.
SCHEME = "s3://"
# The sandbox sends this header with each response, to say that its data is invented.
SANDBOX_HEADER = "X-Image-Snapshots-Sandbox"
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


def is_on_loopback(url: str) -> bool:
    """Whether a checked URL points to this machine."""
    return parse_secret_url(url, "").host in LOOPBACK_HOSTS


def check_endpoint(url: str, example: str) -> str:
    """Return the URL without a trailing slash.

    Raises:
        ValueError: the URL is not allowed. The message says how it must be, as the end of a sentence, and never quotes
            the URL, which may hold a password.
    """
    parts = parse_secret_url(url, example, ("https", "http"))
    if parts.username is not None:
        raise ValueError("must not hold credentials")
    if not parts.host or "," in parts.hosts or parts.query:
        raise ValueError(f"must look like {example}")
    if parts.scheme == "http" and parts.host not in LOOPBACK_HOSTS:
        raise ValueError("must be https (http is accepted on loopback only)")
    return url.rstrip("/")
