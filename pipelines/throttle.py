"""How fast requests may leave: one throttle, shared by all workers.

It holds a stated rate, and finds the server's own when that answers 429. No limit is published, so it is searched for:
a refusal pauses every worker and lowers the rate, quiet raises it again. What counts as a refusal, and how often one
image is asked for, belongs elsewhere.
"""

import asyncio
import math
from collections import deque

FLOOR_PER_SECOND = 1.0

# The rate after a refusal, as a share of the rate that was refused or of what the server let through.
_MARGIN = 0.95
_CUT_AFTER_SEARCH = 0.75
_CUT_AFTER_SHORT = 0.8
_SHORT_SECONDS = 2.0
# So many successes before the first refusal say what the limit is; with fewer it is searched for.
_TRUSTED_SUCCESSES = 100
_SEARCH_FROM_PER_SECOND = 10.0
_SEARCH_GROWTH_PER_SECOND = 4.0
# A known limit is probed: the rate doubles in so many seconds, slowly at first. Each refusal near the last one
# confirms the limit and doubles the time; a limit just found by searching is known less well.
_PROBE_SECONDS = 45.0
_FIRST_PROBE_SECONDS = 12.0
_MAX_PROBE_SECONDS = 90.0
_NEAR = 0.15
# A rate that demand does not reach grows no further than this multiple of what is reached.
_HEADROOM = 4.0
_MEASURE_SECONDS = 0.5
_IDLE_SECONDS = 1.0
# Refusals that keep coming at lower and lower rates, while what was in flight with them passes, are not about the
# rate: after so many they are noise, until this share of requests is refused or none was for so many seconds.
_NOISE_SIGNALS = 4
_NOISE_SHARE = 0.25
_NOISE_SECONDS = 60.0
_SHARE_WEIGHT = 1 / 64
_MIN_IN_FLIGHT = 8
# What late turns may be caught up: the timer was late, or nobody asked in time.
_LATE_CREDIT_SECONDS = 0.05
_IDLE_CREDIT_SECONDS = 0.02
_CREDIT_REQUESTS = 10
# Pause after a 429 without Retry-After; doubles while nothing succeeds in between.
_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 30.0


