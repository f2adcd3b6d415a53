"""Checks an exported file of evidence on one image. Needs Python 3.9 or newer and nothing else.

    python3 check.py                       checks the directory in which this script lies
    python3 check.py FILE.zip              checks an export that was not unpacked
    python3 check.py --witness SHA256      also asks that this manifest is in the chain

What is checked: every file has the SHA-256 that SHA256SUMS states; each body has the SHA-256 of its response; each
response leads, by its path of hashes, to the root in the newest manifest of its day; each manifest states the SHA-256
of the one before it; no published day between the first and the last is left out. What this cannot know: whether the
newest manifest is the one that was published. Compare its SHA-256, which is printed at the end, with one that was noted
elsewhere at the time: a witness proves its manifest and all before it, and no later one.

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
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

_1970 = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)  # noqa: UP017  (Python 3.9 and 3.10 have no dt.UTC)
# What a damaged file raises, as JSON, as text, or as a ZIP file.
_UNREADABLE = (
    *(OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, NotImplementedError, RuntimeError),
    *(ArithmeticError, zipfile.BadZipFile, zlib.error),
)


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


def visible(text: str) -> str:
    """A text from an export without what would control a terminal."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def check_files(read: Callable[[str], bytes], names: list[str]) -> list[str]:
    """One sentence for each file that is not as it was exported."""
    stated = {}
    for line in read("SHA256SUMS").decode().splitlines():
        digest, _, name = line.partition("  ")
        stated[name] = digest
    there = Counter(names)
    extra = sorted(there.keys() - stated.keys() - {"SHA256SUMS"})
    problems = [f"{name}: it does not belong to the export." for name in extra]
    problems += [f"{name}: it is there more than once." for name, times in there.items() if times > 1]
    for name, digest in stated.items():
        if name not in there:
            problems.append(f"{name}: it is missing.")
        elif sha256(read(name)) != digest:
            problems.append(f"{name}: it was changed; SHA256SUMS states another SHA-256.")
    return problems


class Chain:
    """The manifests in the order of publication: `of_day` has the newest name and content of each day.

    `problems` has one sentence for each manifest that does not follow the one before it, and for each missing witness.
    """

    def __init__(self, read: Callable[[str], bytes], names: list[str], witnesses: list[str]) -> None:
        self.problems = []
        self.of_day: dict[str, tuple[str, dict[str, Any]]] = {}
        digests: list[str] = []
        for name in names:
            content = read(name)
            manifest = json.loads(content)
            if digests and manifest["previous_manifest_sha256"] != digests[-1]:
                self.problems.append(f"{name}: it does not follow the manifest before it.")
            digests.append(sha256(content))
            self.of_day[manifest["snapshot_date"]] = (name, manifest)
        missing = [witness for witness in witnesses if witness not in digests]
        self.problems += [f"No manifest of this chain has the SHA-256 {witness}." for witness in missing]
        self.newest = digests[-1]
        last = max((number for number, digest in enumerate(digests) if digest in witnesses), default=len(digests))
        self.after_witness = set(names[last + 1 :])


def check_day(
    read: Callable[[str], bytes], export: dict[str, Any], day: dict[str, Any], chain: Chain
) -> tuple[str, list[str]]:
    """What is proved of a day, in words, and one sentence for each thing that is not."""
    if day["response"] is None:
        return f"nothing is proved: {day['reason']}", []
    problems = []
    name = day["response"]
    response = json.loads(read(name))
    newest, manifest = chain.of_day.get(day["day"], (None, {}))
    if newest is None or day["manifest"] != newest:
        return "not proved", [f"{day['manifest']}: it is not the newest manifest of {day['day']} in the chain."]
    if manifest["project"] != export["project"]:
        problems.append(f"{newest}: it is of another project.")
    if newest in chain.after_witness:
        problems.append(f"{newest}: it follows the witness, which does not prove it.")
    row = response["row"]
    if (row["id"], row["snapshot_date"]) != (export["image_id"], day["day"]):
        problems.append(f"{name}: it is of another image or day.")
    observed_at = (_1970 + dt.timedelta(microseconds=response["observed_at_us"])).isoformat()
    if row["observed_at"] != observed_at:
        problems.append(f"{name}: its row states another time than the one that is proved.")
    length = "no body"
    if row["body_sha256"] is not None:
        body = read(day["body"])
        length = f"{len(body)} bytes"
        if sha256(body) != row["body_sha256"]:
            problems.append(f"{day['body']}: it does not have the SHA-256 that its response states.")
    leaf = "\n".join((row["outcome"], str(response["observed_at_us"]), row["body_sha256"] or "", row["id"])).encode()
    if root_from(leaf, response["path"]) != manifest["responses_root"]:
        problems.append(f"{name}: it does not lead to the root that the manifest {newest} states.")
    return f"{row['outcome']}, {observed_at}, {length}", problems


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
        print(visible(problem), file=sys.stderr)
    print("NOT PROVED" if problems else "All responses are proved.")
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
    chain = Chain(read, manifests, witnesses)
    listed = [day["day"] for day in export["days"]]
    used = {"README.txt", "SHA256SUMS", "check.py", "export.json", *manifests}
    for day in export["days"]:
        if day["response"] is not None:
            used |= {day["response"], day["body"], f"days/{day['day']}/rows.json"}
    problems = chain.problems + [f"{name}: it belongs to no day of export.json." for name in sorted(set(names) - used)]
    problems += [
        f"{name}: it is of {date}, a day that export.json leaves out."
        for date, (name, _) in chain.of_day.items()
        if min(listed) < date < max(listed) and date not in listed
    ]
    print(visible(f"Image {export['image_id']} of the project {export['project']}"))
    if any(manifest["fetch"]["is_sandbox"] for _, manifest in chain.of_day.values()):
        print("Sample data: this image is invented by the sandbox, it is not one of a cloud account.")
    for day in export["days"]:
        words, found = check_day(read, export, day, chain)
        print(visible(f"{day['day']}: {words}"))
        problems += found
    print(f"Newest manifest: SHA-256 {chain.newest}")
    return problems


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Checks an exported file of evidence on one image.")
    parser.add_argument("place", nargs="?", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--witness", action="append", default=[], metavar="SHA256")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(check(arguments.place, arguments.witness))
