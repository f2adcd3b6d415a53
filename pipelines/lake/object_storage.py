"""A lake in an object store: names in a bucket by the part of `pathlib.Path` that the lake uses.

An object appears whole or not at all, and replaces the one of its name at once: that is all an object store promises,
and all the lake needs. `storage` says what each method must do, `buckets` sends the requests, `leases` keeps the locks.
"""

import fnmatch
import hashlib
import io
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import BinaryIO, Literal, Self

import obstore
from fsspec.core import has_magic
from typing_extensions import Buffer

from pipelines.errors import ConfigurationError, PipelineError
from pipelines.inputs.endpoints import SCHEME
from pipelines.lake.buckets import Bucket, ObjectStat, object_errors, open_bucket
from pipelines.lake.leases import claimed
from pipelines.lake.storage import LakePath, RangeReader, ReadOnlyFiles, SharedReader, Stat, storage_errors

# Large enough that a million images take some hundred requests, small enough to have some of them in memory.
_PART_BYTES = 8 << 20
_PARTS_IN_FLIGHT = 2
_READ_AHEAD_BYTES = 1 << 20
_SMALL_IN_FLIGHT = 16


@dataclass(frozen=True)
class ObjectPath(LakePath):
    """A name in a bucket. Methods named as those of `pathlib.Path` do what those do."""

    bucket: Bucket
    key: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """The name that `s3://bucket/key` stands for.

        Raises:
            ConfigurationError: it is not of that form, or the bucket cannot be opened.
        """
        name, _, key = url.removeprefix(SCHEME).partition("/")
        parts = [part for part in key.split("/") if part]
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,62}", name) or any(part in (".", "..") for part in parts):
            raise ConfigurationError("IMAGE_SNAPSHOTS_LAKE must look like s3://bucket/directory.")
        return cls(open_bucket(name), "/".join(parts))

    def __str__(self) -> str:
        return self.bucket.url(self.key)

    def __lt__(self, other: "ObjectPath") -> bool:
        return self.key < other.key

    def __truediv__(self, other: str | PurePosixPath) -> Self:
        return self._at(f"{self.key}/{other}".strip("/"))

    def _at(self, key: str) -> Self:
        return type(self)(self.bucket, key)

    @cached_property
    def pure(self) -> PurePosixPath:
        return PurePosixPath(self.key)

    @property
    def name(self) -> str:
        return self.pure.name

    @property
    def stem(self) -> str:
        return self.pure.stem

    @property
    def parent(self) -> Self:
        return self._at(str(self.pure.parent).removeprefix("."))

    def relative_to(self, other: "ObjectPath") -> PurePosixPath:
        return self.pure.relative_to(other.pure)

    def is_relative_to(self, other: "ObjectPath") -> bool:
        return self.pure.is_relative_to(other.pure)

    @property
    def local(self) -> None:
        """Not on a disk."""
        return None

    @property
    def uri(self) -> str:
        return str(self)

    @property
    def top(self) -> Self:
        return self._at("")

    @property
    def sql_name(self) -> str:
        """The address: `ObjectFiles` knows no patterns."""
        return str(self)

    def is_there(self) -> bool:
        return self.bucket.is_there(self.key)

    def stat(self) -> ObjectStat:
        return self.bucket.stat(self.key)

    def sha256(self) -> str:
        digest = hashlib.sha256()
        with storage_errors(self), object_errors(self):
            for chunk in obstore.get(self.bucket.store, self.key).stream(_PART_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def read_bytes(self) -> bytes:
        return self.bucket.get(self.key)

    def open(self, mode: Literal["rb"] = "rb") -> io.BufferedReader:
        """Open for reading; what replaces the object meanwhile is an error, never a mixture."""
        if mode != "rb":
            raise ValueError("objects are written as a whole")
        return io.BufferedReader(_ObjectReader(self, self.stat()), _READ_AHEAD_BYTES)

    def matching(self, pattern: str) -> list[Self]:
        return [path for path, _ in self._listed(pattern)]

    def stats(self, pattern: str) -> list[tuple[Self, Stat]]:
        return [*self._listed(pattern)]

    def _listed(self, pattern: str) -> list[tuple[Self, ObjectStat]]:
        parts = pattern.split("/")
        literal: list[str] = []
        for part in parts[:-1]:
            if has_magic(part):
                break
            literal.append(part)
        start = self / "/".join(literal) if literal else self
        wanted = parts[len(literal) :]
        matching = []
        with storage_errors(self):
            for key, stat in self.bucket.below(start.key):
                path = self._at(key)
                found = path.relative_to(start).parts
                if len(found) == len(wanted) and all(map(fnmatch.fnmatchcase, found, wanted)):
                    matching.append((path, stat))
        return matching

    def contents(self, pattern: str) -> dict[Self, bytes]:
        """The objects that `matching` finds, with their bytes; each version of one is read once in a process."""
        listed = self._listed(pattern)
        known = self.bucket.small
        missing = [(path, stat) for path, stat in listed if (path.key, stat.e_tag) not in known]
        with storage_errors(self), ThreadPoolExecutor(_SMALL_IN_FLIGHT) as pool:
            contents = pool.map(ObjectPath.read_bytes, [path for path, _ in missing])
            for (path, stat), content in zip(missing, contents, strict=True):
                known[path.key, stat.e_tag] = content
        return {path: known[path.key, stat.e_tag] for path, stat in listed}

    def all_files(self) -> Iterator[Self]:
        with storage_errors(self):
            yield from (self._at(key) for key, _ in self.bucket.below(self.key))

    def write_whole(self, content: bytes) -> None:
        """Put a small object in the place of the one of this name, in one request."""
        self.bucket.announce_write()
        with storage_errors(self):
            self.bucket.put(self.key, content)

    @contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        """Write an object in parts, in bounded memory; it appears when the block ends without an error."""
        self.bucket.announce_write()
        with object_errors(self):
            writer = _ObjectWriter(self)
            yield writer  # type: ignore[misc]  # a raw stream whose write takes all it is given
            # Not when the stream is dropped: an object that was not finished never appears.
            writer.finish()

    def replace_by(self, source: "ObjectPath") -> None:
        self.bucket.announce_write()
        with storage_errors(self), object_errors(self):
            obstore.copy(self.bucket.store, source.key, self.key)

    def check_within(self, _root: "ObjectPath") -> None:
        """Nothing to refuse: names in a bucket are not links."""

    def remove(self) -> None:
        """Remove the object, if it is there: directories are only parts of names."""
        self.bucket.announce_write()
        self.bucket.delete([self.key], self.key)

    def remove_tree(self) -> None:
        self.bucket.announce_write()
        self.bucket.delete([key for key, _ in self.bucket.below(self.key)], self.key)

    def held(self, facts: dict[str, str], busy: Callable[[dict[str, str]], None]) -> AbstractContextManager[None]:
        """Hold the name by a claim below it that is renewed."""
        return claimed(self.bucket, self.key, facts, busy)

    def reader(self) -> "ObjectFiles":
        return ObjectFiles(self)


class _ObjectReader(RangeReader):
    """Reads ranges of one version of an object."""

    def __init__(self, path: ObjectPath, stat: ObjectStat) -> None:
        super().__init__(stat.st_size)
        self._path = path
        self._e_tag = stat.e_tag

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        start = self.position
        size = min(len(view), self.size - start)
        if size <= 0:
            return 0
        with object_errors(self._path):
            response = obstore.get(
                self._path.bucket.store,
                self._path.key,
                options={"range": (start, start + size), "if_match": self._e_tag},
            )
            view[:size] = memoryview(response.bytes())
        self.position = start + size
        return size


class _SharedObjectReader(SharedReader, _ObjectReader):
    """The same for several threads; `on_error` is called when a range cannot be read."""

    def __init__(self, path: ObjectPath, stat: ObjectStat, on_error: Callable[[], None]) -> None:
        super().__init__(path, stat)
        self._on_error = on_error

    def readinto(self, buffer: Buffer) -> int:
        try:
            return super().readinto(buffer)
        except PipelineError:
            self._on_error()
            raise


class _ObjectWriter(io.RawIOBase):
    """Sends an object in parts; it appears with `finish`."""

    def __init__(self, path: ObjectPath) -> None:
        self._path = path
        self._writer = obstore.open_writer(
            path.bucket.store, path.key, buffer_size=_PART_BYTES, max_concurrency=_PARTS_IN_FLIGHT
        )
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Buffer) -> int:
        written = memoryview(data).nbytes
        self._writer.write(data)
        self._position += written
        return written

    def finish(self) -> None:
        self._path.bucket.announce_write()
        self._writer.close()


