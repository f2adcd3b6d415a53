"""Hands out turns to send requests, evenly over time and in order of arrival. How many, the subclass decides."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque

# Late turns up to this age may be caught up: the timer was late, or nobody asked in time.
_LATE_SECONDS = 0.05
_LATE_REQUESTS = 10.0


class Turns(ABC):
    """Call `acquire` before each request. Late requests are caught up: at most 10, and at most those of 50 ms."""

    def __init__(self) -> None:
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._next_slot = 0.0
        # Nobody needs to wait: there is neither a rate nor a pause.
        self._is_free = False
        self._is_stopped = False
        self._credit = _LATE_REQUESTS

    @abstractmethod
    def _rate(self, now: float) -> float | None:
        """Requests per second allowed at `now` (the event loop's clock); None without a limit."""

    async def acquire(self) -> None:
        """Wait for a turn for one request. Turns are given in order of arrival."""
        if self._is_free:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._waiters and self._next_slot <= now:
            self._advance(now)
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiters.append(turn)
        if self._timer is None:
            self._timer = loop.call_at(self._next_slot, self._give_turns)
        await turn

    def pause(self, seconds: float) -> None:
        """Start no request for `seconds`."""
        if self._is_stopped:
            return
        loop = asyncio.get_running_loop()
        self._is_free = False
        self._next_slot = max(self._next_slot, loop.time() + seconds)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = loop.call_at(self._next_slot, self._give_turns)

    def stop(self) -> None:
        """Release all callers, now and later: no more requests will be sent."""
        self._is_stopped = self._is_free = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(None)

    def _advance(self, now: float) -> None:
        rate = self._rate(now)
        if rate is None:
            self._is_free = not self._waiters
            return
        # Late requests are caught up, to keep the rate, but only a few, to avoid a burst.
        earliest = now - min(_LATE_SECONDS, self._credit / rate) if self._next_slot else now
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
                self._advance(now)
