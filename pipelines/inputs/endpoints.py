"""Which addresses credentials may be sent to: https anywhere, http on this machine alone."""

from pipelines.inputs.secret_urls import parse_secret_url

# An address in an object store begins so.
SCHEME = "s3://"
# By this header the sandbox says of each answer that what it describes is invented.
SANDBOX_HEADER = "X-Image-Snapshots-Sandbox"
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


def is_on_loopback(url: str) -> bool:
    """Whether a checked URL leads to this machine."""
    return parse_secret_url(url, "").host in LOOPBACK_HOSTS


def check_endpoint(url: str, example: str) -> str:
    """Return the URL without a trailing slash.

    Raises:
        ValueError: what the URL must be, as the end of a sentence; never the URL itself, which may hold a password.
    """
    parts = parse_secret_url(url, example, ("https", "http"))
    if parts.username is not None:
        raise ValueError("must not hold credentials")
    if not parts.host or "," in parts.hosts or parts.query:
        raise ValueError(f"must look like {example}")
    if parts.scheme == "http" and parts.host not in LOOPBACK_HOSTS:
        raise ValueError("must be https (http is accepted on loopback only)")
    return url.rstrip("/")
