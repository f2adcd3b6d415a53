"""A project's history and its changes, on small published days: versions, changes, removals."""

import datetime as dt

import pyarrow.parquet as pq
import pytest
from published_days import day_of, publish_snapshot, published_rows

from pipelines.derive.analysis import Analysis
from pipelines.derive.history import derive_image_changes, derive_image_history
from pipelines.tables import IMAGE_CHANGES, IMAGE_HISTORY

A, B, C = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abc")


def publish(date, described=None, **outcomes):
    """Publish a day: `described` maps ids to their content; further ids are given by keyword with their outcome."""
    described = described or {}
    outcomes = {{"a": A, "b": B, "c": C}[name]: outcome for name, outcome in outcomes.items()}
    answers = {**dict.fromkeys(described, "ok"), **outcomes}
    return publish_snapshot(
        day_of(date),
        inventory=[{"id": id_} for id_ in sorted(answers)],
        responses=[{"id": id_, "outcome": answers[id_]} for id_ in sorted(answers)],
        images=[
            {"id": id_, "content_hash": str(sorted(described[id_].items())), **described[id_]}
            for id_ in sorted(described)
        ],
    )


def derive(date):
    result = derive_image_history(day_of(date))
    with Analysis(day_of(date)) as analysis:
        derive_image_changes(analysis)
    return result


def versions(*columns):
    path = day_of("2026-11-01").lake.project_table(IMAGE_HISTORY.name, "default")
    with path.open("rb") as file:
        rows = pq.read_table(file).to_pylist()
    return [tuple(str(row[name]) if "valid" in name and row[name] else row[name] for name in columns) for row in rows]


def changes(date):
    return [
        (row["id"], row["change"], row["field"], row["old_value"], row["new_value"], row["change_class"])
        for row in published_rows(day_of(date), IMAGE_CHANGES)
    ]


def test_first_complete_day_begins_the_history_without_changes():
    publish("2026-11-01", {A: {"name": "a"}, B: {"name": "b"}})
    result = derive("2026-11-01")
    assert (result.versions, result.current, result.deleted, result.days, result.steps) == (2, 2, 0, 1, 1)
    assert versions("id", "valid_from", "valid_to", "is_current", "is_deleted", "name") == [
        (A, "2026-11-01", None, True, False, "a"),
        (B, "2026-11-01", None, True, False, "b"),
    ]
    assert changes("2026-11-01") == []


def test_each_changed_field_is_a_row_of_its_class():
    updated = dt.datetime(2026, 11, 1, 3, 4, 5, 678000, dt.UTC)
    publish("2026-11-01", {A: {"visibility": "PRIVATE", "size": 1, "dev_services": "SSH", "status": "ACTIVE"}})
    publish(
        "2026-11-02",
        {A: {"visibility": "PUBLIC", "size": 2, "dev_services": None, "status": "ERROR", "update_at": updated}},
    )
    derive("2026-11-01")
    derive("2026-11-02")
    assert changes("2026-11-02") == [
        (A, "changed", "dev_services", "SSH", None, "metadata"),
        (A, "changed", "size", "1", "2", "content"),
        (A, "changed", "status", "ACTIVE", "ERROR", "lifecycle"),
        (A, "changed", "update_at", None, "2026-11-01T03:04:05.678000Z", "content"),
        (A, "changed", "visibility", "PRIVATE", "PUBLIC", "access"),
    ]
    assert [row["compared_with"] for row in published_rows(day_of("2026-11-02"), IMAGE_CHANGES)] == [
        dt.date(2026, 11, 1)
    ] * 5


@pytest.mark.parametrize(
    ("second_day", "reason"),
    [
        (lambda: publish("2026-11-02", {B: {"name": "b"}}, a="not_found"), "not_found"),
        (
            lambda: publish("2026-11-02", {A: {"name": "a", "status": "DELETED"}, B: {"name": "b"}}, a="deleted"),
            "deleted",
        ),
        (lambda: publish("2026-11-02", {B: {"name": "b"}}), "not_in_inventory"),
    ],
)
def test_removal_has_its_reason_and_a_return_is_reappeared(second_day, reason):
    publish("2026-11-01", {A: {"name": "a"}, B: {"name": "b"}})
    second_day()
    publish("2026-11-03", {A: {"name": "a2"}, B: {"name": "b"}})
    for date in ("2026-11-01", "2026-11-02", "2026-11-03"):
        derive(date)
    assert changes("2026-11-02") == [(A, "removed", "outcome", "ok", reason, "lifecycle")]
    assert changes("2026-11-03")[-1] == (A, "reappeared", "outcome", reason, "ok", "lifecycle")
    assert (A, "changed", "name", "a", "a2", "metadata") in changes("2026-11-03")
    assert versions("id", "valid_from", "valid_to", "is_current", "is_deleted", "deleted_reason", "name") == [
        (A, "2026-11-01", "2026-11-02", False, False, None, "a"),
        (A, "2026-11-02", "2026-11-03", False, True, reason, "a"),
        (A, "2026-11-03", None, True, False, None, "a2"),
        (B, "2026-11-01", None, True, False, None, "b"),
    ]


