"""Holding something of a lake against others, and waiting for who holds it: one answer for files and object stores.

On a local disk the kernel keeps the lock, on a file that stays when it is let go; in an object store `lake.leases`
does. What is held, and under which name, belongs to `lake.layout`.
"""

import contextlib
import datetime as dt
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from pipelines.errors import PartitionBusyError, StorageError
from pipelines.lake.leases import claimed
from pipelines.lake.object_storage import ObjectPath

# A chain is held for seconds; what is derived for as long as all days of a project take that are due.
WAIT_SECONDS = 3600.0
# What takes no longer is not worth a word.
SAID_AFTER_SECONDS = 2.0
_POLL_SECONDS = 0.1

_logger = logging.getLogger(__name__)
# The lock files that this process holds.
_files: list[tuple[Path, TextIO]] = []


@contextmanager
def held(place: Path | ObjectPath, what: str, holder: str, *, may_wait: bool) -> Iterator[None]:
    """Hold `place` until the block, or the process, ends; `what` and `holder` are words for others who want it.

    Raises:
        PartitionBusyError: somebody else holds it, or with `may_wait` still does after `WAIT_SECONDS`; says who.
        OSError, StorageError: the storage failed.
    """
    facts = {
        "holder": holder,
        "pid": str(os.getpid()),
        "host": socket.gethostname(),
        "since": dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
    }
    busy = _Waiting(what).for_holder if may_wait else _refuse(what)
    taken = claimed(place, facts, busy) if isinstance(place, ObjectPath) else _locked(place, facts, busy)
    with taken:
        yield


def check_holds() -> None:
    """Called before anything appears or disappears on a local disk.

    Raises:
        StorageError: a lock file of ours was removed, so that another run may hold what it stands for.
    """
    for path, file in _files:
        if not _is_same(path, file):
            raise StorageError(
                f"The hold on {path} was lost: the file was removed or replaced. Nothing more was written; run again."
            )


def _in_words(facts: dict[str, str]) -> str:
    """Who holds something, by what he wrote about himself."""
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
    """One wait for something that others hold: says for whom, and gives up in the end."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = time.monotonic()
        self._said = ""

    def for_holder(self, facts: dict[str, str]) -> None:
        """Called again and again while somebody else holds it.

        Raises:
            PartitionBusyError: it has been so for too long.
        """
        waited = time.monotonic() - self._began
        holder = _in_words(facts)
        if waited >= WAIT_SECONDS:
            raise PartitionBusyError(
                f"{self._what} is held by {holder}, which was waited for {WAIT_SECONDS / 60:g} minutes: wait for it to "
                "end, or stop it, and run again."
            )
        if waited >= SAID_AFTER_SECONDS and holder != self._said:
            self._said = holder
            _logger.warning(
                "Waiting for %s, which holds %s, for up to %g minutes.",
                holder,
                self._what[:1].lower() + self._what[1:],
                WAIT_SECONDS / 60,
            )


@contextmanager
def _locked(path: Path, facts: dict[str, str], busy: Callable[[dict[str, str]], None]) -> Iterator[None]:
    """Hold a lock file; `busy` is told who else does, and raises when it was told often enough."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a+") as file:
            try:
                # The kernel frees it when the process ends, however it ends; the file itself stays, because removing
                # it would let two runs hold two files of the same name.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                busy(_read(file))
                time.sleep(_POLL_SECONDS)
                continue
            if not _is_same(path, file):
                # Removed since it was opened: whoever comes next would open another.
                continue
            file.truncate(0)
            file.write(json.dumps(facts) + "\n")
            file.flush()
            _files.append((path, file))
            try:
                yield
            finally:
                _files.remove((path, file))
            return


def _read(file: TextIO) -> dict[str, str]:
    """What the holder of a lock file wrote about himself; he may be about to write it."""
    file.seek(0)
    with contextlib.suppress(ValueError):
        facts = json.loads(file.read())
        if isinstance(facts, dict):
            return facts
    return {}


def _is_same(path: Path, file: TextIO) -> bool:
    """Whether an open file is still the one of its name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