class ObjectFiles(ReadOnlyFiles):
    """A directory of a bucket as DuckDB asks for files, under `s3://`; each file is one version of it.

    DuckDB opens a file again each time that SQL reads it. The version of the first time is read until it is forgotten;
    reading a file that was replaced is an error, never a mixture, and forgets it.
    """

    protocol = "s3"

    def __init__(self, root: ObjectPath) -> None:
        super().__init__()
        self._root = root
        self.prefix = f"{root}/"
        self._known: dict[str, ObjectStat] = {}

    def forget(self, path: ObjectPath) -> None:
        self._known.pop(str(path), None)

    def name_of(self, path: ObjectPath) -> str:
        return str(path)

    def _reader(self, name: str) -> io.RawIOBase:
        path = self._path(name)
        return _SharedObjectReader(path, self._stat(name), lambda: self.forget(path))

    def _path(self, name: str) -> ObjectPath:
        bucket = self._root.bucket
        path = ObjectPath(bucket, name.removeprefix(f"{SCHEME}{bucket.name}/"))
        if not path.is_relative_to(self._root):
            raise PermissionError(f"{name} is not in the lake {self._root}")
        return path

    def _stat(self, name: str) -> ObjectStat:
        if name not in self._known:
            self._known[name] = self._path(name).stat()
        return self._known[name]
