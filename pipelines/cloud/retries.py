"""Decides when a request is retried, and when the run must stop because no request can succeed.

All workers share one state: they pause together while the endpoint cannot be reached, and stop together. The rate of
requests belongs to `cloud.throttle`, the meaning of a single response to `cloud.classification`.
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
# While the endpoint cannot be reached: seconds between the shared tries; they double up to the maximum.
_FIRST_OUTAGE_PAUSE, _MAX_OUTAGE_PAUSE = 0.25, 5.0
# This many faults and nothing else for `Timeouts.stall`: the endpoint is down, although it accepts connections.
_STALL_FAULTS = 50
# This many responses that are not the API's, before the first one that is: the endpoint is not the API.
_STRANGE_ANSWERS = 20
_STRANGE_CODES = {"client.not_json", "client.not_object", "client.redirect"}


class Retries:
    """The retry state of one client's requests to `host`."""

    def __init__(
        self,
        host: str,
        throttle: Throttle,
        shared_rate: "SharedRate | None",
        sender: HTTPSender,
        timeouts: Timeouts,
        policy: RetryPolicy,
    ) -> None:
        self._host = host
        self._throttle = throttle
        self._shared_rate = shared_rate
        self._sender = sender
        self.timeouts = timeouts
        self.policy = policy
        # Why no request can succeed; all workers see it at once.
        self.stop: PipelineError | None = None
        self._stopped = asyncio.Event()
        # The outage. Requests count as a new shared try only if they began after the last failure was seen.
        self._ever_answered = False
        self._outage_since: float | None = None
        self._outage_tries = 0
        self._outage_seen = 0.0
        self._fault_since: float | None = None
        self._faults = 0
        self._api_seen = False
        self._strange_answers = 0

    def backoff(self, faults: int) -> float:
        """Seconds to wait after the given number of faults of one call."""
        # Full jitter: workers that failed together do not retry together.
        return random.uniform(0, min(_MAX_BACKOFF_SECONDS, self.policy.backoff_seconds * 2.0**faults))  # noqa: S311

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`, or until `halt` is called."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    def halt(self, error: PipelineError) -> NoReturn:
        """Raise `error`, and stop every worker with it, even a waiting one."""
        if self.stop is None:
            self.stop = error
            self._stopped.set()
            self._throttle.stop()
            if self._shared_rate is not None:
                self._shared_rate.stop()
            self._sender.cut_short()
        self.raise_stop()

    def raise_stop(self) -> NoReturn:
        """Raise the error that `halt` was called with."""
        assert self.stop is not None  # noqa: S101
        # A new exception each time: workers must not share a traceback.
        raise type(self.stop)(str(self.stop))

    def note_response(self) -> None:
        """Report that a response came, whatever it says: the endpoint can be reached."""
        self._ever_answered = True
        self._outage_since = None

    def outage_pause(self, verdict: Verdict, sent_at: float) -> float:
        """Seconds until the next shared try, after a request sent at `sent_at` did not reach the endpoint."""
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
        """Count an error response; raises if nothing else has come for too long."""
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
        """Note the last response to a call; raises if the server has never answered as the API does."""
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
                    f"The server at {self._host} is not the ModelArts API ({brief(status, verdict)}): "
                    "correct IMAGE_SNAPSHOTS_ENDPOINT."
                )
            )


def pause_between_tries(tries: int) -> float:
    """Seconds to wait before the next try to reach a server, after the given number of tries."""
    return min(_MAX_OUTAGE_PAUSE, _FIRST_OUTAGE_PAUSE * 2.0 ** min(tries - 1, 10))


def unreachable_error(host: str, verdict: Verdict, variable: str, seconds: float) -> EndpointUnreachableError:
    """The error for a server that cannot be reached; `variable` is the setting with its address."""
    return EndpointUnreachableError(
        f"{host} cannot be reached: {verdict.error_msg} (tried for {seconds:.0f} s); check {variable}, the network "
        "and the proxy."
    )
