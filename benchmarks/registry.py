"""Measures what the registry and the bill add to a day: `python -m benchmarks.registry [--few N] [--many N]`.

Days of the sandbox, of few and of many images, are taken without both and with both, each in a process of its own. The
measured day is the third: it reads the first statement of the first day's bill, and divides it among the images. Prints
what a day of any number of images costs more, and what each 1,000 images add: requests, CPU seconds (without imports)
of the fetch, of publishing and of deriving, and bytes in the lake.
"""

import argparse
import datetime as dt
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from pipelines.derive.days import derive_days
from pipelines.lake.derived_manifests import read_derived_manifest
from pipelines.lake.layout import Partition
from pipelines.lake.manifests import published
from pipelines.sandbox import SandboxOptions, running_sandbox
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory

DAYS = [dt.date(2026, 11, 16) + dt.timedelta(days=number) for number in range(3)]
TABLES = (
    *("registry_pages", "registry_tags", "registry_layers", "image_storage", "registry_only", "reclaimable"),
    *("billed_costs", "image_bills", "bill_days"),
)


def take(root: str, date: dt.date, with_both: bool) -> dict[str, float]:
    """Take and derive a day in this process; returns its figures."""
    moment = dt.datetime.combine(date, dt.time(12), dt.UTC)
    both = {"registry": "true", "bills": "otc-dashboard:"} if with_both else {"registry": "false", "bills": "none"}
    settings = Settings(lake=root, usage="none", traces="false", concurrency=32, **both)
    run = SnapshotRun(Partition(date, "default"), "benchmark", settings, lambda: moment)
    take_inventory(run)
    figures: dict[str, float] = {}
    for name, step in (
        ("fetch", lambda: fetch_responses(run, lambda _: None)),
        ("publish", lambda: publish_snapshot(run)),
        ("derive", lambda: derive_days(run)),
    ):
        began, spent = time.monotonic(), time.process_time()
        step()
        figures[f"{name}, CPU s"] = time.process_time() - spent
        figures[f"{name}, s"] = time.monotonic() - began
    manifest, derived_manifest = published(run.lake, run.partition), read_derived_manifest(run.lake, run.partition)
    assert manifest is not None
    assert derived_manifest is not None
    files = manifest.files | derived_manifest.files
    for name in ("registry", "bills"):
        source = manifest.fetch.sources[name]
        assert source.was_read == with_both, source
        figures[f"requests, {name}"] = source.requests
    figures["kB in the lake"] = sum(file.bytes for file in files.values()) / 1e3
    figures |= {f"of which {name}, kB": files[name].bytes / 1e3 for name in TABLES}
    figures["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures | {"images": manifest.inventory.ids}


def measure(size: int) -> tuple[float, dict[str, float]]:
    """The images of the last day, and by how much its figures are larger with both."""
    found = []
    with tempfile.TemporaryDirectory() as work:
        inventory = Path(work) / "inventory.csv"
        with running_sandbox(SandboxOptions(size=size, day=DAYS[0], inventory_file=inventory)) as cloud:
            for with_both in (False, True):
                for date in DAYS:
                    httpx.put(f"{cloud.endpoint}/sandbox/day", json={"day": date.isoformat()}).raise_for_status()
                    command = [sys.executable, "-m", "benchmarks.registry", "--take", f"{work}/{with_both}", str(date)]
                    command += ["both"] if with_both else ["none"]
                    ended = subprocess.run(command, env=os.environ | cloud.env, stdout=subprocess.PIPE, check=True)
                    figures = json.loads(ended.stdout)
                    print(f"{size:>7} {with_both!s:<5} {date} {ended.stdout.decode().strip()}", file=sys.stderr)
                found.append(figures)
    without, with_both = found
    return without.pop("images"), {name: with_both[name] - without[name] for name in without}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--few", type=int, default=500)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--take", nargs=3, metavar=("LAKE", "DATE", "BOTH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.take:
        root, date, both = arguments.take
        print(json.dumps(take(root, dt.date.fromisoformat(date), both == "both")))
        return
    (few, small), (many, large) = (measure(size) for size in (arguments.few, arguments.many))
    print(f"{few:,.0f} and {many:,.0f} ids\n\n| | a day | each 1,000 images |\n|---|--:|--:|")
    for name in small:
        each = (large[name] - small[name]) / (many - few) * 1000
        print(f"| {name} | {small[name] - each * few / 1000:,.2f} | {each:,.2f} |")


if __name__ == "__main__":
    main()
