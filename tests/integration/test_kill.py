"""A run that is killed at any instant, and the one after it: nothing asked for twice, nothing half-published."""

import datetime as dt
import json
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path

import httpx
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipelines.columns import TABLES
from pipelines.sandbox import Faults

TODAY = dt.datetime.now(dt.UTC).date()
KILLS = 20
IMAGES = 3_000


class Readers(threading.Thread):
    """Reads the published tables time and again, and keeps every row count that it saw and every error that it met."""

    def __init__(self, lake):
        super().__init__()
        self.lake, self.counts, self.errors, self.ended = lake, {name: set() for name in TABLES}, [], threading.Event()

    def run(self):
        # Not all the while: this thread and the runs share the machine, and what a kill leaves stays to be seen.
        while not self.ended.wait(0.2):
            for name in TABLES:
                for path in (self.lake / name).glob("*/*/*.parquet"):
                    try:
                        # Opened once: read by its name, Arrow opens a file twice, and it may be replaced in between.
                        with path.open("rb") as file:
                            self.counts[name].add(pq.read_table(file).num_rows)
                    except Exception as error:  # noqa: BLE001  (whatever a reader could meet is what is looked for)
                        self.errors.append(repr(error))


def stored_answers(lake):
    """Ids whose answer is on disk in the attempt that was killed."""
    path = lake / f"_staging/dt={TODAY}/project=default/answers.sqlite"
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path)) as connection:
        if connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'answers'").fetchone()[0] == 0:
            return set()
        return {id_ for (id_,) in connection.execute("SELECT id FROM answers WHERE outcome <> 'failed'")}


@pytest.mark.timeout(900)
def test_killed_runs_lose_nothing_and_ask_for_nothing_twice(start_sandbox, command, tmp_path):
    sandbox = start_sandbox(size=IMAGES, inventory_file=tmp_path / "inventory.csv", faults=Faults(latency_ms=5))
    expected = pd.read_csv(tmp_path / "inventory.csv", dtype=str)["id"].str.lower().nunique()
    lake = tmp_path / "lake"
    # Slow enough that kills fall into the fetch, the tables and the publication alike. Coverage would slow the start.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    env |= sandbox.env | {"IMAGE_SNAPSHOTS_RATE_LIMIT": "1200"}
    chance = random.Random(4711)
    began = time.monotonic()
    undisturbed = subprocess.run(
        [command, "run"], env=env | {"IMAGE_SNAPSHOTS_LAKE": "undisturbed"}, capture_output=True
    )
    duration = time.monotonic() - began
    assert undisturbed.returncode == 0, undisturbed.stderr
    readers = Readers(lake)
    readers.start()
    killed = kept = 0
    try:
        while killed < KILLS:
            before = httpx.get(f"{sandbox.endpoint}/sandbox/requested").json()
            stored = stored_answers(lake)
            kept = max(kept, len(stored))
            moment = time.monotonic() + chance.uniform(0.2, 1.1) * duration
            with subprocess.Popen(
                [command, "run", "--json"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as process:
                while process.poll() is None and time.monotonic() < moment:
                    time.sleep(0.05)
                was_killed = process.poll() is None
                if was_killed:
                    process.send_signal(signal.SIGKILL)
                output, errors = process.communicate()
            after = httpx.get(f"{sandbox.endpoint}/sandbox/requested").json()
            asked_again = {id_ for id_ in stored if after[id_] != before[id_]}
            assert asked_again == set()
            if was_killed:
                killed += 1
            else:
                assert process.returncode == 0, errors
                assert json.loads(output)[0]["tables"]["responses"]["rows"] == expected
        last = subprocess.run([command, "run", "--json"], env=env, capture_output=True, text=True)
    finally:
        readers.ended.set()
        readers.join()
    assert last.returncode == 0, last.stderr
    assert kept > 0
    (report,) = json.loads(last.stdout)
    assert sum(report["outcomes"].values()) == expected
    assert readers.errors == []
    for name, counts in readers.counts.items():
        assert counts <= {report["tables"][name]["rows"]}
    responses = pq.read_table(next((lake / "responses").rglob("*.parquet")))
    assert len(set(responses["id"].to_pylist())) == responses.num_rows == expected
    verified = subprocess.run([command, "verify"], env=env, capture_output=True, text=True)
    assert verified.returncode == 0, verified.stdout


def test_sigterm_stops_cleanly_and_says_how_to_go_on(start_sandbox, image_snapshots, command, tmp_path):
    sandbox = start_sandbox(size=2_000, inventory_file=tmp_path / "inventory.csv", faults=Faults(latency_ms=200))
    database = tmp_path / f"lake/_staging/dt={TODAY}/project=default/answers.sqlite"
    with subprocess.Popen(
        [command, "run"], env={**os.environ, **sandbox.env}, stderr=subprocess.PIPE, text=True
    ) as process:
        while not httpx.get(f"{sandbox.endpoint}/sandbox/requested").json():
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert "Stopped by SIGTERM with " in errors
    assert "run again today to go on" in errors
    stored = stored_answers(tmp_path / "lake")
    assert database.exists()
    assert len(stored) > 0
    assert not list(Path("lake").glob("images/**/*.parquet"))
    before = httpx.get(f"{sandbox.endpoint}/sandbox/requested").json()
    httpx.put(f"{sandbox.endpoint}/sandbox/faults", json={}).raise_for_status()
    result = image_snapshots("run", env=sandbox.env)
    assert result.returncode == 0, result.stderr
    after = httpx.get(f"{sandbox.endpoint}/sandbox/requested").json()
    assert {id_ for id_ in stored if after[id_] != before[id_]} == set()
