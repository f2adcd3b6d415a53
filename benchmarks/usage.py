"""What the sources of usage and the traces add to a day: `.venv/bin/python -m benchmarks.usage [IMAGES]`.

A day of the sandbox is fetched in a process of its own: with the image list alone, then with usage and traces, too.
Next, the day after it, on which only changed models and services are asked for again. Prints requests, seconds, CPU
seconds of the process and its peak memory, and how many resources there are.
"""

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from pipelines.lake.layout import Partition
from pipelines.sandbox import SandboxOptions, running_sandbox
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory

FIRST, SECOND = dt.date(2026, 11, 16), dt.date(2026, 11, 17)


def take(root: str, date: dt.date, usage: str) -> dict[str, object]:
    """Take a day in this process, and return the figures of its fetch."""
    import resource  # noqa: PLC0415  (not there on every system)

    moment = dt.datetime.combine(date, dt.time(12), dt.UTC)
    settings = Settings(lake=root, usage=usage, traces="false" if usage == "none" else "true", concurrency=32)
    run = SnapshotRun(Partition(date, "default"), usage, settings, lambda: moment)
    take_inventory(run)
    started, cpu = time.monotonic(), time.process_time()
    facts = fetch_responses(run, lambda _: None).facts
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    publish_snapshot(run)
    return {
        "seconds": seconds,
        "cpu": cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "requests": facts.requests + facts.sources["traces"].requests,
        "items": {name: source.items for name, source in facts.sources.items() if source.wanted},
        "observed": facts.usage_is_observed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="?", type=int, default=20_000)
    parser.add_argument("--take", nargs=3, metavar=("LAKE", "DATE", "USAGE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.take:
        root, date, usage = arguments.take
        print(json.dumps(take(root, dt.date.fromisoformat(date), usage)))
        return
    with tempfile.TemporaryDirectory() as directory:
        inventory = Path(directory) / "inventory.csv"
        options = SandboxOptions(size=arguments.images, day=FIRST, workspaces=2, inventory_file=inventory)
        with running_sandbox(options) as cloud:
            print(f"{'':<24} {'requests':>9} {'seconds':>8} {'CPU s':>7} {'peak MB':>8}")
            for name, lake, date, usage in (
                ("without usage", "without", FIRST, "none"),
                ("with usage and traces", "with", FIRST, "all"),
                ("the day after", "with", SECOND, "all"),
            ):
                httpx.put(f"{cloud.endpoint}/sandbox/day", json={"day": date.isoformat()}).raise_for_status()
                command = [sys.executable, "-m", "benchmarks.usage", "--take", f"{directory}/{lake}", str(date), usage]
                done = subprocess.run(command, env=os.environ | cloud.env, capture_output=True, text=True, check=True)
                found = json.loads(done.stdout)
                print(
                    f"{name:<24} {found['requests']:>9,} {found['seconds']:>8.1f} {found['cpu']:>7.1f} "
                    f"{found['peak_mb']:>8.0f}",
                    flush=True,
                )
            print("resources:", ", ".join(f"{name} {count:,}" for name, count in found["items"].items()))
            print("observed:", found["observed"])


if __name__ == "__main__":
    main()
