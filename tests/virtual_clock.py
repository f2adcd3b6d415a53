"""An event loop whose clock moves only when everybody waits, so that tests of long times are fast and never hurried.

While anything is under way, no time passes. When nothing is, the clock jumps to the next timer. Client and server must
run on the same loop, because the loop cannot see whether another process is busy.
"""

import asyncio
import functools
import selectors
import time

import pytest

# The real seconds that loopback may need to deliver data.
_ON_ITS_WAY_SECONDS = 0.02


class _Selector(selectors.DefaultSelector):
    def __init__(self):
        super().__init__()
        self.now = 1000.0
        self.busy_threads = 0

    def select(self, timeout=None):
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if timeout is None or self.busy_threads:
            # A thread wakes the loop when it is done.
            return super().select(None)
        events = super().select(_ON_ITS_WAY_SECONDS)
        if not events:
            self.now += timeout
        return events


class VirtualClockLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self._clock = _Selector()
        super().__init__(self._clock)
        # Timers that are due exactly at the time of the jump count as due.
        self._clock_resolution = 1e-9

    def time(self):
        return self._clock.now

    def run_in_executor(self, executor, func, *args):
        self._clock.busy_threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_is_done)
        return future

    def _thread_is_done(self, _):
        self._clock.busy_threads -= 1


def by_virtual_clock(test):
    """Run a test coroutine on its own loop; `time.monotonic` is that loop's clock meanwhile."""

    @functools.wraps(test)
    def run(*arguments, **fixtures):
        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner, pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(time, "monotonic", runner.get_loop().time)
            runner.run(test(*arguments, **fixtures))

    return run
