"""What a client of the cloud may be told: small frozen values, made once and handed down whole."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """At most `connections` are open, `rate` requests per second leave (None: any), `body_bytes` make an answer."""

    connections: int = 32
    rate: float | None = None
    body_bytes: int = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds: how long one request may take, and how long the endpoint may be of no use before the run ends.

    `request` is from connecting to the last byte. The endpoint cannot be reached for `first_contact`, or for `outage`
    once it had answered; or it answers nothing but faults for `stall`.
    """

    request: float = 30.0
    first_contact: float = 5.0
    outage: float = 60.0
    stall: float = 300.0

    @property
    def connect(self) -> float:
        """For connecting alone."""
        return min(10.0, self.request / 2)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """One call is given up after `attempts` faults or `seconds`; `backoff_seconds` doubles with each fault."""

    attempts: int = 6
    seconds: float = 300.0
    backoff_seconds: float = 0.5
