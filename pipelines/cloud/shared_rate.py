"""One limit of requests per second for all processes on all machines, kept in Redis.

Redis holds the time of the next free turn. A process reserves a turn for each waiting request, at most a tenth of a
second's worth in one batch. So not every request needs a round trip, an idle process leaves its share to the others,
and a killed process loses one batch at most. Adapting the rate to the API's refusals belongs to `cloud.throttle`.

Import this module only where it is used: the package `redis` is optional.
"""

import asyncio
import time
from collections import deque

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from pipelines.errors import ConfigurationError, EndpointUnreachableError, PipelineError
from pipelines.inputs.secret_urls import parse_secret_url

# One batch reserves turns for at most this time.
_BATCH_SECONDS = 0.1
# Requests that come within this time of the first one share its round trip.
_GATHER_SECONDS = 0.005
# Unused turns up to this age may still be used.
_CREDIT_SECONDS = 0.05
_CREDIT_REQUESTS = 10.0
_LATE_SECONDS = 0.05
_EXCHANGE_SECONDS = 5.0
_FIRST_PAUSE, _MAX_PAUSE = 0.25, 5.0

# Uses Redis' own clock, in microseconds. If the next free turn is further ahead than all processes could have reserved,
# that clock was set back. Returns the time from now to the first turn; negative if the turn is overdue.
_TAKE_TURNS = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local count, interval, credit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local first = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now - credit)
if first > now + 60000000 + 1000 * interval then
    first = now
end
local following = first + count * interval
redis.call('SET', KEYS[1], string.format('%.0f', following), 'PX', math.max(1000, math.ceil((following - now) / 1000)))
return first - now
"""


class SharedRate:
    """Await `acquire` before each request: all processes for one `place` together send at most `rate` per second.

    `place`: what the limit counts by, such as a host.

    Any period has at most the turns of that period, plus ten, plus those of 50 ms. `acquire` gives up when Redis has
    been away for `patience_seconds`; nothing is sent during that time.
    """

    def __init__(self, url: str, place: str, rate: float, patience_seconds: float = 60.0) -> None:
        try:
            where = parse_secret_url(url, "redis://user:password@host:6379/0").host or "its socket"
            self._redis = Redis.from_url(
                url,
                socket_timeout=_EXCHANGE_SECONDS,
                socket_connect_timeout=_EXCHANGE_SECONDS,
                # No retries in the library: `_reserve` retries, because it knows for how long it has tried.
                retry=Retry(NoBackoff(), 0),
            )
        except (ValueError, TypeError, exceptions.RedisError):
            # The library's message could quote the URL.
            raise ConfigurationError(
                "The setting IMAGE_SNAPSHOTS_RATE_LIMITER is wrong: it must look like "
                "redis://user:password@host:6379/0, with special characters in the password percent-encoded."
            ) from None
        self._where = f"The rate limiter at {where} (IMAGE_SNAPSHOTS_RATE_LIMITER)"
        self._take_turns = self._redis.register_script(_TAKE_TURNS)
        self._key = f"image-snapshots:next-turn:{place}"
        self._interval = 1 / rate
        self._credit = min(_CREDIT_SECONDS, _CREDIT_REQUESTS / rate)
        self._batch = max(1, int(rate * _BATCH_SECONDS))
        self._patience = patience_seconds
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._serving: asyncio.Task[None] | None = None

    async def acquire(self) -> None:
        """Wait for a turn for one request. Turns are given in order of arrival.

        Raises:
            EndpointUnreachableError: Redis cannot be reached.
            ConfigurationError: Redis refuses the connection or the command.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        await turn

    def stop(self) -> None:
        """Release all waiting callers at once: no more requests will be sent."""
        if self._serving is not None:
            self._serving.cancel()
        while self._waiters:
            self._give_turn()

    async def aclose(self) -> None:
        """Stop, and close the connection to Redis."""
        self.stop()
        if self._serving is not None:
            await asyncio.gather(self._serving, return_exceptions=True)
        await self._redis.aclose()

    async def _serve(self) -> None:
        await asyncio.sleep(_GATHER_SECONDS)
        while self._waiters:
            count = min(len(self._waiters), self._batch)
            try:
                ahead = await self._reserve(count)
            except PipelineError as error:
                while self._waiters:
                    self._give_turn(error)
                return
            first = time.monotonic() + ahead
            for nth in range(count):
                left = first + nth * self._interval - time.monotonic()
                await asyncio.sleep(max(0.0, left))
                # Drop a turn that is too old: used now, it would exceed the rate.
                if left > -self._credit - _LATE_SECONDS:
                    self._give_turn()

    def _give_turn(self, error: PipelineError | None = None) -> None:
        while self._waiters:
            turn = self._waiters.popleft()
            if turn.done():
                continue
            if error is None:
                turn.set_result(None)
            else:
                turn.set_exception(type(error)(str(error)))
            return

    async def _reserve(self, count: int) -> float:
        """Reserve the next `count` turns; returns the seconds from now to the first one."""
        began = time.monotonic()
        pause = _FIRST_PAUSE
        while True:
            try:
                microseconds = await self._take_turns(
                    keys=[self._key], args=[count, self._interval * 1e6, round(self._credit * 1e6)]
                )
            except (exceptions.AuthenticationError, exceptions.AuthorizationError):
                raise ConfigurationError(f"{self._where} refuses the password: correct its URL.") from None
            except (exceptions.ConnectionError, exceptions.TimeoutError, OSError):
                waited = time.monotonic() - began
                if waited >= self._patience:
                    raise EndpointUnreachableError(
                        f"{self._where} cannot be reached (tried for {waited:.0f} s), and the shared limit cannot be "
                        "kept without it: start Redis and run again."
                    ) from None
                await asyncio.sleep(min(pause, self._patience - waited))
                pause = min(2 * pause, _MAX_PAUSE)
            except exceptions.RedisError as error:
                # The error's text could quote what was sent.
                raise ConfigurationError(
                    f"{self._where} cannot be used ({type(error).__name__}): it must be a Redis server of version 5 or "
                    "newer, and this user must be allowed to write."
                ) from None
            else:
                return int(microseconds) / 1e6
