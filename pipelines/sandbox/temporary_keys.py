"""The sandbox's temporary access keys, which the identity service and the metadata service of a server issue."""

import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pipelines.sandbox.series import SECRET_MARK

# In each access key, and `SECRET_MARK` in each secret: a search for these bytes shows what was kept.
ACCESS_KEY_MARK = "HSTSANDBOX"

_MAX_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class TemporaryKey:
    """An access key that counts only with its security token, and until `expires` (seconds since the epoch)."""

    secret_key: str = field(repr=False)
    security_token: str = field(repr=False)
    expires: float


class TemporaryKeys:
    """The temporary keys of one sandbox, by access key."""

    def __init__(self) -> None:
        self._keys: dict[str, TemporaryKey] = {}
        self.issued = 0

    def issue(self, life_seconds: float) -> dict[str, Any]:
        """A new key, as the services answer with it."""
        ends = datetime.now(UTC) + timedelta(seconds=life_seconds)
        access_key = ACCESS_KEY_MARK + secrets.token_hex(5).upper()
        key = TemporaryKey(
            SECRET_MARK + secrets.token_urlsafe(20), f"gQ{SECRET_MARK}{secrets.token_urlsafe(120)}", ends.timestamp()
        )
        if len(self._keys) >= _MAX_KEYS:
            self._keys = {name: one for name, one in self._keys.items() if one.expires > time.time()}
        self._keys[access_key] = key
        self.issued += 1
        return {
            "credential": {
                "access": access_key,
                "secret": key.secret_key,
                "securitytoken": key.security_token,
                "expires_at": ends.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            }
        }

    def get(self, access_key: str) -> TemporaryKey | None:
        """The key of this name, expired ones included."""
        return self._keys.get(access_key)

    def expire(self) -> None:
        """End every key now."""
        self._keys = {name: TemporaryKey(one.secret_key, one.security_token, 0.0) for name, one in self._keys.items()}
