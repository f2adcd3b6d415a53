"""One limit for all processes, on a real Redis server."""

import asyncio
import subprocess
import sys
import time

import httpx
import pytest
from redis_fixture import PASSWORD, free_port, stop

from pipelines.cloud.credentials import load_credentials
from pipelines.cloud.modelarts import ModelArtsClient
from pipelines.cloud.shared_rate import SharedRate
from pipelines.errors import ConfigurationError, EndpointUnreachableError
from pipelines.settings import ROOT, Settings

# Takes turns for some seconds, from many callers at once. Prints when it began, for how many seconds the machine
# paused it, and when it got its turns.
ASKER = """
import asyncio, sys, time
from pipelines.cloud.shared_rate import SharedRate
url, rate, seconds, workers = sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
async def main():
    began = time.monotonic()
    shared, turns, end, late = SharedRate(url, "api.example", rate), [], began + seconds, 0.0
    async def tick():
        nonlocal late
        while (due := time.monotonic() + 0.01) < end:
            await asyncio.sleep(0.01)
            late += time.monotonic() - due
    async def worker():
        while time.monotonic() < end:
            await shared.acquire()
            turns.append(time.monotonic())
    await asyncio.gather(tick(), *(worker() for _ in range(workers)))
    await shared.aclose()
    print(began, late, *turns)
asyncio.run(main())
"""


def askers(url, rate, seconds, *workers):
    """The times of the turns of parallel processes."""
    commands = [[sys.executable, "-P", "-c", ASKER, url, str(rate), str(seconds), str(count)] for count in workers]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})
        for command in commands
    ]
    try:
        return [[float(word) for word in process.communicate(timeout=60)[0].split()] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()


def most_early(rate, began, turns):
    """The largest excess of turns over those due at any moment. A busy machine gives turns late, never early."""
    return max(number - rate * (turn - began) for number, turn in enumerate(sorted(turns)))


def test_two_processes_together_keep_and_use_the_limit(redis_server):
    (began, late, *first), (also_began, also_late, *second) = askers(redis_server.url, 200, 4, 32, 32)
    # Ten late turns may be caught up.
    assert most_early(200, min(began, also_began), first + second) <= 10
    start, end = max(first[0], second[0]), min(first[-1], second[-1])
    shares = [sum(start <= turn <= end for turn in turns) for turns in (first, second)]
    assert sum(shares) >= 0.9 * 200 * (end - start - late - also_late)
    # With equal demand, each gets turns while the other does.
    assert min(shares) > sum(shares) / 4 > 0


def test_unused_share_of_one_process_goes_to_the_others(redis_server):
    # With one worker, the second turn can be requested only after the first.
    (began, late, *many), (also_began, also_late, *few) = askers(redis_server.url, 300, 3, 32, 1)
    assert most_early(300, min(began, also_began), many + few) <= 10
    start, end = max(many[0], few[0]), min(many[-1], few[-1])
    both = sum(start <= turn <= end for turn in many + few)
    assert both >= 0.9 * 300 * (end - start - late - also_late)
    assert len(many) > 5 * len(few) > 0


async def test_turns_are_taken_in_batches(redis_server):
    shared = SharedRate(redis_server.url, "api.example", 500)
    try:
        await asyncio.gather(*(shared.acquire() for _ in range(250)))
        calls = (await shared._redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    finally:
        await shared.aclose()
    assert calls <= 8


async def test_hosts_have_separate_limits_and_a_clock_set_back_adds_no_wait(redis_server):
    slow, other = (SharedRate(redis_server.url, host, 0.02) for host in ("slow", "other"))
    try:
        async with asyncio.timeout(5):
            await slow.acquire()
            await other.acquire()
            await other._redis.set("image-snapshots:next-turn:other", int((time.time() + 86_400) * 1e6))
            assert await other._reserve(1) == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await slow.acquire()
    finally:
        await slow.aclose()
        await other.aclose()


async def test_client_sends_nothing_while_redis_is_away_and_continues_after(start_sandbox, redis_server):
    sandbox = start_sandbox(size=10)
    credentials = load_credentials(None, sandbox.env)
    image = "00000000-0000-4000-8000-000000000000"
    port = free_port()
    gone = redis_server.__class__(port, redis_server.directory)
    shared = SharedRate(gone.url, "api.example", 100, patience_seconds=30)
    async with ModelArtsClient(sandbox.endpoint, credentials, shared_rate=shared) as client:
        asking = asyncio.create_task(client.show_image(image))
        await asyncio.sleep(0.5)
        assert httpx.get(f"{sandbox.endpoint}/sandbox/requested").json() == {}
        process = await asyncio.to_thread(gone.start)
        try:
            assert (await asking).http_status == 400
        finally:
            stop(process)


async def test_client_ends_with_one_sentence_if_redis_stays_away_or_refuses(start_sandbox, redis_server):
    sandbox = start_sandbox(size=10)
    credentials = load_credentials(None, sandbox.env)
    image = "00000000-0000-4000-8000-000000000000"

    async def ends_with(kind, url):
        shared = SharedRate(url, "api.example", 100, patience_seconds=0.4)
        async with ModelArtsClient(sandbox.endpoint, credentials, shared_rate=shared) as client:
            calls = await asyncio.gather(*(client.show_image(image) for _ in range(5)), return_exceptions=True)
        (sentence,) = {str(call) for call in calls if type(call) is kind}
        assert len(calls) == 5
        assert "secret" not in sentence
        return sentence

    assert (
        await ends_with(EndpointUnreachableError, f"redis://:other-secret@127.0.0.1:{free_port()}/0")
        == "The rate limiter at 127.0.0.1 (IMAGE_SNAPSHOTS_RATE_LIMITER) cannot be reached (tried for 0 s), and "
        "the shared limit cannot be kept without it: start Redis and run again."
    )
    assert (
        await ends_with(ConfigurationError, redis_server.url.replace(PASSWORD, "other-secret"))
        == "The rate limiter at 127.0.0.1 (IMAGE_SNAPSHOTS_RATE_LIMITER) refuses the password: correct its URL."
    )
    assert httpx.get(f"{sandbox.endpoint}/sandbox/requested").json() == {}


def test_rate_limiter_setting_needs_a_limit_and_a_redis_url_and_is_hidden(monkeypatch):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_RATE_LIMITER", "redis://:secret@host")
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    assert str(caught.value) == (
        "The setting IMAGE_SNAPSHOTS_RATE_LIMITER is wrong: it shares IMAGE_SNAPSHOTS_RATE_LIMIT among all processes, "
        "so set that, too."
    )
    monkeypatch.setenv("IMAGE_SNAPSHOTS_RATE_LIMIT", "50")
    assert "secret" not in repr(Settings.load())
    monkeypatch.setenv("IMAGE_SNAPSHOTS_RATE_LIMITER", "amqp://:secret@host")
    with pytest.raises(ConfigurationError, match="must look like redis://user:password@host:6379/0") as caught:
        Settings.load()
    assert "secret" not in str(caught.value)
