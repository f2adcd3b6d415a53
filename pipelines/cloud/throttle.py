"""How fast requests may leave: one throttle, shared by all workers.

It holds a stated rate, and finds the server's own when that answers 429. No limit is published, so it is searched for:
a refusal pauses every worker and lowers the rate, quiet raises it again. What counts as a refusal, and how often one
image is asked for, belongs elsewhere.
"""

import asyncio
import math
from collections import deque

FLOOR_PER_SECOND = 1.0

# The first refusal after so many seconds at a steady rate says what the limit is; otherwise it is searched for.
_STEADY_SECONDS = 10.0
_SEARCH_FROM_PER_SECOND = 10.0
_SEARCH_GROWTH_PER_SECOND = 16.0
# The search ends at a refusal after at least this time; with so many successes in view, of which the server's burst
# was not more than this share, it knows the limit well.
_SHORTEST_SEARCH_SECONDS = 0.2
_SEARCH_HISTORY = 2_000
_SURE_SUCCESSES = 50
_SURE_BURST_SHARE = 1 / 3
# While nothing succeeds between refusals: from so many earlier successes on they say what the server allows at least.
_TRUSTED_SUCCESSES = 100
# What the server lets through at once is taken for the worth of the wait that it states, but of no shorter time.
_SHORTEST_REFILL_SECONDS = 0.25
# A known limit is probed: the rate doubles in so many seconds, by the third power of time, so that most of it passes
# just below the limit. Each refusal near the last one confirms the limit and makes the time longer.
_PROBE_SECONDS = 45.0
_FIRST_PROBE_SECONDS = 20.0
_MAX_PROBE_SECONDS = 90.0
_PROBE_GROWTH = 3.0
_NEAR = 0.15
# The rate after a refusal, as a share of the one that was refused: for the slowest probes (faster ones overshoot more),
# and for those that came within `_SHORT_SECONDS`. So many of these in a row: the limit fell, and is searched for again.
_MARGIN = 0.98
_CUT_AFTER_SHORT = 0.9
_SHORT_SECONDS = 2.0
_SHORT_CYCLES = 4
# A rate that demand does not reach grows no further than this multiple of what is reached.
_HEADROOM = 4.0
_MEASURE_SECONDS = 0.5
_IDLE_SECONDS = 1.0
# Refusals that keep coming at lower and lower rates, while what was in flight with them passes, are not about the
# rate: after so many they are noise, until this share of requests is refused or none was for so many seconds. One in
# more than this number of successes is none: it costs little.
_NOISE_SIGNALS = 3
_NOISE_SHARE = 0.25
_NOISE_SUCCESSES = 300
_NOISE_SECONDS = 60.0
_SHARE_WEIGHT = 1 / 64
_MIN_IN_FLIGHT = 8
# What late turns may be caught up: the timer was late, or nobody asked in time.
_LATE_CREDIT_SECONDS = 0.05
_IDLE_CREDIT_SECONDS = 0.02
_CREDIT_REQUESTS = 10.0
# Pause after a 429 without Retry-After; doubles while nothing succeeds in between.
_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 30.0