@pytest.mark.parametrize("silent", ["forbidden", "invalid_id"])
def test_forbidden_and_failed_change_nothing(silent):
    publish("2026-11-01", {A: {"name": "a"}})
    publish("2026-11-02", {}, a=silent)
    publish("2026-11-03", {A: {"name": "a2"}})
    for date in ("2026-11-01", "2026-11-02", "2026-11-03"):
        derive(date)
    assert changes("2026-11-02") == []
    assert changes("2026-11-03") == [(A, "changed", "name", "a", "a2", "metadata")]


def test_changes_of_an_incomplete_day_appear_once_on_the_next_complete_day():
    publish("2026-11-01", {A: {"name": "a"}, B: {"name": "b"}})
    publish("2026-11-02", {A: {"name": "a2"}}, b="failed")
    publish("2026-11-03", {A: {"name": "a2"}, B: {"name": "b"}})
    for date in ("2026-11-01", "2026-11-02", "2026-11-03"):
        derive(date)
    assert changes("2026-11-02") == []
    assert changes("2026-11-03") == [(A, "changed", "name", "a", "a2", "metadata")]
    assert [row["compared_with"] for row in published_rows(day_of("2026-11-03"), IMAGE_CHANGES)] == [
        dt.date(2026, 11, 1)
    ]


def test_image_gone_from_the_start_is_not_a_removal():
    publish("2026-11-01", {A: {"name": "a"}})
    publish("2026-11-02", {A: {"name": "a"}, B: {"name": "b"}}, b="deleted", c="not_found")
    derive("2026-11-02")
    assert changes("2026-11-02") == []
    assert versions("id", "is_deleted", "deleted_reason") == [(A, False, None), (B, True, "deleted")]


def test_rerun_corrects_later_days():
    publish("2026-11-01", {A: {"name": "a"}})
    publish("2026-11-02", {A: {"name": "b"}})
    publish("2026-11-03", {A: {"name": "c"}})
    assert derive("2026-11-03").steps == 3
    publish("2026-11-02", {A: {"name": "a"}})
    assert derive("2026-11-02").steps == 2
    assert versions("valid_from", "valid_to", "name") == [
        ("2026-11-01", "2026-11-03", "a"),
        ("2026-11-03", None, "c"),
    ]
    assert derive("2026-11-03").steps == 0
    assert changes("2026-11-03") == [(A, "changed", "name", "a", "c", "metadata")]


def test_continued_history_equals_one_derived_from_nothing():
    publish("2026-11-01", {A: {"name": "a"}, B: {"name": "b"}})
    publish("2026-11-02", {A: {"name": "a2"}}, b="not_found")
    publish("2026-11-03", {A: {"name": "a2"}, B: {"name": "b"}, C: {"name": "c"}})
    publish("2026-11-04", {B: {"name": "b"}, C: {"name": "c2"}}, a="deleted")
    steps = [derive(f"2026-11-0{number}").steps for number in (1, 2, 3, 4)]
    # Each run updates the whole history; a day that is derived again adds nothing.
    assert steps == [4, 0, 0, 0]
    everything = versions(*IMAGE_HISTORY.schema.names)
    day_of("2026-11-01").lake.project_table(IMAGE_HISTORY.name, "default").unlink()
    assert derive("2026-11-02").steps == 4
    assert versions(*IMAGE_HISTORY.schema.names) == everything


def test_removed_day_leaves_the_history():
    publish("2026-11-01", {A: {"name": "a"}})
    publish("2026-11-02", {A: {"name": "b"}})
    derive("2026-11-02")
    lake = day_of("2026-11-02").lake
    lake.manifest(day_of("2026-11-02").partition).unlink()
    derive("2026-11-01")
    assert versions("valid_from", "valid_to", "name") == [("2026-11-01", None, "a")]
