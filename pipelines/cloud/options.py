"""The options of a cloud client: small frozen values, built once and passed down whole."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """At most `connections` open connections, `rate` requests per second (None: no limit), `body_bytes` per body."""

    connections: int = 32
    rate: float | None = None
    body_bytes: int = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds: the longest request, and the longest failure of the endpoint before the run stops.

    `request` lasts from connecting to the last byte. The run stops when the endpoint cannot be reached for
    `first_contact` (or `outage`, once it has answered), or answers nothing but errors for `stall`.
    """

    request: float = 30.0
    first_contact: float = 5.0
    outage: float = 60.0
    stall: float = 300.0

    @property
    def connect(self) -> float:
        """The time-out for connecting alone, in seconds."""
        return min(10.0, self.request / 2)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A call fails after `attempts` faults or `seconds`. The wait starts at `backoff_seconds` and doubles per fault."""

    attempts: int = 6
    seconds: float = 300.0
    backoff_seconds: float = 0.5