class Throttle:
    """Ask `acquire` before each request; report `accepted` or `refused` after it.

    `rate` is a ceiling in requests per second, None for none. Requests leave evenly; at most 10 late ones, and
    at most 50 ms' worth, are caught up, and no more than half of what the server takes at once.
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
        # What the server takes at once, and when requests that it took were sent, while its limit is searched for.
        self._burst = 0.0
        self._credit = _CREDIT_REQUESTS
        self._taken: deque[float] = deque(maxlen=_SEARCH_HISTORY)
        self._probe_seconds = _PROBE_SECONDS
        self._short_cycles = 0
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
        if self._searching:
            self._taken.append(sent_at)
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
        self._lower(now, sent_at, wait, fruitless)
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

    def _lower(self, now: float, sent_at: float, wait: float, fruitless: bool) -> None:
        active = max(0.0, sent_at - self._cycle_start) if self._cycle_successes else 0.0
        refill = max(wait, _SHORTEST_REFILL_SECONDS)
        # What the server let through until it invites us again is what it allows at least: more if it counts in times
        # shorter than `refill`, or holds less than it allows in that time.
        least = self._cycle_successes / (active + refill)
        if self._base is None:
            self._searching = active < _STEADY_SECONDS
            self._base = max(least, _SEARCH_FROM_PER_SECOND) if self._searching else least
            self._burst = least * refill
            self._credit = min(_CREDIT_REQUESTS, max(1.0, self._burst / 2))
        elif fruitless:
            if self._cycle_successes >= _TRUSTED_SUCCESSES:
                self._base = min(self._base, least)
        else:
            was_searching = self._searching
            self._base = self._below_limit(sent_at, active, least)
            if self._searching and not was_searching:
                self._burst = min(self._burst, least * refill)
        self._taken.clear()
        self._base = max(FLOOR_PER_SECOND, self._base)
        self._grown_from = self._measure_start = now + wait
        self._measured = 0

    def _below_limit(self, sent_at: float, active: float, least: float) -> float:
        """The rate to go on with after a refusal that was not the first; sets how it is probed from there."""
        rate = self._rate(sent_at) or self._base or least
        last, self._last_limit = self._last_limit, rate
        if self._noise:
            # Too many are refused for noise alone: the limit fell.
            self._noise = False
            self._noise_signals = 0
            self._searching = True
            return least
        if self._searching:
            self._last_limit, is_sure = self._found(sent_at, max(least, self._base or 0.0), rate)
            self._searching = active < _SHORTEST_SEARCH_SECONDS
            self._probe_seconds = _MAX_PROBE_SECONDS if is_sure else _FIRST_PROBE_SECONDS
            self._short_cycles = 0
            # What was found is rather less than the limit. A search that had hardly begun goes on, from further down.
            return self._last_limit * (_MARGIN if self._searching else 1)
        self._count_noise(rate, last)
        margin = 1 - (1 - _MARGIN) * math.sqrt(_MAX_PROBE_SECONDS / self._probe_seconds)
        is_near = last is not None and abs(rate / last - 1) < _NEAR
        self._probe_seconds = min(_MAX_PROBE_SECONDS, self._probe_seconds * 3) if is_near else _PROBE_SECONDS
        self._short_cycles = self._short_cycles + 1 if active < _SHORT_SECONDS else 0
        if self._short_cycles >= _SHORT_CYCLES and not self._noise:
            self._searching = True
            return least
        return rate * (_CUT_AFTER_SHORT if self._short_cycles else margin)

    def _found(self, sent_at: float, least: float, most: float) -> tuple[float, bool]:
        """The limit that a search ran into, within bounds, and whether it is known well.

        In any time the server lets through what it allows in that time, and at most a burst besides: the time in which
        it let through most beyond the burst was one in which it was asked for all that it allows.
        """
        found, is_sure = least, False
        for count, earlier in enumerate(reversed(self._taken), 1):
            seconds = sent_at - earlier
            if seconds >= _SHORTEST_SEARCH_SECONDS and (count - self._burst) / seconds > found:
                found = (count - self._burst) / seconds
                is_sure = count >= _SURE_SUCCESSES and self._burst <= count * _SURE_BURST_SHARE
        return min(found, most), is_sure

    def _count_noise(self, rate: float, last: float | None) -> None:
        in_flight = self._in_flight_passed + self._in_flight_refused
        passed = in_flight < _MIN_IN_FLIGHT or self._in_flight_refused < in_flight / 2
        lower = last is None or rate < last
        many = self._cycle_successes < _NOISE_SUCCESSES and self._refused_share < _NOISE_SHARE
        self._noise_signals = self._noise_signals + 1 if passed and lower and many else 0
        self._noise = self._noise_signals >= _NOISE_SIGNALS

    def _measure(self, now: float) -> None:
        self._measured += 1
        seconds = now - self._measure_start
        if seconds < _MEASURE_SECONDS:
            return
        reached = self._measured / seconds
        self._measure_start = now
        self._measured = 0
        limit = max(FLOOR_PER_SECOND, reached * _HEADROOM)
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
            growth = 1 + math.pow(seconds / self._probe_seconds, _PROBE_GROWTH)
        rate = self._base * growth
        return rate if self._ceiling is None else min(rate, self._ceiling)

    def _advance(self, now: float, credit: float) -> None:
        rate = self._rate(now)
        if rate is None:
            # A pause without a rate to hold, and it is over.
            self._open = not self._waiters
            return
        # What was late is caught up, so that the rate holds; but only a little, so that there is no burst.
        earliest = now - min(credit, self._credit / rate) if self._next_slot else now
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
