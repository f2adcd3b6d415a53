"""SHA-256 of manifests noted outside the lake: a file that each run adds a line to, and what `verify` is given.

Anyone who can rewrite the lake cannot rewrite such a note when it lies where others administer. Checking that each
noted record is still there belongs to `maintenance.verify_witnesses`.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import ConfigurationError, StorageError
from pipelines.inputs.text_files import decoded
from pipelines.lake.layout import Lake
from pipelines.lake.manifests import Manifest
from pipelines.lake.records import record_bytes

_SHA256 = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{64}(?![0-9A-Za-z])")


@dataclass(frozen=True, slots=True)
class Witness:
    """A SHA-256 that somebody noted; `note` is the rest of its line in a file of them."""

    sha256: str
    note: str = ""


def is_in_lake(lake: Lake, path: Path) -> bool:
    """Whether a file of that name, or the file that a link there leads to, lies in the lake, or would."""
    if lake.root.local is None:
        return False
    root = lake.root.local.resolve()
    # A link is replaced where it lies, wherever it leads.
    return any(place.is_relative_to(root) for place in (path.resolve(), path.parent.resolve()))


@contextmanager
def open_witness(path: Path | None, lake: Lake) -> Iterator[Callable[[Manifest], None]]:
    """Open the witness file before anything is published; gives what notes a manifest there. None: it notes nothing.

    A line is the day, the project, the SHA-256 of the manifest and when it was published, separated by tabs.

    Raises:
        ConfigurationError: the file is inside the lake, or cannot be written.
        StorageError: it could not be written after the day was published.
    """
    if path is None:
        yield lambda _: None
        return
    if is_in_lake(lake, path):
        raise ConfigurationError(
            f"The witness file {path} is inside the lake, where whoever changes the lake can change it, too: set "
            "IMAGE_SNAPSHOTS_WITNESS to a file elsewhere."
        )
    try:
        file = path.open("ab", buffering=0)
    except OSError as error:
        raise ConfigurationError(
            f"The witness file {path} cannot be written ({error.strerror}), so nothing was published: correct "
            "IMAGE_SNAPSHOTS_WITNESS."
        ) from error

    def note(manifest: Manifest) -> None:
        digest = hashlib.sha256(record_bytes(manifest)).hexdigest()
        line = f"{manifest.snapshot_date}\t{manifest.project}\t{digest}\t{manifest.published_at.isoformat()}\n"
        try:
            # In one write, so that lines of runs that end together do not mix.
            file.write(line.encode())
            os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(
                f"{manifest.snapshot_date} of project {manifest.project} was published, but could not be noted in the "
                f"witness file {path} ({error.strerror}): add the line yourself: {line.strip()}"
            ) from error

    with file:
        yield note


def read_witnesses(stated: Sequence[str]) -> list[Witness]:
    """The noted SHA-256: each stated itself, or in a file with one in each line that is not blank or a comment.

    Raises:
        ConfigurationError: neither, or the file cannot be read, or a line has no SHA-256.
    """
    witnesses = []
    for one in stated:
        if _SHA256.fullmatch(one.strip().lower()):
            witnesses.append(Witness(one.strip().lower()))
        else:
            witnesses += _read(Path(one))
    return witnesses


def _read(path: Path) -> list[Witness]:
    try:
        text = decoded(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it {error}"
        raise ConfigurationError(
            f"--witness {path} is neither a SHA-256 (64 hexadecimal digits) nor a file of them that can be read "
            f"({reason})."
        ) from error
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        digests = _SHA256.findall(line.lower())
        if len(digests) != 1:
            raise ConfigurationError(f"Line {number} of {path} must hold one SHA-256 (64 hexadecimal digits).")
        rest = re.sub(digests[0], "", line, flags=re.IGNORECASE)
        found.append(Witness(digests[0], " ".join(rest.split())))
    if not found:
        raise ConfigurationError(f"{path} holds no SHA-256, so there is nothing to look for.")
    return found
