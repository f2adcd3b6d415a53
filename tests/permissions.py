"""Files and directories that this user cannot read, even when the tests run as root."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

_NOBODY = 65534


@contextmanager
def as_nobody():
    """Drop root's rights, because the superuser may read and write anything."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@contextmanager
def unreadable(path):
    """Remove all permissions from a file or directory, and act as an unprivileged user."""
    before = path.stat().st_mode
    path.chmod(0)
    try:
        with as_nobody():
            yield
    finally:
        path.chmod(before)


@pytest.fixture
def open_directory(monkeypatch):
    """A working directory that other users may enter; pytest's own is closed to them."""
    directory = Path(tempfile.mkdtemp(prefix="image-snapshots-test-"))
    directory.chmod(0o755)
    monkeypatch.chdir(directory)
    yield directory
    shutil.rmtree(directory)
