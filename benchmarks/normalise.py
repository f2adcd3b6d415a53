"""Time `pipelines.normalise` on generated responses: `python benchmarks/normalise.py [ROWS]`.

Beside it, in the same run, the least that could be done with the same bodies: pyarrow's JSON reader with a fixed
schema, which repairs nothing, hashes nothing and fails a whole chunk for one bad value. Figures are medians of three
CPU times; each way streams chunks of 10,000 rows into a Parquet file under a temporary directory. Peak memory is
that of this process up to and including the normaliser, which runs first; the bodies of one chunk are made anew each
time and their cost is not counted.
"""

import argparse
import hashlib
import io
import json
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq

from pipelines.columns import IMAGE_VALUES, IMAGES, LIST_FIELDS, RESPONSES
from pipelines.normalise import normalise_images, to_arrow

CHUNK = 10_000
RUNS = 3
OBSERVED = datetime(2026, 3, 2, 6, 30, tzinfo=UTC)
DAY = date(2026, 3, 2)

FIXED_SCHEMA = pa.schema(
    [
        pa.field(c.name, pa.list_(pa.string()) if c.name in LIST_FIELDS else c.type)
        for c in IMAGES.columns
        if c.origin == "api"
    ]
    + [pa.field("id", pa.string())]
)
FIXED_SCHEMA = pa.schema([f.with_type(pa.int64()) if f.name in {"create_at", "update_at"} else f for f in FIXED_SCHEMA])


def chunk(first: int, rows: int, odd_share: float) -> pa.Table:
    """Responses `first`.. with bodies of about 700 bytes; `odd_share` of them have a new field and sizes as text."""
    rng = random.Random(first)
    table: dict[str, list[object]] = {name: [] for name in RESPONSES.schema.names}
    for number in range(first, first + rows):
        id_ = f"{number:08x}-0000-4000-8000-{rng.getrandbits(48):012x}"
        repository, tag = f"trainer-{number % 997}", f"release-{rng.randrange(10**6)}"
        created = 1_700_000_000_000 + rng.randrange(60_000_000_000)
        fields: dict[str, object] = {
            "id": id_,
            "name": repository,
            "namespace": f"team-{number % 53}",
            "swr_path": f"swr.region-1.example.com/team-{number % 53}/{repository}:{tag}",
            "tag": tag,
            "arch": rng.choice(["x86_64", "AARCH64"]),
            "type": rng.choice(["BUILD_IN", "DEDICATED"]),
            "origin": "CUSTOMIZE",
            "service_type": "COMMON",
            "status": "ACTIVE",
            "status_message": "",
            "visibility": rng.choice(["PRIVATE", "PUBLIC"]),
            "workspace_id": "0",
            "description": f"Training environment number {number} of this team, rebuilt from its sources each month",
            "size": rng.randrange(1_000_000, 20_000_000),
            "create_at": created,
            "update_at": created + rng.randrange(10**9),
            "dev_services": ["NOTEBOOK", "SSH"],
            "resource_categories": rng.choice([["CPU"], ["GPU", "CPU"], ["CPU", "GPU"]]),
            "support_res_categories": ["CPU", "GPU"],
        }
        if rng.random() < odd_share:
            fields |= {"size": str(fields["size"]), "labels": [{"key": "stage", "value": "test"}], "driver": 535.1}
        body = json.dumps(fields).encode()
        values = (DAY, "p" * 32, id_, "ok", 200, None, None, 1, 120, OBSERVED, body, hashlib.sha256(body).hexdigest())
        for column, value in zip(table.values(), values, strict=True):
            column.append(value)
    return pa.table(table, schema=RESPONSES.schema)


def chunks(rows: int, odd_share: float) -> Iterator[pa.Table]:
    for first in range(0, rows, CHUNK):
        yield chunk(first, min(CHUNK, rows - first), odd_share)


def ours(responses: Iterator[pa.Table], folder: Path, spent: Callable[[], None]) -> None:
    with (
        pq.ParquetWriter(folder / "images.parquet", IMAGES.schema, compression="zstd") as images,
        pq.ParquetWriter(folder / "image_values.parquet", IMAGE_VALUES.schema, compression="zstd") as values,
    ):
        for table in responses:
            spent()
            normalised = normalise_images(table)
            images.write_table(to_arrow(normalised.images, IMAGES))
            values.write_table(to_arrow(normalised.image_values, IMAGE_VALUES))
            spent()


def direct(responses: Iterator[pa.Table], folder: Path, spent: Callable[[], None]) -> None:
    options = pj.ParseOptions(explicit_schema=FIXED_SCHEMA, unexpected_field_behavior="ignore")
    with pq.ParquetWriter(folder / "direct.parquet", FIXED_SCHEMA, compression="zstd") as writer:
        for table in responses:
            spent()
            lines = b"\n".join(table["body"].to_pylist())
            writer.write_table(pj.read_json(io.BytesIO(lines), parse_options=options))
            spent()


def cpu_seconds(
    way: Callable[[Iterator[pa.Table], Path, Callable[[], None]], None], rows: int, odd_share: float
) -> float:
    marks: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        way(chunks(rows, odd_share), Path(folder), lambda: marks.append(time.process_time()))
    return sum(end - start for start, end in zip(marks[::2], marks[1::2], strict=True))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=int, nargs="?", default=100_000)
    parser.add_argument("--odd-share", type=float, default=0.0, help="share of bodies with a new field and text sizes")
    arguments = parser.parse_args()
    rows, odd_share = arguments.rows, arguments.odd_share
    normalised = statistics.median(cpu_seconds(ours, rows, odd_share) for _ in range(RUNS))
    peak = peak_mb()
    print(f"normalise and write   {rows / normalised:>10,.0f} rows/s  {normalised:7.2f} CPU s  {peak:6.0f} MB peak")
    if odd_share:
        print("pyarrow.json, fixed schema: cannot read sizes sent as text")
        return
    fixed = statistics.median(cpu_seconds(direct, rows, odd_share) for _ in range(RUNS))
    print(f"pyarrow.json, write   {rows / fixed:>10,.0f} rows/s  {fixed:7.2f} CPU s")
    print(f"ratio of CPU time     {normalised / fixed:10.2f}")


if __name__ == "__main__":
    main()
