"""A whole day as `image-snapshots run` takes it, with everything on: `python -m benchmarks.day 100000 [--days 2]`.

Inventory, fetch from the load server (details, its list, notebooks), publish, derive, warehouse (DuckDB) and report, in
one run of the job `daily_snapshot`. Prints for each step its seconds, its seconds in relation to the fetch's, CPU
seconds, and peak memory: resident memory of the process and of all that it starts, added, many times a second.
"""

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.load_server import BUILD, HERE, PROJECT_ID, LoadServer, running
from benchmarks.processes import family, resident_mb

SAMPLE_SECONDS = 0.05
STEPS = {
    "image_inventory": "inventory",
    "image_responses": "fetch",
    "publish_images": "publish",
    "derive_tables": "derive",
    "warehouse_tables": "warehouse",
    "daily_report": "report",
}
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Samples:
    """For a process and its children: times (since the epoch), resident MB, and CPU seconds used so far."""

    times: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def between(self, start: float, end: float) -> tuple[float, float, float]:
        """CPU seconds used, and the first and the largest of the resident MB."""
        first, last = bisect_left(self.times, start), min(bisect_left(self.times, end), len(self.times) - 1)
        return self.cpu[last] - self.cpu[first], self.resident[first], max(self.resident[first : last + 1])


def _sample(pid: int, ended: threading.Event, samples: Samples) -> None:
    while not ended.wait(SAMPLE_SECONDS):
        resident, ticks = 0.0, 0
        now = time.time()
        try:
            members = list(family(pid))
        except OSError:
            continue
        for member in members:
            try:
                held = resident_mb(member)
                stat = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                # The process has just ended.
                continue
            resident += held
            # Its own time and that of the children it waited for: user and system each.
            ticks += sum(map(int, stat[11:15]))
        if resident:
            samples.times.append(now)
            samples.resident.append(resident)
            samples.cpu.append(ticks / _TICKS)


def write_inventory(directory: Path, count: int) -> tuple[Path, Path]:
    """The ids of the server's list, and an inventory with their owners."""
    ids, inventory = directory / "ids.txt", directory / "inventory.csv"
    with ids.open("w") as listed, inventory.open("w") as registered:
        registered.write("id,owner,cost_center,environment\n")
        for number in range(count):
            id_ = uuid.uuid5(uuid.NAMESPACE_OID, str(number))
            listed.write(f"{id_}\n")
            registered.write(f"{id_},person-{number % 500}@example.com,,production\n")
    return ids, inventory


@contextmanager
def settings_of(directory: Path, inventory: Path, server: LoadServer, in_flight: int) -> Iterator[dict[str, str]]:
    """The environment of a run with everything on."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "IMAGE_SNAPSHOTS_"))}
    yield kept | {
        "OS_AUTH_URL": f"{server.endpoint}/v3",
        "OS_USERNAME": "benchmark",
        "OS_PASSWORD": "benchmark",
        "OS_USER_DOMAIN_NAME": "benchmark",
        "OS_PROJECT_ID": PROJECT_ID,
        "DAGSTER_HOME": str(directory / "dagster"),
        "IMAGE_SNAPSHOTS_ENDPOINT": server.endpoint,
        "IMAGE_SNAPSHOTS_INVENTORY": str(inventory),
        "IMAGE_SNAPSHOTS_LAKE": str(directory / "lake"),
        "IMAGE_SNAPSHOTS_WAREHOUSE": str(directory / "warehouse.duckdb"),
        "IMAGE_SNAPSHOTS_USAGE": "notebooks",
        "IMAGE_SNAPSHOTS_CONCURRENCY": str(in_flight),
        "PYTHONPATH": str(HERE.parent),
    }


def take_day(back: int) -> None:
    """Run the job for the day `back` days ago, with a matching clock; print when each step ran."""
    import dagster as dg  # noqa: PLC0415  (of the process that is measured alone)

    from assets.runner import Runner  # noqa: PLC0415
    from pipelines.lake.layout import Partition  # noqa: PLC0415
    from pipelines.settings import DEFAULT_PROJECT, Settings  # noqa: PLC0415

    def now() -> dt.datetime:
        return dt.datetime.now(dt.UTC) - dt.timedelta(days=back)

    with Runner(Settings.load()) as runner:
        failure = runner.run("daily_snapshot", Partition(now().date(), DEFAULT_PROJECT), now)
    if failure is not None:
        sys.exit(failure.sentence)
    with dg.DagsterInstance.get() as instance:
        (run,) = instance.get_run_records(limit=1)
        steps = instance.get_run_step_stats(run.dagster_run.run_id)
    print(json.dumps({step.step_key: (step.start_time, step.end_time) for step in steps}))


def measure(count: int, back: int, env: dict[str, str]) -> None:
    """Take a day in a separate process, and print the cost of each step."""
    command = [sys.executable, "-m", "benchmarks.day", "--take", str(back)]
    samples, ended = Samples(), threading.Event()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        sampler = threading.Thread(target=_sample, args=(process.pid, ended, samples))
        sampler.start()
        written = process.stdout.read()
        ended.set()
        sampler.join()
    if process.returncode != 0:
        sys.exit("The run failed.")
    times: dict[str, tuple[float, float]] = json.loads(written.splitlines()[-1])
    start, end = times["image_responses"]
    fetch = end - start
    print(f"\n{count:,} images, {'first' if back else 'last'} day\n")
    print("| step | seconds | times the fetch | CPU s | MB at first | peak MB |\n|---|--:|--:|--:|--:|--:|")

    def line(name: str, start: float, end: float) -> None:
        cpu, first, peak = samples.between(start, end)
        seconds = end - start
        print(f"| {name} | {seconds:.1f} | {seconds / fetch:.2f} | {cpu:.1f} | {first:.0f} | {peak:.0f} |", flush=True)

    for key, name in STEPS.items():
        line(name, *times[key])
    line("all after the fetch", end, max(last for _, last in times.values()))
    line("the whole run", samples.times[0], samples.times[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", type=int, nargs="*", default=[100_000])
    parser.add_argument("--days", type=int, default=1, choices=(1, 2), help="2: a day before this one as well")
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="leave lake and warehouse there")
    parser.add_argument("--take", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.take is not None:
        take_day(arguments.take)
        return
    BUILD.mkdir(parents=True, exist_ok=True)
    for count in arguments.counts:
        with tempfile.TemporaryDirectory(dir=BUILD) as temporary:
            directory = arguments.keep.absolute() / str(count) if arguments.keep else Path(temporary)
            directory.mkdir(parents=True, exist_ok=True)
            ids, inventory = write_inventory(directory, count)
            with (
                running(listed=ids) as server,
                settings_of(directory, inventory, server, arguments.in_flight) as env,
            ):
                for back in reversed(range(arguments.days)):
                    measure(count, back, env)


if __name__ == "__main__":
    main()
