"""How fast requests may leave: one throttle, shared by all workers, gives each its turn.

Which rate to hold when the server refuses belongs to `cloud.rate_search`; what counts as a refusal, and how often one
image is asked for, belongs elsewhere.
"""

import asyncio
from collections import deque

from pipelines.cloud.rate_search import RateSearch

# What late turns may be caught up, so that the rate holds, but only a little, so that there is no burst.
_CREDIT_SECONDS = 0.05
_CREDIT_REQUESTS = 10.0


class Throttle:
    """Ask `acquire` before each request; report `accepted` or `refused` after it.

    `rate` is a ceiling in requests per second, None for none. Requests leave evenly; at most 10 late ones, and
    at most 50 ms' worth, are caught up.
    """

    def __init__(self, rate: float | None = None) -> None:
        self._search = RateSearch(rate)
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        # Nothing to wait for: no ceiling, no refusal yet, no pause.
        self._open = rate is None
        self._stopped = False
        self._next_turn = 0.0

    @property
    def rate(self) -> float | None:
        """Requests per second allowed now; None when nothing limits."""
        return self._search.rate

    async def acquire(self) -> None:
        """Wait for the turn of one request. Turns are given in the order of asking."""
        if self._open:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._waiters and self._next_turn <= now:
            self._advance(now)
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiters.append(turn)
        if self._timer is None:
            self._timer = loop.call_at(self._next_turn, self._give_turns)
        await turn

    def pause(self, seconds: float) -> None:
        """Let nobody start a request for `seconds`."""
        if self._stopped:
            return
        loop = asyncio.get_running_loop()
        self._open = False
        self._next_turn = max(self._next_turn, loop.time() + seconds)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = loop.call_at(self._next_turn, self._give_turns)

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
        self._search.accepted(sent_at)

    def refused(self, sent_at: float, retry_after: float | None) -> None:
        """Report a 429 to a request sent at `sent_at` (the event loop's clock); `retry_after` in seconds."""
        self.pause(self._search.refused(sent_at, asyncio.get_running_loop().time(), retry_after))

    def _advance(self, now: float) -> None:
        rate = self._search.rate
        if rate is None:
            # A pause without a rate to hold, and it is over.
            self._open = not self._waiters
            return
        earliest = now - min(_CREDIT_SECONDS, _CREDIT_REQUESTS / rate) if self._next_turn else now
        self._next_turn = max(self._next_turn, earliest) + 1 / rate

    def _give_turns(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._waiters:
            if self._next_turn > now:
                self._timer = loop.call_at(self._next_turn, self._give_turns)
                return
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                self._search.note_turn()
                self._advance(now)
