"""Checks an exported file of evidence on one image. Needs Python 3.9 or newer and nothing else.

    python3 check.py                       checks the directory in which this script lies
    python3 check.py FILE.zip              checks an export that was not unpacked
    python3 check.py --witness SHA256      also asks that this manifest is in the chain

What is checked: every file has the SHA-256 that SHA256SUMS states; each body has the SHA-256 of its response; each
response leads, by its path of hashes, to the root in the manifest of its day; each manifest states the SHA-256 of the
one before it. With --witness, each of these manifests must be noted, or lie before one that is. What this cannot know:
whether the newest manifest is the one that was published. Compare its SHA-256, which is printed at the end, with one
that was noted elsewhere at the time. Nor can it know of days that the export lacks, or why a day has no response.

Exit status: 0 all is proved, 1 something is not.
"""

# ruff: noqa: T201  (what it prints is its result)

import argparse
import datetime as dt
import hashlib
import json
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What a damaged file raises, as JSON, as text, or as a ZIP file.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, NotImplementedError, RuntimeError),
    OverflowError,
    *(zipfile.BadZipFile, zlib.error),
)

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)  # noqa: UP017  (Python 3.9)


def line(text: str) -> str:
    """A line to print. An export may hold any text, so what a terminal would act on is escaped."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def sha256(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def root_from(leaf: bytes, path: list[list[str]]) -> str:
    """The root of the hash tree that a leaf and its path lead to (RFC 6962, section 2.1)."""
    node = hashlib.sha256(b"\0" + leaf).digest()
    for side, neighbour in path:
        other = bytes.fromhex(neighbour)
        node = hashlib.sha256(b"\1" + (other + node if side == "left" else node + other)).digest()
    return node.hex()


def check_files(read: Callable[[str], bytes], names: list[str]) -> list[str]:
    """One sentence for each file that is not as it was exported."""
    stated = {}
    for line in read("SHA256SUMS").decode().splitlines():
        digest, _, name = line.partition("  ")
        stated[name] = digest
    extra = sorted(set(names) - {"SHA256SUMS"} - set(stated))
    problems = [f"{name}: it does not belong to the export." for name in extra]
    for name, digest in stated.items():
        if name not in names:
            problems.append(f"{name}: it is missing.")
        elif sha256(read(name)) != digest:
            problems.append(f"{name}: it was changed; SHA256SUMS states another SHA-256.")
    return problems


def check_chain(read: Callable[[str], bytes], names: list[str], witnesses: list[str]) -> tuple[list[str], list[str]]:
    """The manifests that are proved, and one sentence for each that does not follow the one before it.

    With witnesses, a manifest is proved if it is noted, or lies before one that is, unless none is found; there is a
    sentence for each missing witness, too.
    """
    problems = []
    digests: list[str] = []
    for name in names:
        content = read(name)
        if digests and json.loads(content)["previous_manifest_sha256"] != digests[-1]:
            problems.append(f"{name}: it does not follow the manifest before it.")
        digests.append(sha256(content))
    missing = [witness for witness in witnesses if witness not in digests]
    problems += [f"No manifest of this chain has the SHA-256 {witness}." for witness in missing]
    noted = [number for number, digest in enumerate(digests, 1) if digest in witnesses]
    return names[: max(noted)] if noted else names, problems


def check_day(
    read: Callable[[str], bytes], export: dict[str, Any], day: dict[str, Any], proved: list[str]
) -> tuple[str, list[str]]:
    """What is proved of a day, in words, and one sentence for each thing that is not; `proved`: such manifests."""
    if day["response"] is None:
        return f"{day['reason']} (this is stated, not proved)", []
    problems = []
    name = day["response"]
    if day["manifest"] not in proved:
        problems.append(f"{day['manifest']}: it is not in the chain of manifests, or follows all that are noted.")
    response = json.loads(read(name))
    manifest = json.loads(read(day["manifest"]))
    if (manifest["snapshot_date"], manifest["project"]) != (day["day"], export["project"]):
        problems.append(f"{day['manifest']}: it is of another day or project.")
    row = response["row"]
    if (row["id"], row["snapshot_date"]) != (export["image_id"], day["day"]):
        problems.append(f"{name}: it is of another image or day.")
    observed_at = _EPOCH + dt.timedelta(microseconds=response["observed_at_us"])
    if row["observed_at"] != observed_at.isoformat():
        problems.append(f"{name}: it states two different times of observation.")
    length = "no body"
    if row["body_sha256"] is not None:
        body = read(day["body"])
        length = f"{len(body)} bytes"
        if sha256(body) != row["body_sha256"]:
            problems.append(f"{day['body']}: it does not have the SHA-256 that its response states.")
    leaf = "\n".join((row["outcome"], str(response["observed_at_us"]), row["body_sha256"] or "", row["id"])).encode()
    if root_from(leaf, response["path"]) != manifest["responses_root"]:
        problems.append(f"{name}: it does not lead to the root that the manifest {day['manifest']} states.")
    return f"{row['outcome']}, {row['observed_at']}, {length}", problems


def check(place: Path, witnesses: list[str]) -> int:
    """Check an export, print what is proved and what is not; returns the exit status."""
    try:
        if place.is_dir():
            names = [path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()]
            problems = _check(lambda name: (place / name).read_bytes(), names, witnesses)
        else:
            with zipfile.ZipFile(place) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/")]
                problems = _check(archive.read, names, witnesses)
    except _UNREADABLE as error:
        problems = [f"{place}: it cannot be read: {error or type(error).__name__}."]
    for problem in problems:
        print(line(problem), file=sys.stderr)
    print("NOT PROVED" if problems else "All of it is proved.")
    return 1 if problems else 0


def _check(read: Callable[[str], bytes], names: list[str], witnesses: list[str]) -> list[str]:
    try:
        problems = check_files(read, names)
    except _UNREADABLE as error:
        return [f"SHA256SUMS: it cannot be read: {error or type(error).__name__}."]
    try:
        problems += _check_proofs(read, names, witnesses)
    except _UNREADABLE as error:
        problems.append(f"The rest cannot be checked: {error or type(error).__name__}.")
    return problems


def _check_proofs(read: Callable[[str], bytes], names: list[str], witnesses: list[str]) -> list[str]:
    export = json.loads(read("export.json"))
    manifests = sorted(name for name in names if name.startswith("manifests/"))
    proved, problems = check_chain(read, manifests, witnesses)
    print(line(f"Image {export['image_id']} of the project {export['project']}"))
    if export["is_sandbox"] or any(json.loads(read(name))["fetch"]["is_sandbox"] for name in manifests):
        print("Sample data: this image is invented by the sandbox, it is not one of a cloud account.")
    for day in export["days"]:
        words, found = check_day(read, export, day, proved)
        print(line(f"{day['day']}: {words}"))
        problems += found
    if all(day["response"] is None for day in export["days"]):
        problems.append("export.json: it names no response.")
    print(f"Newest manifest: SHA-256 {sha256(read(manifests[-1]))}")
    return problems


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Checks an exported file of evidence on one image.")
    parser.add_argument("place", nargs="?", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--witness", action="append", default=[], metavar="SHA256")
    arguments = parser.parse_args()
    sys.exit(check(arguments.place, arguments.witness))
