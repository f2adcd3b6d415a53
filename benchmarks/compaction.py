"""Monthly files beside daily ones: `python -m benchmarks.compaction LAKE [--project KEY] [--runs N]`.

Takes a lake with a year of days and their derived tables (`python -m benchmarks.year --keep LAKE` makes one), which it
leaves as it is: it works on a copy of hard links. Compacts every month that is over, in a process of its own with its
peak memory, and asks the same of the lake before and after, in turns, each query in a process of its own:

as of     the public images of a day half a year back and their bytes, from the snapshots (`images`)
trend     images, bytes and public images of each day of the year
image     visibility, size and content of one image on each day of the year
owners    bytes by cost centre and month, from `images_with_owner`
findings  findings by day and severity

One month's `images` are also written in the order that was not chosen, by day and id, to compare sizes.
"""

import argparse
import datetime as dt
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from pipelines.engine.duckdb import DuckDBEngine
from pipelines.lake.layout import Lake
from pipelines.maintenance.compaction import compact, months_over
from pipelines.query.views import connect_lake
from pipelines.tables import IMAGES, SNAPSHOT_TABLES

NOW = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
DAY = "2026-05-26"
QUERIES = {
    "as of": f"SELECT COUNT(*), SUM(size_bytes) FROM images WHERE snapshot_date = '{DAY}' AND visibility = 'PUBLIC'",
    "trend": "SELECT snapshot_date, COUNT(*), SUM(size_bytes), COUNT(*) FILTER (WHERE visibility = 'PUBLIC') "
    "FROM images GROUP BY snapshot_date ORDER BY snapshot_date",
    "image": "SELECT snapshot_date, visibility, size_bytes, content_hash FROM images "
    f"WHERE id = (SELECT MIN(id) FROM images WHERE snapshot_date = '{DAY}') ORDER BY snapshot_date",
    "owners": "SELECT cost_center, MONTH(snapshot_date), SUM(size_bytes) FROM images_with_owner "
    "GROUP BY ALL ORDER BY ALL",
    "findings": "SELECT snapshot_date, severity, COUNT(*) FROM audit_findings GROUP BY ALL ORDER BY ALL",
}


def measure_query(name: str, root: str) -> dict[str, object]:
    """Connect time, and wall and processor time of the query: the least of three on an open connection."""
    began = time.perf_counter()
    with closing(connect_lake(Lake(root))) as connection:
        connected = time.perf_counter() - began
        walls, processor, rows = [], [], []
        for _ in range(3):
            began, used = time.perf_counter(), time.process_time()
            rows = connection.sql(QUERIES[name]).fetchall()
            walls.append(time.perf_counter() - began)
            processor.append(time.process_time() - used)
    return {"connect": connected, "wall": min(walls), "cpu": min(processor), "rows": str(rows)}


def measure_compaction(project: str, root: str) -> dict[str, object]:
    lake, months = Lake(root), []
    began, used = time.perf_counter(), time.process_time()
    for month in months_over(lake, project, NOW.date()):
        done = compact(lake, project, month, NOW)
        months.append((done.rows, done.daily_files, done.daily_bytes, done.bytes))
    return {
        "wall": time.perf_counter() - began,
        "cpu": time.process_time() - used,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "months": len(months),
        "sums": [sum(column) for column in zip(*months, strict=True)],
    }


def bytes_by_day(root: str, project: str, month: str) -> int:
    """Bytes of a month's `images` in the rejected order."""
    lake = Lake(root)
    target = lake.root / "by-day.parquet"
    paths = [
        path
        for day, path in lake.contents.files_of(IMAGES.name).items()
        if day.project == project and f"{day.date:%Y-%m}" == month
    ]
    with DuckDBEngine() as engine, lake.writer(target, IMAGES, "benchmark") as writer:
        engine.load_files("daily", paths, IMAGES)
        columns = ", ".join(IMAGES.schema.names)
        for batch in engine.stream(f"SELECT {columns} FROM daily ORDER BY snapshot_date, id", IMAGES.schema):
            writer.write(batch)
    return target.stat().st_size


def apart(*arguments: str) -> dict:
    """Take one measurement in a separate process."""
    command = [sys.executable, "-m", "benchmarks.compaction", *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lake", help="a lake of many days, with derived tables")
    parser.add_argument("--project", default="default")
    parser.add_argument("--runs", type=int, default=3, help="turns of each query")
    parser.add_argument("--query", help=argparse.SUPPRESS)
    parser.add_argument("--compact", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.query:
        print(json.dumps(measure_query(arguments.query, arguments.lake)))
        return
    if arguments.compact:
        print(json.dumps(measure_compaction(arguments.project, arguments.lake)))
        return
    source = Path(arguments.lake).absolute()
    # Hard links stay within a file system.
    with tempfile.TemporaryDirectory(dir=source.parent, prefix="compacted-") as directory:
        copy = str(Path(directory) / "lake")
        shutil.copytree(source, copy, copy_function=os.link, ignore=shutil.ignore_patterns("_monthly", "_locks"))
        done = apart(copy, "--compact", "--project", arguments.project)
        rows, daily_files, daily_bytes, monthly_bytes = done["sums"]
        print(
            f"{done['months']} months, {rows:,} rows: {daily_files:,} daily files of {daily_bytes / 1e6:.0f} MB are "
            f"{done['months'] * len(SNAPSHOT_TABLES)} monthly ones of {monthly_bytes / 1e6:.0f} MB "
            f"({daily_bytes / monthly_bytes:.1f} times smaller); {done['wall']:.0f} s, {done['cpu']:.0f} s of CPU, "
            f"peak {done['peak_mb']:.0f} MB",
            flush=True,
        )
        month = DAY[: len("2026-05")]
        by_id = Lake(copy).monthly(IMAGES.name, month, arguments.project).stat().st_size
        by_day = bytes_by_day(copy, arguments.project, month)
        print(f"images of {month}: {by_id / 1e6:.1f} MB by id and day, {by_day / 1e6:.1f} MB by day and id", flush=True)
        for name in QUERIES:
            found = {"daily": [], "monthly": []}
            for _ in range(arguments.runs):
                found["daily"].append(apart(str(source), "--query", name))
                found["monthly"].append(apart(copy, "--query", name))
            answers = {each["rows"] for measured in found.values() for each in measured}
            if len(answers) != 1:
                raise SystemExit(f"{name}: the rows differ")
            line = f"{name:<9}"
            for figure in ("wall", "cpu", "connect"):
                daily, monthly = (statistics.median(each[figure] for each in found[kind]) for kind in found)
                line += f"  {figure} {daily * 1000:7.0f} ms {monthly * 1000:7.0f} ms {daily / monthly:5.1f}x"
            print(line, flush=True)


if __name__ == "__main__":
    main()
