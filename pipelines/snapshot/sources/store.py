"""What the sources found, references to images and traces: in SQLite tables until the day is staged."""

import datetime as dt
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from pipelines.bodies.image_reference import ImageReference
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import read_manifest
from pipelines.lake.parquet_files import read_batches
from pipelines.lake.storage import storage_errors
from pipelines.snapshot.image_list import batches_of, microseconds
from pipelines.snapshot.sources.resources import COPIED, PAST, Resource
from pipelines.tables import IMAGE_REFERENCES, IMAGE_TRACES

_ROWS_A_BATCH = 10_000
# By which resources those of a kind use images.
_VIA = {"service": "model", "training_job": "algorithm"}
_ASKED_ONE_BY_ONE = ("model", "service")

_COLUMNS = [column.name for column in IMAGE_REFERENCES.columns[2:]]
_TIMES = frozenset({"last_active_at", "updated_at", "observed_at"})
_CREATE = (
    "CREATE TABLE IF NOT EXISTS found ("
    + ", ".join(f'"{name}" {"INTEGER" if name in _TIMES or name == "position" else "TEXT"}' for name in _COLUMNS)
    + ", PRIMARY KEY (kind, resource_id, position)) WITHOUT ROWID"
)
_INSERT = f"INSERT OR IGNORE INTO found VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608  (question marks)


