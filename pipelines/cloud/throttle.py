"""Limits the rate of requests: one throttle, shared by all workers.

It keeps a configured rate, and finds the server's own limit when that answers 429. The limit is not published, so the
throttle searches for it: a refusal pauses every worker and lowers the rate, quiet time raises it again. Deciding what
counts as a refusal, and retrying a request, do not belong here.
"""

import asyncio
import math
from collections import deque

FLOOR_PER_SECOND = 1.0

# If the first refusal comes after this many seconds at a steady rate, it shows the limit. Otherwise a search begins.
_STEADY_SECONDS = 10.0
_SEARCH_FROM_PER_SECOND = 10.0
_SEARCH_GROWTH_PER_SECOND = 16.0
# A refusal ends the search if the cycle lasted at least this time. The limit then counts as known well if there were
# this many successes, and the server's burst was at most this share of them.
_SHORTEST_SEARCH_SECONDS = 0.2
_SEARCH_HISTORY = 2_000
_SURE_SUCCESSES = 50
_SURE_BURST_SHARE = 1 / 3
# If nothing succeeds between refusals, the earlier successes show a lower bound, provided there were this many.
_TRUSTED_SUCCESSES = 100
# The burst that the server accepts is assumed to refill in the wait that it states, but in no less than this time.
_SHORTEST_REFILL_SECONDS = 0.25
# A known limit is probed: the rate doubles in this many seconds. It grows with the third power of time, so it stays
# just below the limit for most of that time. Each refusal near the last one confirms the limit and slows the probe.
_PROBE_SECONDS = 45.0
_FIRST_PROBE_SECONDS = 20.0
_MAX_PROBE_SECONDS = 90.0
_PROBE_GROWTH = 3.0
_NEAR = 0.15
# The rate after a refusal, as a share of the refused rate: for the slowest probes (faster ones overshoot more), and for
# refusals within `_SHORT_SECONDS`. This many short ones in a row mean that the limit fell: a new search begins.
_MARGIN = 0.98
_CUT_AFTER_SHORT = 0.9
_SHORT_SECONDS = 2.0
_SHORT_CYCLES = 4
# An unused rate grows at most to this multiple of the rate in use.
_HEADROOM = 4.0
_MEASURE_SECONDS = 0.5
_IDLE_SECONDS = 1.0
# Refusals that continue at ever lower rates, while other requests in flight succeed, do not depend on the rate. After
# this many they are treated as noise, until this share of requests is refused, or none is refused for this many
# seconds. A refusal after more than this number of successes is not noise: it costs little.
_NOISE_SIGNALS = 3
_NOISE_SHARE = 0.25
_NOISE_SUCCESSES = 300
_NOISE_SECONDS = 60.0
_SHARE_WEIGHT = 1 / 64
_MIN_IN_FLIGHT = 8
# Late turns up to this age may be caught up: the timer was late, or nobody asked in time.
_LATE_CREDIT_SECONDS = 0.05
_IDLE_CREDIT_SECONDS = 0.02
_CREDIT_REQUESTS = 10.0
# Pause after a 429 without Retry-After; doubles while nothing succeeds in between.
_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 30.0


class Throttle:
    """Call `acquire` before each request; report `accepted` or `refused` after it.

    `rate` is a ceiling in requests per second, None for no ceiling. Requests leave evenly. Late ones are caught up: at
    most 10, at most those of 50 ms, and at most half of the server's burst.
    """

    def __init__(self, rate: float | None = None) -> None:
        self._ceiling = rate
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        # Nobody needs to wait: there is no ceiling, no refusal yet and no pause.
        self._open = rate is None
        self._stopped = False
        self._next_slot = 0.0
        # The search. `_base` is None until the first refusal; the rate grows from it, starting at `_grown_from`.
        self._base: float | None = None
        self._grown_from = 0.0
        self._searching = True
        # During a search: the server's burst, and the send times of accepted requests.
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
        # The results of the requests that were in flight at the last signal.
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
        """Requests per second allowed now; None without a limit."""
        return self._rate(asyncio.get_running_loop().time())

    async def acquire(self) -> None:
        """Wait for a turn for one request. Turns are given in order of arrival."""
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
        """Start no request for `seconds`."""
        if self._stopped:
            return
        loop = asyncio.get_running_loop()
        self._open = False
        self._next_slot = max(self._next_slot, loop.time() + seconds)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = loop.call_at(self._next_slot, self._give_turns)

    def stop(self) -> None:
        """Release all callers, now and later: no more requests will be sent."""
        self._stopped = self._open = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(None)

    def accepted(self, sent_at: float) -> None:
        """Report a response other than 429 to a request sent at `sent_at` (the event loop's clock)."""
        self._successes += 1
        self._cycle_successes += 1
        if self._base is None:
            if sent_at - self._last_sent > _IDLE_SECONDS:
                # After an idle time, earlier successes say nothing about the limit.
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

        Refusals of requests that were in flight at the last signal belong to it; they are not a new signal.
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
        # The server stated when to retry: nobody asks earlier.
        self.pause(wait)

    def _pause_after(self, retry_after: float | None) -> float:
        if retry_after is not None and self._fruitless_signals == 0:
            return retry_after
        doubled = min(_MAX_PAUSE_SECONDS, _PAUSE_SECONDS * 2.0**self._fruitless_signals)
        return max(retry_after or 0.0, doubled)

    def _lower(self, now: float, sent_at: float, wait: float, fruitless: bool) -> None:
        active = max(0.0, sent_at - self._cycle_start) if self._cycle_successes else 0.0
        refill = max(wait, _SHORTEST_REFILL_SECONDS)
        # The successes until the server's next invitation are a lower bound of its limit. The limit is higher if the
        # server counts over less than `refill`, or if its bucket holds less than it allows in that time.
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
        """The rate after a refusal that was not the first; also sets the pace of the next probe."""
        rate = self._rate(sent_at) or self._base or least
        last, self._last_limit = self._last_limit, rate
        if self._noise:
            # Too many refusals for noise: the limit fell.
            self._noise = False
            self._noise_signals = 0
            self._searching = True
            return least
        if self._searching:
            self._last_limit, is_sure = self._found(sent_at, max(least, self._base or 0.0), rate)
            self._searching = active < _SHORTEST_SEARCH_SECONDS
            self._probe_seconds = _MAX_PROBE_SECONDS if is_sure else _FIRST_PROBE_SECONDS
            self._short_cycles = 0
            # The last limit found is probably too low, so keep it. A search that has just begun continues lower down.
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
        """The limit that a search has hit, between `least` and `most`, and whether it is known well.

        In any interval the server accepts at most its rate times the interval, plus one burst. So the interval with the
        most successes beyond the burst is one in which the whole rate was used.
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
            # The pause is over, and there is no rate to keep.
            self._open = not self._waiters
            return
        # Late requests are caught up, to keep the rate, but only a few, to avoid a burst.
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
