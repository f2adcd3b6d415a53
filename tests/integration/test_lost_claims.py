"""A claim in an object store that is lost, for any reason, is a lost lock: nothing more is written."""

import datetime as dt
import logging
import threading

import pytest

from pipelines.errors import ConfigurationError, PartitionBusyError, StorageError
from pipelines.lake import leases, locks
from pipelines.lake.layout import Lake, Partition

PARTITION = Partition(dt.date(2026, 11, 23), "default")
LOST = r"^The hold on s3://.*/project=default was lost: its claim was removed\. Nothing more was written; run again\.$"


@pytest.fixture
def lake(s3):
    return Lake(s3.make_bucket("lake-bucket") + "/lake")


@pytest.fixture
def claim(monkeypatch):
    """Our claim while it holds; the test says when it is renewed."""
    made = []
    begin = leases._Claim.__init__

    def noted(claim, *arguments):
        begin(claim, *arguments)
        made.append(claim)

    monkeypatch.setattr(leases._Claim, "__init__", noted)
    monkeypatch.setattr(leases, "RENEWED_EVERY_SECONDS", 3_600.0)
    return lambda: made[0]


def claims(lake):
    return [*(lake.root / "_locks").all_files()]


def written(lake):
    return [path.name for path in lake.root.all_files() if path not in claims(lake)]


def test_removed_claim_ends_writing_and_is_not_put_again(lake, claim, caplog):
    with lake.locks.partition(PARTITION, "ours"):
        (lake.root / "written").write_whole(b"")
        (path,) = claims(lake)
        path.bucket.delete([path.key], path.key)
        for write in (
            lambda: (lake.root / "not-written").write_whole(b""),
            lambda: (lake.root / "not-written").replace_by(lake.root / "written"),
            lambda: lake.remove(lake.root / "written"),
            (lake.root / "written").remove_tree,
        ):
            with pytest.raises(StorageError, match=LOST):
                write()
        claim().renew()
        assert claims(lake) == []
        # Another run takes the free lock; the end of our claim affects neither its claim nor its lock.
        other = lake.locks.partition(PARTITION, "another's")
        other.__enter__()
    assert len(claims(lake)) == 1
    (lake.root / "written-by-another").write_whole(b"")
    other.__exit__(None, None, None)
    assert written(lake) == ["written", "written-by-another"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * len(caplog.records) != []


def test_renewal_after_removal_leaves_the_lock_to_the_new_holder(lake, claim):
    ours = lake.locks.partition(PARTITION, "ours")
    ours.__enter__()
    (path,) = claims(lake)
    path.bucket.delete([path.key], path.key)
    with lake.locks.partition(PARTITION, "another's"):
        (theirs,) = claims(lake)
        claim().renew()
        assert claims(lake) == [theirs]
        with pytest.raises(StorageError, match=LOST):
            (lake.root / "not-written").write_whole(b"")
        ours.__exit__(None, None, None)
        (lake.root / "written-by-another").write_whole(b"")
    assert claims(lake) == []


def test_renewed_claim_has_a_new_name_and_still_holds(lake, claim):
    names = []
    with lake.locks.partition(PARTITION, "ours"):
        for _ in range(3):
            names += claims(lake)
            claim().renew()
            (lake.root / "written").write_whole(b"")
            with (
                pytest.raises(PartitionBusyError, match="held by run ours"),
                lake.locks.partition(PARTITION, "another's"),
            ):
                pass
    assert len(set(names)) == len(names) == 3
    assert claims(lake) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigurationError("The object store refuses access."), r"\(The object store refuses access\)"),
        (RuntimeError("a secret"), r"\(RuntimeError\)"),
        (MemoryError(), r"\(MemoryError\)"),
    ],
)
def test_failed_renewal_is_a_lost_lock(lake, claim, monkeypatch, caplog, error, said):
    failed = threading.Event()

    def fail(_):
        failed.set()
        raise error

    monkeypatch.setattr(leases._Claim, "renew", fail)
    monkeypatch.setattr(leases, "RENEWED_EVERY_SECONDS", 0.0)
    with lake.locks.partition(PARTITION, "ours"):
        assert failed.wait(10)
        for thread in threading.enumerate():
            if thread.name == "lease":
                thread.join()
        with pytest.raises(StorageError, match=rf"was lost: its claim cannot be renewed {said}\. Nothing more was"):
            (lake.root / "not-written").write_whole(b"")
    assert written(lake) == []
    assert "was lost: its claim cannot be renewed" in caplog.text
    assert "secret" not in caplog.text


def test_temporary_error_does_not_lose_the_lock(lake, claim, monkeypatch):
    tries = []
    renew = leases._Claim.renew
    done = threading.Event()

    def fail_at_first(claim):
        tries.append(1)
        if len(tries) == 1:
            raise StorageError("overloaded")
        renew(claim)
        monkeypatch.setattr(leases, "RENEWED_EVERY_SECONDS", 3_600.0)
        done.set()

    monkeypatch.setattr(leases._Claim, "renew", fail_at_first)
    monkeypatch.setattr(leases, "RENEWED_EVERY_SECONDS", 0.0)
    with lake.locks.partition(PARTITION, "ours"):
        assert done.wait(30)
        (lake.root / "written").write_whole(b"")
    assert written(lake) == ["written"]


def test_waiter_in_an_object_store_names_the_holder_and_gives_up(lake, monkeypatch):
    monkeypatch.setattr(locks, "WAIT_SECONDS", 0.0)
    with lake.locks.chain("default", "run run-1"):
        with pytest.raises(
            PartitionBusyError,
            match=r"^The chain of manifests of project default is held by run run-1 \(process \d+ on",
        ):
            with lake.locks.chain("default", "run run-2"):
                pass
    assert claims(lake) == []


def test_projects_named_like_claim_paths_are_safe(lake):
    keys = ("a", "a.lock", "a.json")
    for key in keys:
        with (
            lake.locks.partition(Partition(PARTITION.date, key), "run-1"),
            lake.locks.chain(key),
            lake.locks.derived(key),
        ):
            (lake.staging(Partition(PARTITION.date, "a.lock")) / "attempt.json").write_whole(b"{}")
            for other in set(keys) - {key}:
                with lake.locks.partition(Partition(PARTITION.date, other), "run-2"):
                    pass
    assert lake.contents.unfinished() == [Partition(PARTITION.date, "a.lock")]


@pytest.mark.parametrize("content", [b"", b"no claim", b"[]", b"{}", b'{"machine": 1}', b"\xff"])
def test_unreadable_claim_counts_until_it_expires(lake, monkeypatch, content):
    with lake.locks.partition(PARTITION, "ours"):
        (path,) = claims(lake)
    stray = path.parent / "stray.json"
    stray.bucket.put(stray.key, content)
    with (
        pytest.raises(PartitionBusyError, match=r"is held by another run \(process \?"),
        lake.locks.partition(PARTITION, "ours"),
    ):
        pass
    # By the store's clock, which no test can move.
    monkeypatch.setattr(leases, "RUNS_OUT_SECONDS", -1.0)
    with lake.locks.partition(PARTITION, "ours"):
        assert stray not in claims(lake)
