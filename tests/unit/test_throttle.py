"""The throttle by itself, in real time, against a limit that is computed."""

import asyncio
import random
import time

import pytest

from pipelines.throttle import FLOOR_PER_SECOND, Throttle


async def _run(throttle: Throttle, count: int, workers: int, is_allowed, latency: float = 0.01):
    """Let workers have `count` requests accepted; returns when requests were sent, and how many were refused."""
    loop = asyncio.get_running_loop()
    sent: list[float] = []
    refused = 0
    left = count

    async def work():
        nonlocal left, refused
        while left > 0:
            left -= 1
            while True:
                await throttle.acquire()
                sent_at = loop.time()
                sent.append(sent_at)
                allowed, retry_after = is_allowed(sent_at)
                await asyncio.sleep(latency)
                if allowed:
                    throttle.accepted(sent_at)
                    break
                refused += 1
                throttle.refused(sent_at, retry_after)

    await asyncio.gather(*(work() for _ in range(workers)))
    return sent, refused


def _always(_now):
    return True, None


async def test_a_stated_rate_is_held_without_bursts():
    sent, _ = await _run(Throttle(600), 1500, 32, _always)
    # Never faster; slower only as far as a busy machine makes it so.
    assert 0.95 * 600 < (len(sent) - 1) / (sent[-1] - sent[0]) <= 1.02 * 600
    most = max(sum(1 for t in sent[i : i + 200] if t < sent[i] + 0.1) for i in range(len(sent)))
    # 60 are due in a tenth of a second; 10 late ones may be caught up.
    assert most <= 60 + 10 + 2


async def test_a_low_rate_is_held():
    sent, _ = await _run(Throttle(20), 20, 4, _always)
    assert sent[-1] - sent[0] == pytest.approx(19 / 20, rel=0.05)


async def test_without_a_limit_nothing_waits():
    throttle = Throttle()
    started = time.perf_counter()
    for _ in range(50_000):
        await throttle.acquire()
        throttle.accepted(0.0)
    assert throttle.rate is None
    assert time.perf_counter() - started < 1.0


async def test_a_refusal_pauses_all_workers_for_retry_after():
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
    assert first - sent_at >= 0.3
    # Paced afterwards, not released together.
    assert rest[0] - first >= 0.05


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


async def test_turns_are_given_in_order_and_a_cancelled_waiter_takes_none():
    throttle = Throttle(50)
    order: list[int] = []

    async def wait(number: int):
        await throttle.acquire()
        order.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(6)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    started = time.perf_counter()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 1, 3, 4, 5]
    assert time.perf_counter() - started < 0.15


async def test_stop_lets_everybody_go():
    throttle = Throttle(0.01)
    await throttle.acquire()
    waiting = [asyncio.create_task(throttle.acquire()) for _ in range(5)]
    await asyncio.sleep(0.01)
    throttle.stop()
    await asyncio.wait_for(asyncio.gather(*waiting, throttle.acquire()), 1)


async def test_a_pause_without_a_rate_ends():
    throttle = Throttle()
    loop = asyncio.get_running_loop()
    throttle.pause(0.1)
    started = loop.time()
    await asyncio.gather(*(throttle.acquire() for _ in range(10)))
    assert 0.1 <= loop.time() - started < 0.2
    await throttle.acquire()
    assert throttle.rate is None


async def test_refusals_that_have_nothing_to_do_with_the_rate_do_not_end_in_a_crawl():
    chance = random.Random(7)
    throttle = Throttle()
    started = time.perf_counter()
    _, refused = await _run(throttle, 2000, 32, lambda _: (chance.random() >= 0.1, 0.0))
    assert 2000 / (time.perf_counter() - started) > 300
    assert 150 < refused < 350


async def test_the_rate_has_a_floor():
    throttle = Throttle()
    loop = asyncio.get_running_loop()
    throttle.accepted(loop.time() - 100)
    for _ in range(5):
        throttle.accepted(loop.time())
        throttle.refused(loop.time(), 0)
    assert throttle.rate is not None
    assert throttle.rate >= FLOOR_PER_SECOND


async def test_a_limit_that_drops_is_found_again():
    loop = asyncio.get_running_loop()
    bucket = {"tokens": 20.0, "at": loop.time(), "rate": 400.0}

    def is_allowed(now: float):
        bucket["tokens"] = min(20.0, bucket["tokens"] + (now - bucket["at"]) * bucket["rate"])
        bucket["at"] = now
        if bucket["tokens"] < 1:
            return False, 0.1
        bucket["tokens"] -= 1
        return True, None

    throttle = Throttle()
    await _run(throttle, 300, 16, is_allowed)
    bucket["rate"] = 100.0
    await _run(throttle, 120, 16, is_allowed)
    sent, refused = await _run(throttle, 120, 16, is_allowed)
    assert (len(sent) - 1) / (sent[-1] - sent[0]) == pytest.approx(100, rel=0.35)
    assert refused < 30
