"""One limit of requests per second for all processes on all machines, kept in Redis.

Redis holds the time of the next free turn. A process takes as many turns as it has requests waiting, a tenth of a
second's worth at most, and uses them itself: so there is no round trip for each request, whoever has nothing to ask
leaves its share to the others, and who is killed loses one such batch. What the API's own refusals say about the rate
belongs to `cloud.throttle`.

Nothing imports this module before it is needed: the package `redis` is an extra.
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

# Turns are taken for so long ahead at most.
_BATCH_SECONDS = 0.1
# Requests that come within this time of the first one share its round trip.
_GATHER_SECONDS = 0.005
# What is caught up: turns that nobody took in time, and ours that we were too late to use.
_CREDIT_SECONDS = 0.05
_CREDIT_REQUESTS = 10.0
_LATE_SECONDS = 0.05
_EXCHANGE_SECONDS = 5.0
_FIRST_PAUSE, _MAX_PAUSE = 0.25, 5.0

# By Redis' own clock, in microseconds. Turns further ahead than all processes together could have taken show that this
# clock was set back. Returns how long from now the first turn is; less than 0 when it is to be caught up.
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
    """Await `acquire` before each request: at most `rate` a second leave all processes that name the same host.

    In any time the turns of that time are given, and besides at most ten, and what 50 ms hold. `patience_seconds` is
    how long Redis may be gone before `acquire` gives up; nothing is sent in that time.
    """

    def __init__(self, url: str, host: str, rate: float, patience_seconds: float = 60.0) -> None:
        try:
            where = parse_secret_url(url, "redis://user:password@host:6379/0").host or "its socket"
            self._redis = Redis.from_url(
                url,
                socket_timeout=_EXCHANGE_SECONDS,
                socket_connect_timeout=_EXCHANGE_SECONDS,
                # Here, where it is known how long it has been tried.
                retry=Retry(NoBackoff(), 0),
            )
        except (ValueError, TypeError, exceptions.RedisError):
            # What the library says could quote the URL.
            raise ConfigurationError(
                "The setting IMAGE_SNAPSHOTS_RATE_LIMITER is wrong: it must look like "
                "redis://user:password@host:6379/0, with what is special in the password percent-encoded."
            ) from None
        self._where = f"The rate limiter at {where} (IMAGE_SNAPSHOTS_RATE_LIMITER)"
        self._take_turns = self._redis.register_script(_TAKE_TURNS)
        self._key = f"image-snapshots:next-turn:{host}"
        self._interval = 1 / rate
        self._credit = min(_CREDIT_SECONDS, _CREDIT_REQUESTS / rate)
        self._batch = max(1, int(rate * _BATCH_SECONDS))
        self._patience = patience_seconds
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._serving: asyncio.Task[None] | None = None

    async def acquire(self) -> None:
        """Wait for the turn of one request. Turns are given in the order of asking.

        Raises:
            EndpointUnreachableError: Redis cannot be reached.
            ConfigurationError: Redis refuses.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        if self._serving is None or self._serving.done():
            self._serving = asyncio.create_task(self._serve())
        await turn

    def stop(self) -> None:
        """Let everybody who waits go on at once, because no request will be sent any more."""
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
                # A turn that comes too late is lost: used now, it would be one too many for now.
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
        """Take the next `count` turns; returns how many seconds from now the first one is."""
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
                        f"{self._where} cannot be reached (tried for {waited:.0f} s), and without it the limit of all "
                        "processes cannot be held: start Redis, and run again."
                    ) from None
                await asyncio.sleep(min(pause, self._patience - waited))
                pause = min(2 * pause, _MAX_PAUSE)
            except exceptions.RedisError as error:
                # Its own text could quote what was sent.
                raise ConfigurationError(
                    f"{self._where} cannot be used ({type(error).__name__}): it must be a Redis server of version 5 or "
                    "newer that may be written."
                ) from None
            else:
                return int(microseconds) / 1e6
