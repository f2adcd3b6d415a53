"""The throttle by itself: turns, rates and the search for a limit, with clocks that do not wait."""

import asyncio
import random
import selectors
import time

import pytest
from virtual_clock import by_virtual_clock

from pipelines.cloud.throttle import FLOOR_PER_SECOND, Throttle


@by_virtual_clock
async def test_no_limit_means_no_waiting():
    throttle = Throttle()
    started = time.monotonic()
    for _ in range(5_000):
        await throttle.acquire()
        throttle.accepted(0.0)
    assert throttle.rate is None
    assert time.monotonic() == started


@by_virtual_clock
async def test_refusal_pauses_all_workers_for_retry_after():
    throttle = Throttle()
    loop = asyncio.get_running_loop()
    await throttle.acquire()
    sent_at = loop.time()
    throttle.accepted(sent_at)
    throttle.refused(sent_at, 0.3)

    async def wait():
        await throttle.acquire()
        return loop.time()

    first, *rest = sorted(await asyncio.gather(*(wait() for _ in range(3))))
    assert first - sent_at == pytest.approx(0.3)
    # They leave one by one afterwards, not together.
    assert rest[0] - first >= 0.05


@by_virtual_clock
async def test_refusals_of_one_burst_are_one_signal():
    throttle = Throttle(1000)
    loop = asyncio.get_running_loop()
    for _ in range(200):
        throttle.accepted(loop.time())
    await asyncio.sleep(0.2)
    in_flight = loop.time()
    throttle.refused(in_flight, 0)
    after_one = throttle.rate
    for _ in range(31):
        throttle.refused(in_flight, 0)
    assert after_one is not None
    assert throttle.rate == pytest.approx(after_one, rel=0.01)


@by_virtual_clock
async def test_turns_are_given_in_order_and_skip_cancelled_waiters():
    throttle = Throttle(50)
    order: list[int] = []

    async def wait(number: int):
        await throttle.acquire()
        order.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(6)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    started = time.monotonic()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 1, 3, 4, 5]
    assert time.monotonic() - started <= 0.1


@by_virtual_clock
async def test_stop_releases_all_waiters():
    throttle = Throttle(0.01)
    await throttle.acquire()
    waiting = [asyncio.create_task(throttle.acquire()) for _ in range(5)]
    await asyncio.sleep(0.01)
    throttle.stop()
    await asyncio.wait_for(asyncio.gather(*waiting, throttle.acquire()), 1)


@by_virtual_clock
async def test_pause_without_a_rate_ends():
    throttle = Throttle()
    loop = asyncio.get_running_loop()
    throttle.pause(0.1)
    started = loop.time()
    await asyncio.gather(*(throttle.acquire() for _ in range(10)))
    assert 0.1 <= loop.time() - started < 0.11
    await throttle.acquire()
    assert throttle.rate is None


async def test_rate_has_a_floor():
    throttle = Throttle()
    loop = asyncio.get_running_loop()
    throttle.accepted(loop.time() - 100)
    for _ in range(5):
        throttle.accepted(loop.time())
        throttle.refused(loop.time(), 0)
    assert throttle.rate is not None
    assert throttle.rate >= FLOOR_PER_SECOND


# -- with a clock that does not wait


class _Skip(selectors.SelectSelector):
    """Never waits: its loop's clock jumps to the next timer, or up to `late` seconds beyond."""

    def __init__(self, late):
        super().__init__()
        self.now, self._late, self._chance = 1000.0, late, random.Random(3)

    def select(self, timeout=None):
        assert timeout is not None, "everybody waits for everybody"
        if timeout > 0:
            self.now += timeout + self._chance.uniform(0, self._late)
        return []


class _SimulatedLoop(asyncio.SelectorEventLoop):
    def __init__(self, late=0.0):
        self._skip = _Skip(late)
        super().__init__(self._skip)
        self._clock_resolution = 1e-9

    def time(self):
        return self._skip.now


class _Server:
    """Allows `rate` requests per second, and refuses the rest with `Retry-After: 1`.

    It counts with a bucket of `burst`, or in calendar seconds if that is 0; in addition, it refuses a share of all
    requests without a reason.
    """

    def __init__(self, rate, burst, share_refused=0.0):
        self.rate, self.burst, self.share_refused = rate, burst, share_refused
        self._left, self._at = float(burst), 0.0
        self._chance = random.Random(7)
        self.log: list[tuple[float, bool]] = []

    def is_allowed(self, now):
        if self.burst:
            self._left = min(self.burst, self._left + (now - self._at) * self.rate)
            self._at = now
        elif self._at != now // 1:
            self._at, self._left = now // 1, self.rate
        is_allowed = self._left >= 1 and self._chance.random() >= self.share_refused
        self._left -= is_allowed
        self.log.append((now, is_allowed))
        return is_allowed

    def served(self, seconds, since=0.0):
        """Accepted requests per second during `seconds` from `since` on."""
        return sum(1 for at, is_allowed in self.log if is_allowed and 0 <= at - 1000 - since < seconds) / seconds

    def refused(self, since=0.0):
        return sum(1 for at, is_allowed in self.log if not is_allowed and at - 1000 >= since)


