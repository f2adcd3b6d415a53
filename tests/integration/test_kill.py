"""A run killed at any moment, and the next one: nothing requested twice, nothing half-published."""

import datetime as dt
import json
import os
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
from day_writer import running_writer

from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import published, read_attempt
from pipelines.maintenance.verify import verify
from pipelines.sandbox import Faults
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory
from pipelines.tables import ANALYSIS_TABLES, IMAGE_HISTORY, TABLES

TODAY = dt.datetime.now(dt.UTC).date()
PARTITION = Partition(TODAY, "default")
PATIENCE_SECONDS = 240


class Readers(threading.Thread):
    """Reads the published tables repeatedly, and records all row counts and errors."""

    def __init__(self, lake):
        super().__init__()
        self.lake, self.counts, self.errors, self.ended = lake, {name: set() for name in TABLES}, [], threading.Event()

    def run(self):
        # With pauses: this thread shares the machine with the runs, and the result of a kill stays visible.
        while not self.ended.wait(0.2):
            self.look()

    def look(self):
        for name in TABLES:
            for path in (self.lake / name).glob("*/*/*.parquet"):
                try:
                    # Opened once: Arrow opens a file twice by its name, and it may be replaced in between.
                    with path.open("rb") as file:
                        self.counts[name].add(pq.read_table(file).num_rows)
                except Exception as error:  # noqa: BLE001  (whatever a reader could meet is what is looked for)
                    self.errors.append(repr(error))


@pytest.fixture
def readers(tmp_path):
    """Readers of the lake in the test's directory that run until the test ends."""
    thread = Readers(tmp_path / "lake")
    thread.start()
    yield thread
    thread.ended.set()
    thread.join()


def stored_responses(lake):
    """Ids whose response is on disk in the killed attempt, unless the day has ended with it."""
    partition = Lake(str(lake))
    attempt, ended = read_attempt(partition, PARTITION), published(partition, PARTITION)
    path = lake / f"_staging/dt={TODAY}/project=default/checkpoint.sqlite"
    if attempt is None or (ended and ended.started_at == attempt.started_at) or not path.exists():
        return set()
    with closing(sqlite3.connect(path)) as connection:
        if connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'responses'").fetchone()[0] == 0:
            return set()
        query = "SELECT id FROM responses WHERE outcome NOT IN ('failed', 'invalid_id')"
        return {id_ for (id_,) in connection.execute(query)}


def requested(sandbox):
    """How often each id was requested."""
    return httpx.get(f"{sandbox.endpoint}/sandbox/requested").json()


def registered_ids(inventory):
    return pd.read_csv(inventory, dtype=str)["id"].str.lower().nunique()


def assert_whole(lake, readers, rows):
    """What readers saw and see now: tables with these rows, each id of `responses` once."""
    readers.look()
    assert readers.errors == []
    assert {name: counts - {rows[name]} for name, counts in readers.counts.items()} == {name: set() for name in TABLES}
    responses = pq.read_table(next((lake / "responses").rglob("*.parquet")))
    assert len(set(responses["id"].to_pylist())) == responses.num_rows == rows["responses"]


# The operations at which the run kills itself, in this order; each run resumes the one before.
ATTEMPT, ENDED = "an attempt goes on", "a day that ended is taken anew"
FETCHING = 100, 300
KILLED_BEFORE = {
    ATTEMPT: [
        ("os.rename", "/responses.parquet"),  # staged, with all responses stored
        ("os.link", "/inventory/"),  # nothing is published
        ("os.rename", "/responses/"),  # some tables are published
        ("os.rename", "/_manifests/"),  # all tables are in place, but no manifest names them
    ],
    ENDED: [
        ("os.rename", "/images/"),  # some tables are the new ones
        ("os.rename", "/_manifests/"),
        ("os.remove", "attempt.json"),  # published, but not cleaned up
        ("os.remove", "checkpoint.sqlite"),
    ],
}
DERIVED = [("os.rename", f"/{place}/") for place in (IMAGE_HISTORY.name, "audit_findings", "_derived")]