class Throttle:
    """Ask `acquire` before each request; report `accepted` or `refused` after it.

    `rate` is a ceiling in requests per second, None for none. Requests leave evenly; at most 10 late ones, and
    at most 50 ms' worth, are caught up.
    """

    def __init__(self, rate: float | None = None) -> None:
        self._ceiling = rate
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        # Nothing to wait for: no ceiling, no refusal yet, no pause.
        self._open = rate is None
        self._stopped = False
        self._next_slot = 0.0
        # The search. `_base` is None until the first refusal; from `_grown_from` on the rate grows from it.
        self._base: float | None = None
        self._grown_from = 0.0
        self._searching = True
        self._probe_seconds = _PROBE_SECONDS
        # A cycle begins with the first success after a signal; successes since the last signal.
        self._cycle_start = 0.0
        self._last_sent = -math.inf
        self._cycle_successes = 0
        self._cycle_ended = False
        self._successes = 0
        self._last_signal = 0.0
        self._last_limit: float | None = None
        self._fruitless_signals = 0
        # What became of the requests that were in flight at the last signal.
        self._in_flight_passed = 0
        self._in_flight_refused = 0
        self._noise = False
        self._noise_signals = 0
        self._last_refusal = 0.0
        self._refused_share = 0.0
        self._measure_start = 0.0
        self._measured = 0
        self._reached: float | None = None

    @property
    def rate(self) -> float | None:
        """Requests per second allowed now; None when nothing limits."""
        return self._rate(asyncio.get_running_loop().time())

    async def acquire(self) -> None:
        """Wait for the turn of one request. Turns are given in the order of asking."""
        if self._open:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._waiters and self._next_slot <= now:
            self._advance(now, _IDLE_CREDIT_SECONDS)
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiters.append(turn)
        if self._timer is None:
            self._timer = loop.call_at(self._next_slot, self._give_turns)
        await turn

    def pause(self, seconds: float) -> None:
        """Let nobody start a request for `seconds`."""
        if self._stopped:
            return
        loop = asyncio.get_running_loop()
        self._open = False
        self._next_slot = max(self._next_slot, loop.time() + seconds)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = loop.call_at(self._next_slot, self._give_turns)

    def stop(self) -> None:
        """Let everybody go on at once and from now on, because no request will be sent any more."""
        self._stopped = self._open = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(None)

    def accepted(self, sent_at: float) -> None:
        """Report an answer that was no refusal, to a request sent at `sent_at` (the event loop's clock)."""
        self._successes += 1
        self._cycle_successes += 1
        if self._base is None:
            if sent_at - self._last_sent > _IDLE_SECONDS:
                # Nobody asked for a while: what went through before says nothing about a limit.
                self._cycle_start = sent_at
                self._cycle_successes = 1
            self._last_sent = sent_at
            return
        if self._cycle_ended and sent_at > self._last_signal:
            self._cycle_ended = False
            self._cycle_start = sent_at
            self._cycle_successes = 1
        self._refused_share -= self._refused_share * _SHARE_WEIGHT
        if sent_at <= self._last_signal:
            self._in_flight_passed += 1
        now = asyncio.get_running_loop().time()
        if self._noise and now - self._last_refusal > _NOISE_SECONDS:
            self._noise = False
            self._noise_signals = 0
        self._measure(now)

    def refused(self, sent_at: float, retry_after: float | None) -> None:
        """Report a 429 to a request sent at `sent_at` (the event loop's clock); `retry_after` in seconds.

        Refusals of requests that were in flight at the last one belong to it: together they are one signal.
        """
        now = asyncio.get_running_loop().time()
        self._refused_share += (1 - self._refused_share) * _SHARE_WEIGHT
        self._last_refusal = now
        if sent_at <= self._last_signal:
            self._in_flight_refused += 1
            if retry_after and not self._noise:
                self.pause(retry_after)
            return
        if self._noise and self._refused_share < _NOISE_SHARE:
            return
        fruitless = self._successes == 0 and self._base is not None
        self._fruitless_signals = self._fruitless_signals + 1 if fruitless else 0
        wait = self._pause_after(retry_after)
        self._lower(now, wait, fruitless)
        self._last_signal = now
        self._successes = 0
        self._cycle_ended = True
        self._in_flight_passed = self._in_flight_refused = 0
        # The server stated when to come again: nobody comes earlier.
        self.pause(wait)

    def _pause_after(self, retry_after: float | None) -> float:
        if retry_after is not None and self._fruitless_signals == 0:
            return retry_after
        doubled = min(_MAX_PAUSE_SECONDS, _PAUSE_SECONDS * 2.0**self._fruitless_signals)
        return max(retry_after or 0.0, doubled)

    def _lower(self, now: float, wait: float, fruitless: bool) -> None:
        active = now - self._cycle_start if self._cycle_successes else 0.0
        if self._base is None or fruitless:
            # What the server let through before it refused is what it allows until it invites us again. Retry-After
            # is in whole seconds, rounded up.
            allowed = _MARGIN * self._cycle_successes / max(wait, active, active + wait - 1, 1e-3)
            known = self._cycle_successes >= _TRUSTED_SUCCESSES
            if self._base is None:
                self._base = allowed if known else max(allowed, _SEARCH_FROM_PER_SECOND)
                self._searching = not known
            elif known:
                self._base = min(self._base, allowed)
        else:
            rate = self._rate(now) or self._base
            near = self._last_limit is not None and abs(rate / self._last_limit - 1) < _NEAR
            if near:
                self._probe_seconds = min(_MAX_PROBE_SECONDS, self._probe_seconds * 2)
            else:
                self._probe_seconds = _FIRST_PROBE_SECONDS if self._searching else _PROBE_SECONDS
            if self._noise:
                # Too many are refused for noise alone.
                self._noise = False
                self._noise_signals = 0
                self._base = _MARGIN * self._recent(now)
            else:
                self._count_noise(rate)
                if active < _SHORT_SECONDS:
                    self._base = rate * _CUT_AFTER_SHORT
                else:
                    self._base = rate * (_CUT_AFTER_SEARCH if self._searching else _MARGIN)
            self._last_limit = rate
            self._searching = False
        self._base = max(FLOOR_PER_SECOND, self._base)
        self._grown_from = self._measure_start = now + wait
        self._measured = 0
        self._reached = None

    def _count_noise(self, rate: float) -> None:
        in_flight = self._in_flight_passed + self._in_flight_refused
        passed = in_flight < _MIN_IN_FLIGHT or self._in_flight_refused < in_flight / 2
        lower = self._last_limit is None or rate < self._last_limit
        self._noise_signals = self._noise_signals + 1 if passed and lower and self._refused_share < _NOISE_SHARE else 0
        self._noise = self._noise_signals >= _NOISE_SIGNALS

    def _recent(self, now: float) -> float:
        seconds = now - self._measure_start
        if self._reached is None or seconds >= _MEASURE_SECONDS:
            return self._measured / seconds if seconds > 0 else 0.0
        return self._reached

    def _measure(self, now: float) -> None:
        self._measured += 1
        seconds = now - self._measure_start
        if seconds < _MEASURE_SECONDS:
            return
        self._reached = self._measured / seconds
        self._measure_start = now
        self._measured = 0
        limit = max(FLOOR_PER_SECOND, self._reached * _HEADROOM)
        if self._base is not None and (self._rate(now) or 0.0) > limit:
            self._base = limit
            self._grown_from = now

    def _rate(self, now: float) -> float | None:
        if self._base is None:
            return self._ceiling
        seconds = max(0.0, now - self._grown_from)
        if self._searching or self._noise:
            growth = math.pow(_SEARCH_GROWTH_PER_SECOND, min(seconds, 30.0))
        else:
            growth = 1 + math.pow(seconds / self._probe_seconds, 2)
        rate = self._base * growth
        return rate if self._ceiling is None else min(rate, self._ceiling)

    def _advance(self, now: float, credit: float) -> None:
        rate = self._rate(now)
        if rate is None:
            # A pause without a rate to hold, and it is over.
            self._open = not self._waiters
            return
        # What was late is caught up, so that the rate holds; but only a little, so that there is no burst.
        earliest = now - min(credit, _CREDIT_REQUESTS / rate) if self._next_slot else now
        self._next_slot = max(self._next_slot, earliest) + 1 / rate

    def _give_turns(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._waiters:
            if self._next_slot > now:
                self._timer = loop.call_at(self._next_slot, self._give_turns)
                return
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                self._advance(now, _LATE_CREDIT_SECONDS)
