"""One step of this project, in its own process: `python -m benchmarks.ours prepare|fetch|derive`.

`prepare` takes the inventory of today; `fetch` runs and times `fetch_responses` of
`pipelines.snapshot.steps`: from the token to the `responses` table on disk; `derive` runs and times `build_tables`
of `pipelines.snapshot.publish` on that table. Settings and credentials come from the environment, as in any run.
Prints JSON.
"""

import datetime as dt
import json
import os
import sys
import time

from pipelines.cloud.credentials import load_credentials
from pipelines.lake.layout import Partition
from pipelines.lake.parquet_files import open_parquet
from pipelines.lake.storage import LakePath
from pipelines.settings import DEFAULT_PROJECT, Settings
from pipelines.snapshot.fetch import Progress
from pipelines.snapshot.publish import build_tables
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, take_inventory


def _cpu_seconds() -> float:
    """Of this process and of those it waited for."""
    return sum(os.times()[:4])


def _rows_of(path: LakePath) -> int:
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)


def main() -> None:
    day = SnapshotRun(Partition(dt.datetime.now(dt.UTC).date(), DEFAULT_PROJECT), "benchmark", Settings.load())
    if sys.argv[1] == "prepare":
        print(json.dumps({"rows": take_inventory(day).facts.ids}))
        return
    if sys.argv[1] == "derive":
        answers = day.staged("responses")
        started, spent = time.perf_counter(), _cpu_seconds()
        build_tables(day.lake, answers, answers.parent, day.run_id)
        seconds, cpu = time.perf_counter() - started, _cpu_seconds() - spent
        print(json.dumps({"seconds": seconds, "cpu": cpu, "rows": _rows_of(answers)}))
        return
    # Import the library that reads credentials first: imports are not timed.
    load_credentials(None, os.environ)

    def show(progress: Progress) -> None:
        if sys.stderr.isatty() or os.environ.get("SHOW_PROGRESS"):
            print(f"{progress.seconds:.0f} s {progress.done} of {progress.total}", file=sys.stderr)

    started, spent = time.perf_counter(), _cpu_seconds()
    fetched = fetch_responses(day, show)
    seconds, cpu = time.perf_counter() - started, _cpu_seconds() - spent
    assert fetched.facts.outcomes == {"ok": fetched.file.rows}, fetched.facts.outcomes
    assert _rows_of(day.staged("responses")) == fetched.file.rows
    print(json.dumps({"seconds": seconds, "cpu": cpu, "rows": fetched.file.rows, "throttled": fetched.facts.throttled}))


if __name__ == "__main__":
    main()