def test_run_killed_at_chosen_points_loses_nothing_and_requests_nothing_twice(start_sandbox, readers, tmp_path):
    sandbox = start_sandbox(size=500, inventory_file=tmp_path / "inventory.csv")
    expected, lake = registered_ids(tmp_path / "inventory.csv"), tmp_path / "lake"
    kept = []
    with running_writer(sandbox.env) as writer:

        def take(number, **kill):
            """Take the day, killed or to its end, and check that no id with a stored response is requested."""
            stored, before = stored_responses(lake), requested(sandbox)
            status = writer.take_day(lake, TODAY, f"run-{number}", **kill)
            after = requested(sandbox)
            assert {id_ for id_ in stored if after[id_] != before[id_]} == set()
            kept.append(len(stored))
            return status

        # Slow enough to be killed with only some responses stored.
        writer.env["IMAGE_SNAPSHOTS_RATE_LIMIT"] = "300"
        for number in (*FETCHING, expected):
            assert take(number, kill_at=number) == -signal.SIGKILL
        del writer.env["IMAGE_SNAPSHOTS_RATE_LIMIT"]
        for state, instants in KILLED_BEFORE.items():
            for number, instant in enumerate(instants):
                assert take(f"{state}-{number}", kill_before=instant, steps=["snapshot"]) == -signal.SIGKILL, instant
                readers.look()
            assert take(f"{state}-mended") == 0
            assert published(Lake(str(lake)), PARTITION).is_complete
        for instant in DERIVED:
            assert take("derived", kill_before=instant, steps=["derive"]) == -signal.SIGKILL, instant
        assert take("derived", steps=["derive"]) == 0
    # The attempt's responses grew from kill to kill, until they were complete.
    assert sorted(kept[: len(FETCHING) + 2]) == kept[: len(FETCHING) + 2]
    assert kept[0] == 0 < kept[len(FETCHING)] <= kept[len(FETCHING) + 1]
    manifest = published(Lake(str(lake)), PARTITION)
    assert sum(manifest.fetch.outcomes.values()) == expected
    assert_whole(lake, readers, {name: file.rows for name, file in manifest.files.items()})
    assert verify(Lake(str(lake)), [PARTITION]) == []
    assert all(any((lake / name).rglob("*.parquet")) for name in ANALYSIS_TABLES)


# How often the command is killed, and after what.
ASKED = 10, 400
APPEARED = "_staging/{}/responses.parquet", "_derived/dt={}/project=default.json"
IMAGES = 1_500


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_commands_lose_nothing_and_request_nothing_twice(start_sandbox, readers, command, tmp_path):
    sandbox = start_sandbox(size=IMAGES, inventory_file=tmp_path / "inventory.csv", faults=Faults(latency_ms=5))
    expected, lake = registered_ids(tmp_path / "inventory.csv"), tmp_path / "lake"
    # Slow enough that kills happen during the fetch. Coverage would slow the start.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    env |= sandbox.env | {"IMAGE_SNAPSHOTS_RATE_LIMIT": "600"}

    def asked():
        return httpx.get(f"{sandbox.endpoint}/sandbox/stats").json()["requests"].get("image", 0)

    def identity(path):
        return path.stat().st_ino if path.exists() else None

    def moments():
        for number in ASKED:
            before = asked()
            yield lambda number=number, before=before: asked() - before >= min(number, left - 1)
        for pattern in APPEARED:
            path = lake / pattern.replace("dt={}", f"dt={TODAY}").format(f"dt={TODAY}/project=default")
            before = identity(path)
            yield lambda path=path, before=before: identity(path) not in (None, before)

    kept = killed = 0
    for has_come in moments():
        before, stored = requested(sandbox), stored_responses(lake)
        kept, left = max(kept, len(stored)), expected - len(stored)
        with subprocess.Popen(
            [command, "run", "--json"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            while process.poll() is None and not has_come():
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            errors = process.communicate()[1]
        # A run that ended before its kill must have ended well.
        assert process.returncode in (0, -signal.SIGKILL), errors
        killed += process.returncode != 0
        after = requested(sandbox)
        assert {id_ for id_ in stored if after[id_] != before[id_]} == set()
        readers.look()
    assert killed > 0
    assert kept > 0
    last = subprocess.run([command, "run", "--json"], env=env, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    (report,) = json.loads(last.stdout)
    assert sum(report["outcomes"].values()) == expected
    assert_whole(lake, readers, {name: table["rows"] for name, table in report["tables"].items() if name in TABLES})
    verified = subprocess.run([command, "verify"], env=env, capture_output=True, text=True)
    assert verified.returncode == 0, verified.stdout


def test_sigterm_stops_cleanly_and_says_how_to_resume(start_sandbox, command, monkeypatch, tmp_path):
    # At this rate the fetch would take minutes.
    sandbox = start_sandbox(size=2_000, inventory_file=tmp_path / "inventory.csv", faults=Faults(latency_ms=1_000))
    database = tmp_path / f"lake/_staging/dt={TODAY}/project=default/checkpoint.sqlite"
    for name, value in sandbox.env.items():
        monkeypatch.setenv(name, value)
    concurrency = 10
    with subprocess.Popen(
        [command, "run"],
        env={**os.environ, "IMAGE_SNAPSHOTS_CONCURRENCY": str(concurrency)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + PATIENCE_SECONDS
        # More than can be in flight: some have responses.
        while len(requested(sandbox)) <= 2 * concurrency:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=PATIENCE_SECONDS)[1]
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert "Stopped by SIGTERM with " in errors
    assert "run again today to go on" in errors
    stored = stored_responses(tmp_path / "lake")
    assert database.exists()
    assert len(stored) > 0
    assert not list(Path("lake").glob("images/**/*.parquet"))
    before = requested(sandbox)
    httpx.put(f"{sandbox.endpoint}/sandbox/faults", json={}).raise_for_status()
    day = SnapshotRun(PARTITION, "again", Settings.load())
    take_inventory(day)
    facts = fetch_responses(day, lambda _: None).facts
    assert publish_snapshot(day).manifest.is_complete
    assert facts.kept == len(stored)
    after = requested(sandbox)
    assert {id_ for id_ in stored if after[id_] != before[id_]} == set()
