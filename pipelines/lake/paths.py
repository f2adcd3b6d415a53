"""Opens the storage of a lake: chosen by the scheme of the lake's root, in one table."""

import re
from collections.abc import Callable

from pipelines.errors import ConfigurationError
from pipelines.inputs.endpoints import SCHEME
from pipelines.lake.local_storage import LocalPath
from pipelines.lake.object_storage import ObjectPath
from pipelines.lake.storage import LakePath

_STORAGES: dict[str, Callable[[str], LakePath]] = {
    "": lambda root: LocalPath(root).absolute(),
    SCHEME: ObjectPath.parse,
}


def open_storage(root: str) -> LakePath:
    """The root directory of a lake: a local path, or an address in an object store.

    Raises:
        ConfigurationError: the scheme is unknown, or the object store cannot be opened.
    """
    # With one slash, too: on a disk that would make a directory of that name.
    found = re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/+", root)
    scheme = found[0] if found else ""
    if scheme.startswith(SCHEME):
        scheme = SCHEME
    if scheme not in _STORAGES:
        raise ConfigurationError(
            f"IMAGE_SNAPSHOTS_LAKE must be a local path or s3://bucket/directory: {scheme} storage is not supported."
        )
    return _STORAGES[scheme](root)
