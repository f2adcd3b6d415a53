"""A lake in a directory of a local disk: whole files by renaming, removal, locks that the kernel keeps.

A file is written beside its place, synced and renamed. A lock is held on a file that stays when the lock is let go.
`storage` says what each method must do, `inputs.local_files` looks at what there is.
"""

import contextlib
import errno
import fcntl
import glob
import hashlib
import io
import json
import os
import posixpath
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PosixPath
from typing import Any, BinaryIO, Self, TextIO
from urllib.parse import quote

from typing_extensions import Buffer

from pipelines.errors import StorageError
from pipelines.inputs import local_files
from pipelines.lake.storage import LakePath, ReadOnlyFiles, SharedReader, Stat, storage_errors

_NOT_EMPTY = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR}
_POLL_SECONDS = 0.1

# The lock files that this process holds.
_files: list[tuple[Path, TextIO]] = []


class LocalPath(PosixPath, LakePath):
    """A path on a local disk."""

    __slots__ = ()

    @property
    def local(self) -> Path:
        return self

    @property
    def uri(self) -> str:
        # `Path.as_uri` would spell each `=` of the directories `%3D`.
        return f"file://{quote(str(self), safe='/=')}"

    @property
    def top(self) -> Self:
        return self.parents[-1]

    @property
    def sql_name(self) -> str:
        """The name with its wildcards escaped: DuckDB takes `lake*` for a pattern, and would read others."""
        return glob.escape(str(self))

    def is_there(self) -> bool:
        with storage_errors(self):
            return local_files.exists(self)

    def open(self, *arguments: Any, **options: Any) -> Any:
        """As `pathlib` does, but only a file: nobody waits for the other end of a pipe, or reads a device for ever."""
        opening: Any = open
        return opening(self, *arguments, opener=_open_file, **options)

    def sha256(self) -> str:
        with storage_errors(self), self.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def matching(self, pattern: str) -> list[Self]:
        with storage_errors(self):
            return local_files.matching(self, pattern)

    def stats(self, pattern: str) -> list[tuple[Self, Stat]]:
        with storage_errors(self):
            return [(path, path.stat()) for path in self.matching(pattern)]

    def contents(self, pattern: str) -> dict[Self, bytes]:
        with storage_errors(self):
            return {path: path.read_bytes() for path in self.matching(pattern)}

    def all_files(self) -> Iterator[Self]:
        with storage_errors(self):
            yield from local_files.below(self, "*")

    @contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        """Write the file beside its place, and rename it when the block ends without an error."""
        self.parent.mkdir(parents=True, exist_ok=True)
        part = self._beside()
        try:
            with _open_new(part) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            check_holds()
            part.replace(self)
        finally:
            part.unlink(missing_ok=True)
        _sync(self.parent)

    def replace_by(self, source: Path) -> None:
        """Give another file of this disk this name, too, which a third file may have had."""
        with storage_errors(self):
            self.parent.mkdir(parents=True, exist_ok=True)
            # What a killed run left half-way; the partition is held, so nobody else is writing here.
            for left in local_files.matching(self.parent, f".{glob.escape(self.name)}.*.part"):
                left.unlink()
            part = self._beside()
            try:
                part.hardlink_to(source)
            except OSError:
                # Not every file system has hard links.
                shutil.copyfile(source, part)
                with part.open("rb") as file:
                    os.fsync(file.fileno())
            check_holds()
            part.replace(self)
            # Renaming one hard link over another of the same file does nothing and leaves the source's name.
            part.unlink(missing_ok=True)
            _sync(self.parent)

    def check_within(self, root: Path) -> None:
        with storage_errors(self):
            found = self.parent.resolve()
            if found != self.parent and not found.is_relative_to(root.resolve()):
                raise StorageError(
                    f"{self} lies outside the lake, because a link leads to {found}, so nothing was removed: put "
                    "the directory itself in the link's place."
                )

    def remove(self) -> None:
        check_holds()
        with storage_errors(self):
            self.unlink(missing_ok=True)
            for directory in self.parents[:2]:
                try:
                    directory.rmdir()
                except OSError as error:
                    if error.errno not in _NOT_EMPTY:
                        raise
                    break

    def remove_tree(self) -> None:
        if self.is_there():
            check_holds()
            with storage_errors(self):
                shutil.rmtree(self)

    @contextmanager
    def held(self, facts: dict[str, str], busy: Callable[[dict[str, str]], None]) -> Iterator[None]:
        self.parent.mkdir(parents=True, exist_ok=True)
        while True:
            # Not through a link: its target, anywhere on the machine, would be emptied.
            with os.fdopen(os.open(self, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666), "a+") as file:
                try:
                    # The kernel frees it when the process ends, however it ends; the file itself stays, because
                    # removing it would let two runs hold two files of the same name.
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    busy(_read(file))
                    time.sleep(_POLL_SECONDS)
                    continue
                if not _is_same(self, file):
                    # Removed since it was opened: the next run would open another.
                    continue
                file.truncate(0)
                file.write(json.dumps(facts) + "\n")
                file.flush()
                _files.append((self, file))
                try:
                    yield
                finally:
                    _files.remove((self, file))
                return

    def reader(self) -> "LocalFiles":
        return LocalFiles(self)

    def _beside(self) -> Self:
        """Name for a file that is not yet whole; readers' patterns (`*.parquet`, `*.json`) do not match it."""
        return self.with_name(f".{self.name}.{os.getpid()}.part")


def _open_file(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    kind = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no file", path)
    return descriptor


def _open_new(part: LocalPath) -> Any:
    try:
        return part.open("xb")
    except FileExistsError:
        # It is left from a process that was killed, or is a link to any other file.
        part.unlink()
        return part.open("xb")


def _sync(directory: Path) -> None:
    """See that the names in a directory survive a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def _read(file: TextIO) -> dict[str, str]:
    """The facts in a lock file; none while its holder has not written them yet."""
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


class LocalFiles(ReadOnlyFiles):
    """A directory of a local disk as DuckDB asks for files, under `lake://`."""

    protocol = "lake"
    prefix = "lake://"

    def __init__(self, root: LocalPath) -> None:
        super().__init__()
        self._stated = root
        self._root = root.resolve()
        self._published: set[str] = set()

    def name_of(self, path: LocalPath) -> str:
        """The name of a published file, which may be read wherever a link of its table or day leads."""
        key = path.relative_to(self._stated).as_posix()
        self._published.add(key)
        return f"{self.prefix}{key}"

    def _path(self, name: str) -> LocalPath:
        key = posixpath.normpath(name.removeprefix(self.prefix))
        path = self._root / key
        # Other links are followed before it is looked at where a file is.
        if key not in self._published and not Path(os.path.realpath(path)).is_relative_to(self._root):
            raise PermissionError(f"{name} is not in the lake")
        return path

    def _reader(self, name: str) -> io.RawIOBase:
        return _LocalReader(_open_file(str(self._path(name)), os.O_RDONLY))


class _LocalReader(SharedReader):
    def __init__(self, descriptor: int) -> None:
        # Whatever fails after this, Python closes it.
        self._descriptor = descriptor
        super().__init__(os.fstat(descriptor).st_size)

    def readinto(self, buffer: Buffer) -> int:
        size = os.preadv(self._descriptor, [buffer], self.position)
        self.position += size
        return size

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()
