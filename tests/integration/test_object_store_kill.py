"""A lake in an object store whose writer is killed between any two changing requests."""

import datetime as dt
import hashlib
import io
from functools import partial

import httpx
import pyarrow.parquet as pq
import pytest
from day_writer import running_writer
from s3_server import CHANGING

from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import published, read_attempt
from pipelines.maintenance.verify import verify
from pipelines.tables import ANALYSIS_TABLES, IMAGE_HISTORY, TABLES

TODAY = dt.datetime.now(dt.UTC).date()
PARTITION = Partition(TODAY, "default")
SNAPSHOT, DERIVED = ["snapshot"], ["derive"]


@pytest.fixture(scope="module")
def started_writer():
    with running_writer({}) as process:
        yield process


@pytest.fixture
def writer(started_writer, s3):
    started_writer.env = dict(s3.env)
    return started_writer


def take_day(writer, s3, lake, run_id, steps, kill_at=None):
    """Take the day of a lake, killed at a changing request; returns the exit status."""

    def arm(pid):
        s3.kill = None if kill_at is None else (pid, kill_at)

    status = writer.take_day(lake.root, TODAY, run_id, steps, began=arm)
    s3.kill = None
    return status


def changes_of(s3, work):
    """The changing requests, as (method, path), that `work` makes."""
    first = len(s3.requests)
    assert work() == 0
    return [(method, path) for method, path in s3.requests[first:] if method in CHANGING]


def number_of(changes, method, place, which=0):
    """The number of the first, or another, of these requests."""
    found = [number for number, (one, path) in enumerate(changes) if one == method and place in path]
    return found[which]


