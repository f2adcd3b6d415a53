"""Project keys: no two keys share a name in the lake, and keys that could are refused."""

import datetime as dt

import pytest

from pipelines.errors import ConfigurationError, PartitionBusyError
from pipelines.lake.layout import Lake, Partition
from pipelines.settings import Settings

DATE = dt.date(2026, 11, 23)
KEYS = ["a", "a.lock", "a.json", "a.json.json", "a.b", "superseded", "rebuild", "locks", "partitions", "a.part"]


def places(lake, key):
    """Every name in the lake that contains a project's key."""
    partition = Partition(DATE, key)
    return [
        lake.table("images", partition),
        lake.project_table("image_history", key),
        lake.manifest(partition),
        lake.derived_manifest(partition),
        lake.report(partition),
        lake.monthly("images", "2026-11", key),
        lake.monthly_manifest("2026-11", key),
        lake.retention_record(key, "000001"),
        lake.superseded_manifests(key),
        lake.staging(partition),
        lake.rebuilding(partition),
    ]


def test_paths_of_different_projects_never_collide(tmp_path):
    lake = Lake(str(tmp_path))
    for key in KEYS:
        for place in places(lake, key):
            place.mkdir(parents=True)
    # All are held at once.
    for key in KEYS:
        with lake.locks.partition(Partition(DATE, key), "run-1"), lake.locks.chain(key), lake.locks.derived(key):
            with pytest.raises(PartitionBusyError), lake.locks.partition(Partition(DATE, key), "run-2"):
                pass
            for other in set(KEYS) - {key}:
                with (
                    lake.locks.partition(Partition(DATE, other), "run-2"),
                    lake.locks.chain(other),
                    lake.locks.derived(other),
                ):
                    pass
    folded = [str(place).lower() for key in KEYS for place in places(lake, key)]
    assert len(set(folded)) == len(folded)


def test_project_named_like_a_lock_is_safe(tmp_path):
    lake = Lake(str(tmp_path))
    with lake.locks.partition(Partition(DATE, "a"), "run-1"):
        staging = lake.staging(Partition(DATE, "a.lock"))
        staging.mkdir(parents=True)
    with lake.locks.partition(Partition(DATE, "a"), "run-2"):
        assert list(staging.iterdir()) == []


@pytest.mark.parametrize("key", KEYS)
def test_distinct_keys_are_accepted(monkeypatch, key):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_PROJECTS", f'{{"{key}": "p1"}}')
    assert Settings.load().project_keys == [key]


@pytest.mark.parametrize("key", ["a.", "a..b", ".", "..", ".a", "-a", "A", "a/b", "a|b", "a=b", "", " a", "a" * 64])
def test_ambiguous_keys_are_refused(monkeypatch, key):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_PROJECTS", f'{{"{key}": "p1"}}')
    with pytest.raises(ConfigurationError, match=r"^The setting IMAGE_SNAPSHOTS_PROJECTS is wrong: key '.*' must "):
        Settings.load()
