"""Serves the files of a local lake to the SQL engine under `lake://`, read-only.

The engine's list of allowed directories permits writing, too. So no directory is allowed: the engine reads its files
through this file system, which cannot write. `object_storage` does the same for a lake in an object store.
"""

import datetime as dt
import io
import os
import posixpath
import threading
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from typing_extensions import Buffer

from pipelines.inputs import local_files

LAKE_SCHEME = "lake://"


class LakeFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec publishes no types
    """One directory for DuckDB: read-only, each file by its name, nothing outside."""

    protocol = "lake"
    cachable = False

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root.resolve()
        self._published: set[str] = set()

    def name(self, key: str) -> str:
        """This file system's name for a published file, even if its table or day is a link to another place."""
        self._published.add(key)
        return f"{LAKE_SCHEME}{key}"

    def open(self, path: str, mode: str = "rb", **_: Any) -> io.RawIOBase:
        """Open for reading."""
        if mode != "rb":
            raise PermissionError(f"{path} is read-only here")
        return _SharedReader(self._path(path))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, size in bytes and type of a file."""
        return {"name": path, "size": self._path(path).stat().st_size, "type": "file"}

    def exists(self, path: str, **_: Any) -> bool:
        """Whether a file of this name exists."""
        return local_files.exists(self._path(path))

    def modified(self, path: str) -> dt.datetime:
        """When the file was last written."""
        return dt.datetime.fromtimestamp(self._path(path).stat().st_mtime, dt.UTC)

    def glob(self, path: str, **_: Any) -> list[str]:
        """The file with exactly this name. Patterns have no meaning here, so names need no quoting."""
        return [path]

    def _path(self, url: str) -> Path:
        key = posixpath.normpath(url.removeprefix(LAKE_SCHEME))
        path = self._root / key
        # Follow all other links before checking where the file is.
        if key not in self._published and not Path(os.path.realpath(path)).is_relative_to(self._root):
            raise PermissionError(f"{url} is not in the lake")
        return path


class _SharedReader(io.RawIOBase):
    """A file that several threads read, each with its own position.

    DuckDB's threads share a file, and one may seek between another's seek and read.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = os.fstat(self._descriptor).st_size
        self._thread = threading.local()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        position: int = getattr(self._thread, "position", 0)
        return position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._size}[whence]
        self._thread.position = start + offset
        return start + offset

    def readinto(self, buffer: Buffer) -> int:
        size = os.preadv(self._descriptor, [buffer], self.tell())
        self._thread.position = self.tell() + size
        return size

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()
