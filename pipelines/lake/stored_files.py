"""Files of the lake: read, written, replaced and removed, on a local disk or in an object store.

A file appears under its name complete or not at all: written beside, synced and renamed, or an object, which is so by
itself. What a file holds, and where it belongs, is no concern of this module.
"""

import errno
import glob
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipelines.errors import ConfigurationError, StorageError
from pipelines.inputs import local_files
from pipelines.lake.locks import check_holds
from pipelines.lake.object_storage import ObjectPath, sha256_of_object

LakePath = Path | ObjectPath

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


@contextmanager
def storage_errors(path: LakePath) -> Iterator[None]:
    """Turn what the file system refuses, or an object that is not there, into one sentence.

    Raises:
        StorageError: no space left, or the storage failed.
        ConfigurationError: the path may not be written or read.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise StorageError(
                f"No space left while writing {path}: free some and run again; what was published before is intact "
                "and answers fetched so far are kept."
            ) from error
        if error.errno in _NOT_ALLOWED:
            raise ConfigurationError(
                f"The lake cannot be used: {os.strerror(error.errno or 0)} at {error.filename or path}. "
                "Set IMAGE_SNAPSHOTS_LAKE to a directory that this user may read and write, or let this user do so."
            ) from error
        raise StorageError(f"The storage failed at {path}: {error}.") from error


def exists(path: LakePath) -> bool:
    """Whether there is a file, directory or object of this name.

    Raises:
        ConfigurationError, StorageError: that cannot be told.
    """
    with storage_errors(path):
        return path.exists() if isinstance(path, ObjectPath) else local_files.exists(path)


def sha256_of_file(path: LakePath) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        ConfigurationError, StorageError: it cannot be read.
    """
    with storage_errors(path):
        if isinstance(path, ObjectPath):
            return sha256_of_object(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: Path) -> Path:
    """Name for a file that is not yet whole; readers' patterns (`*.parquet`, `*.json`) do not match it."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


@contextmanager
def whole_file(path: LakePath) -> Iterator[BinaryIO]:
    """Write a file that appears when the block ends without an error, and then survives a loss of power."""
    if isinstance(path, ObjectPath):
        with path.writing() as file:
            yield file
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _beside(path)
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        check_holds()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    _sync_directory(path.parent)


def write_atomically(path: LakePath, content: bytes) -> None:
    """Write a small file so that it appears whole or not at all, and survives a loss of power."""
    with whole_file(path) as file:
        file.write(content)


def remove_tree(directory: LakePath) -> None:
    """Remove a directory with all that is in it; there may be none."""
    if isinstance(directory, ObjectPath):
        directory.remove_tree()
    elif exists(directory):
        check_holds()
        shutil.rmtree(directory)


def replace_by_link(source: Path, target: Path) -> None:
    """Give a file on the local disk a second name, which another file may have had."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # What a killed run left half-way; the partition is held, so nobody else is writing here.
    for left in local_files.matching(target.parent, f".{glob.escape(target.name)}.*.part"):
        left.unlink()
    part = _beside(target)
    try:
        part.hardlink_to(source)
    except OSError:
        # Not every file system has hard links.
        shutil.copyfile(source, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
    check_holds()
    part.replace(target)
    # Renaming one hard link over another of the same file does nothing and leaves the source's name.
    part.unlink(missing_ok=True)
    _sync_directory(target.parent)
