"""Lists local files, and raises an error instead of reporting an unreadable file as absent.

`pathlib` hides such errors: in some versions of Python `glob` skips an unreadable directory, and `exists` returns
False. All code that lists directories goes through here. Callers handle every `OSError` except "no such file".
"""

import errno
import fnmatch
import glob
import os
import stat
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

_P = TypeVar("_P", bound=Path)


def exists(path: Path) -> bool:
    """Whether a file or directory of this name exists.

    Raises:
        OSError: this cannot be determined, or the name is, or is below, a broken link.
    """
    try:
        path.stat()
    except FileNotFoundError:
        _check_no_dead_link(path)
        return False
    return True


def matching(directory: _P, pattern: str) -> list[_P]:
    """The files below a directory that match a pattern, sorted by name; `*` does not match `/`.

    The list is empty if the directory does not exist.

    Raises:
        OSError: a directory cannot be listed, or is a broken link.
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
    """The files at any depth below a directory whose own names match, sorted by directory and name.

    Raises:
        OSError: as for `matching`, or a link leads to a directory that it lies in, so that there is no end.
    """
    return _below(directory, pattern, [os.path.realpath(directory)])


def _below(directory: _P, pattern: str, above: list[str]) -> list[_P]:
    """`above`: where the directory and those around it really are."""
    found: list[_P] = []
    for path, is_directory in _entries(directory, "*"):
        if is_directory:
            place = os.path.realpath(path) if path.is_symlink() else f"{above[-1]}/{path.name}"
            if place in above:
                raise OSError(errno.ELOOP, "the link leads to a directory that it lies in", str(path))
            found += _below(path, pattern, [*above, place])
        elif fnmatch.fnmatchcase(path.name, pattern):
            found.append(path)
    return found


def _entries(directory: _P, pattern: str) -> list[tuple[_P, bool]]:
    """The matching entries of a directory, sorted by name, and whether each is a directory."""
    if not glob.has_magic(pattern):
        # A plain name needs no listing of the directory.
        path = directory / pattern
        try:
            return [(path, stat.S_ISDIR(path.stat().st_mode))]
        except FileNotFoundError:
            _check_no_dead_link(path)
            return []
    try:
        with os.scandir(directory) as entries:
            found = [entry for entry in entries if fnmatch.fnmatchcase(entry.name, pattern)]
    except FileNotFoundError:
        _check_no_dead_link(directory)
        return []
    return [(directory / entry.name, entry.is_dir()) for entry in sorted(found, key=attrgetter("name"))]


def _check_no_dead_link(path: Path) -> None:
    """Raise an error for a broken link: the disk that it points to may be missing right now."""
    deepest = next((place for place in (path, *path.parents) if os.path.lexists(place)), path)
    if deepest.is_symlink() and not os.path.exists(deepest):  # noqa: PTH110  (that of pathlib is no better here)
        raise OSError(errno.ESTALE, "the link is broken", str(deepest))
