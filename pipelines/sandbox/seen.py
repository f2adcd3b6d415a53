"""Remembers which credentials requests brought, so that a test can prove that none reached an endpoint of others."""

import hashlib
from collections import Counter

from aiohttp import web

from pipelines.cloud.signing import Authorization

_SECRET_HEADERS = {"token": "X-Auth-Token", "security token": "X-Security-Token"}


class SeenCredentials:
    """What was brought as proof of who sends a request, counted. Secrets are shown as SHA-256 alone."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        # By header and value; hashed when they are shown, because there may be thousands of requests a second.
        self._secrets: Counter[tuple[str, str]] = Counter()

    def note(self, request: web.BaseRequest) -> None:
        """Count the credentials in a request's headers: token, access key, security token."""
        for name, header in _SECRET_HEADERS.items():
            if value := request.headers.get(header):
                self._secrets[name, value] += 1
        if signed := request.headers.get("Authorization"):
            authorization = Authorization.parse(signed)
            key = "that is malformed" if authorization is None else authorization.access_key
            self._seen[f"access key {key}"] += 1

    def note_login(self, user: str, password: bytes) -> None:
        """Count a login by password."""
        self._seen[f"user {user} with password {_sha256(password)}"] += 1

    def counts(self) -> dict[str, int]:
        """How often each was brought."""
        hashed = {f"{name} {_sha256(value.encode())}": count for (name, value), count in self._secrets.items()}
        return dict(self._seen) | hashed


def _sha256(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()
