"""Files in an object store that speaks S3 (OBS, AWS, MinIO, ...), by the part of `pathlib.Path` that the lake uses.

An object appears whole or not at all, and replaces the one of its name at once: that is all an object store promises,
and all the lake needs. Addresses and credentials are those that the S3 tools of all vendors read (`AWS_*`). What is
kept under which name belongs to `lake.layout`; who may write, to `lake.leases`.
"""

import datetime as dt
import fnmatch
import hashlib
import io
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Literal, Self

import obstore
from fsspec import AbstractFileSystem
from fsspec.core import has_magic
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import S3Store
from typing_extensions import Buffer

from pipelines.errors import ConfigurationError, PipelineError, StorageError, StorageUnreachableError
from pipelines.inputs.endpoints import SCHEME, check_endpoint
from pipelines.lake.object_connection import VARIABLES, connection_options

REQUEST_SECONDS = 30
# How long a request that failed in passing (503 SlowDown, a reset) is sent again, with growing pauses.
RETRY_SECONDS = 45
_RETRIES = 10
# Large enough that a million images take some hundred requests, small enough to have some of them in memory.
_PART_BYTES = 8 << 20
_PARTS_IN_FLIGHT = 2
_READ_AHEAD_BYTES = 1 << 20
_SMALL_IN_FLIGHT = 16

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"non-2xx status code: (\d{3})")


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What `os.stat_result` says of a file, as far as an object store knows it."""

    st_size: int
    st_mtime: float
    e_tag: str | None


class Bucket:
    """One bucket; made by `open_bucket`. What holds leases in it hears of every write before it is sent."""

    def __init__(self, name: str, endpoint: str | None) -> None:
        self.name = name
        # The rest (region, credentials, virtual-hosted style) is read from the environment.
        address = {"endpoint": endpoint} if endpoint else {}
        self.store = S3Store(
            name,
            **address,  # type: ignore[arg-type]  # the union of all of its options
            # Not every store has it, and some want a checksum with it that others do not know.
            disable_bulk_delete=True,
            client_options={
                # `check_endpoint` has refused http beyond this machine.
                "allow_http": bool(endpoint and endpoint.startswith("http://")),
                "timeout": dt.timedelta(seconds=REQUEST_SECONDS),
                "connect_timeout": dt.timedelta(seconds=REQUEST_SECONDS / 3),
                **connection_options(endpoint),
            },
            retry_config={"max_retries": _RETRIES, "retry_timeout": dt.timedelta(seconds=RETRY_SECONDS)},
        )
        self.before_write: list[Callable[[], None]] = []
        self.small: dict[tuple[str, str | None], bytes] = {}


def open_bucket(name: str) -> Bucket:
    """The bucket of this name, at the address and with the credentials that the environment states.

    Raises:
        ConfigurationError: there are no credentials, or the endpoint is no address that they may be sent to.
    """
    names = [key for key in os.environ if key.startswith("AWS_") or key in VARIABLES]
    stated = tuple((key, os.environ[key]) for key in sorted(names))
    return _open_bucket(name, stated)


@cache
def _open_bucket(name: str, stated: tuple[tuple[str, str], ...]) -> Bucket:
    variables = dict(stated)
    if not any(variables.get(key) for key in _CREDENTIALS):
        # Else the library would look for an instance's own credentials, and time out where there are none.
        raise ConfigurationError(
            f"There are no credentials for the lake {SCHEME}{name}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    endpoint = next((key for key in _ENDPOINTS if variables.get(key)), None)
    if endpoint is None:
        return Bucket(name, None)
    try:
        return Bucket(name, check_endpoint(variables[endpoint], "https://obs.eu-de.otc.t-systems.com"))
    except ValueError as error:
        raise ConfigurationError(f"The variable {endpoint} is wrong: it {error}.") from None


@contextmanager
def object_errors(where: object) -> Iterator[None]:
    """Turn what the object store answers, or the lack of an answer, into one sentence without anything it sent.

    Raises:
        ConfigurationError: it refuses the credentials, or has no such bucket.
        StorageUnreachableError: it cannot be reached, or is overloaded.
        StorageError: it failed, or an object was replaced while it was read.
        FileNotFoundError: there is no such object.
    """
    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        raise _sentence(error, where) from None


def _sentence(error: Exception, where: object) -> Exception:
    text = str(error)
    found, status = _CODE.search(text), _STATUS.search(text)
    code = found[1] if found else f"status {status[1]}" if status else None
    if code == "NoSuchBucket":
        return ConfigurationError(f"{where} cannot be used: there is no such bucket. Correct IMAGE_SNAPSHOTS_LAKE.")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"{where} does not exist")
    if isinstance(error, PreconditionError):
        return StorageError(f"{where} was replaced while it was read: run again.")
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or (status and status[1] in ("401", "403")):
        return ConfigurationError(
            f"The object store refuses access to {where} ({code or 'no reason given'}): correct AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or what they may do."
        )
    if status and (status[1] in ("429", "503")):
        return StorageUnreachableError(f"The object store is overloaded at {where} ({code}): run again later.")
    if status:
        return StorageError(f"The object store failed at {where} ({code}): run again.")
    return StorageUnreachableError(
        f"The object store cannot be reached at {where}: correct AWS_ENDPOINT_URL, or run again when it can."
    )


@dataclass(frozen=True)
class ObjectPath:
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
        return f"{SCHEME}{self.bucket.name}/{self.key}".rstrip("/")

    def __lt__(self, other: "ObjectPath") -> bool:
        return self.key < other.key

    def __truediv__(self, other: "str | PurePosixPath") -> "ObjectPath":
        return ObjectPath(self.bucket, f"{self.key}/{other}".strip("/"))

    @cached_property
    def pure(self) -> PurePosixPath:
        """The name as a path."""
        return PurePosixPath(self.key)

    @property
    def name(self) -> str:
        """The last part."""
        return self.pure.name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return self.pure.stem

    @property
    def parent(self) -> "ObjectPath":
        """All but the last part."""
        return ObjectPath(self.bucket, str(self.pure.parent).removeprefix("."))

    def relative_to(self, other: "ObjectPath") -> PurePosixPath:
        """The rest of the name below another."""
        return self.pure.relative_to(other.pure)

    def is_relative_to(self, other: "ObjectPath") -> bool:
        """Whether the name is below another."""
        return self.pure.is_relative_to(other.pure)

    def resolve(self) -> "ObjectPath":
        """Itself: names in a bucket are not links."""
        return self

    def exists(self) -> bool:
        """Whether there is an object of this name."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def stat(self) -> ObjectStat:
        """Size in bytes, and when it was written."""
        with object_errors(self):
            found = obstore.head(self.bucket.store, self.key)
        return ObjectStat(found["size"], found["last_modified"].timestamp(), found["e_tag"])

    def read_bytes(self) -> bytes:
        """The whole object; for small ones."""
        with object_errors(self):
            return bytes(obstore.get(self.bucket.store, self.key).bytes())

    def write_bytes(self, content: bytes, *, held: bool = True) -> None:
        """Put a small object in the place of the one of this name; it appears whole or not at all.

        Without `held`, whatever is held in the bucket is not asked first: for the claims themselves.
        """
        if held:
            self.announce_write()
        with object_errors(self):
            obstore.put(self.bucket.store, self.key, content, use_multipart=False)

    def open(self, mode: Literal["rb"] = "rb") -> io.BufferedReader:
        """Open for reading; what replaces the object meanwhile is an error, never a mixture."""
        if mode != "rb":
            raise ValueError("objects are written as a whole")
        return io.BufferedReader(_ObjectReader(self, self.stat()), _READ_AHEAD_BYTES)

    @contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        """Write an object in parts, in bounded memory; it appears when the block ends without an error."""
        self.announce_write()
        with object_errors(self):
            writer = _ObjectWriter(self)
            yield writer  # type: ignore[misc]  # a raw stream whose write takes all it is given
            # Only now, and not when the stream is dropped: what was not finished never appears.
            writer.finish()

    def copy_from(self, source: "ObjectPath") -> None:
        """Put a copy of another object in the place of the one of this name, within the store, whole or not at all."""
        self.announce_write()
        with object_errors(self):
            obstore.copy(self.bucket.store, source.key, self.key)

    def unlink(self, *, missing_ok: bool = False, held: bool = True) -> None:
        """Remove the object; `held` as in `write_bytes`."""
        # A store does not tell whether there was one.
        if not missing_ok and not self.exists():
            raise FileNotFoundError(f"{self} does not exist")
        if held:
            self.announce_write()
        with object_errors(self):
            obstore.delete(self.bucket.store, self.key)

    def tree(self) -> Iterator[tuple["ObjectPath", ObjectStat]]:
        """All objects whose names are below this one, by name."""
        with object_errors(self):
            for page in obstore.list(self.bucket.store, self.key + "/"):
                for found in page:
                    stat = ObjectStat(found["size"], found["last_modified"].timestamp(), found["e_tag"])
                    yield ObjectPath(self.bucket, found["path"]), stat

    def remove_tree(self) -> None:
        """Remove all objects whose names are below this one."""
        self.announce_write()
        keys = [path.key for path, _ in self.tree()]
        with object_errors(self):
            obstore.delete(self.bucket.store, keys)

    def glob(self, pattern: str | PurePosixPath) -> Iterator["ObjectPath"]:
        """Objects below this name that match, part by part; `*` stays within a part."""
        return (path for path, _ in self.matching(pattern))

    def matching(self, pattern: str | PurePosixPath) -> Iterator[tuple["ObjectPath", ObjectStat]]:
        """What `glob` gives, with what the listing says of each."""
        parts = str(pattern).split("/")
        literal: list[str] = []
        for part in parts[:-1]:
            if has_magic(part):
                break
            literal.append(part)
        start = self / "/".join(literal) if literal else self
        wanted = parts[len(literal) :]
        for path, stat in start.tree():
            found = path.relative_to(start).parts
            if len(found) == len(wanted) and all(map(fnmatch.fnmatchcase, found, wanted)):
                yield path, stat

    def announce_write(self) -> None:
        """Ask what is held in the bucket whether it may still be written to."""
        for check in self.bucket.before_write:
            check()


