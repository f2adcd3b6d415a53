"""What is stored of a large registry: `python -m benchmarks.storage [TAGS] [--keep DIRECTORY]`.

Writes one published day of a project whose registry has so many tags, each of 12 layers: three of an operating system,
two of a framework, two of a team, two of a repository with twenty tags, and three of its own. Two tags in a hundred are
a second name of the tag before. Nine tags in ten are registered by an image; half of the images have long been unused.
Then measures, each in a process of its own with its peak memory:

day          all derived tables of the day, as a daily run makes them
storage      `image_storage` and `registry_only`, by `derive_image_storage`
sets         `reclaimable`: what deleting all unused images, those of each owner and namespace, and those that each rule
             finds frees together, by `derive_reclaimable`
bill         a bill divided among the images by `sql/cost/image_bills.sql`
reference    the bytes stored, and those freed by deleting all unused images, by the definition: one SELECT of a DuckDB
             with all threads and without bounds of memory

The sums are compared with the reference's, and with those that the generator knows.
"""

import argparse
import datetime as dt
import hashlib
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.year import LAST, Year, filled, publish_day
from pipelines.derive.analysis import Analysis
from pipelines.derive.days import derive_days
from pipelines.derive.storage import count_layers, derive_image_storage, derive_reclaimable
from pipelines.engine.duckdb import DERIVING_MEMORY, DuckDBEngine
from pipelines.engine.sql_files import read_sql
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import RegistryFacts
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.tables import (
    IMAGE_BILLS,
    IMAGE_COSTS,
    IMAGE_RECONCILIATION,
    IMAGE_STORAGE,
    IMAGE_USAGE,
    IMAGES,
    REGISTRY_LAYERS,
    REGISTRY_ONLY,
    REGISTRY_TAGS,
)

PARTITION = Partition(LAST, "default")
TAGS_OF_REPOSITORY, TEAMS = 20, 53
SYSTEMS, FRAMEWORKS, TEAM_LAYERS = 40, 400, 10
OWN_LAYERS = 3
SECOND_NAME_EACH = 50
NOT_REGISTERED_EACH = 10
BATCH = 20_000
BILL, BILL_UNITS = 12_345, ("registry_units", "modelarts_units")

# The same by its definition: a layer is freed if no tag is left that has it.
REFERENCE = """
WITH unused AS (
    SELECT namespace, repository, tag, COUNT(*) AS images, MAX(images_of_tag) AS images_of_tag
    FROM {image_storage} INNER JOIN {image_usage} USING (id)
    WHERE unused_days >= 30
    GROUP BY ALL
),
tags AS (
    SELECT digest, COALESCE(unused.images = unused.images_of_tag, FALSE) AS is_deleted
    FROM {registry_tags} LEFT JOIN unused USING (namespace, repository, tag)
),
manifests AS (SELECT digest, BOOL_AND(is_deleted) AS is_deleted FROM tags GROUP BY digest),
layers AS (
    SELECT MAX(size_bytes) AS size_bytes, BOOL_AND(is_deleted) AS is_deleted
    FROM {registry_layers} INNER JOIN manifests USING (digest)
    GROUP BY layer_digest
)
SELECT SUM(size_bytes), SUM(size_bytes) FILTER (WHERE is_deleted) FROM layers
"""


