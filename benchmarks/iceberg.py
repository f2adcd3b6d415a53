"""Days in an Iceberg catalog: `python -m benchmarks.iceberg [--images N] [--days N] [--keep DIRECTORY]`.

Writes published days of generated images as `benchmarks.year` does, derives them, and then, each in a process of its
own with its peak memory:

load       copies all days into a new catalog in a directory, one after the other
again      loads the last day again, with nothing new
rebuilt    loads the last day again after the catalog has forgotten it, as after a rebuild of the last day
read       all rows of the last day of `images` as Arrow, by PyIceberg, with opening the catalog
count      images by day, all days

Printed are wall-clock and processor seconds, peak memory, commits; and the files and bytes of the catalog and the lake.
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pyiceberg.catalog import load_catalog

from benchmarks.year import LAST, write_year
from pipelines.catalog.loading import load_catalog_project
from pipelines.derive.days import derive_days
from pipelines.lake.layout import Lake, Partition
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun

PARTITION = Partition(LAST, "default")


def write(root: Path, images: int, days: int) -> None:
    write_year(root / "lake", images, days)
    derive_days(SnapshotRun(PARTITION, "benchmark", Settings(lake=str(root / "lake"))))


def load(root: Path) -> object:
    result = load_catalog_project(Lake(str(root / "lake")), PARTITION, f"{root}/catalog")
    return f"{result.commits} commits, {result.other_days + 1} days asked for"


def rebuilt(root: Path) -> object:
    with _opened(root) as catalog:
        for _, name in catalog.list_tables("image_snapshots"):
            table = catalog.load_table(f"image_snapshots.{name}")
            # A snapshot of somebody else makes each table count as changed.
            with table.transaction() as transaction, transaction.update_snapshot().fast_append():
                pass
    began = time.perf_counter()
    return f"{load(root)}, {time.perf_counter() - began:.2f} s of it"


def read(root: Path) -> object:
    with _opened(root) as catalog:
        rows = catalog.load_table("image_snapshots.images").scan(row_filter=f"snapshot_date = '{LAST}'").to_arrow()
    return f"{rows.num_rows:,} rows"


def count(root: Path) -> object:
    with _opened(root) as catalog:
        days = catalog.load_table("image_snapshots.images").scan(selected_fields=("snapshot_date",)).to_arrow()
    return f"{days.group_by('snapshot_date').aggregate([]).num_rows} days"


def _opened(root: Path):  # noqa: ANN202  (a context manager of PyIceberg)
    place = (root / "catalog").absolute()
    return load_catalog("image_snapshots", uri=f"sqlite:///{place}/catalog.db", warehouse=f"file://{place}")


MEASURES: dict[str, Callable[[Path], object]] = {
    "load": load,
    "again": load,
    "rebuilt": rebuilt,
    "read": read,
    "count": count,
}


def measure(name: str, root: Path) -> dict[str, object]:
    began, worked = time.perf_counter(), time.process_time()
    result = MEASURES[name](root)
    return {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - worked,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "result": result,
    }


def size(root: Path, pattern: str = "*") -> str:
    files = [path for path in root.rglob(pattern) if path.is_file()]
    return f"{len(files):,} files, {sum(path.stat().st_size for path in files) / 1e6:,.1f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--keep", type=Path, help="directory of lake and catalog; a lake that is there is used again")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "DIRECTORY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], Path(arguments.measure[1]))))
        return
    with tempfile.TemporaryDirectory() as directory:
        root = (arguments.keep or Path(directory)).absolute()
        if not Lake(str(root / "lake")).contents.partitions():
            # A process of its own: what a process took at most is counted for those that it starts, too.
            context = multiprocessing.get_context("spawn")
            writing = context.Process(target=write, args=(root, arguments.images, arguments.days))
            writing.start()
            writing.join()
        shutil.rmtree(root / "catalog", ignore_errors=True)
        for name in MEASURES:
            command = [sys.executable, "-m", "benchmarks.iceberg", "--measure", name, str(root)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(
                f"{name:<8} {found['seconds']:8.2f} s {found['cpu']:8.2f} s CPU {found['peak']:6.0f} MB   "
                f"{found['result']}",
                flush=True,
            )
            if name == "load":
                print(f"lake: {size(root / 'lake')}; of them the tables: {size(root / 'lake', '*.parquet')}")
                print(f"catalog: {size(root / 'catalog')}; of them rows: {size(root / 'catalog', '*.parquet')}")


if __name__ == "__main__":
    main()