class _ObjectReader(io.RawIOBase):
    """Reads ranges of one version of an object."""

    def __init__(self, path: ObjectPath, stat: ObjectStat) -> None:
        self._path = path
        self._stat = stat
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._stat.st_size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        size = min(len(view), self._stat.st_size - self._position)
        if size <= 0:
            return 0
        with object_errors(self._path):
            answer = obstore.get(
                self._path.bucket.store,
                self._path.key,
                options={"range": (self._position, self._position + size), "if_match": self._stat.e_tag},
            )
            view[:size] = memoryview(answer.bytes())
        self._position += size
        return size


class _SharedObjectReader(_ObjectReader):
    """An object that several threads read; each has a position of its own.

    DuckDB's threads share a file, and one may seek while another, that did, has not read yet. `on_error` is called when
    a range cannot be read.
    """

    def __init__(self, path: ObjectPath, stat: ObjectStat, on_error: Callable[[], None]) -> None:
        self._thread = threading.local()
        self._on_error = on_error
        super().__init__(path, stat)

    def readinto(self, buffer: Buffer) -> int:
        try:
            return super().readinto(buffer)
        except PipelineError:
            self._on_error()
            raise

    @property
    def _position(self) -> int:
        return getattr(self._thread, "position", 0)

    @_position.setter
    def _position(self, value: int) -> None:
        self._thread.position = value


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
        self._path.announce_write()
        self._writer.close()


class ObjectFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec publishes no types
    """One directory of a bucket as DuckDB asks for files: reading only, and each file as one version.

    DuckDB opens a file anew for each time that SQL reads it. What was learned of a file the first time holds until it
    is forgotten; one that was replaced is an error, never a mixture, and forgotten.
    """

    protocol = "s3"
    cachable = False

    def __init__(self, root: ObjectPath) -> None:
        super().__init__()
        self._root = root
        self._known: dict[str, ObjectStat] = {}

    def forget(self, path: ObjectPath) -> None:
        """Ask the store again when the file is opened next."""
        self._known.pop(str(path), None)

    def open(self, path: str, mode: str = "rb", **_: Any) -> io.RawIOBase:
        """Open for reading."""
        if mode != "rb":
            raise PermissionError(f"{path} is only read here")
        found = self._path(path)
        return _SharedObjectReader(found, self._stat(path), lambda: self.forget(found))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, size in bytes and type of an object."""
        return {"name": path, "size": self._stat(path).st_size, "type": "file"}

    def exists(self, path: str, **_: Any) -> bool:
        """Whether there is an object of this name."""
        return self._path(path).exists()

    def modified(self, path: str) -> dt.datetime:
        """When the object was written."""
        return dt.datetime.fromtimestamp(self._stat(path).st_mtime, dt.UTC)

    def glob(self, path: str, **_: Any) -> list[str]:
        """The object of this name: a pattern in the name of a lake, such as `lake*`, would find those of others."""
        return [path]

    def _path(self, url: str) -> ObjectPath:
        path = ObjectPath(self._root.bucket, url.removeprefix(f"{SCHEME}{self._root.bucket.name}/"))
        if not path.is_relative_to(self._root):
            raise PermissionError(f"{url} is not in the lake {self._root}")
        return path

    def _stat(self, url: str) -> ObjectStat:
        if url not in self._known:
            self._known[url] = self._path(url).stat()
        return self._known[url]


def read_small(found: Iterable[tuple[ObjectPath, ObjectStat]]) -> dict[ObjectPath, bytes]:
    """Contents of small objects that a listing has shown; each version of one is asked for once in a process."""
    listed = list(found)
    if not listed:
        return {}
    known = listed[0][0].bucket.small
    missing = [(path, stat) for path, stat in listed if (path.key, stat.e_tag) not in known]
    with ThreadPoolExecutor(_SMALL_IN_FLIGHT) as pool:
        contents = pool.map(ObjectPath.read_bytes, [path for path, _ in missing])
        known.update({(path.key, stat.e_tag): content for (path, stat), content in zip(missing, contents, strict=True)})
    return {path: known[path.key, stat.e_tag] for path, stat in listed}


def sha256_of_object(path: ObjectPath) -> str:
    """SHA-256 of an object's bytes, in hexadecimal."""
    with object_errors(path):
        digest = hashlib.sha256()
        for chunk in obstore.get(path.bucket.store, path.key).stream(_PART_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
