"""The one interface of storage: what the lake asks of a path, in a directory or in an object store, and its errors.

`local_storage` and `object_storage` implement it; `paths` chooses one of them by the scheme of the lake's root. Where a
table lies belongs to `layout`.
"""

import datetime as dt
import errno
import io
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, Protocol, Self

from fsspec import AbstractFileSystem

from pipelines.errors import ConfigurationError, StorageError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}


@contextmanager
def storage_errors(path: object) -> Iterator[None]:
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
                "and responses fetched so far are kept."
            ) from error
        if error.errno in _NOT_ALLOWED:
            raise ConfigurationError(
                f"The lake cannot be used: {os.strerror(error.errno or 0)} at {error.filename or path}. "
                "Set IMAGE_SNAPSHOTS_LAKE to a directory that this user may read and write, or let this user do so."
            ) from error
        raise StorageError(f"The storage failed at {path}: {error}.") from error


class Stat(Protocol):
    """What every storage knows of a file: bytes, and the time of its last change in seconds since the epoch."""

    @property
    def st_size(self) -> int: ...  # noqa: D102

    @property
    def st_mtime(self) -> float: ...  # noqa: D102


class LakePath(ABC):
    """A file or directory in a storage; members that `pathlib.Path` has, too, do what those do.

    A file appears under its name complete or not at all, and replaces the one of its name at once. Methods raise
    `StorageError` when the storage fails and `ConfigurationError` when it refuses, unless they say otherwise.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part."""

    @property
    @abstractmethod
    def stem(self) -> str:
        """The last part without its suffix."""

    @property
    @abstractmethod
    def parent(self) -> Self:
        """All but the last part."""

    @abstractmethod
    def __truediv__(self, other: str | PurePosixPath, /) -> Self: ...

    @abstractmethod
    def __lt__(self, other: Any, /) -> bool: ...

    @abstractmethod
    def relative_to(self, other: Any, /) -> PurePosixPath:
        """The rest of the path below another of the same storage."""

    @property
    @abstractmethod
    def local(self) -> Path | None:
        """The path on a disk of this machine; None in an object store."""

    @property
    @abstractmethod
    def uri(self) -> str:
        """The path as a URI."""

    @property
    @abstractmethod
    def top(self) -> Self:
        """The directory that all of this storage is below: of the file system, or the bucket."""

    @property
    @abstractmethod
    def sql_name(self) -> str:
        """The name by which DuckDB reads this file and no other."""

    @abstractmethod
    def is_there(self) -> bool:
        """Whether there is a file, directory or object of this name; an error where that cannot be told."""

    @abstractmethod
    def stat(self) -> Stat:
        """Size and time of the file.

        Raises:
            FileNotFoundError: there is none.
            OSError: a local disk failed.
        """

    def size(self) -> int:
        """Bytes of the file."""
        with storage_errors(self):
            return self.stat().st_size

    @abstractmethod
    def open(self, mode: Literal["rb"]) -> io.BufferedReader:
        """Open for reading; whatever replaces the file meanwhile is not seen, or is an error. Raises as `stat`."""

    @abstractmethod
    def read_bytes(self) -> bytes:
        """The whole file; for small ones. Raises as `stat`."""

    @abstractmethod
    def sha256(self) -> str:
        """SHA-256 of the file's bytes, in hexadecimal."""

    @abstractmethod
    def matching(self, pattern: str) -> list[Self]:
        """The files below this directory that match, part by part; `*` stays within a part."""

    @abstractmethod
    def stats(self, pattern: str) -> list[tuple[Self, Stat]]:
        """The files that `matching` finds, each with its size and time."""

    @abstractmethod
    def contents(self, pattern: str) -> dict[Self, bytes]:
        """The files that `matching` finds, each with its bytes; for small files."""

    @abstractmethod
    def all_files(self) -> Iterator[Self]:
        """The files at any depth below this directory."""

    @abstractmethod
    def writing(self) -> AbstractContextManager[BinaryIO]:
        """Write the file; it appears when the block ends without an error, and then survives a loss of power.

        Raises:
            OSError: a local disk failed.
        """

    def read_whole(self) -> bytes:
        """The whole file, which must be there; for small ones."""
        with storage_errors(self):
            return self.read_bytes()

    def write_whole(self, content: bytes) -> None:
        """Write a small file, as `writing` does."""
        with storage_errors(self), self.writing() as file:
            file.write(content)

    @abstractmethod
    def replace_by(self, source: Any) -> None:
        """Put the content of another file of this storage here, whole or not at all; the other stays where it is."""

    @abstractmethod
    def check_within(self, root: Any) -> None:
        """Refuse what a link below the directory `root` leads to outside of it.

        Raises:
            StorageError: the file lies outside, so it may not be removed.
        """

    @abstractmethod
    def remove(self) -> None:
        """Remove the file, if it is there, and the two directories above it if this leaves them empty."""

    @abstractmethod
    def remove_tree(self) -> None:
        """Remove the directory, if it is there, with all that is in it."""

    @abstractmethod
    def held(self, facts: dict[str, str], busy: Callable[[dict[str, str]], None]) -> AbstractContextManager[None]:
        """Hold the name against all others until the block, or the process, ends.

        `facts` say who holds it: pid, host, since (a time in ISO 8601), and more. While somebody else holds it, `busy`
        gets the facts of that holder again and again, and raises when it has waited long enough.

        Raises:
            OSError: a local disk failed.
        """

    @abstractmethod
    def reader(self) -> "ReadOnlyFiles":
        """The files below this directory as DuckDB asks for them, only for reading."""


class ReadOnlyFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec publishes no types
    """One directory as DuckDB asks for files: only for reading, each by its name, nothing outside.

    The engine does not tell reading from writing when it is told which directories are allowed. So it is allowed none,
    and gets its files from here, where no statement can write.
    """

    cachable = False
    # The names of all files here begin with it.
    prefix: str

    def name_of(self, path: Any) -> str:
        """The name by which the engine asks for a path of this directory."""
        raise NotImplementedError

    def forget(self, path: Any) -> None:
        """Look at a file again when it is opened next."""

    def _path(self, name: str) -> Any:
        """The path of a name.

        Raises:
            PermissionError: it is not in the directory.
        """
        raise NotImplementedError

    def _reader(self, name: str) -> io.RawIOBase:
        """Open a file that several threads read."""
        raise NotImplementedError

    def _stat(self, name: str) -> Stat:
        stat: Stat = self._path(name).stat()
        return stat

    def open(self, path: str, mode: str = "rb", **_: Any) -> io.RawIOBase:
        """Open for reading."""
        if mode != "rb":
            raise PermissionError(f"{path} is read-only here")
        return self._reader(path)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, size in bytes and type of a file."""
        return {"name": path, "size": self._stat(path).st_size, "type": "file"}

    def exists(self, path: str, **_: Any) -> bool:
        """Whether there is a file of this name."""
        return bool(self._path(path).is_there())

    def modified(self, path: str) -> dt.datetime:
        """When the file was written."""
        return dt.datetime.fromtimestamp(self._stat(path).st_mtime, dt.UTC)

    def glob(self, path: str, **_: Any) -> list[str]:
        """The file of this name: patterns have no meaning here, so no name needs to be escaped."""
        return [path]


class RangeReader(io.RawIOBase):
    """Reads a file of `size` bytes by ranges; subclasses read from `position`."""

    position = 0

    def __init__(self, size: int) -> None:
        self.size = size

    def readable(self) -> bool:  # noqa: D102
        return True

    def seekable(self) -> bool:  # noqa: D102
        return True

    def tell(self) -> int:  # noqa: D102
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:  # noqa: D102
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        self.position = start + offset
        return start + offset


class SharedReader(RangeReader):
    """A reader whose position each thread has for itself.

    DuckDB's threads share a file: one may seek while another has sought and not read yet.
    """

    def __init__(self, *arguments: Any) -> None:
        self._thread = threading.local()
        super().__init__(*arguments)

    @property
    def position(self) -> int:
        """The position of this thread."""
        found: int = getattr(self._thread, "position", 0)
        return found

    @position.setter
    def position(self, value: int) -> None:
        self._thread.position = value
