"""Which partitions are missing or incomplete: from the manifests of the last days alone."""

import datetime as dt

import pytest
from published_days import publish_snapshot

from pipelines.lake.failures import Failure, note_failure
from pipelines.lake.layout import Lake, Partition
from pipelines.maintenance.status import day_statuses, due_day, lacking_partitions
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.tables import IMAGE_HISTORY

LAST = dt.date(2026, 11, 30)
FIRST = LAST - dt.timedelta(days=4)
A, B = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "ab")


def publish(day, project, *, failed=False, compared_with=None):
    responses = [{"id": A, "outcome": "ok"}, {"id": B, "outcome": "failed" if failed else "ok"}]
    return publish_snapshot(
        SnapshotRun(Partition(day, project), "run", Settings(lake="lake")),
        inventory=[{"id": A}, {"id": B}],
        responses=responses,
        images=[{"id": A, "name": "n", "visibility": "PUBLIC"}],
        inventory_facts={"compared_with": compared_with},
    )


def days(back):
    return LAST - dt.timedelta(days=back)


def lacking(projects, first=FIRST):
    return [
        ((LAST - one.date).days, one.project, one.state)
        for one in lacking_partitions(Lake("lake"), projects, first, LAST)
    ]


@pytest.fixture(autouse=True)
def lake(tmp_path):
    return Lake("lake")


def test_missing_and_incomplete_partitions_are_listed_by_day_and_project(lake):
    for back in (4, 3, 2, 1, 0):
        publish(days(back), "whole")
    for back in (4, 2, 1):
        publish(days(back), "dead", failed=back == 1)
    assert lacking(["whole", "dead", "new"]) == [
        (3, "dead", "missing"),
        (1, "dead", "incomplete"),
        (0, "dead", "missing"),
        (0, "new", "missing"),
    ]
    # The full listing says the same.
    everything = day_statuses(lake, ["whole", "dead", "new"], FIRST, LAST)
    assert [one for one in everything if one.is_lacking] == lacking_partitions(
        lake, ["whole", "dead", "new"], FIRST, LAST
    )


def test_days_before_the_first_published_day_are_not_missing():
    publish(days(2), "late")
    assert lacking(["late"]) == [(1, "late", "missing"), (0, "late", "missing")]


def test_days_after_an_earlier_complete_day_are_missing():
    publish(days(2), "late", compared_with=FIRST - dt.timedelta(days=30))
    assert lacking(["late"]) == [(back, "late", "missing") for back in (4, 3, 1, 0)]


def test_project_that_published_only_before_these_days_lacks_all_of_them(lake):
    publish(FIRST - dt.timedelta(days=3), "dead")
    # Its history shows that it was published once.
    path = lake.project_table(IMAGE_HISTORY.name, "dead")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert lacking(["dead"]) == [(back, "dead", "missing") for back in (4, 3, 2, 1, 0)]


def test_unfinished_and_damaged_partitions_lack_with_their_failure(lake):
    publish(days(1), "a")
    lake.manifest(Partition(days(1), "a")).write_text("{")
    today = Partition(LAST, "a")
    attempt = lake.staging(today) / "attempt.json"
    attempt.parent.mkdir(parents=True)
    attempt.write_text("{}")
    failure = Failure(at=dt.datetime(2026, 11, 30, 3, tzinfo=dt.UTC), run_id="r", step=None, sentence="It failed.")
    note_failure(lake, today, failure)
    assert lacking(["a"]) == [(1, "a", "damaged"), (0, "a", "unfinished")]
    assert [one.failure for one in lacking_partitions(lake, ["a"], FIRST, LAST)] == [None, failure]


def test_empty_lake_lacks_the_last_day_only():
    assert lacking(["a", "b"]) == [(0, "a", "missing"), (0, "b", "missing")]


@pytest.mark.parametrize(("time", "back"), [((0, 0), 1), ((5, 59), 1), ((6, 0), 0), ((23, 59), 0)])
def test_day_is_due_from_the_hour_on(time, back):
    now = dt.datetime.combine(LAST, dt.time(*time), dt.UTC)
    assert due_day(now, 6) == days(back)