class Registry:
    """The tags, manifests and layers of a registry of `tags` tags, by number."""

    def __init__(self, tags: int) -> None:
        self.tags = tags

    def address(self, tag: int) -> tuple[str, str, str]:
        """Namespace, repository and tag; in order of the numbers."""
        repositories = -(-self.tags // TAGS_OF_REPOSITORY)
        repository = tag // TAGS_OF_REPOSITORY
        return (
            f"team-{repository * TEAMS // repositories:02}",
            f"trainer-{repository:07}",
            f"{tag % TAGS_OF_REPOSITORY:02}",
        )

    def manifest(self, tag: int) -> int:
        """The number of a tag's manifest: its own, or that of the tag before."""
        return tag - 1 if tag % SECOND_NAME_EACH == SECOND_NAME_EACH - 1 else tag

    def layers(self, manifest: int) -> list[tuple[str, int]]:
        """Name and bytes of the layers of a manifest; equal names are one layer."""
        repository = manifest // TAGS_OF_REPOSITORY
        system, framework, team = repository % SYSTEMS, repository % FRAMEWORKS, self.address(manifest)[0]
        return [
            *((f"system-{system}-{n}", 30_000_000 + n) for n in range(3)),
            *((f"framework-{framework}-{n}", 2_000_000_000 + framework) for n in range(2)),
            *((f"{team}-{repository % TEAM_LAYERS}-{n}", 100_000_000) for n in range(2)),
            *((f"repository-{repository}-{n}", 40_000_000 + repository) for n in range(2)),
            *((f"own-{manifest}-{n}", 1_000_000 + manifest) for n in range(OWN_LAYERS)),
        ]

    def tag_rows(self) -> Iterator[pa.Table]:
        for first in range(0, self.tags, BATCH):
            numbers = range(first, min(first + BATCH, self.tags))
            namespaces, repositories, tags = map(list, zip(*map(self.address, numbers), strict=True))
            columns = {
                "namespace": namespaces,
                "repository": repositories,
                "tag": tags,
                "digest": [digest(f"manifest-{self.manifest(n)}") for n in numbers],
                "size_bytes": 4_000_000_000,
                "layers": 12,
                "tag_type": 0,
                "downloads": 7,
            }
            yield filled(REGISTRY_TAGS, len(numbers), keys() | columns)

    def layer_rows(self) -> Iterator[pa.Table]:
        manifests = sorted((digest(f"manifest-{n}"), n) for n in {self.manifest(tag) for tag in range(self.tags)})
        names: dict[str, str] = {}
        for first in range(0, len(manifests), BATCH):
            rows = []
            for of, number in manifests[first : first + BATCH]:
                layers = self.layers(number)
                found = [(names.setdefault(name, digest(name)), size) for name, size in layers[:-OWN_LAYERS]]
                found += [(digest(name), size) for name, size in layers[-OWN_LAYERS:]]
                rows += [(of, layer, size) for layer, size in sorted(found)]
            columns = dict(
                zip(("digest", "layer_digest", "size_bytes"), map(list, zip(*rows, strict=True)), strict=True)
            )
            yield filled(REGISTRY_LAYERS, len(rows), keys() | columns)

    def stored_bytes(self) -> int:
        sizes: dict[str, int] = {}
        own = 0
        for manifest in {self.manifest(tag) for tag in range(self.tags)}:
            layers = self.layers(manifest)
            sizes.update(layers[:-OWN_LAYERS])
            own += sum(size for _, size in layers[-OWN_LAYERS:])
        return own + sum(sizes.values())


def digest(name: str) -> str:
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def keys() -> dict[str, object]:
    observed = dt.datetime.combine(LAST, dt.time(3), dt.UTC)
    return {"snapshot_date": LAST, "project_id": "p1", "observed_at": observed}


def write_day(root: Path, tags: int) -> None:
    registry = Registry(tags)
    registered = [tag for tag in range(tags) if tag % NOT_REGISTERED_EACH]
    tables = Year(len(registered)).tables(LAST)
    parts = ["/".join(registry.address(tag)) for tag in registered]
    addresses = [f"swr.region-1.example.com/{part[::-1].replace('/', ':', 1)[::-1]}" for part in parts]
    namespaces = [part.partition("/")[0] for part in parts]
    images = tables[IMAGES.name]
    for name, values in (("swr_path", addresses), ("namespace", namespaces)):
        images = images.set_column(images.schema.get_field_index(name), images.schema.field(name), pa.array(values))
    rows = {name: iter([data]) for name, data in tables.items()}
    rows |= {IMAGES.name: iter([images]), REGISTRY_TAGS.name: registry.tag_rows()}
    rows |= {REGISTRY_LAYERS.name: registry.layer_rows()}
    facts = RegistryFacts(namespaces=sorted(set(namespaces)), origin="images")
    publish_day(Lake(str(root)), LAST, len(registered), rows, ("notebooks", "registry"), facts)


def run_of(root: Path) -> SnapshotRun:
    return SnapshotRun(PARTITION, "benchmark", Settings(lake=str(root)))


def day(root: Path) -> dict[str, object]:
    facts = derive_days(run_of(root)).storage
    # One day alone shows no image that has long been unused.
    with Analysis(run_of(root)) as analysis:
        analysis.load_today(IMAGE_USAGE)
        analysis.write(
            IMAGE_USAGE,
            "SELECT * REPLACE (CASE WHEN running + required = 0 AND HASH(id) % 2 = 0 THEN 40 ELSE 0 END "
            "AS unused_days) FROM image_usage ORDER BY id",
        )
    return {"stored_bytes": facts.stored_bytes}


def storage(root: Path) -> dict[str, object]:
    with Analysis(run_of(root)) as analysis:
        analysis.load_today(IMAGE_RECONCILIATION)
        began = started()
        facts = derive_image_storage(analysis)
        return ended(began) | {"stored_bytes": facts.stored_bytes, "registry_only": facts.registry_only_tags}


def sets(root: Path) -> dict[str, object]:
    with Analysis(run_of(root)) as analysis:
        for table in (IMAGE_USAGE, IMAGE_STORAGE):
            analysis.load_today(table)
        for table in (REGISTRY_TAGS, REGISTRY_LAYERS):
            analysis.load_evidence(table)
        # As they are when the storage was derived before.
        count_layers(analysis.engine)
        began = started()
        file = derive_reclaimable(analysis)
        figures = ended(began)
    rows = pq.read_table(root / file.path).to_pylist()
    (whole,) = (row["reclaimable_bytes"] for row in rows if row["dimension"] == "all")
    return figures | {"reclaimable_bytes": whole, "sets": len(rows), "images": sum(row["images"] for row in rows)}


def bill(root: Path) -> dict[str, object]:
    lake = Lake(str(root))
    with DuckDBEngine(DERIVING_MEMORY) as engine:
        for table in (IMAGE_COSTS, IMAGE_STORAGE, REGISTRY_ONLY):
            engine.load_file(table.name, lake.table(table.name, PARTITION))
        charge = {name: pa.array([LAST], pa.date32()) for name in ("snapshot_date", "charge_date")}
        charge |= {name: pa.array([name]) for name in ("project_id", "currency", "version")}
        charge |= {name: pa.array([BILL * 10**12], pa.decimal128(38, 0)) for name in BILL_UNITS}
        engine.load("charge", pa.table(charge))
        began = started()
        with lake.writer(lake.table(IMAGE_BILLS.name, PARTITION), IMAGE_BILLS, "benchmark") as writer:
            for batch in engine.stream(read_sql("cost/image_bills.sql"), IMAGE_BILLS.schema):
                writer.write(batch)
        figures = ended(began)
    parts = pq.read_table(lake.table(IMAGE_BILLS.name, PARTITION).local, columns=["billed_cost"])
    return figures | {"billed": int(pc.sum(parts["billed_cost"]).as_py())}


def reference(root: Path) -> dict[str, object]:
    files = {
        table.name: f"read_parquet('{Lake(str(root)).table(table.name, PARTITION)}', hive_partitioning = false)"
        for table in (REGISTRY_TAGS, REGISTRY_LAYERS, IMAGE_STORAGE, IMAGE_USAGE)
    }
    began = started()
    with duckdb.connect() as connection:
        ((stored, freed),) = connection.sql(REFERENCE.format(**files)).fetchall()
    return ended(began) | {"stored_bytes": int(stored), "reclaimable_bytes": int(freed)}


def started() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def ended(began: tuple[float, float]) -> dict[str, object]:
    return {"seconds": time.perf_counter() - began[0], "cpu": time.process_time() - began[1]}


MEASURES = {"day": day, "storage": storage, "sets": sets, "bill": bill, "reference": reference}


def measure(name: str, root: Path) -> dict[str, object]:
    began = started()
    figures = MEASURES[name](root)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return ended(began) | figures | {"peak_mb": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tags", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="directory of the lake; one that is there is used again")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=MEASURES,
        default=list(MEASURES),
        help="`sets` and `reference` need the tables of `day`",
    )
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "LAKE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], Path(arguments.measure[1])), default=str))
        return
    with tempfile.TemporaryDirectory() as directory:
        root = arguments.keep or Path(directory)
        if not Lake(str(root)).contents.partitions():
            # A process of its own: what a process took at most is counted for those that it starts, too.
            writing = multiprocessing.get_context("spawn").Process(target=write_day, args=(root, arguments.tags))
            writing.start()
            writing.join()
        results = {}
        for name in arguments.only:
            command = [sys.executable, "-m", "benchmarks.storage", "--measure", name, str(root)]
            results[name] = found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            spent = f"{found['seconds']:8.1f} s {found['cpu']:8.1f} CPU s {found['peak_mb']:6.0f} MB"
            figures = {key: value for key, value in found.items() if key not in ("seconds", "cpu", "peak_mb")}
            print(f"{name:<10} {spent}   {figures}", flush=True)
        known = {"stored_bytes": Registry(arguments.tags).stored_bytes(), "billed": 2 * BILL}
        known["reclaimable_bytes"] = results.get("reference", {}).get("reclaimable_bytes")
        for name, found in results.items():
            for key in known.keys() & found.keys():
                assert known[key] in (None, found[key]), f"{name} finds {found[key]} {key}, not {known[key]}"
        if {"storage", "sets", "reference"} <= results.keys():
            both = [results["storage"][key] + results["sets"][key] for key in ("seconds", "cpu")]
            ratios = [one / results["reference"][key] for one, key in zip(both, ("seconds", "cpu"), strict=True)]
            print(f"storage and sets: {both[0]:.1f} s, {ratios[0]:.2f} times the reference; CPU {ratios[1]:.2f} times")


if __name__ == "__main__":
    main()
