"""Which rate a server allows, found from its refusals (429), because no limit is published.

Until the first refusal there is no limit. From then on the rate grows by the third power of time, so that most of it
passes near where it began. A refusal takes it to a geometric mean of what was served and what was refused, because
the limit lies between them. The longer it took until the refusal, the slower the rate grows next time: so it comes to
rest just below the limit, and a limit that fell or rose is found again in a few steps.

Refusals that keep coming early, however low the rate, are not about the rate: they are ignored until they are many.

Nothing here knows a clock or waits: that belongs to `cloud.throttle`.
"""

import math

FLOOR_PER_SECOND = 1.0

# The rate doubles in so many seconds at the fastest and at the slowest, and else in a multiple of the last quiet time.
_FASTEST_DOUBLING, _SLOWEST_DOUBLING = 0.5, 60.0
_DOUBLING_PER_QUIET_SECOND = 6.0
# After a refusal: how much what was served weighs against the rate that was refused, in their geometric mean.
_WORTH_OF_SERVED = 0.45
# The pause after a refusal without Retry-After; it doubles while nothing is accepted in between.
_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.5, 30.0
# A refusal is early within so many times the pause that it asks for. After so many more than others, they are ignored.
_EARLY_PAUSES = 5.0
_EARLY_REFUSALS = 3
# Ignored refusals count again when they are this share of all answers, of which each weighs so much.
_MANY = 0.25
_WEIGHT = 1 / 64


class RateSearch:
    """Tell it what becomes of each request, in seconds of one clock; `ceiling` is never exceeded."""

    def __init__(self, ceiling: float | None = None) -> None:
        self._ceiling = ceiling
        # The rate grows from here; None before the first refusal.
        self._base: float | None = None
        self._doubling_seconds = _FASTEST_DOUBLING
        # Since the last refusal that counted: for how long requests left as fast as they may, and how many were
        # accepted, of which the first was sent at this time.
        self._used_seconds = 0.0
        self._accepted = 0
        self._first_sent = 0.0
        self._refused_at = -math.inf
        # Refusals in a row with nothing accepted in between; and early refusals, less the others.
        self._fruitless = 0
        self._early = 0
        # Of `_used_seconds`, when the last ignored refusal came.
        self._ignored_at = 0.0
        self._refused_share = 0.0

    @property
    def rate(self) -> float | None:
        """Requests per second allowed now; None when nothing limits."""
        if self._base is None:
            return self._ceiling
        rate = self._base * (1 + (self._used_seconds / self._doubling_seconds) ** 3)
        return rate if self._ceiling is None else min(rate, self._ceiling)

    def note_turn(self) -> None:
        """A request had to wait for its turn. A rate that nobody uses up does not grow."""
        rate = self.rate
        if self._base is not None and rate is not None:
            self._used_seconds += 1 / rate

    def accepted(self, sent_at: float) -> None:
        """A request sent at `sent_at` was not refused."""
        self._refused_share -= self._refused_share * _WEIGHT
        if sent_at > self._refused_at:
            if not self._accepted:
                self._first_sent = sent_at
            self._accepted += 1

    def refused(self, sent_at: float, now: float, retry_after: float | None) -> float:
        """A request sent at `sent_at` was refused; returns for how many seconds nobody may send.

        Refusals of requests that were in flight at the last one belong to it: together they count once.
        """
        self._refused_share += (1 - self._refused_share) * _WEIGHT
        if sent_at <= self._refused_at:
            return retry_after or 0.0
        rate = self.rate
        pause = retry_after if retry_after is not None else _PAUSE_SECONDS
        lost = max(pause, _PAUSE_SECONDS)
        if self._is_ignored(lost):
            return 0.0
        if rate is None or self._base is None:
            self._base = max(FLOOR_PER_SECOND, self._served(sent_at, lost))
        elif self._accepted:
            self._fruitless = 0
            self._base = max(
                FLOOR_PER_SECOND, rate ** (1 - _WORTH_OF_SERVED) * self._served(sent_at, lost) ** _WORTH_OF_SERVED
            )
            quiet = _DOUBLING_PER_QUIET_SECOND * self._used_seconds
            self._doubling_seconds = min(_SLOWEST_DOUBLING, max(_FASTEST_DOUBLING, quiet))
        else:
            self._fruitless += 1
            pause = max(pause, min(_MAX_PAUSE_SECONDS, _PAUSE_SECONDS * 2.0**self._fruitless))
        self._used_seconds = self._ignored_at = self._refused_share = 0.0
        self._accepted = 0
        self._refused_at = now
        return pause

    def _served(self, sent_at: float, lost: float) -> float:
        """Requests per second since the last refusal, the pause included: what the server allows at least."""
        return self._accepted / (sent_at - self._first_sent + lost) if self._accepted else 0.0

    def _is_ignored(self, lost: float) -> bool:
        is_early = self._accepted > 0 and self._used_seconds - self._ignored_at < _EARLY_PAUSES * lost
        before = self._early
        self._early = min(before + 1, _EARLY_REFUSALS + 1) if is_early else max(before - 1, 0)
        if self._refused_share >= _MANY and self._used_seconds < lost:
            # They were about the rate after all.
            self._early = 0
        if self._early <= _EARLY_REFUSALS or self._refused_share >= _MANY:
            return False
        if before <= _EARLY_REFUSALS:
            # They have brought the rate down for nothing.
            self._base, self._used_seconds, self._doubling_seconds = self.rate, 0.0, _FASTEST_DOUBLING
        self._ignored_at = self._used_seconds
        return True
