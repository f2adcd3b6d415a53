"""Limits the rate of requests: one throttle, shared by all workers, keeps a configured rate and finds the server's.

The server's limit is not published; only its refusals (429) show it. Deciding what counts as a refusal, and retrying a
request, do not belong here; giving turns evenly is `cloud.turns`.

    open     no refusal yet: only the configured rate applies
    search   the rate grows tenfold each second, from one that the server surely allows, until the next refusal
    probe    the rate stays just below the last limit for some 20 seconds, and then grows faster and faster
    noise    refusals at ever lower rates do not depend on the rate: search, and ignore refusals while they are few

    state     refusal                               next state, and the rate it starts from
    --------  ------------------------------------  ------------------------------------------------------------
    open      any                                   search, from the rate proved
    search    any                                   probe, from the rate served without the server's burst
    probe     late                                  probe, from 95 % of the refused rate
    probe     soon, but half the rate is proved     probe, from 90 %
    probe     soon                                  search, from the rate proved: the limit fell
    noise     a third of all requests               search, from the rate proved
    any       the fourth at ever lower rates        noise

A refusal pauses all workers for the time that the server states, and those in flight with it are the same signal. If
nothing succeeds between two signals, the server is not ready: the rate stays, and the pause doubles.
"""

import asyncio
import math
from collections import deque
from enum import Enum, auto

from pipelines.cloud.turns import Turns

FLOOR_PER_SECOND = 1.0
_SEARCH_GROWTH = 10.0
# The seconds in which a probe doubles the rate, by the fifth power of time.
_PROBE_SECONDS = 40.0
_CUT_LATE, _CUT_SOON = 0.95, 0.9
_SOON_SECONDS = 2.0
# The burst that the server accepts refills in the wait that it states, but in no less than this time. A rate is
# measured over no less, too.
_SHORTEST_SECONDS = 0.25
_HISTORY = 5_000
# Signals that come after few successes at ever lower rates do not depend on the rate, after this many.
_NOISE_SIGNALS = 4
_NOISE_SUCCESSES = 300
_LOWER = 0.98
_NOISE_SHARE = 1 / 3
_SHARE_WEIGHT = 1 / 64
# Pause after a 429 without Retry-After; doubles while nothing succeeds in between.
_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 30.0


class _State(Enum):
    OPEN = auto()
    SEARCH = auto()
    PROBE = auto()
    NOISE = auto()


class Throttle(Turns):
    """Call `acquire` before each request; report `accepted` or `refused` after it.

    `rate` is a ceiling in requests per second, None for no ceiling.
    """

    def __init__(self, rate: float | None = None) -> None:
        super().__init__()
        self._is_free = rate is None
        self._ceiling = rate
        self._state = _State.OPEN
        # The rate grows from `_base`, starting at `_grown_from`.
        self._base = math.inf
        self._grown_from = 0.0
        # When the accepted requests since the last signal were sent; the server's burst, as far as a search knows it.
        self._taken: deque[float] = deque(maxlen=_HISTORY)
        self._burst = math.inf
        self._last_signal = -math.inf
        # The rate of the last signal, and how many signals in a row came at a lower rate than the one before.
        self._refused_rate = 0.0
        self._lower = 0
        # A late refusal confirms what a search found. If the next one is soon, the search took the burst for too small.
        self._is_confirmed = False
        self._fruitless = 0
        self._has_succeeded = True
        self._refused_share = 0.0

    @property
    def rate(self) -> float | None:
        """Requests per second allowed now; None without a limit."""
        return self._rate(asyncio.get_running_loop().time())

    def accepted(self, sent_at: float) -> None:
        """Report a response other than 429 to a request sent at `sent_at` (the event loop's clock)."""
        self._has_succeeded = True
        self._refused_share -= self._refused_share * _SHARE_WEIGHT
        if sent_at > self._last_signal:
            self._taken.append(sent_at)

    def refused(self, sent_at: float, retry_after: float | None) -> None:
        """Report a 429 to a request sent at `sent_at` (the event loop's clock); `retry_after` in seconds."""
        self._refused_share += (1 - self._refused_share) * _SHARE_WEIGHT
        if self._state is _State.NOISE and self._refused_share < _NOISE_SHARE:
            return
        if sent_at <= self._last_signal:
            self.pause(retry_after or 0.0)
            return
        self._fruitless = 0 if self._has_succeeded else self._fruitless + 1
        wait = retry_after
        if wait is None or self._fruitless:
            wait = max(wait or 0.0, min(_MAX_PAUSE_SECONDS, _PAUSE_SECONDS * 2.0**self._fruitless))
        if self._has_succeeded:
            self._next_state(sent_at, wait)
        self._taken.clear()
        self._has_succeeded = False
        self._last_signal = asyncio.get_running_loop().time()
        self._grown_from = self._last_signal + wait
        self.pause(wait)

    def _next_state(self, sent_at: float, wait: float) -> None:
        rate = self._rate(sent_at) or math.inf
        active = sent_at - self._taken[0] if self._taken else 0.0
        # What was accepted until the server's next invitation proves a lower bound of its limit.
        refill = max(wait, _SHORTEST_SECONDS)
        proved = len(self._taken) / (active + refill)
        is_soon = active < _SOON_SECONDS
        was = self._state
        is_lower = rate < _LOWER * self._refused_rate and len(self._taken) < _NOISE_SUCCESSES
        self._lower = self._lower + 1 if is_lower else 0
        self._refused_rate = rate
        if self._state is _State.PROBE and (not is_soon or proved > rate / 2):
            self._base = rate * (_CUT_SOON if is_soon else _CUT_LATE)
            self._is_confirmed = self._is_confirmed or not is_soon
        elif self._state is _State.SEARCH:
            self._state, self._base = _State.PROBE, min(rate, max(proved, self._base, self._served(sent_at)))
        else:
            self._state, self._base = _State.SEARCH, proved
            was_high = was is _State.PROBE and not self._is_confirmed
            self._burst = 2 * self._burst if was_high else min(self._burst, proved * refill)
            self._is_confirmed = False
            self._credit = min(self._credit, max(1.0, self._burst / 2))
        if self._lower >= _NOISE_SIGNALS and self._refused_share < _NOISE_SHARE:
            self._state = _State.NOISE
        self._base = max(FLOOR_PER_SECOND, self._base)

    def _served(self, now: float) -> float:
        """The most requests per second served in any time until now, beyond one burst."""
        spans = ((count, now - sent_at) for count, sent_at in enumerate(reversed(self._taken), 1))
        rates = ((count - self._burst) / seconds for count, seconds in spans if seconds >= _SHORTEST_SECONDS)
        return max(rates, default=0.0)

    def _rate(self, now: float) -> float | None:
        if self._state is _State.OPEN:
            return self._ceiling
        seconds = max(0.0, now - self._grown_from)
        if self._state is _State.PROBE:
            rate = self._base * (1 + (seconds / _PROBE_SECONDS) ** 5)
        else:
            rate = self._base * _SEARCH_GROWTH ** min(seconds, 30.0)
        return rate if self._ceiling is None else min(rate, self._ceiling)
