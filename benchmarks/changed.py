"""Requests of an incremental day compared with a full one: `.venv/bin/python -m benchmarks.changed [IMAGES]`.

Two days of a sandbox's catalogue, read in full first to learn what changes. Then an inventory of which one image in a
hundred really changed is taken both ways on the second day. Prints what each way asked, and whether the two `images`
tables hold the same content.
"""

import datetime as dt
import os
import shutil
import sys
import tempfile
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import Manifest
from pipelines.sandbox import SandboxOptions, running_sandbox
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory
from pipelines.tables import IMAGES

FIRST, SECOND = dt.date(2026, 11, 16), dt.date(2026, 11, 17)
CONTENT = [c.name for c in IMAGES.columns if c.origin != "provenance"] + ["content_hash", "extra", "anomalies"]


def take(root: Path, date: dt.date, mode: str, inventory: str) -> Manifest:
    """Take one day's snapshot at noon of that day."""
    moment = dt.datetime.combine(date, dt.time(12), dt.UTC)
    settings = Settings(lake=str(root), mode=mode, inventory=inventory, concurrency=64)
    day = SnapshotRun(Partition(date, "default"), mode, settings, lambda: moment)
    take_inventory(day)
    fetch_responses(day, lambda _: None)
    return publish_snapshot(day).manifest


def content(root: Path, date: dt.date) -> pa.Table:
    """The API's content of each image on a day, without provenance."""
    return pq.read_table(Lake(str(root)).table("images", Partition(date, "default")), columns=CONTENT)


def main(images: int) -> None:
    """Run both ways and print the figures."""
    # More than needed, because some are new, gone or unreadable.
    options = SandboxOptions(size=images * 11 // 10, day=FIRST)
    with tempfile.TemporaryDirectory() as directory, running_sandbox(options) as cloud:
        os.environ |= cloud.env

        def set_day(date: dt.date) -> None:
            httpx.put(f"{cloud.endpoint}/sandbox/day", json={"day": date.isoformat()}).raise_for_status()

        everything, full, changed = (Path(directory) / name for name in ("everything", "full", "changed"))
        hashes = []
        for date in (FIRST, SECOND):
            set_day(date)
            take(everything, date, "full", "modelarts:")
            table = content(everything, date)
            hashes.append(dict(zip(table["id"].to_pylist(), table["content_hash"].to_pylist(), strict=True)))
        both = sorted(hashes[0].keys() & hashes[1].keys())
        differing = [id_ for id_ in both if hashes[0][id_] != hashes[1][id_]][: images // 100]
        same = [id_ for id_ in both if hashes[0][id_] == hashes[1][id_]][: images - len(differing)]
        inventory = Path(directory) / "inventory.txt"
        inventory.write_text("\n".join(differing + same))

        set_day(FIRST)
        take(full, FIRST, "full", str(inventory))
        shutil.copytree(full, changed)
        set_day(SECOND)
        whole, part = (take(root, SECOND, root.name, str(inventory)) for root in (full, changed))
        equal = content(full, SECOND).equals(content(changed, SECOND))
    print(f"images {whole.inventory.ids}, changed {len(differing)}, listed {len(hashes[1])}")
    print(f"requests: full {whole.fetch.requests}, changed {part.fetch.requests}")
    print(f"ratio {part.fetch.requests / whole.fetch.requests:.2%}, carried forward {part.fetch.carried}")
    print(f"equal content: {equal}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
