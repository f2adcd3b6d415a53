"""Exports what is known of one image, with the proofs, as a ZIP file that a third party checks without this software.

The export shows no other image: a manifest names none, and the path to its root is made of hashes. What the checking
script does belongs to `check_evidence`, which is copied into each export.
"""

import datetime as dt
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import ConfigurationError, StorageError
from pipelines.lake.hash_tree import path_of
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.local_storage import LocalPath
from pipelines.lake.manifests import chain_head, chain_of_manifests, manifest_link, parse_manifest, published_days
from pipelines.lake.parquet_files import read_batches
from pipelines.lake.storage import LakePath, storage_errors
from pipelines.lake.stored_responses import response_leaves
from pipelines.tables import IMAGE_TAGS, IMAGE_VALUES, IMAGES, INVENTORY, RESPONSES

_CHECK = Path(__file__).with_name("check_evidence.py")
_BATCH_ROWS = 16_384
# A ZIP file of the same evidence has the same bytes.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)

_README = """\
Evidence on the image {image_id}
of the project {project}, from {first} to {last}

To check it, with Python 3.9 or newer and nothing else:

    python3 check.py

export.json      what is here, day by day
days/DAY/body    the API's response of that day, byte for byte
days/DAY/response.json
                 the row of the table `responses` without the body, and `path`: the hashes that lead from
                 it to `responses_root` in the manifest of the day
days/DAY/rows.json
                 the rows of other tables that follow from the response, or that the inventory states
manifests/       the manifests in the order of their publication, from the first that proves a day of this
                 export to the newest; each states the SHA-256 of the one before it
SHA256SUMS       SHA-256 of every other file

The leaf of a response in the hash tree is `outcome`, `observed_at` in microseconds since 1970, `body_sha256` (empty
without a body) and `id`, with line feeds between them. These four are proved, and with them the body; the further
columns and rows.json are not. The tree is that of RFC 6962, section 2.1, with SHA-256.

That nothing was changed later follows from the SHA-256 of the newest manifest, which check.py prints, if the same one
was noted outside the lake at the time: `python3 check.py --witness SHA256` compares it. A witness proves its manifest
and those before it, and none that follows.
"""


@dataclass(frozen=True, slots=True)
class EvidenceExport:
    """What was exported: published days in the period, those with a response of the image, and the chain's end."""

    project: str
    days: int
    proved: int
    manifests: int
    newest_manifest_sha256: str


def export_evidence(
    lake: Lake, project: str, image_id: str, first: dt.date | None, last: dt.date | None, output: Path
) -> EvidenceExport:
    """Write the evidence on an image, of the published days from `first` to `last`, as one ZIP file.

    Raises:
        ConfigurationError: no published day of the period has a response of the image, or the file's directory is
            missing.
        StorageError: the lake cannot be read, its chain of manifests is broken, or the file cannot be written.
    """
    target = LocalPath(output.absolute())
    if not target.parent.is_there():
        raise ConfigurationError(f"--output {output} cannot be written: there is no directory {target.parent}.")
    days = [
        day
        for day in published_days(lake, project)
        if (first is None or first <= day.partition.date) and (last is None or day.partition.date <= last)
    ]
    positions = {day.partition: _position(lake.table(RESPONSES.name, day.partition), image_id) for day in days}
    proved = [day for day in days if positions[day.partition] is not None]
    if not proved:
        raise ConfigurationError(
            f"No response of the image {image_id} is stored in the project {project} for that period: "
            "`image-snapshots query` shows where it is known."
        )
    chain = _chain(lake, project, {day.sha256 for day in proved})
    names = {digest: f"manifests/{number:06}.json" for number, digest in enumerate(chain, 1)}
    files: dict[str, bytes] = {names[digest]: content for digest, content in chain.items()}
    listed = []
    for day in days:
        entry: dict[str, Any] = {"day": str(day.partition.date)}
        position = positions[day.partition]
        if position is None:
            entry |= {"response": None, "reason": _why_none(lake, day.partition)}
        else:
            of_day = _files_of(lake, day.partition, image_id, position)
            files |= of_day
            response, body = _places(day.partition)
            entry |= {"response": response, "body": body if body in of_day else None, "manifest": names[day.sha256]}
        listed.append(entry)
    files["export.json"] = _json({"image_id": image_id, "project": project, "days": listed})
    period = {"first": days[0].partition.date, "last": days[-1].partition.date}
    files["README.txt"] = _README.format(image_id=image_id, project=project, **period).encode()
    files["check.py"] = _CHECK.read_bytes()
    target.write_whole(_zip(files))
    return EvidenceExport(project, len(days), len(proved), len(chain), next(reversed(chain)))


