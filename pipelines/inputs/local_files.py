"""What there is on a local disk, or an error: nothing is taken for absent because it cannot be looked at.

`pathlib` does that: `glob` leaves out a directory that may not be read, and `exists` says no, each in some versions of
Python. All listing of directories goes through here; an `OSError` other than "there is no such thing" is the caller's.
"""

import errno
import fnmatch
import glob
import os
from pathlib import Path
from typing import TypeVar

_P = TypeVar("_P", bound=Path)


def exists(path: Path) -> bool:
    """Whether there is a file or directory of this name.

    Raises:
        OSError: that cannot be told, or the name is, or is below, a link that leads nowhere.
    """
    try:
        path.stat()
    except FileNotFoundError:
        _check_no_dead_link(path)
        return False
    return True


def matching(directory: _P, pattern: str) -> list[_P]:
    """The files below a directory that match, by name, part by part; `*` stays within a part.

    There are none where there is no such directory.

    Raises:
        OSError: one of the directories cannot be listed, or is a link that leads nowhere.
    """
    first, _, rest = pattern.partition("/")
    found: list[_P] = []
    for path, is_directory in _entries(directory, first):
        if not rest and not is_directory:
            found.append(path)
        elif rest and is_directory:
            found += matching(path, rest)
        elif rest:
            _check_no_dead_link(path)
    return found


def below(directory: _P, pattern: str) -> list[_P]:
    """The files at any depth below a directory whose own names match, by directory and name.

    Raises:
        OSError: as for `matching`.
    """
    found: list[_P] = []
    for path, is_directory in _entries(directory, "*"):
        if is_directory:
            found += below(path, pattern)
        elif fnmatch.fnmatchcase(path.name, pattern):
            found.append(path)
    return found


def _entries(directory: _P, pattern: str) -> list[tuple[_P, bool]]:
    """What matches in a directory, by name, and whether each is a directory."""
    if not glob.has_magic(pattern):
        # Without a look at everything else.
        path = directory / pattern
        return [(path, path.is_dir())] if exists(path) else []
    try:
        with os.scandir(directory) as entries:
            found = [entry for entry in entries if fnmatch.fnmatchcase(entry.name, pattern)]
    except FileNotFoundError:
        _check_no_dead_link(directory)
        return []
    return sorted((directory / entry.name, entry.is_dir()) for entry in found)


def _check_no_dead_link(path: Path) -> None:
    """Refuse to call absent what was put on a disk that is not there now."""
    deepest = next((place for place in (path, *path.parents) if os.path.lexists(place)), path)
    if deepest.is_symlink() and not os.path.exists(deepest):  # noqa: PTH110  (that of pathlib is no better here)
        raise OSError(errno.ESTALE, "the link leads nowhere", str(deepest))
