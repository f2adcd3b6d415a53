"""A process that takes days in children of its own, one after the other, so that each can be killed.

On standard input: `fork`, answered with the child's number, then the child's orders as one line of JSON; when the child
has ended, its exit status is answered.
"""

import datetime as dt
import json
import os
import signal
import sys

from pipelines.day import Day, fetch_answers, publish_day, take_inventory
from pipelines.derived import derive_days
from pipelines.errors import PipelineError
from pipelines.lake import Partition
from pipelines.settings import Settings


def line():
    """One line, unbuffered: what follows is for another process."""
    read = b""
    while not read.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return ""
        read += byte
    return read.decode().strip()


def say(number):
    sys.stdout.write(f"{int(number)}\n")
    sys.stdout.flush()


def take_day(order):
    os.environ.update(order["env"])
    partition = Partition(dt.date.fromisoformat(order["date"]), "default")
    day = Day(partition, order["run_id"], Settings.load())
    with day.hold():
        if "snapshot" in order["steps"]:
            take_inventory(day)
            fetch_answers(day, lambda _: None)
            publish_day(day)
        if "derive" in order["steps"]:
            derive_days(day)


def main():
    while line() == "fork":
        child = os.fork()
        if child == 0:
            try:
                take_day(json.loads(line()))
                os._exit(0)
            except PipelineError as error:
                sys.stderr.write(f"{type(error).__name__}: {error}\n")
                os._exit(1)
        say(child)
        _, status = os.waitpid(child, 0)
        say(-signal.SIGKILL if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


if __name__ == "__main__":
    main()