def without_repetition(changes):
    """The numbers of requests; of those that treat all staged files alike, only the first, the last and one between."""
    numbers = {*range(len(changes))}
    for method in ("PUT", "DELETE"):
        alike = [number for number, (one, path) in enumerate(changes) if one == method and "/_staging/" in path]
        numbers -= {*alike[1:-1]} - {alike[len(alike) // 2]}
    return sorted(numbers)


def tables_of(lake):
    """SHA-256 of each existing published table, read completely."""
    found = {}
    for name in TABLES:
        path = lake.table(name, PARTITION)
        if path.is_there():
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
    """Ids whose response is in a part of an open attempt."""
    attempt, ended = read_attempt(lake, PARTITION), published(lake, PARTITION)
    if attempt is None or (ended is not None and ended.started_at == attempt.started_at):
        return set()
    parts = (lake.staging(PARTITION) / "checkpoint").matching("*/*.parquet")
    return {
        row["id"]
        for part in parts
        for row in pq.read_table(io.BytesIO(part.read_bytes()), columns=["id", "outcome"]).to_pylist()
        if row["outcome"] not in ("failed", "invalid_id")
    }


def rows_of_published_day(lake):
    return {name: facts.rows for name, facts in published(lake, PARTITION).files.items()}


class Kills:
    """Kills runs of one day, checks what each leaves, and runs the day to its end."""

    def __init__(self, sandbox, s3, writer):
        self.sandbox, self.s3, self.writer = sandbox, s3, writer
        self.kept = self.kills = 0
        writer.env |= sandbox.env

    def asked(self):
        return httpx.get(f"{self.sandbox.endpoint}/sandbox/requested").json()

    def take(self, lake, run_id, kill_at=None):
        """Take the day, and check that no id with a stored response is requested."""
        stored, before = stored_ids(lake), self.asked()
        status = take_day(self.writer, self.s3, lake, run_id, SNAPSHOT, kill_at)
        after = self.asked()
        assert {id_ for id_ in stored if after[id_] != before[id_]} == set()
        return status, len(stored)

    def kill_and_mend(self, lake, kill_at):
        """Kill the run at a request, check what it leaves, and run it to its end; returns whether it was killed."""
        before, tables_before = published(lake, PARTITION), tables_of(lake)
        status, _ = self.take(lake, f"killed-{kill_at}", kill_at)
        if status == 0:
            return False
        assert status == -9
        self.kills += 1
        after, tables_after = published(lake, PARTITION), tables_of(lake)
        if after == before:
            # Each table is the old one or the new one, complete; no existing one is missing.
            assert tables_before.keys() <= tables_after.keys()
        else:
            # The manifest comes last: it names all files.
            assert tables_after == {name: facts.sha256 for name, facts in after.files.items()}
        status, stored = self.take(lake, f"mended-{kill_at}")
        assert status == 0
        self.kept += stored > 0
        assert published(lake, PARTITION).is_complete
        assert rows_of_published_day(lake)["responses"] == sum(outcomes_of(lake).values())
        assert verify(lake, [PARTITION]) == []
        assert list(lake.staging(PARTITION).all_files()) == []
        return True


def outcomes_of(lake):
    """The number of ids for each outcome."""
    return published(lake, PARTITION).fetch.outcomes


@pytest.fixture
def kills(s3, writer, start_sandbox, tmp_path):
    return Kills(start_sandbox(size=12, inventory_file=tmp_path / "inventory.csv"), s3, writer)


def test_readers_see_whole_days_when_a_writer_dies_at_chosen_requests(s3, writer, kills):
    root = s3.make_bucket("killed-bucket")
    again = Lake(f"{root}/again")
    assert take_day(writer, s3, again, "first", SNAPSHOT) == 0
    changes = changes_of(s3, partial(take_day, writer, s3, again, "second", SNAPSHOT))
    number = partial(number_of, changes)
    manifest = number("PUT", f"/_manifests/dt={TODAY}/project=default.json")
    # A day that is published: each of its tables is replaced.
    chosen = [
        number("PUT", "/checkpoint/") + 1,
        number("PUT", "/again/responses/"),
        manifest,
        manifest + 1,
    ]
    for kill_at in chosen:
        assert kills.kill_and_mend(again, kill_at), changes[kill_at]
    # A new day: a selection of requests is enough, because they repeat.
    kill_at = number("PUT", "/again/responses/")
    assert kills.kill_and_mend(Lake(f"{root}/new"), kill_at)
    # Some were killed after all responses were stored, and resumed from there.
    assert kills.kept >= 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_readers_see_whole_days_when_a_writer_dies_at_any_request(s3, writer, kills):
    root = s3.make_bucket("killed-bucket")
    lake = Lake(f"{root}/again")
    assert take_day(writer, s3, lake, "first", SNAPSHOT) == 0
    changes = changes_of(s3, partial(take_day, writer, s3, lake, "second", SNAPSHOT))
    # The claims, the attempt, the staged tables, their replacements, both manifests, and the removals.
    for number in without_repetition(changes):
        assert kills.kill_and_mend(lake, number), changes[number]
    assert kills.kills > 15
    assert kills.kept > 8
    for first in range(2, len(changes), 10):
        kills.kill_and_mend(Lake(f"{root}/new-{first}"), first)


@pytest.fixture
def derived_lake(s3, writer, start_sandbox, tmp_path):
    """A lake of one day with its derived tables."""
    writer.env |= start_sandbox(size=12, inventory_file=tmp_path / "inventory.csv").env
    lake = Lake(s3.make_bucket("derived-bucket"))
    assert take_day(writer, s3, lake, "first", SNAPSHOT + DERIVED) == 0
    return lake


def test_derived_tables_are_repaired_when_their_writer_dies_at_chosen_requests(s3, writer, derived_lake):
    expected = derived_tables_of(derived_lake)
    assert set(expected) == set(ANALYSIS_TABLES)
    changes = changes_of(s3, partial(take_day, writer, s3, derived_lake, "second", DERIVED))
    for place in ("/image_changes/", "/image_costs/", f"/_derived/dt={TODAY}"):
        kill_at = number_of(changes, "PUT", place)
        assert take_day(writer, s3, derived_lake, f"killed-{kill_at}", DERIVED, kill_at) == -9
        assert derived_tables_of(derived_lake) == expected
    assert take_day(writer, s3, derived_lake, "mended", DERIVED) == 0
    assert derived_tables_of(derived_lake) == expected
    assert verify(derived_lake, [PARTITION]) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_derived_tables_are_repaired_when_their_writer_dies_at_any_request(s3, writer, derived_lake):
    expected = derived_tables_of(derived_lake)
    changes = changes_of(s3, partial(take_day, writer, s3, derived_lake, "second", DERIVED))
    for number in without_repetition(changes):
        assert take_day(writer, s3, derived_lake, f"killed-{number}", DERIVED, number) == -9, changes[number]
        # Each is complete, old or new, and both have the same rows, because the day is the same.
        assert derived_tables_of(derived_lake) == expected
    # Two claims, seven tables and their derived manifest, and the removal of the claims.
    assert len(changes) > 10
    assert take_day(writer, s3, derived_lake, "mended", DERIVED) == 0
    assert derived_tables_of(derived_lake) == expected
    assert verify(derived_lake, [PARTITION]) == []
