"""Identifies the code that made a table, by a hash of its files."""

import hashlib
from functools import cache
from importlib.metadata import version

from pipelines.inputs import local_files
from pipelines.settings import ROOT


@cache
def fingerprint(*places: str) -> str:
    """The first 12 digits of the SHA-256 of code and SQL in files and directories below the project's root.

    Relative paths are part of the hash, so files of the same name differ.
    """
    digest = hashlib.sha256()
    for place in places:
        path = ROOT / place
        files = [path] if path.suffix else [*local_files.below(path, "*.py"), *local_files.below(path, "*.sql")]
        for file in files:
            # Models over a warehouse decide nothing in the lake, and dbt writes files beside them.
            if file.is_relative_to(ROOT / "sql" / "dbt"):
                continue
            digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def code_version() -> str:
    """The package's version and the fingerprint of all its code and SQL, as written to manifests."""
    return f"{version('image-snapshots')}+{fingerprint('pipelines', 'sql')}"
