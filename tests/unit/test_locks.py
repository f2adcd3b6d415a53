"""Locks on a local disk: a waiter names the holder and gives up, and a removed lock is a lost lock."""

import datetime as dt
import logging
import os

import pytest

from pipelines.errors import PartitionBusyError, StorageError
from pipelines.lake import locks
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.local_storage import LocalPath
from pipelines.lake.retention_records import Rules
from pipelines.maintenance.retention import apply_retention

PARTITION = Partition(dt.date(2026, 11, 23), "default")
NOON = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)


@pytest.fixture
def lake(tmp_path):
    return Lake(str(tmp_path))


@pytest.mark.parametrize(("name", "what"), [("chain", "The chain of manifests of"), ("derived", "What is derived for")])
def test_waiter_names_the_holder_and_gives_up(lake, monkeypatch, name, what):
    monkeypatch.setattr(locks, "WAIT_SECONDS", 0.0)
    hold = getattr(lake.locks, name)
    with hold("default", "run run-1"):
        with pytest.raises(
            PartitionBusyError,
            match=rf"^{what} project default is held by run run-1 \(process {os.getpid()} on .*, since .*\), which was "
            r"waited for 0 minutes: wait for it to end, or stop it, and run again\.$",
        ):
            with hold("default", "run run-2"):
                pass
        with hold("other", "run run-2"):
            pass
    with hold("default", "run run-2"):
        pass


def test_waiter_names_the_holder_once_and_then_gets_the_lock(lake, monkeypatch, caplog):
    monkeypatch.setattr(locks, "SAID_AFTER_SECONDS", 0.0)
    first = lake.locks.chain("default", "run run-1")
    first.__enter__()
    polls = []

    def let_go_at_the_third(seconds):
        polls.append(seconds)
        if len(polls) == 3:
            first.__exit__(None, None, None)

    monkeypatch.setattr(locks.time, "sleep", let_go_at_the_third)
    with caplog.at_level(logging.WARNING), lake.locks.chain("default", "run run-2"):
        pass
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"Waiting for run run-1 (process {os.getpid()} on ")
    assert said.endswith("which holds the chain of manifests of project default, for up to 60 minutes.")
    assert len(polls) == 3


def test_retention_gives_up_waiting_for_a_lock(lake, monkeypatch):
    monkeypatch.setattr(locks, "WAIT_SECONDS", 0.0)
    with lake.locks.derived("default", "run run-1"), pytest.raises(PartitionBusyError, match="held by run run-1"):
        apply_retention(lake, "default", Rules(responses_days=1, snapshots_days=None), NOON)


@pytest.mark.parametrize("written", [b"", b"{", b"[1]", b'{"holder": "a\\u001b[31m\\ncomplete"}', b"\xff\xfe\n"])
def test_holder_is_named_in_one_line_whatever_the_lock_file_holds(lake, tmp_path, written):
    with lake.locks.partition(PARTITION, "run-1"):
        (path,) = [path for path in tmp_path.rglob("project=default") if path.is_file()]
        path.write_bytes(written)
        with pytest.raises(PartitionBusyError) as told, lake.locks.partition(PARTITION, "run-2"):
            pass
    assert str(told.value).isprintable()
    assert "(process ? on ?, since ?)" in str(told.value)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_removed_lock_file_is_a_lost_lock(lake, tmp_path, is_replaced):
    with lake.locks.partition(PARTITION, "run-1"):
        (LocalPath(tmp_path) / "written").write_whole(b"")
        (path,) = [path for path in tmp_path.rglob("project=default") if path.is_file()]
        path.unlink()
        if is_replaced:
            path.touch()
        with pytest.raises(StorageError, match=rf"^The hold on {path} was lost: the file was removed or replaced\. "):
            (LocalPath(tmp_path) / "not-written").write_whole(b"")
        with pytest.raises(StorageError, match="was lost"):
            lake.remove(lake.root / "written")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["written"]
    # A released lock is not checked.
    (LocalPath(tmp_path) / "written-later").write_whole(b"")


@pytest.mark.parametrize("exists", [True, False])
def test_lock_that_is_a_link_touches_no_other_file(lake, tmp_path, exists):
    victim = tmp_path / "victim"
    if exists:
        victim.write_text("precious")
    place = tmp_path / "_locks" / "manifests" / "project=default"
    place.parent.mkdir(parents=True)
    place.symlink_to(victim)
    with pytest.raises(StorageError, match=f"^The storage failed at {place}: "), lake.locks.chain("default"):
        pass
    assert victim.exists() == exists
    assert not exists or victim.read_text() == "precious"