def _simulate(server, seconds, changes=(), retry_after=1.0, latency=0.004, ceiling=None, late=0.0):
    """Let 32 workers send requests for `seconds`; `changes` are (second, rate, burst). Refused workers also wait."""

    async def main():
        loop = asyncio.get_running_loop()
        shared = Throttle(ceiling)
        jitter = random.Random(1)

        async def work():
            while True:
                await shared.acquire()
                sent_at = loop.time()
                await asyncio.sleep(latency * jitter.uniform(0.2, 0.6))
                is_allowed = server.is_allowed(loop.time())
                await asyncio.sleep(latency / 2)
                if is_allowed:
                    shared.accepted(sent_at)
                else:
                    shared.refused(sent_at, retry_after)
                    await asyncio.sleep(retry_after)

        workers = [asyncio.create_task(work()) for _ in range(32)]
        for at, rate, burst in changes:
            await asyncio.sleep(1000 + at - loop.time())
            server.rate, server.burst = rate, burst
        await asyncio.sleep(1000 + seconds - loop.time())
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    with asyncio.Runner(loop_factory=lambda: _SimulatedLoop(late)) as runner:
        runner.run(main())


@pytest.mark.parametrize("late", [0.0, 0.01], ids=["on time", "on a busy machine"])
@pytest.mark.parametrize("rate", [20, 600])
def test_configured_rate_is_kept_without_bursts(rate, late):
    server = _Server(1e9, 1e9)
    _simulate(server, 10, ceiling=rate, late=late)
    sent = [at for at, _ in server.log]
    assert 0.99 * rate * 10 <= len(sent) <= rate * 10 + 1
    most = max(sum(1 for at in sent[i : i + 200] if at < sent[i] + 0.1) for i in range(len(sent)))
    # Those due in a tenth of a second, 10 late ones that may be caught up, and those delayed on their way.
    assert most <= rate / 10 + 10 + 2


@pytest.mark.parametrize(
    ("counts_by", "rate", "burst", "latency", "share"),
    [
        ("a bucket of a second", 200, 200, 0.004, 0.97),
        ("a bucket of a tenth", 200, 20, 0.004, 0.90),
        ("a bucket of a tenth, far away", 200, 20, 0.1, 0.80),
        ("a bucket of a tenth, fast", 1000, 100, 0.004, 0.88),
        ("a bucket of a few", 200, 5, 0.004, 0.84),
        ("calendar seconds", 200, 0, 0.004, 0.91),
        ("calendar seconds, slow", 20, 0, 0.004, 0.85),
    ],
)
def test_limit_is_found_and_used_within_40_seconds(counts_by, rate, burst, latency, share):
    server = _Server(rate, burst)
    _simulate(server, 40, latency=latency)
    assert share < server.served(40) / rate <= 1.03
    assert server.refused() < 0.05 * len(server.log)


def test_known_limit_is_used_almost_completely():
    server = _Server(100, 10)
    _simulate(server, 160)
    assert server.served(120, since=40) > 0.93 * 100
    # One refusal, and the requests in flight with it, at the end of each quiet time.
    assert server.refused(since=40) < 20


@pytest.mark.parametrize("burst", [10, 100, 0], ids=["a bucket of a tenth", "a bucket of a second", "calendar seconds"])
def test_rising_limit_is_found_again(burst):
    server = _Server(100, burst)
    _simulate(server, 180, changes=[(40, 200, 2 * burst)])
    assert server.served(60, since=120) > 0.85 * 200
    assert server.refused() < 0.05 * len(server.log)


@pytest.mark.parametrize("burst", [20, 200, 0], ids=["a bucket of a tenth", "a bucket of a second", "calendar seconds"])
def test_falling_limit_is_found_again(burst):
    server = _Server(200, burst)
    _simulate(server, 90, changes=[(40, 50, burst // 4)])
    assert server.served(50, since=40) > 0.7 * 50
    assert server.served(20, since=70) > 0.8 * 50
    assert server.refused(since=40) < 0.05 * 50 * 50


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_refusals_independent_of_the_rate_do_not_slow_the_client_to_a_crawl(share):
    server = _Server(1e9, 1e9, share_refused=share)
    _simulate(server, 6, retry_after=0.0, latency=0.02)
    assert server.served(6) > 250
    assert 0.5 * share * len(server.log) < server.refused() < 1.5 * share * len(server.log)
