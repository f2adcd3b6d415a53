"""How long images have had no notebook: counted on observed days only, carried over on others."""

import datetime as dt

from published_days import day_of, publish_snapshot, published_rows, rows_of, write_history

from pipelines.derive.analysis import Analysis
from pipelines.derive.usage import derive_image_usage
from pipelines.tables import IMAGE_USAGE


def derive(day):
    with Analysis(day) as analysis:
        return derive_image_usage(analysis)


def take(date, notebooks, ids="a", **outcomes):
    """Publish a day on which these ids are images, and derive its usage; `notebooks`: image ids, or None."""
    day = day_of(date)
    outcomes = dict.fromkeys(ids.split(), "ok") | outcomes
    rows = notebooks and [
        {"notebook_id": f"n{i}", "image_id": image_id, "status": "RUNNING"} for i, image_id in enumerate(notebooks)
    ]
    publish_snapshot(
        day,
        notebooks=rows,
        inventory=[{"id": id_} for id_ in outcomes],
        responses=[{"id": id_, "outcome": outcome} for id_, outcome in outcomes.items()],
        images=[{"id": id_} for id_, outcome in outcomes.items() if outcome == "ok"],
    )
    return derive(day)


def usage(date):
    """The published rows: for each image notebooks, running, observed, last day of use, observed and unused days."""
    return {row.pop("id"): tuple(row.values()) for row in published_rows(day_of(date), IMAGE_USAGE)}


def test_notebooks_of_any_status_are_counted():
    day = day_of("2026-11-23")
    publish_snapshot(
        day,
        inventory=[{"id": "a"}, {"id": "b"}, {"id": "c"}],
        responses=[{"id": "a", "outcome": "ok"}, {"id": "b", "outcome": "ok"}, {"id": "c", "outcome": "deleted"}],
        images=[{"id": "a"}, {"id": "b"}, {"id": "c"}],
        notebooks=[
            {"notebook_id": "n1", "image_id": "a", "status": "RUNNING"},
            {"notebook_id": "n2", "image_id": "a", "status": "running"},
            {"notebook_id": "n3", "image_id": "a", "status": "STOPPED"},
            {"notebook_id": "n4", "image_id": "a"},
            {"notebook_id": "n5", "image_id": "c", "status": "RUNNING"},
            {"notebook_id": "n6", "image_id": "elsewhere", "status": "RUNNING"},
            {"notebook_id": "n7", "status": "RUNNING"},
        ],
    )
    result = derive(day)
    assert usage("2026-11-23") == {
        "a": (4, 2, True, dt.date(2026, 11, 23), 1, 0),
        "b": (0, 0, True, None, 1, 1),
    }
    assert (result.images, result.used, result.unused) == (2, 1, 0)
    assert result.file.path == "image_usage/dt=2026-11-23/project=default/image_usage.parquet"


def test_observed_days_are_counted_and_others_carried():
    first = dt.date(2026, 11, 1)
    take("2026-11-01", ["a"])
    take("2026-11-02", [])
    assert usage("2026-11-02") == {"a": (0, 0, True, first, 2, 1)}
    incomplete = take("2026-11-03", ["a"], b="failed")
    assert usage("2026-11-03") == {"a": (None, None, False, first, 2, 1)}
    assert (incomplete.images, incomplete.used) == (1, None)
    not_read = take("2026-11-04", None)
    assert usage("2026-11-04") == {"a": (None, None, False, first, 2, 1)}
    assert (not_read.images, not_read.used) == (1, None)
    take("2026-11-07", [])
    assert usage("2026-11-07") == {"a": (0, 0, True, first, 3, 2)}
    take("2026-11-08", ["a", "a"])
    assert usage("2026-11-08") == {"a": (2, 2, True, dt.date(2026, 11, 8), 4, 0)}


def test_incomplete_day_is_not_continued():
    take("2026-11-01", [])
    take("2026-11-02", [], b="failed")
    take("2026-11-03", [], ids="a b")
    assert usage("2026-11-03") == {"a": (0, 0, True, None, 2, 2), "b": (0, 0, True, None, 1, 1)}


def test_no_rows_before_notebooks_were_first_read():
    result = take("2026-11-01", None)
    assert usage("2026-11-01") == {}
    assert (result.images, result.used, result.unused, result.file.rows) == (0, None, 0, 0)
    take("2026-11-02", [], b="failed")
    assert usage("2026-11-02") == {"a": (None, None, False, None, 0, 0)}
    take("2026-11-03", [])
    assert usage("2026-11-03") == {"a": (0, 0, True, None, 1, 1)}


def test_returning_image_starts_at_zero():
    take("2026-11-01", [], ids="a b")
    take("2026-11-02", [], ids="b", a="not_found")
    assert usage("2026-11-02") == {"b": (0, 0, True, None, 2, 2)}
    take("2026-11-03", [], ids="a b")
    assert usage("2026-11-03") == {"a": (0, 0, True, None, 1, 1), "b": (0, 0, True, None, 3, 3)}


def test_image_without_response_is_still_observed():
    take("2026-11-01", [], ids="a b")
    write_history(day_of("2026-11-01"), [{"id": "b", "valid_from": dt.date(2026, 11, 1)}])
    take("2026-11-02", ["b"], b="forbidden")
    assert usage("2026-11-02") == {
        "a": (0, 0, True, None, 2, 2),
        "b": (1, 1, True, dt.date(2026, 11, 2), 2, 0),
    }


def test_image_is_unused_after_thirty_observed_days():
    take("2026-11-01", [], ids="a b c")
    before = day_of("2026-11-01")
    with before.lake.writer(before.lake.table("image_usage", before.partition), IMAGE_USAGE, "run-1") as writer:
        writer.write(
            rows_of(
                IMAGE_USAGE,
                [{"id": "a", "unused_days": 28}, {"id": "b", "unused_days": 29}, {"id": "c", "unused_days": 30}],
                snapshot_date=before.partition.date,
                project_id="p1",
                is_observed=True,
                observed_days=30,
            )
        )
    result = take("2026-11-02", [], ids="a b c")
    assert {id_: row[-1] for id_, row in usage("2026-11-02").items()} == {"a": 29, "b": 30, "c": 31}
    assert (result.images, result.used, result.unused) == (3, 0, 2)