def _position(responses: LakePath, image_id: str) -> int | None:
    """The row of an image in a `responses` file; None if it has none, or the file is gone."""
    if not responses.is_there():
        return None
    before = 0
    for batch in read_batches(responses, _BATCH_ROWS, ["id"]):
        index = pc.index(batch["id"], image_id).as_py()
        if index >= 0:
            return before + int(index)
        before += batch.num_rows
    return None


def _why_none(lake: Lake, partition: Partition) -> str:
    if lake.table(RESPONSES.name, partition).is_there():
        return "not requested, because the inventory of this day lacks the image"
    return "not known, because retention removed the responses of this day"


def _places(partition: Partition) -> tuple[str, str]:
    """Where a day's response and its body are in the export."""
    return f"days/{partition.date}/response.json", f"days/{partition.date}/body"


def _files_of(lake: Lake, partition: Partition, image_id: str, position: int) -> dict[str, bytes]:
    """The files on an image's response of a day, and on what follows from it."""
    responses = lake.table(RESPONSES.name, partition)
    (row,) = _rows(responses, image_id)
    at, body = _places(partition)
    files = {} if row["body"] is None else {body: row["body"]}
    del row["body"]
    since_1970 = row["observed_at"] - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    response = {
        "row": row,
        "observed_at_us": since_1970 // dt.timedelta(microseconds=1),
        "path": path_of(response_leaves(responses), position),
    }
    others = {
        table.name: _rows(path, image_id)
        for table in (INVENTORY, IMAGES, IMAGE_VALUES, IMAGE_TAGS)
        if (path := lake.table(table.name, partition)).is_there()
    }
    return files | {at: _json(response), f"days/{partition.date}/rows.json": _json(others)}


def _rows(path: LakePath, image_id: str) -> list[dict[str, Any]]:
    with storage_errors(path), path.open("rb") as file:
        rows: list[dict[str, Any]] = pq.read_table(file, filters=[("id", "==", image_id)]).to_pylist()
    return rows


def _chain(lake: Lake, project: str, needed: set[str]) -> dict[str, bytes]:
    """The manifests from the first of `needed` to the newest, in the order of publication: SHA-256 -> content."""
    contents, previous = {}, {}
    for path, content in chain_of_manifests(lake, project).items():
        link = manifest_link(content, parse_manifest(content, path))
        contents[link.sha256], previous[link.sha256] = content, link.previous
    chain: list[str] = []
    at, missing = chain_head(lake, project), set(needed)
    while missing:
        if at is None or at not in contents:
            raise StorageError(
                f"The chain of manifests of the project {project} is broken, so its days cannot be proved: "
                "`image-snapshots verify` says where."
            )
        chain.append(at)
        missing.discard(at)
        at = previous[at]
    return {digest: contents[digest] for digest in reversed(chain)}


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, default=_text).encode()


def _text(value: object) -> str:
    if isinstance(value, dt.date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in an export")


def _zip(files: Mapping[str, bytes]) -> bytes:
    sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in sorted({**files, "SHA256SUMS": sums.encode()}.items()):
            archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), content, zipfile.ZIP_DEFLATED)
    return target.getvalue()
