"""The cost of a day by its number of images: `python -m benchmarks.unit_costs [--few N] [--many N] [--object-store]`.

Takes two days of the sandbox, of few and of many images, each step in a process of its own, and prints for each step
what a day costs at least and what each 1,000 images add: CPU seconds (without imports), peak memory, requests to the
API, requests to the object store, and bytes in the lake. The CPU seconds of a whole `image-snapshots run` besides, with
imports, Dagster and all.
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
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from benchmarks.object_store import object_store
from pipelines.derive.days import derive_days
from pipelines.lake.derived_manifests import read_derived_manifest
from pipelines.lake.layout import Partition
from pipelines.lake.manifests import published
from pipelines.report.page import write_report
from pipelines.sandbox import SandboxOptions, running_sandbox
from pipelines.settings import DEFAULT_PROJECT, Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory
from pipelines.warehouse.loading import load_project

COMMAND = str(Path(sys.executable).with_name("image-snapshots"))
STEPS: dict[str, Callable[[SnapshotRun], object]] = {
    "inventory": take_inventory,
    "fetch": lambda day: fetch_responses(day, lambda _: None),
    "publish": publish_snapshot,
    "derive": derive_days,
    "warehouse": lambda day: load_project(day.lake, day.partition, f"{os.environ['WORK']}/warehouse.duckdb"),
    "report": lambda day: write_report(day.lake, day.partition),
}


def day_of_today() -> SnapshotRun:
    return SnapshotRun(Partition(dt.datetime.now(dt.UTC).date(), DEFAULT_PROJECT), "benchmark", Settings.load())


def run_step(name: str) -> None:
    day = day_of_today()
    started, spent = time.perf_counter(), time.process_time()
    STEPS[name](day)
    figures = {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - spent,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(figures))


def run_facts() -> None:
    """The lake's facts about the day: rows, requests, bytes by table."""
    day = day_of_today()
    manifest, derived_manifest = published(day.lake, day.partition), read_derived_manifest(day.lake, day.partition)
    assert manifest is not None
    assert derived_manifest is not None
    files = manifest.files | derived_manifest.files
    print(
        json.dumps(
            {
                "images": manifest.inventory.ids,
                "requests": manifest.fetch.requests,
                "bytes_received": manifest.fetch.bytes_received,
                "bytes": {name: facts.bytes for name, facts in files.items()},
            }
        )
    )


def measure(size: int, *, in_object_store: bool) -> dict[str, dict[str, float]]:
    """Figures of each step, and those of the lake under `day`."""
    found: dict[str, dict[str, float]] = {}
    with (
        tempfile.TemporaryDirectory() as work,
        object_store() if in_object_store else nullcontext({"IMAGE_SNAPSHOTS_LAKE": "lake"}) as storage,
        running_sandbox(SandboxOptions(size=size, inventory_file=Path(work) / "inventory.csv")) as sandbox,
    ):
        log = storage.pop("LOG", None)
        env = os.environ | sandbox.env | storage | {"WORK": work, "PYTHONPATH": str(Path.cwd())}

        def run(step: str) -> dict[str, float]:
            before = _lines(log)
            command = [sys.executable, "-m", "benchmarks.unit_costs", "--step", step]
            ended = subprocess.run(command, env=env, cwd=work, capture_output=True, check=True)
            return json.loads(ended.stdout) | {"store_requests": _lines(log) - before}

        for step in STEPS:
            found[step] = run(step)
            print(f"{size:>8} {step:<10} {json.dumps(found[step])}", file=sys.stderr, flush=True)
        found["day"] = run("facts")
        # An existing day is taken again.
        before = os.times()
        subprocess.run([COMMAND, "run"], env=env, cwd=work, capture_output=True, check=True)
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        found["run"] = {"cpu": cpu, "seconds": after.elapsed - before.elapsed}
        print(f"{size:>8} run        {json.dumps(found['run'])}", file=sys.stderr, flush=True)
    return found


def _lines(log: str | None) -> int:
    return Path(log).read_bytes().count(b"HTTP/1.1") if log else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=1_000)
    parser.add_argument("--many", type=int, default=20_000)
    parser.add_argument("--object-store", action="store_true")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        run_facts() if arguments.step == "facts" else run_step(arguments.step)
        return
    few, many = (measure(size, in_object_store=arguments.object_store) for size in (arguments.few, arguments.many))
    thousands = (many["day"]["images"] - few["day"]["images"]) / 1_000
    base = few["day"]["images"] / 1_000

    def line(name: str, small: float, large: float, digits: int = 2) -> None:
        each = (large - small) / thousands
        print(f"| {name} | {small - each * base:,.{digits}f} | {each:,.{digits}f} |")

    print(f"{few['day']['images']} and {many['day']['images']} ids\n\n| | a day | each 1,000 |\n|---|--:|--:|")
    for step in STEPS:
        line(f"CPU s, {step}", few[step]["cpu"], many[step]["cpu"])
    line("CPU s, `image-snapshots run`", few["run"]["cpu"], many["run"]["cpu"])
    line("CPU s, the steps", *(sum(of[step]["cpu"] for step in STEPS) for of in (few, many)))
    line("API requests", few["day"]["requests"], many["day"]["requests"], 0)
    line("kB received", few["day"]["bytes_received"] / 1e3, many["day"]["bytes_received"] / 1e3, 0)
    line("kB in the lake", *(sum(of["day"]["bytes"].values()) / 1e3 for of in (few, many)), 1)
    if arguments.object_store:
        line("object store requests", *(sum(of[s]["store_requests"] for s in STEPS) for of in (few, many)), 1)
    for step in STEPS:
        line(f"peak MB, {step}", few[step]["peak_mb"], many[step]["peak_mb"], 1)


if __name__ == "__main__":
    main()
