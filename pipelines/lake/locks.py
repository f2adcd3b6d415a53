"""What a run can hold of a lake against other runs, under which name, and how it waits for it.

`LakePath.held` keeps the lock, on a disk or in an object store.
"""

import datetime as dt
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from pipelines.errors import PartitionBusyError
from pipelines.lake.names import Partition
from pipelines.lake.storage import LakePath, storage_errors

# A chain is held for seconds; derived tables for as long as all days of a project take that are due.
WAIT_SECONDS = 3600.0
# Messages are sent while this lock is held, for a minute or two at most.
NOTIFICATIONS_WAIT_SECONDS = 180.0
# A shorter wait is not reported.
SAID_AFTER_SECONDS = 2.0

_logger = logging.getLogger(__name__)


class Locks:
    """The locks of one lake. `holder` names the run that holds one, for others that wait.

    They have a directory of their own, so no project's name can be that of another's lock.
    """

    def __init__(self, root: LakePath) -> None:
        self._root = root / "_locks"

    def partition(self, partition: Partition, run_id: str) -> AbstractContextManager[None]:
        """Hold a partition against other runs until the block (or the process) ends.

        Raises:
            PartitionBusyError: another run holds it; says which.
        """
        place = self._root / "partitions" / f"dt={partition.date}" / f"project={partition.project}"
        return _held(place, f"The partition {partition}", f"run {run_id}", may_wait=False)

    def chain(self, project: str, holder: str = "another run") -> AbstractContextManager[None]:
        """Hold a project's chain of manifests, so that two days that end together cannot fork it.

        Raises:
            PartitionBusyError: another process held it for too long; says which.
        """
        place = self._root / "manifests" / f"project={project}"
        return _held(place, f"The chain of manifests of project {project}", holder, may_wait=True)

    def derived(self, project: str, holder: str = "another run") -> AbstractContextManager[None]:
        """Hold a project's derived tables, which depend on one another from day to day; else as `chain`."""
        place = self._root / "derived" / f"project={project}"
        return _held(place, f"What is derived for project {project}", holder, may_wait=True)

    def catalog(self, holder: str = "another run") -> AbstractContextManager[None]:
        """Hold the Iceberg catalog against other loads from this lake; else as `chain`."""
        return _held(self._root / "catalog", "The catalog", holder, may_wait=True)

    def empty_lake(self, holder: str = "another run") -> AbstractContextManager[None]:
        """Hold a lake without any published day; else as `chain`."""
        return _held(self._root / "first-day", "The empty lake", holder, may_wait=True)

    def notifications(self, holder: str = "another run") -> AbstractContextManager[None]:
        """Hold the record of what was told, so that two processes do not tell it twice; else as `chain`."""
        return _held(
            self._root / "notifications",
            "The record of notifications",
            holder,
            may_wait=True,
            seconds=NOTIFICATIONS_WAIT_SECONDS,
        )


@contextmanager
def _held(place: LakePath, what: str, holder: str, *, may_wait: bool, seconds: float | None = None) -> Iterator[None]:
    with ExitStack() as stack:
        with storage_errors(place):
            stack.enter_context(held(place, what, holder, may_wait=may_wait, seconds=seconds))
        yield


def held(
    place: LakePath, what: str, holder: str, *, may_wait: bool, seconds: float | None = None
) -> AbstractContextManager[None]:
    """Hold `place` until the block, or the process, ends; `what` and `holder` are words for others who want it.

    With `may_wait` it waits for `seconds`, or else for `WAIT_SECONDS`.

    Raises:
        PartitionBusyError: somebody else holds it, or still does after that wait; says who.
        OSError, StorageError: the storage failed.
    """
    facts = {
        "holder": holder,
        "pid": str(os.getpid()),
        "host": socket.gethostname(),
        "since": dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
    }
    wait = _Waiting(what, WAIT_SECONDS if seconds is None else seconds)
    return place.held(facts, wait.for_holder if may_wait else _refuse(what))


def _in_words(facts: dict[str, str]) -> str:
    """The holder of a lock, by the facts it wrote about itself."""
    words = {name: "".join(filter(str.isprintable, str(facts.get(name, "?")))) for name in ("pid", "host", "since")}
    holder = "".join(filter(str.isprintable, str(facts.get("holder", "another run"))))
    return f"{holder} (process {words['pid']} on {words['host']}, since {words['since']})"


def _refuse(what: str) -> Callable[[dict[str, str]], None]:
    def refuse(facts: dict[str, str]) -> None:
        raise PartitionBusyError(
            f"{what} is held by {_in_words(facts)}: wait for it to end, or stop it, and run again."
        )

    return refuse


class _Waiting:
    """One wait for something that others hold: reports the holder, and gives up in the end."""

    def __init__(self, what: str, seconds: float) -> None:
        self._what = what
        self._seconds = seconds
        self._began = time.monotonic()
        self._said = ""

    def for_holder(self, facts: dict[str, str]) -> None:
        """Called again and again while somebody else holds it.

        Raises:
            PartitionBusyError: it has been so for too long.
        """
        waited = time.monotonic() - self._began
        holder = _in_words(facts)
        if waited >= self._seconds:
            raise PartitionBusyError(
                f"{self._what} is held by {holder}, which was waited for {self._seconds / 60:g} minutes: wait for it "
                "to end, or stop it, and run again."
            )
        if waited >= SAID_AFTER_SECONDS and holder != self._said:
            self._said = holder
            _logger.warning(
                "Waiting for %s, which holds %s, for up to %g minutes.",
                holder,
                self._what[:1].lower() + self._what[1:],
                self._seconds / 60,
            )
