"""The cost of deriving the tables of a day: `python -m benchmarks.normalise [ROWS ...] [--odd-share SHARE]`.

For each number of rows, generated responses are written as a real `responses.parquet`, and two variants read it in
turn, each run in its own process.

derive   `pipelines.snapshot.publish.build_tables`: reads the responses, normalises, hashes, writes `images` and
         `image_values`
direct   the minimum for pyarrow with the same bodies: its JSON reader with a fixed schema, one file of the documented
         fields and one of the list elements. It repairs, checks, derives and hashes nothing, keeps no unknown field,
         and one value of another type fails the whole chunk.

Printed are medians of `RUNS` runs. CPU time is user and system time of all threads, without the start of the process
and its imports; peak memory is that of the process. `--odd-share` makes that share of the bodies have a new field and
a size sent as text, which the direct way cannot read.
"""

import argparse
import hashlib
import io
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

from pipelines.lake.layout import Lake
from pipelines.lake.local_storage import LocalPath
from pipelines.snapshot.publish import build_tables
from pipelines.tables import IMAGE_VALUES, IMAGES, LIST_FIELDS, RESPONSES

RUNS = 3
CHUNK = 10_000
OBSERVED = datetime(2026, 3, 2, 6, 30, tzinfo=UTC)
DAY = date(2026, 3, 2)


def responses(first: int, rows: int, odd_share: float) -> pa.Table:
    """Responses `first`.. with bodies of about 700 bytes."""
    rng = random.Random(first)
    table = []
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
        body = json.dumps(fields, sort_keys=True).encode()  # the API, too, sends the fields by name
        table.append(
            {
                "snapshot_date": DAY,
                "project_id": "p" * 32,
                "id": id_,
                "outcome": "ok",
                "http_status": 200,
                "attempts": 1,
                "elapsed_ms": 120,
                "observed_at": OBSERVED,
                "body": body,
                "body_sha256": hashlib.sha256(body).hexdigest(),
                "fetched_at": OBSERVED,
            }
        )
    return pa.Table.from_pylist(table, schema=RESPONSES.schema)


def derive(answers: Path, folder: Path) -> Callable[[], None]:
    def run() -> None:
        build_tables(Lake(str(folder)), LocalPath(answers), LocalPath(folder), "benchmark")

    return run


def direct(answers: Path, folder: Path) -> Callable[[], None]:
    sent = [c for c in IMAGES.columns if c.name == "id" or c.origin == "api"]
    types = {c.name: pa.int64() if c.name in {"create_at", "update_at"} else c.type for c in sent}
    body = pa.schema({n: pa.list_(pa.string()) if n in LIST_FIELDS else t for n, t in types.items()})
    images = pa.schema([field for field in body if field.name not in LIST_FIELDS])
    values = pa.schema([IMAGE_VALUES.schema.field(name) for name in ("id", "field", "value")])
    options = pj.ParseOptions(explicit_schema=body, unexpected_field_behavior="error")

    def run() -> None:
        with (
            pq.ParquetFile(answers) as file,
            pq.ParquetWriter(folder / "images.parquet", images, compression="zstd") as images_writer,
            pq.ParquetWriter(folder / "image_values.parquet", values, compression="zstd") as values_writer,
        ):
            for batch in file.iter_batches(CHUNK, columns=["body"]):
                lines = b"\n".join(batch["body"].to_pylist())
                table = pj.read_json(io.BytesIO(lines), parse_options=options).combine_chunks()
                images_writer.write_table(table.select(images.names))
                for field in LIST_FIELDS:
                    lists = table[field].combine_chunks()
                    elements = pc.list_flatten(lists)
                    ids = table["id"].take(pc.list_parent_indices(lists))
                    columns = [ids, pa.repeat(field, len(elements)), elements]
                    values_writer.write_table(pa.Table.from_arrays(columns, schema=values))

    return run


WAYS = {"derive": derive, "direct": direct}


def measure(way: str, answers: Path, folder: Path) -> dict[str, float]:
    """Run one variant in this process: CPU seconds and peak memory in MB."""
    run = WAYS[way](answers, folder)
    before = resource.getrusage(resource.RUSAGE_SELF)
    run()
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_s": seconds, "peak_mb": after.ru_maxrss / 1024}


def measure_apart(way: str, answers: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=answers.parent) as folder:
        command = [sys.executable, "-m", "benchmarks.normalise", "--measure", way, str(answers), folder]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    measured: dict[str, float] = json.loads(output)
    return measured


def compare(rows: int, odd_share: float) -> None:
    ways = ["derive"] if odd_share else list(WAYS)
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder) / "responses.parquet"
        with Lake(folder).writer(LocalPath(answers), RESPONSES, "benchmark") as writer:
            for first in range(0, rows, CHUNK):
                writer.write(responses(first, min(CHUNK, rows - first), odd_share))
        runs = [(way, measure_apart(way, answers)) for _ in range(RUNS) for way in ways]
    cpu = {way: statistics.median(run["cpu_s"] for w, run in runs if w == way) for way in ways}
    peak = {way: statistics.median(run["peak_mb"] for w, run in runs if w == way) for way in ways}
    for way in ways:
        each = cpu[way] / rows * 1e6
        print(f"{rows:>9,} rows  {way}  {cpu[way]:7.2f} CPU s  {each:6.1f} us a row  {peak[way]:5.0f} MB peak")
    if not odd_share:
        print(f"{rows:>9,} rows  ratio   {cpu['derive'] / cpu['direct']:7.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=int, nargs="*", default=[10_000, 20_000, 1_000_000])
    parser.add_argument("--odd-share", type=float, default=0.0, help="share of bodies with a new field and text sizes")
    parser.add_argument("--measure", nargs=3, metavar=("WAY", "ANSWERS", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        way, answers, folder = arguments.measure
        print(json.dumps(measure(way, Path(answers), Path(folder))))
        return
    for rows in arguments.rows:
        compare(rows, arguments.odd_share)


if __name__ == "__main__":
    main()