class ReferenceStore:
    """References by kind and resource. What is stored of a resource first counts."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        self._db.execute(_CREATE)
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS resources (kind TEXT, id TEXT, PRIMARY KEY (kind, id)) WITHOUT ROWID"
        )

    def clear(self) -> None:
        """Drop all references."""
        self._db.execute("DELETE FROM found")
        self._db.execute("DELETE FROM resources")

    def add(self, resources: list[Resource]) -> None:
        """Store the references of some resources; a resource that names no image has none."""
        self._db.executemany("INSERT OR IGNORE INTO resources VALUES (?, ?)", [(one.kind, one.id) for one in resources])
        self._db.executemany(_INSERT, [row for resource in resources for row in _rows(resource)])

    def resolve(self) -> dict[str, int]:
        """Give references by a model or an algorithm the images of that; how many of each kind cannot be resolved.

        A model or an algorithm that is known may have no image: then there is no reference. A job that is over and
        whose algorithm is gone does not count: nobody can say any more what it used.
        """
        unresolved: dict[str, int] = {}
        for kind, via in _VIA.items():
            rows = self._db.execute(
                "SELECT * FROM found WHERE kind = ? AND via_id IS NOT NULL ORDER BY resource_id, position", (kind,)
            ).fetchall()
            for row in rows:
                reference = dict(zip(_COLUMNS, row, strict=True))
                found = self._db.execute(
                    "SELECT * FROM found WHERE kind = ? AND resource_id = ? ORDER BY position",
                    (via, reference["via_id"]),
                ).fetchall()
                if found or self._is_known(via, reference["via_id"]):
                    self._replace(reference, [dict(zip(_COLUMNS, one, strict=True)) for one in found])
                elif reference["strength"] != PAST:
                    unresolved[kind] = unresolved.get(kind, 0) + 1
        return unresolved

    def _is_known(self, kind: str, id_: str) -> bool:
        return self._db.execute("SELECT 1 FROM resources WHERE kind = ? AND id = ?", (kind, id_)).fetchone() is not None

    def _replace(self, reference: dict[str, Any], by: list[dict[str, Any]]) -> None:
        key = (reference["kind"], reference["resource_id"])
        self._db.execute(
            "DELETE FROM found WHERE kind = ? AND resource_id = ? AND position = ?", (*key, reference["position"])
        )
        (last,) = self._db.execute("SELECT MAX(position) FROM found WHERE kind = ? AND resource_id = ?", key).fetchone()
        first = max(reference["position"], -1 if last is None else last + 1)
        for number, one in enumerate(by):
            image = {name: one[name] for name in _COLUMNS if name.startswith("image_")}
            strength = COPIED if one["strength"] == COPIED else reference["strength"]
            row = reference | image | {"position": first + number, "strength": strength}
            self._db.execute(_INSERT, [row[name] for name in _COLUMNS])

    def batches(self, snapshot_date: dt.date, project_id: str) -> Iterator[pa.RecordBatch]:
        """All references, by kind and resource, as batches of the `image_references` table."""
        cursor = self._db.execute("SELECT * FROM found ORDER BY kind, resource_id, position")
        yield from batches_of(cursor, IMAGE_REFERENCES, _ROWS_A_BATCH, snapshot_date, project_id)


@dataclass(frozen=True, slots=True)
class Trace:
    """What is kept of a trace."""

    id: str
    time: dt.datetime
    name: str | None
    resource_id: str
    resource_name: str | None
    user: str | None
    source_ip: str | None
    rating: str | None
    observed_at: dt.datetime


class TraceStore:
    """Traces by id, each once."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS traces (id TEXT PRIMARY KEY, time INTEGER, name TEXT, resource_id TEXT,"
            " resource_name TEXT, user TEXT, source_ip TEXT, rating TEXT, observed_at INTEGER) WITHOUT ROWID"
        )

    def clear(self) -> None:
        """Drop all traces."""
        self._db.execute("DELETE FROM traces")

    def add(self, traces: list[Trace]) -> None:
        """Store traces; of two with one id the first counts."""
        rows = [
            (
                one.id,
                microseconds(one.time),
                one.name,
                one.resource_id,
                one.resource_name,
                one.user,
                one.source_ip,
                one.rating,
                microseconds(one.observed_at),
            )
            for one in traces
        ]
        self._db.executemany("INSERT OR IGNORE INTO traces VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def batches(self, snapshot_date: dt.date, project_id: str) -> Iterator[pa.RecordBatch]:
        """All traces, by id, as batches of the `image_traces` table."""
        cursor = self._db.execute("SELECT * FROM traces ORDER BY id")
        yield from batches_of(cursor, IMAGE_TRACES, _ROWS_A_BATCH, snapshot_date, project_id)


def earlier_resources(lake: Lake, day: Partition) -> dict[str, dict[str, Resource]]:
    """The resources of a published day that were asked for one by one, by kind and id, with what they name.

    None where the file is not the one that its manifest names: then all are asked for again, and `verify` names it.
    """
    path = lake.table(IMAGE_REFERENCES.name, day)
    with storage_errors(path):
        if path.sha256() != read_manifest(lake.manifest(day)).files[IMAGE_REFERENCES.name].sha256:
            return {}
    found: dict[str, dict[str, Resource]] = {kind: {} for kind in _ASKED_ONE_BY_ONE}
    for batch in read_batches(path, _ROWS_A_BATCH):
        for row in batch.to_pylist():
            if row["kind"] in found:
                _add(found[row["kind"]], row)
    return found


def _add(resources: dict[str, Resource], row: dict[str, Any]) -> None:
    resource = resources.get(row["resource_id"]) or Resource(
        row["kind"],
        row["resource_id"],
        row["name"],
        row["status"],
        row["workspace_id"],
        row["user"],
        row["observed_at"],
        last_active_at=row["last_active_at"],
        updated_at=row["updated_at"],
    )
    if row["via_id"] is not None:
        resource = replace(resource, via_ids=tuple(dict.fromkeys((*resource.via_ids, row["via_id"]))))
    else:
        image = ImageReference(
            row["image_id"], row["image_reference"], row["image_path"], row["image_tag"], row["image_digest"]
        )
        resource = replace(resource, images=(*resource.images, (image, row["strength"])))
    resources[resource.id] = resource


def _rows(resource: Resource) -> Iterator[tuple[Any, ...]]:
    before = (resource.kind, resource.id)
    about = (resource.name, resource.status, resource.workspace_id, resource.user)
    times = tuple(
        None if time is None else microseconds(time)
        for time in (resource.last_active_at, resource.updated_at, resource.observed_at)
    )
    position = 0
    for image, strength in resource.images:
        yield (*before, position, *about, *image, None, strength, *times)
        position += 1
    for via_id in resource.via_ids:
        yield (*before, position, *about, None, None, None, None, None, via_id, resource.strength, *times)
        position += 1
