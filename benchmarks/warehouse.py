"""The cost of loading `images` into PostgreSQL: `python -m benchmarks.warehouse URL [ROWS]` (1,000,000 by default).

Generated rows are written as a real `images.parquet`, and two ways put them into the same table in turn, `RUNS` times:

load    what `pipelines.warehouse.loading` does with one table of a day: DELETE of the day, and COPY from the Parquet
        file
csv     the least that can be done: a bare `COPY ... FROM` of a CSV file by the server itself, which reads it from its
        own disk. The file was made beforehand, which is not counted

Both are one transaction, into a table that is empty and has its primary key; and then both again without the key.
Printed are medians of wall-clock seconds, and the peak memory of this process. The server must be on this machine, its
role must be a superuser (the server reads a file), and the tables are made in a schema `benchmark`, which is dropped.
"""

import argparse
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, date, datetime
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from pipelines.lake.layout import Lake
from pipelines.lake.local_storage import LocalPath
from pipelines.tables import IMAGES
from pipelines.warehouse.ddl import WAREHOUSE_TABLES, create_table
from pipelines.warehouse.postgres import PostgresWarehouse
from pipelines.warehouse.sources import open_source

RUNS = 3
CHUNK = 10_000
DAY = date(2026, 3, 2)
OBSERVED = datetime(2026, 3, 2, 6, 30, tzinfo=UTC)
TABLE = WAREHOUSE_TABLES[IMAGES.name]


def images(first: int, rows: int) -> pa.Table:
    """Images `first`.. as they are in an account of many teams."""
    rng = random.Random(first)
    table = []
    for number in range(first, first + rows):
        namespace, repository, tag = f"team-{number % 53}", f"trainer-{number % 997}", f"release-{rng.randrange(10**6)}"
        arch, size, gpu = rng.choice(["x86_64", "AARCH64"]), rng.randrange(1_000_000, 20_000_000), rng.random() < 0.5
        created = datetime.fromtimestamp(1_700_000_000 + rng.randrange(60_000_000), UTC)
        table.append(
            {
                "snapshot_date": DAY,
                "project_id": "p" * 32,
                "id": f"{number:08x}-0000-4000-8000-{rng.getrandbits(48):012x}",
                "name": repository,
                "namespace": namespace,
                "swr_path": f"swr.region-1.example.com/{namespace}/{repository}:{tag}",
                "tag": tag,
                "arch": arch,
                "type": rng.choice(["BUILD_IN", "DEDICATED"]),
                "origin": "CUSTOMIZE",
                "service_type": "COMMON",
                "status": "ACTIVE",
                "status_message": "",
                "visibility": rng.choice(["PRIVATE", "PUBLIC"]),
                "workspace_id": "0",
                "description": f"Training environment number {number} of this team, rebuilt from its sources monthly",
                "size": size,
                "create_at": created,
                "update_at": created,
                "dev_services": "NOTEBOOK|SSH",
                "resource_categories": "CPU|GPU" if gpu else "CPU",
                "support_res_categories": "CPU|GPU",
                "size_bytes": size * 1024,
                "supports_notebook": True,
                "supports_ssh": True,
                "supports_cpu": True,
                "supports_gpu": gpu,
                "supports_ascend": False,
                "arch_normalised": arch.lower(),
                "registry": "swr.region-1.example.com",
                "repository": repository,
                "age_days": (OBSERVED - created).days,
                "days_since_update": (OBSERVED - created).days,
                "observed_at": OBSERVED,
                "response_sha256": f"{rng.getrandbits(256):064x}",
                "content_hash": f"{rng.getrandbits(256):064x}",
            }
        )
    return pa.Table.from_pylist(table, schema=IMAGES.schema)


def load(connection: psycopg.Connection, path: Path) -> None:
    warehouse = PostgresWarehouse("benchmark", connection, 60)
    with ExitStack() as stack:
        source = open_source(IMAGES, path, stack)
        with warehouse.transaction():
            key: dict[str, object] = {"project": "default", "snapshot_date": DAY}
            warehouse.replace(TABLE, key, source.batches("default"))


def csv(connection: psycopg.Connection, path: Path) -> None:
    connection.execute(f"COPY images FROM '{path}' (FORMAT CSV)".encode())


def measure(connection: psycopg.Connection, way: Callable[[psycopg.Connection, Path], None], path: Path) -> float:
    connection.execute("TRUNCATE images")
    connection.execute("CHECKPOINT")
    started = time.monotonic()
    way(connection, path)
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("rows", type=int, nargs="?", default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, psycopg.connect(arguments.url, autocommit=True) as connection:
        # The server, which is another user, reads the CSV file.
        Path(folder).chmod(0o755)
        parquet, text = Path(folder) / "images.parquet", Path(folder) / "images.csv"
        with Lake(folder).writer(LocalPath(parquet), IMAGES, "benchmark") as writer:
            for first in range(0, arguments.rows, CHUNK):
                writer.write(images(first, min(CHUNK, arguments.rows - first)))
        with (
            ExitStack() as stack,
            pa_csv.CSVWriter(text, TABLE.schema, write_options=pa_csv.WriteOptions(include_header=False)) as csv_writer,
        ):
            for batch in open_source(IMAGES, parquet, stack).batches("default"):
                csv_writer.write_batch(batch)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        connection.execute("CREATE SCHEMA benchmark")
        connection.execute("SET search_path = benchmark")
        try:
            connection.execute(create_table(TABLE, keyed=True)[0].encode())
            for key in ("with its primary key", "without a key"):
                runs = [
                    (name, measure(connection, *way))
                    for _ in range(RUNS)
                    for name, way in {"load": (load, parquet), "csv": (csv, text)}.items()
                ]
                seconds = {name: statistics.median(s for n, s in runs if n == name) for name in ("load", "csv")}
                for name, median in seconds.items():
                    each = ", ".join(f"{s:.1f}" for n, s in runs if n == name)
                    print(
                        f"{arguments.rows:>9,} rows {key}  {name:4}  {median:6.1f} s  "
                        f"{arguments.rows / median:>9,.0f} rows/s  (runs: {each})"
                    )
                print(f"{arguments.rows:>9,} rows {key}  speed of load / csv  {seconds['csv'] / seconds['load']:.2f}")
                connection.execute("ALTER TABLE images DROP CONSTRAINT IF EXISTS images_pkey")
        finally:
            connection.execute("DROP SCHEMA benchmark CASCADE")
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        size = pq.read_metadata(parquet).num_rows, parquet.stat().st_size / 2**20, text.stat().st_size / 2**20
        print(f"{size[0]:,} rows: {size[1]:.0f} MB of Parquet, {size[2]:.0f} MB of CSV")
        print(f"peak memory of this process: {after:.0f} MB ({before:.0f} MB before the first load)")


if __name__ == "__main__":
    main()
