"""When a request is sent again, and when no request can succeed any more.

One state for all workers: they pause together while the endpoint cannot be reached, and stop together. How fast
requests may leave belongs to `cloud.throttle`, what a single answer asks for to `cloud.classification`.
"""

import asyncio
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from pipelines.cloud.classification import Kind, Verdict
from pipelines.cloud.options import RetryPolicy, Timeouts
from pipelines.cloud.sender import HTTPSender, brief
from pipelines.cloud.throttle import Throttle
from pipelines.errors import ConfigurationError, EndpointUnreachableError, PipelineError

if TYPE_CHECKING:
    from pipelines.cloud.shared_rate import SharedRate

DNS_TRIES = 2

_MAX_BACKOFF_SECONDS = 30.0
# While the endpoint cannot be reached: time between the common tries, doubling.
_FIRST_OUTAGE_PAUSE, _MAX_OUTAGE_PAUSE = 0.25, 5.0
# Nothing but faults for `Timeouts.stall`, and so many of them: the endpoint is down although it accepts connections.
_STALL_FAULTS = 50
# So many images answered by something that is not the API before the API was ever seen: it is not there.
_STRANGE_ANSWERS = 20
_STRANGE_CODES = {"client.not_json", "client.not_object", "client.redirect"}


class Retries:
    """What has become of the requests of one client to `host`."""

    def __init__(
        self,
        host: str,
        throttle: Throttle,
        shared_rate: "SharedRate | None",
        exchanges: HTTPSender,
        timeouts: Timeouts,
        policy: RetryPolicy,
    ) -> None:
        self._host = host
        self._throttle = throttle
        self._shared_rate = shared_rate
        self._sender = exchanges
        self.timeouts = timeouts
        self.policy = policy
        # Why no request can succeed; known to all workers at once.
        self.stop: PipelineError | None = None
        self._stopped = asyncio.Event()
        # The outage: a common try is one that began after the last one was seen to fail.
        self._ever_answered = False
        self._outage_since: float | None = None
        self._outage_tries = 0
        self._outage_seen = 0.0
        self._fault_since: float | None = None
        self._faults = 0
        self._api_seen = False
        self._strange_answers = 0

    def backoff(self, faults: int) -> float:
        """Seconds to wait after so many faults of one call."""
        # Full jitter: workers that failed together do not come back together.
        return random.uniform(0, min(_MAX_BACKOFF_SECONDS, self.policy.backoff_seconds * 2.0**faults))  # noqa: S311

    async def sleep(self, seconds: float) -> None:
        """Wait, but not beyond the moment at which no request can succeed any more."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    def halt(self, error: PipelineError) -> NoReturn:
        """Make `error` known to every worker, wherever it waits, and raise it."""
        if self.stop is None:
            self.stop = error
            self._stopped.set()
            self._throttle.stop()
            if self._shared_rate is not None:
                self._shared_rate.stop()
            self._sender.cut_short()
        self.raise_stop()

    def raise_stop(self) -> NoReturn:
        """Raise what was made known with `halt`."""
        assert self.stop is not None  # noqa: S101
        # A new one each time: workers must not share a traceback.
        raise type(self.stop)(str(self.stop))

    def note_response(self) -> None:
        """An answer came, whatever it says: the endpoint can be reached."""
        self._ever_answered = True
        self._outage_since = None

    def outage_pause(self, verdict: Verdict, sent_at: float) -> float:
        """Seconds until the next common try, after one that began at `sent_at` did not reach the endpoint."""
        now = asyncio.get_running_loop().time()
        if self._outage_since is None:
            self._outage_since, self._outage_tries, self._outage_seen = sent_at, 0, 0.0
        if sent_at >= self._outage_seen:
            self._outage_tries += 1
            self._outage_seen = now
        patience = self.timeouts.outage if self._ever_answered else self.timeouts.first_contact
        left = self._outage_since + patience - now
        is_unknown_name = verdict.error_code == "client.dns" and not self._ever_answered
        if left <= 0 or (is_unknown_name and self._outage_tries >= DNS_TRIES):
            raise_as = unreachable_error(self._host, verdict, "IMAGE_SNAPSHOTS_ENDPOINT", now - self._outage_since)
            self.halt(raise_as)
        return min(left, pause_between_tries(self._outage_tries))

    def note_fault(self, status: int | None, verdict: Verdict) -> None:
        """Count an answer that is an error; raises when nothing else has come for too long."""
        now = time.monotonic()
        if self._fault_since is None:
            self._fault_since, self._faults = now, 0
        self._faults += 1
        if self._faults >= _STALL_FAULTS and now - self._fault_since >= self.timeouts.stall:
            self.halt(
                EndpointUnreachableError(
                    f"{self._host} has answered nothing but errors for {self.timeouts.stall:.0f} seconds "
                    f"(the last: {brief(status, verdict)}): run again when it has recovered."
                )
            )

    def note_last(self, verdict: Verdict, status: int | None) -> None:
        """Look at the last answer to a call; raises when what answers was never the API."""
        if verdict.kind is Kind.FINAL:
            self._fault_since = None
        if self._api_seen or status is None:
            return
        if verdict.error_code not in _STRANGE_CODES:
            self._api_seen = True
            return
        self._strange_answers += 1
        if self._strange_answers >= _STRANGE_ANSWERS:
            self.halt(
                ConfigurationError(
                    f"What answers at {self._host} is not the ModelArts API ({brief(status, verdict)}): "
                    "correct IMAGE_SNAPSHOTS_ENDPOINT."
                )
            )


def pause_between_tries(tries: int) -> float:
    """Seconds between two tries to reach a server, after so many."""
    return min(_MAX_OUTAGE_PAUSE, _FIRST_OUTAGE_PAUSE * 2.0 ** min(tries - 1, 10))


def unreachable_error(host: str, verdict: Verdict, variable: str, seconds: float) -> EndpointUnreachableError:
    """What a user is told when a server could not be reached; `variable` states its address."""
    return EndpointUnreachableError(
        f"{host} cannot be reached: {verdict.error_msg} (tried for {seconds:.0f} s); check {variable}, the network "
        "and the proxy."
    )
