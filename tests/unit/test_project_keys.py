"""Keys of projects: no two may come to one name in the lake, and what could is refused."""

import datetime as dt

import pytest

from pipelines.errors import ConfigurationError, PartitionBusyError
from pipelines.lake.layout import Lake, Partition
from pipelines.settings import Settings

DATE = dt.date(2026, 11, 23)
KEYS = ["a", "a.lock", "a.json", "a.json.json", "a.b", "superseded", "rebuild", "locks", "partitions", "a.part"]


def places(lake, key):
    """Every name that a project's key stands in."""
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


def test_all_places_of_all_projects_are_apart(tmp_path):
    lake = Lake(str(tmp_path))
    for key in KEYS:
        for place in places(lake, key):
            place.mkdir(parents=True)
    # Held all at once, beside everything else of all of them.
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


def test_one_project_may_be_named_like_the_lock_of_another(tmp_path):
    lake = Lake(str(tmp_path))
    with lake.locks.partition(Partition(DATE, "a"), "run-1"):
        staging = lake.staging(Partition(DATE, "a.lock"))
        staging.mkdir(parents=True)
    with lake.locks.partition(Partition(DATE, "a"), "run-2"):
        assert list(staging.iterdir()) == []


@pytest.mark.parametrize("key", KEYS)
def test_keys_that_are_apart_are_accepted(monkeypatch, key):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_PROJECTS", f'{{"{key}": "p1"}}')
    assert Settings.load().project_keys == [key]


@pytest.mark.parametrize("key", ["a.", "a..b", ".", "..", ".a", "-a", "A", "a/b", "a|b", "a=b", "", " a", "a" * 64])
def test_keys_that_could_be_another_ones_name_are_refused(monkeypatch, key):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_PROJECTS", f'{{"{key}": "p1"}}')
    with pytest.raises(ConfigurationError, match=r"^The setting IMAGE_SNAPSHOTS_PROJECTS is wrong: key '.*' must "):
        Settings.load()
