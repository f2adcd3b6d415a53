"""A process that is killed between two file operations, as its lake sees it: from then on nothing reaches the disk."""

import os
from contextlib import contextmanager

import pytest

# What makes files appear and disappear under their names.
_OPERATIONS = ("replace", "rename", "link", "unlink")


class Killed(BaseException):
    """Nothing that handles errors catches it."""


@contextmanager
def killed_after(operations: int):
    """Let so many file operations of the block happen, and none after; ends the block where the next one would be."""
    done = 0

    def counted(operation):
        def counting(path, *arguments, **options):
            nonlocal done
            if not os.path.lexists(path):
                # Clearing away what is not there, which is no error to most who do it.
                return operation(path, *arguments, **options)
            if done == operations:
                raise Killed
            done += 1
            return operation(path, *arguments, **options)

        return counting

    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in _OPERATIONS:
            monkeypatch.setattr(os, name, counted(getattr(os, name)))
        yield


def was_killed(operations: int, work) -> bool:
    """Whether `work` is killed after so many file operations, or ends before."""
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
