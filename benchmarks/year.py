"""A year of one project: `python -m benchmarks.year [--images N] [--days N] [--keep DIRECTORY]`.

Writes published days of generated images (two in a hundred change each day, a few come and go), then measures, each in
a process of its own with its peak memory:

derive all   the derived tables of all days but the last, one after the other, as a first `rebuild` would
derive day   the derived tables of the last day, as a daily run does: changes, reconciliation, usage, findings, costs
history      the history of the whole year, made anew from the days
as of        how many images were public on a day in the middle, and their bytes, from the history (`images_as_of`)
trend        images, bytes and public images of every day of the year, from the snapshots (`images`)
frame        the images on a day in the middle, with their owners, as a pandas frame (`open_lake().images`)
changes      the changes of the last 30 days as a pandas frame (`open_lake().changes`)
"""

import argparse
import datetime as dt
import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import open_lake
from pipelines.derive.days import derive_days
from pipelines.derive.history import write_history_again
from pipelines.engine.duckdb import DuckDBEngine
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.local_storage import LocalPath
from pipelines.lake.manifests import FetchFacts, InventoryFacts, RegistryFacts, ScopeFacts, SourceFacts
from pipelines.query.views import connect_lake
from pipelines.settings import Settings
from pipelines.snapshot.publish import publish
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.tables import (
    IMAGE_HISTORY,
    IMAGE_REFERENCES,
    IMAGES,
    INVENTORY,
    RESPONSES,
    TABLES,
    Table,
)

LAST = dt.date(2026, 11, 22)
RUNS = 3
# The shares of images that change, and that are replaced by new ones, from one day to the next.
CHANGED, REPLACED = 0.02, 0.002
# Notebooks at most; of fewer images, a fifth has one.
REFERENCES = 10_000
KB = 1024


