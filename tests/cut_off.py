"""Simulates a process that is killed between two file operations: after that, nothing reaches the disk."""

import os
from contextlib import contextmanager
from itertools import count

import pytest

# The functions that make files appear and disappear under their names.
_OPERATIONS = ("replace", "rename", "link", "unlink")
# Each block is a process of its own: files that a killed one left have the number of another process in their names.
_numbers = count(os.getpid() + 1)


class Killed(BaseException):
    """Not caught by any error handling."""


@contextmanager
def killed_after(operations: int):
    """Allow this number of file operations in the block; the block ends at the next one."""
    done = 0

    def counted(operation):
        def counting(path, *arguments, **options):
            nonlocal done
            if not os.path.lexists(path):
                # Removing a missing file is not an error for most callers.
                return operation(path, *arguments, **options)
            if done == operations:
                raise Killed
            done += 1
            return operation(path, *arguments, **options)

        return counting

    number = next(_numbers)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "getpid", lambda: number)
        for name in _OPERATIONS:
            monkeypatch.setattr(os, name, counted(getattr(os, name)))
        yield


def was_killed(operations: int, work) -> bool:
    """Whether `work` is killed after this number of file operations, rather than ending before."""
    try:
        with killed_after(operations):
            work()
    except Killed:
        return True
    return False


class EndedError(Exception):
    """The end of a run that stored all responses and made nothing of them."""


def end(progress):
    """Ends a fetch when its last response is stored."""
    if progress.done == progress.total:
        raise EndedError
