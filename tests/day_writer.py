"""A process that takes days in child processes, one after the other, so that each can be killed: `running_writer`.

Run as a script, it is that process. It reads `fork` from standard input and answers with the child's number. Then it
reads the child's orders as one line of JSON, and answers with the child's exit status when it has ended.
"""

import datetime as dt
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

from pipelines.derive.days import derive_days
from pipelines.errors import PipelineError
from pipelines.lake.layout import Partition
from pipelines.settings import ROOT, Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory

# The operations that make a lake's files appear and disappear, named as Python's audit events.
_OPERATIONS = {"os.rename": 1, "os.link": 1, "os.remove": 0}


class Writer:
    """Gives orders to the process. `env` is the children's environment besides their lake."""

    def __init__(self, process, env):
        self.process, self.env = process, env

    def _say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def take_day(self, lake, date, run_id, steps=("snapshot", "derive"), *, began=lambda pid: None, **kill):
        """Take a day of a lake; returns the exit status. `began` gets the child's number before it gets its orders.

        kill_before    the file operation before which the child kills itself: its audit event, and a part of the path
                       of the file that appears or disappears
        kill_at        the number of outcomes at which it kills itself, including those of earlier attempts
        """
        self._say("fork")
        began(int(self.process.stdout.readline()))
        order = {"env": {**self.env, "IMAGE_SNAPSHOTS_LAKE": str(lake)}, "date": str(date)}
        self._say(json.dumps(order | {"run_id": run_id, "steps": steps, **kill}))
        return int(self.process.stdout.readline())


@contextmanager
def running_writer(env):
    """Start the process, and end it on leaving."""
    with subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    ) as process:
        yield Writer(process, dict(env))
        process.stdin.close()
        process.wait()


def _line():
    """Print one line, unbuffered, for another process."""
    read = b""
    while not read.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return ""
        read += byte
    return read.decode().strip()


def _say(number):
    sys.stdout.write(f"{int(number)}\n")
    sys.stdout.flush()


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _watch(lake, operation, place):
    """Kill this process before the first such operation in the lake."""

    def see(event, arguments):
        if event == operation:
            path = os.fsdecode(arguments[_OPERATIONS[event]])
            # A bare name: the file is removed together with its directory.
            if (path.startswith(lake) or not os.path.isabs(path)) and place in path.removeprefix(lake):
                _die()

    sys.addaudithook(see)


def _take_day(order):
    os.environ.update(order["env"])
    partition = Partition(dt.date.fromisoformat(order["date"]), "default")
    day = SnapshotRun(partition, order["run_id"], Settings.load())
    kill_at = order.get("kill_at")
    if "kill_before" in order:
        _watch(order["env"]["IMAGE_SNAPSHOTS_LAKE"], *order["kill_before"])
    with day.hold():
        if "snapshot" in order["steps"]:
            take_inventory(day)
            fetch_responses(day, lambda progress: _die() if kill_at is not None and progress.done >= kill_at else None)
            publish_snapshot(day)
        if "derive" in order["steps"]:
            derive_days(day)


def _main():
    while _line() == "fork":
        child = os.fork()
        if child == 0:
            try:
                _take_day(json.loads(_line()))
                os._exit(0)
            except PipelineError as error:
                sys.stderr.write(f"{type(error).__name__}: {error}\n")
                os._exit(1)
        _say(child)
        _, status = os.waitpid(child, 0)
        _say(-signal.SIGKILL if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


if __name__ == "__main__":
    _main()
