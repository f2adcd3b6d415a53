"""Which code made a table: a digest of the files it is made by."""

import hashlib
from functools import cache
from importlib.metadata import version

from pipelines.inputs import local_files
from pipelines.settings import ROOT


@cache
def fingerprint(*places: str) -> str:
    """SHA-256, its first 12 digits, of the code and SQL in files and directories below the project's root.

    By relative path, so that two files of one name are two.
    """
    digest = hashlib.sha256()
    for place in places:
        path = ROOT / place
        files = [path] if path.suffix else [*local_files.below(path, "*.py"), *local_files.below(path, "*.sql")]
        for file in files:
            digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def code_version() -> str:
    """Version of the package and fingerprint of all of its code and SQL, as manifests state it."""
    return f"{version('image-snapshots')}+{fingerprint('pipelines', 'sql')}"
