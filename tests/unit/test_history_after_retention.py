"""After retention only the stored history knows the removed days: when it is continued, and when it is refused."""

import shutil
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from cut_off import Killed
from once_per_run import once_per_run
from proved_days import A, B, proved_day, publish_proved

from pipelines.derive.days import derive_days
from pipelines.errors import StorageError
from pipelines.lake.derived_manifests import read_derived_manifest
from pipelines.lake.layout import Lake
from pipelines.lake.retention_records import Rules
from pipelines.maintenance.retention import apply_retention
from pipelines.maintenance.verify import verify
from pipelines.tables import IMAGE_HISTORY

FIRST, SECOND, THIRD = (proved_day(date) for date in ("2025-10-01", "2025-10-02", "2025-10-03"))


@pytest.fixture(scope="module")
def retained(tmp_path_factory):
    """Three days, of which retention removed the first two; the third has no derived tables yet."""

    def make(root):
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.chdir(root)
            for day, described in (
                (FIRST, {A: "PUBLIC", B: "PUBLIC"}),
                (SECOND, {A: "PUBLIC"}),
                (THIRD, {A: "PRIVATE"}),
            ):
                publish_proved(day, described)
                if day is not THIRD:
                    derive_days(day)
            apply_retention(THIRD.lake, "default", Rules(responses_days=1, snapshots_days=1), THIRD.now())
        return root / "lake"

    return once_per_run(tmp_path_factory, "retained-days", make)


@pytest.fixture
def lake(retained, tmp_path):
    shutil.copytree(retained, tmp_path / "lake")
    return THIRD.lake


@pytest.fixture
def history(lake):
    return lake.project_table(IMAGE_HISTORY.name, "default")


def rewritten(history):
    """The same rows and days in a file that no record names."""
    recorded = history.sha256()
    with history.open("rb") as file:
        pq.write_table(pq.read_table(file), history)
    return recorded, history.sha256()


def test_history_that_differs_from_its_record_is_refused(lake, history):
    recorded, found = rewritten(history)
    with pytest.raises(StorageError) as raised:
        derive_days(THIRD)
    assert str(raised.value) == (
        f"{history} is not the file that its manifest names: its SHA-256 is {found}, and the newest derived manifest "
        f"names {recorded}. Retention removed what it would be made anew from, so nothing was derived: restore the "
        "file from a backup, or, if you know it to be right, say so once with `image-snapshots rebuild --date "
        f"2025-10-03 --accept-history {found}`."
    )
    assert history.sha256() == found
    assert read_derived_manifest(lake, THIRD.partition) is None


def test_history_without_a_record_is_refused(lake, history):
    for derived_manifest in (FIRST, SECOND):
        lake.remove(lake.derived_manifest(derived_manifest.partition))
    with pytest.raises(StorageError, match="no derived manifest names one"):
        derive_days(THIRD)


def test_accepted_history_is_continued_and_recorded(lake, history):
    _, found = rewritten(history)
    with pytest.raises(StorageError):
        derive_days(replace(THIRD, accepted_history="0" * 64))
    derive_days(replace(THIRD, accepted_history=found))
    derived_manifest = read_derived_manifest(lake, THIRD.partition)
    assert (derived_manifest.accepted_history, derived_manifest.history.sha256) == (found, history.sha256())
    with history.open("rb") as file:
        assert pq.read_table(file, columns=["id"])["id"].to_pylist() == [A, A, B, B]
    derive_days(THIRD)
    assert read_derived_manifest(lake, THIRD.partition).accepted_history is None


def kill_after_replacing(files, monkeypatch, day=THIRD):
    """Let a derivation of the third day put this many files in their places, the history first, and no more."""
    done = []

    def replaced(lake, source, target):
        if len(done) == files:
            raise Killed
        done.append(target)
        _replace(lake, source, target)

    _replace = Lake.replace
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Lake, "replace", replaced)
        derive_days(day)


def test_kill_between_history_and_record_is_repaired_by_the_next_derivation(lake, history, monkeypatch):
    before = history.sha256()
    kill_after_replacing(1, monkeypatch)
    assert history.sha256() != before
    assert lake.pending_derived_manifest("default").is_there()
    derive_days(THIRD)
    assert list(verify(lake, lake.contents.partitions())) == []
    assert not lake.pending_derived_manifest("default").is_there()


def test_coming_record_accepts_only_its_own_history(lake, history, monkeypatch):
    kill_after_replacing(0, monkeypatch)
    rewritten(history)
    with pytest.raises(StorageError, match="is not the file that its manifest names"):
        derive_days(THIRD)


def test_coming_record_is_ignored_after_a_later_record(lake, history, monkeypatch):
    kill_after_replacing(1, monkeypatch, replace(THIRD, run_id="cut off"))
    cut_off = history.read_bytes()
    coming = lake.pending_derived_manifest("default").read_bytes()
    derive_days(THIRD)
    lake.pending_derived_manifest("default").write_whole(coming)
    history.write_whole(cut_off)
    with pytest.raises(StorageError, match="is not the file that its manifest names"):
        derive_days(THIRD)
