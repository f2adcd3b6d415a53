"""Responses damaged on the disk between kill and resume, or between fetch and publication, are never published."""

import datetime as dt
import logging
import sqlite3
from contextlib import closing

import pytest
from cut_off import EndedError, end

from pipelines.cloud.classification import ImageResponse
from pipelines.errors import StorageError
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.local_storage import LocalPath
from pipelines.lake.parquet_files import read_batches
from pipelines.maintenance.verify import verify
from pipelines.settings import Settings
from pipelines.snapshot.checkpoint import open_checkpoint
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory
from pipelines.tables import RESPONSES, Outcome

DATE = dt.date(2026, 11, 23)
NOON = dt.datetime.combine(DATE, dt.time(12), dt.UTC)
PARTITION = Partition(DATE, "default")


def ids(count):
    return [f"00000000-0000-4000-8000-{number:012}" for number in range(count)]


def answer(id_):
    return ImageResponse(id_, Outcome.OK, 200, None, None, 1, 5, NOON, f'{{"id":"{id_}"}}'.encode())


def stored(store):
    damaged = []
    rows = [row for batch in store.batches(DATE, "p1", damaged) for row in batch.to_pylist()]
    return [row["id"] for row in rows], damaged


def fill(staging, count=5):
    with closing(open_checkpoint(staging, "a")) as store:
        store.want(iter([ids(count)]))
        store.put([answer(id_) for id_ in ids(count)])


ROT = {
    "a body": "body = CAST('{}' AS BLOB)",
    "a body that is text": "body = '{}'",
    "a body that is gone": "body = NULL",
    "an outcome": "outcome = 'not_found'",
    "a hash": "body_sha256 = 'x'",
    "a time": "observed_at = observed_at + 1",
    "a text that is none": "outcome = CAST(x'ff6f6b' AS TEXT)",
    "a number that is text": "attempts = 'x'",
}


@pytest.mark.parametrize("change", ROT.values(), ids=ROT)
def test_damaged_stored_response_is_requested_again(tmp_path, change):
    fill(LocalPath(tmp_path))
    with closing(sqlite3.connect(tmp_path / "checkpoint.sqlite")) as database, database:
        database.execute(f"UPDATE responses SET {change} WHERE id = ?", [ids(5)[2]])
    with closing(open_checkpoint(LocalPath(tmp_path), "a")) as store:
        assert stored(store) == ([*ids(5)[:2], *ids(5)[3:]], [ids(5)[2]])
        assert store.damaged() == [ids(5)[2]]
        store.drop(store.damaged())
        assert list(store.lacking()) == [ids(5)[2]]
        store.put([answer(ids(5)[2])])
        assert stored(store) == (ids(5), [])


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 8_000])
def test_destroyed_checkpoint_file_is_closed_and_started_again(tmp_path, caplog, monkeypatch, content):
    opened = []
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *args, **options: opened.append(connect(*args, **options)) or opened[-1]
    )
    (tmp_path / "checkpoint.sqlite").write_bytes(content)
    with closing(open_checkpoint(LocalPath(tmp_path), "a")) as store:
        store.want(iter([ids(2)]))
        assert list(store.lacking()) == ids(2)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "are damaged" in record.getMessage()
    for database in opened:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            database.execute("SELECT 1")
    assert len(opened) == 2


def test_damaged_checkpoint_object_is_requested_again(s3):
    lake = Lake(s3.make_bucket("rot-bucket") + "/lake")
    staging = lake.staging(PARTITION)
    fill(staging)
    with closing(open_checkpoint(staging, "a")) as store:
        store.want(iter([ids(8)]))
        store.put([answer(id_) for id_ in ids(8)[5:]])
        first = min((staging / "checkpoint").all_files())
        content = bytearray(first.read_bytes())
        content[len(content) // 2] ^= 1
        first.write_whole(bytes(content))
        # While the store is open: found on reading.
        assert stored(store) == (ids(8)[5:], ids(8)[:5])
    with closing(open_checkpoint(staging, "a")) as store:
        store.want(iter([ids(8)]))
        assert list(store.lacking()) == ids(8)[:5]
        store.put([answer(id_) for id_ in ids(8)[:5]])
        assert stored(store) == (ids(8), [])


@pytest.fixture
def day(start_sandbox, tmp_path, monkeypatch):
    sandbox = start_sandbox(size=20, inventory_file=tmp_path / "inventory.csv", day=DATE)
    for name, value in sandbox.env.items():
        monkeypatch.setenv(name, value)
    settings = Settings(lake=str(tmp_path / "lake"), inventory=str(tmp_path / "inventory.csv"))
    return SnapshotRun(PARTITION, "run-1", settings, lambda: NOON)


def bodies(path):
    return {row["id"]: row["body"] for batch in read_batches(path, 100) for row in batch.to_pylist()}


def test_resumed_run_requests_damaged_responses_again(day, caplog):
    take_inventory(day)
    with pytest.raises(EndedError):
        fetch_responses(day, end)
    database = day.lake.staging(PARTITION) / "checkpoint.sqlite"
    with closing(sqlite3.connect(database)) as connection, connection:
        (total,) = connection.execute("SELECT count(*) FROM responses WHERE outcome = 'ok'").fetchone()
        connection.execute("UPDATE responses SET body = CAST(replace(body, 'id', 'iD') AS BLOB) WHERE outcome = 'ok'")
    take_inventory(day)
    fetched = fetch_responses(day, lambda progress: None)
    assert fetched.facts.requests >= total
    assert fetched.facts.outcomes["ok"] == total
    assert any("stored responses are damaged" in record.getMessage() for record in caplog.records)
    publish_snapshot(day)
    published = bodies(day.lake.table(RESPONSES.name, PARTITION))
    assert sum(body is not None and b'"iD"' in body for body in published.values()) == 0
    assert verify(day.lake, [PARTITION]) == []


@pytest.mark.parametrize("name", ["inventory", "list_pages", "image_references", "responses"])
def test_a_staged_file_that_rotted_is_not_published_and_the_next_run_writes_it_anew(day, name):
    take_inventory(day)
    fetch_responses(day, lambda progress: None)
    path = day.staged(name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(StorageError, match=rf"{name}\.parquet is not as it was written"):
        publish_snapshot(day)
    assert day.lake.contents.partitions() == []
    take_inventory(day)
    fetch_responses(day, lambda progress: None)
    publish_snapshot(day)
    assert verify(day.lake, [PARTITION]) == []
