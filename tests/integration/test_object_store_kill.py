"""A lake in an object store whose writer is killed between any two requests that change something there."""

import datetime as dt
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from pipelines.columns import ANALYSIS_TABLES, IMAGE_HISTORY, TABLES
from pipelines.lake import Lake, Partition
from pipelines.manifest import published, read_attempt
from pipelines.verify import verify

TODAY = dt.datetime.now(dt.UTC).date()
PARTITION = Partition(TODAY, "default")
WRITER = Path(__file__).parents[1] / "s3_writer.py"
ROOT = Path(__file__).parents[2]


class Writer:
    """Takes the day in a process that can be killed; see `s3_writer`."""

    def __init__(self, process, server):
        self.process, self.server, self.env = process, server, dict(server.env)

    def _say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def take_day(self, lake, run_id, steps, kill_at=None):
        """Take the day of a lake, killed at a changing request; the exit status."""
        self._say("fork")
        pid = int(self.process.stdout.readline())
        self.server.kill = None if kill_at is None else (pid, kill_at)
        env = {**self.env, "IMAGE_SNAPSHOTS_LAKE": str(lake.root)}
        self._say(json.dumps({"env": env, "date": TODAY.isoformat(), "run_id": run_id, "steps": steps}))
        status = int(self.process.stdout.readline())
        self.server.kill = None
        return status


@pytest.fixture
def writer(s3):
    with subprocess.Popen(
        [sys.executable, str(WRITER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    ) as process:
        yield Writer(process, s3)
        process.stdin.close()
        process.wait()


def tables_of(lake):
    """SHA-256 of each published table that is there, every one of them read to its end."""
    found = {}
    for name in TABLES:
        path = lake.table(name, PARTITION)
        if path.exists():
            content = path.read_bytes()
            pq.read_table(io.BytesIO(content))
            found[name] = hashlib.sha256(content).hexdigest()
    return found


def derived_tables_of(lake):
    """Rows of each derived table."""
    files = {name: lake.table(name, PARTITION) for name in ANALYSIS_TABLES}
    files[IMAGE_HISTORY.name] = lake.project_table(IMAGE_HISTORY.name, "default")
    return {name: pq.read_table(io.BytesIO(path.read_bytes())).to_pylist() for name, path in files.items()}


def stored_ids(lake):
    """Ids whose answer is in a part of an attempt that has not ended."""
    attempt, ended = read_attempt(lake, PARTITION), published(lake, PARTITION)
    if attempt is None or (ended is not None and ended.started_at == attempt.started_at):
        return set()
    parts = (lake.staging(PARTITION) / "answers").glob("*/*.parquet")
    return {
        row["id"]
        for part in parts
        for row in pq.read_table(io.BytesIO(part.read_bytes()), columns=["id", "outcome"]).to_pylist()
        if row["outcome"] not in ("failed", "invalid_id")
    }


def rows_of_published_day(lake):
    return {name: facts.rows for name, facts in published(lake, PARTITION).files.items()}


@pytest.mark.timeout(900)
def test_readers_see_whole_days_whatever_request_a_writer_dies_at(s3, writer, start_sandbox, tmp_path):
    sandbox = start_sandbox(size=12, inventory_file=tmp_path / "inventory.csv")
    root = s3.make_bucket("killed-bucket")
    writer.env |= sandbox.env
    kept = kills = 0

    def asked():
        return httpx.get(f"{sandbox.endpoint}/sandbox/requested").json()

    def take(lake, run_id, kill_at=None):
        """Take the day, and see that no id is asked for whose answer was stored."""
        stored, before = stored_ids(lake), asked()
        status = writer.take_day(lake, run_id, ["snapshot"], kill_at)
        after = asked()
        assert {id_ for id_ in stored if after[id_] != before[id_]} == set()
        return status, len(stored)

    def kill_and_mend(lake, kill_at):
        """Kill the run at a request, look at what it leaves, and run it again to its end; whether it was killed."""
        nonlocal kept, kills
        before, tables_before = published(lake, PARTITION), tables_of(lake)
        status, _ = take(lake, f"killed-{kill_at}", kill_at)
        if status == 0:
            return False
        assert status == -9
        kills += 1
        after, tables_after = published(lake, PARTITION), tables_of(lake)
        if after == before:
            # What stands is the old table or the new one, whole; none that was there is missing.
            assert tables_before.keys() <= tables_after.keys()
        else:
            # The manifest is last: it seals what is there.
            assert tables_after == {name: facts.sha256 for name, facts in after.files.items()}
        status, stored = take(lake, f"mended-{kill_at}")
        assert status == 0
        kept += stored > 0
        assert published(lake, PARTITION).is_complete
        assert rows_of_published_day(lake)["responses"] == ids
        assert verify(lake, [PARTITION]) == []
        assert list(lake.staging(PARTITION).tree()) == []
        return True

    # A day that is published: each of its tables is replaced.
    lake = Lake(f"{root}/again")
    assert writer.take_day(lake, "first", ["snapshot"]) == 0
    ids = rows_of_published_day(lake)["responses"]
    number = 0
    while kill_and_mend(lake, number):
        number += 1
    # The claims, the attempt, the staged tables, each put in its place, both manifests, and what is removed then.
    assert number == kills > 20
    # Some were killed with the answers stored, and went on with them.
    assert kept > 10
    # A day that is new: some of the requests are enough, because they are the same ones.
    for first in range(0, number, 5):
        lake = Lake(f"{root}/new-{first}")
        kill_and_mend(lake, first)


@pytest.mark.timeout(600)
def test_derived_tables_are_mended_whatever_request_their_writer_dies_at(s3, writer, start_sandbox, tmp_path):
    sandbox = start_sandbox(size=12, inventory_file=tmp_path / "inventory.csv")
    lake = Lake(s3.make_bucket("derived-bucket"))
    writer.env |= sandbox.env
    assert writer.take_day(lake, "first", ["snapshot", "derive"]) == 0
    expected = derived_tables_of(lake)
    assert set(expected) == set(ANALYSIS_TABLES)
    number = 0
    while (status := writer.take_day(lake, f"killed-{number}", ["derive"], number)) != 0:
        assert status == -9
        # Each is whole, the old one or the new one, and they hold the same: the day is the same.
        assert derived_tables_of(lake) == expected
        number += 1
    # Two claims, seven tables and their seal, and the claims' removal.
    assert number > 10
    assert verify(lake, [PARTITION]) == []