class Year:
    """The images of a project as they change from day to day; `revision` counts the changes of each."""

    def __init__(self, images: int) -> None:
        self.chance = np.random.default_rng(4711)
        self.number = np.arange(images)
        self.next_number = images
        self.revision = np.zeros(images, dtype=np.int64)
        self.size = self.chance.integers(1_000_000, 20_000_000, images)
        self.public = self.chance.random(images) < 0.05
        self.updated = np.full(images, np.datetime64("2025-01-01T00:00:00", "us"))

    def pass_day(self, date: dt.date) -> None:
        changed = self.chance.random(len(self.number)) < CHANGED
        self.revision[changed] += 1
        self.size[changed] += self.chance.integers(-100_000, 100_000, int(changed.sum()))
        self.updated[changed] = np.datetime64(date, "us")
        self.public ^= self.chance.random(len(self.number)) < CHANGED / 100
        replaced = self.chance.random(len(self.number)) < REPLACED
        count = int(replaced.sum())
        self.number[replaced] = np.arange(self.next_number, self.next_number + count)
        self.next_number += count

    def tables(self, date: dt.date) -> dict[str, pa.Table]:
        order = np.argsort(self.number)
        number = self.number[order]
        rows = len(number)
        ids = [f"{n:08x}-0000-4000-8000-{n * 7919 % 2**48:012x}" for n in number.tolist()]
        teams = [f"team-{n % 53}" for n in number.tolist()]
        observed = dt.datetime.combine(date, dt.time(3), dt.UTC)
        names = [f"trainer-{n % 997}" for n in number.tolist()]
        public, revision = self.public[order].tolist(), self.revision[order].tolist()
        shared = {"snapshot_date": date, "project_id": "p1", "project_key": "default", "observed_at": observed}
        images = {
            "id": ids,
            "name": names,
            "namespace": teams,
            "swr_path": [f"swr.region-1.example.com/{t}/{n}:1" for t, n in zip(teams, names, strict=True)],
            "tag": "1",
            "arch": "x86_64",
            "type": "DEDICATED",
            "origin": "CUSTOMIZE",
            "service_type": "COMMON",
            "status": "ACTIVE",
            "visibility": ["PUBLIC" if is_public else "PRIVATE" for is_public in public],
            "workspace_id": "0",
            "description": [f"Training environment, revision {r}" for r in revision],
            "size": self.size[order],
            "size_bytes": self.size[order] * KB,
            "create_at": dt.datetime(2024, 12, 1, tzinfo=dt.UTC),
            "update_at": self.updated[order],
            "dev_services": "NOTEBOOK|SSH",
            "resource_categories": "CPU|GPU",
            "arch_normalised": "x86_64",
            "registry": "swr.region-1.example.com",
            "repository": names,
            "response_sha256": "0" * 64,
            "content_hash": [
                f"{n:032x}{r:031x}{p:d}" for n, r, p in zip(number.tolist(), revision, public, strict=True)
            ],
        }
        responses = {"id": ids, "outcome": "ok", "http_status": 200, "attempts": 1, "elapsed_ms": 20}
        inventory = {"id": ids, "id_as_read": ids, "is_valid": True, "owner": teams, "cost_center": "CC-1"}
        inventory["id_source"] = "inventory"
        # Every second notebook names its image by the address, which several images may have.
        used = [place for place, n in enumerate(number.tolist()) if n % max(5, rows // REFERENCES) == 0]
        references = {
            "kind": "notebook",
            "resource_id": [f"{number[place]:08x}" for place in used],
            "position": 0,
            "strength": "running",
            "image_id": [None if count % 2 else ids[place] for count, place in enumerate(used)],
            "image_path": [f"{teams[place]}/{names[place]}" if count % 2 else None for count, place in enumerate(used)],
            "image_tag": ["1" if count % 2 else None for count in range(len(used))],
        }
        return {name: table.schema.empty_table() for name, table in TABLES.items()} | {
            IMAGES.name: filled(IMAGES, rows, shared | images),
            RESPONSES.name: filled(RESPONSES, rows, shared | responses),
            INVENTORY.name: filled(INVENTORY, rows, shared | inventory),
            IMAGE_REFERENCES.name: filled(IMAGE_REFERENCES, len(used), shared | references),
        }


def filled(table: Table, rows: int, columns: dict[str, object]) -> pa.Table:
    """Columns by name; a single value applies to all rows, and missing columns are null."""

    def array(field: pa.Field) -> pa.Array:
        value = columns.get(field.name)
        if isinstance(value, list | np.ndarray):
            return pa.array(value, field.type)
        return pa.repeat(pa.scalar(value, field.type), rows)

    return pa.Table.from_arrays([array(field) for field in table.schema], schema=table.schema)


def write_year(root: Path, images: int, days: int) -> None:
    lake, year = Lake(str(root)), Year(images)
    for back in range(days - 1, -1, -1):
        date = LAST - dt.timedelta(days=back)
        year.pass_day(date)
        tables = {name: iter([data]) for name, data in year.tables(date).items()}
        publish_day(lake, date, images, tables)


def publish_day(
    lake: Lake,
    date: dt.date,
    images: int,
    tables: Mapping[str, Iterable[pa.Table | pa.RecordBatch]],
    sources: Collection[str] = ("notebooks",),
    registry: RegistryFacts | None = None,
) -> None:
    """Publish a complete day of so many images with these rows; `sources` are those that were read."""
    partition = Partition(date, "default")
    files = {name: lake.staging(partition) / f"{name}.parquet" for name in tables}
    for name, rows in tables.items():
        with lake.writer(files[name], TABLES[name], "benchmark") as writer:
            for data in rows:
                writer.write(data)
    moment = dt.datetime.combine(date, dt.time(3), dt.UTC)
    counts = [name for name, field in InventoryFacts.model_fields.items() if field.is_required()]
    inventory = dict.fromkeys(counts, 0) | {"source": "a", "kind": "csv", "modified_at": None}
    fetch = dict.fromkeys(FetchFacts.model_fields, 0) | {
        "project_id": "p1",
        "endpoint_host": "127.0.0.1",
        "is_sandbox": False,
        "mode": "full",
        "started_at": moment,
        "finished_at": moment,
        "outcomes": {"ok": images},
        "list_was_read": False,
        "list_error": None,
        "scope": ScopeFacts(workspaces=["0"], origin="asked"),
        "sources": {name: SourceFacts(wanted=True, was_read=True) for name in sources},
        "registry": registry,
    }
    publish(
        lake,
        partition,
        files,
        run_id="benchmark",
        started_at=moment,
        published_at=moment,
        rebuilt=False,
        inventory=InventoryFacts(**inventory),
        fetch=FetchFacts(**fetch),
    )
    for path in files.values():
        path.unlink()


def _day(root: Path, date: dt.date) -> SnapshotRun:
    return SnapshotRun(Partition(date, "default"), "benchmark", Settings(lake=str(root)))


def derive_all(root: Path) -> object:
    derive_days(_day(root, LAST - dt.timedelta(days=1)))
    return None


def derive_day(root: Path) -> object:
    return derive_days(_day(root, LAST)).derived_manifest.summary.changes


def history(root: Path) -> object:
    with DuckDBEngine() as engine:
        write_history_again(engine, Lake(str(root)), "default", LocalPath(root / "history-again.parquet"))
    return pq.read_metadata(root / "history-again.parquet").num_rows


def as_of(root: Path) -> object:
    middle = LAST - dt.timedelta(days=180)
    with connect_lake(Lake(str(root))) as connection:
        sql = "SELECT COUNT(*), SUM(size_bytes) FROM images_as_of('{}') WHERE visibility = 'PUBLIC'"
        return _timed(lambda: connection.sql(sql.format(middle)).fetchall())


def trend(root: Path) -> object:
    with connect_lake(Lake(str(root))) as connection:
        sql = (
            "SELECT snapshot_date, COUNT(*), SUM(size_bytes), COUNT(*) FILTER (WHERE visibility = 'PUBLIC') "
            "FROM images GROUP BY snapshot_date ORDER BY snapshot_date"
        )
        return _timed(lambda: len(connection.sql(sql).fetchall()))


def frame(root: Path) -> object:
    with open_lake(root) as lake:
        return _timed(lambda: lake.images(as_of=LAST - dt.timedelta(days=180)))


def changes(root: Path) -> object:
    with open_lake(root) as lake:
        return _timed(lambda: lake.changes(since=LAST - dt.timedelta(days=30)))


def _timed(query: Callable[[], object]) -> list[float]:
    seconds = []
    for _ in range(RUNS):
        began = time.perf_counter()
        query()
        seconds.append(round(time.perf_counter() - began, 3))
    return seconds


MEASURES = {
    "derive all": derive_all,
    "derive day": derive_day,
    "history": history,
    "as of": as_of,
    "trend": trend,
    "frame": frame,
    "changes": changes,
}


def measure(name: str, root: Path) -> dict[str, object]:
    began = time.perf_counter()
    result = MEASURES[name](root)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"name": name, "seconds": seconds, "peak_mb": peak, "result": result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--keep", type=Path, help="directory of the lake; one that is there is used again")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "LAKE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], Path(arguments.measure[1])), default=str))
        return
    with tempfile.TemporaryDirectory() as directory:
        root = arguments.keep or Path(directory)
        if not Lake(str(root)).contents.partitions():
            began = time.perf_counter()
            # A process of its own: what a process took at most is counted for those that it starts, too.
            writing = multiprocessing.get_context("spawn").Process(
                target=write_year, args=(root, arguments.images, arguments.days)
            )
            writing.start()
            writing.join()
            print(
                f"{arguments.days} days of {arguments.images:,} images written in {time.perf_counter() - began:.0f} s"
            )
        for name in MEASURES:
            command = [sys.executable, "-m", "benchmarks.year", "--measure", name, str(root)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            seconds = found["seconds"]
            if isinstance(found["result"], list) and name in ("as of", "trend", "frame", "changes"):
                seconds = statistics.median(found["result"])
            print(f"{name:<12} {seconds:8.2f} s {found['peak_mb']:6.0f} MB   {found['result']}", flush=True)
        size = Lake(str(root)).project_table(IMAGE_HISTORY.name, "default").stat().st_size
        print(f"history file: {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
