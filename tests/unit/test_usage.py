"""Who uses an image: counted by kind and strength, and days without a use on observed days alone."""

import datetime as dt
from itertools import count

import pytest
from published_days import day_of, publish_snapshot, published_rows, rows_of, write_history

from pipelines.derive.analysis import Analysis
from pipelines.derive.usage import derive_image_usage, users_in_words
from pipelines.lake.manifests import ScopeFacts, SourceFacts
from pipelines.tables import IMAGE_USAGE, USAGE_SOURCES

STATE = ("is_observed", "last_used_date", "observed_days", "unused_days")
WHOLE = SourceFacts(wanted=True, was_read=True)
ERROR = SourceFacts(wanted=True, error="The training jobs of 127.0.0.1 cannot be read (HTTP 403).")
PARTIAL = SourceFacts(wanted=True, was_read=True, partial="Of the current user only.")


def derive(day):
    with Analysis(day) as analysis:
        return derive_image_usage(analysis)


def at(date, hour=12):
    return dt.datetime.combine(dt.date.fromisoformat(date), dt.time(hour), dt.UTC)


def take(date, references, **facts):
    """Publish a day, and derive its usage."""
    publish(date, references, **facts)
    return derive(day_of(date))


def publish(date, references, ids="a", sources=None, scope=None, kinds=("notebooks",), **outcomes):
    """Publish a day on which these ids are images.

    `references`: rows, or ids of images that a notebook each needs; None when nothing was read.
    """
    outcomes = dict.fromkeys(ids.split(), "ok") | outcomes
    numbers = count()
    rows = references and [
        {"resource_id": f"r{next(numbers):02}"} | ({"image_id": row} if isinstance(row, str) else row)
        for row in references
    ]
    facts = {}
    if sources:
        facts["sources"] = {name: SourceFacts(wanted=False) for name in USAGE_SOURCES} | sources
    if scope:
        facts["scope"] = scope
    publish_snapshot(
        day_of(date),
        references=rows,
        kinds=kinds,
        fetch_facts=facts,
        inventory=[{"id": id_} for id_ in outcomes],
        responses=[{"id": id_, "outcome": outcome} for id_, outcome in outcomes.items()],
        images=[{"id": id_} for id_, outcome in outcomes.items() if outcome == "ok"],
    )


def usage(date):
    """Whether each image is observed, its last day of use, observed and unused days."""
    return {row["id"]: tuple(row[name] for name in STATE) for row in rows(date)}


def rows(date):
    return published_rows(day_of(date), IMAGE_USAGE)


def test_references_are_counted_by_kind_and_by_strength():
    result = take(
        "2026-11-23",
        [
            {"kind": "notebook", "image_id": "a", "strength": "running"},
            {"kind": "notebook", "image_id": "a"},
            {"kind": "service", "image_id": "a", "strength": "running"},
            {"kind": "service", "image_id": "a", "position": 1, "strength": "running"},
            {"kind": "model", "image_id": "b", "strength": "copied"},
            {"kind": "training_job", "image_id": "b", "strength": "past"},
            {"kind": "notebook", "image_id": "elsewhere", "strength": "running"},
            {"kind": "notebook", "strength": "running"},
        ],
        ids="a b",
        sources={"notebooks": WHOLE, "training_jobs": WHOLE, "models": WHOLE, "services": WHOLE},
        scope=ScopeFacts(workspaces=["0", "7"], origin="asked"),
    )
    first, second = rows("2026-11-23")
    counts = (
        "notebooks",
        "training_jobs",
        "algorithms",
        "models",
        "services",
        "workflows",
        "running",
        "required",
        "copied",
    )
    assert [tuple(row[name] for name in counts) for row in (first, second)] == [
        (2, 0, None, 0, 2, None, 3, 1, 0),
        (0, 1, None, 1, 0, None, 0, 0, 1),
    ]
    seen = {(row["observed_kinds"], row["workspaces"]) for row in (first, second)}
    assert seen == {("notebooks|training_jobs|models|services", 2)}
    assert usage("2026-11-23") == {"a": (True, dt.date(2026, 11, 23), 1, 0), "b": (True, None, 1, 1)}
    assert (result.images, result.used, result.unused, result.unmatched_references) == (2, 1, 0, 2)
    assert result.file.path == "image_usage/dt=2026-11-23/project=default/image_usage.parquet"


def test_observed_days_are_counted_and_others_carried():
    first = dt.date(2026, 11, 1)
    take("2026-11-01", ["a"])
    take("2026-11-02", [])
    assert usage("2026-11-02") == {"a": (True, first, 2, 1)}
    incomplete = take("2026-11-03", [], b="failed")
    assert usage("2026-11-03") == {"a": (False, first, 2, 1)}
    (row,) = rows("2026-11-03")
    assert (row["notebooks"], row["required"], row["observed_kinds"], row["workspaces"]) == (0, 0, None, None)
    assert (incomplete.images, incomplete.used, incomplete.unmatched_references) == (1, None, 0)
    not_read = take("2026-11-04", None)
    assert usage("2026-11-04") == {"a": (False, first, 2, 1)}
    (row,) = rows("2026-11-04")
    assert (row["notebooks"], row["running"], row["required"], row["copied"]) == (None,) * 4
    assert (not_read.images, not_read.used, not_read.unmatched_references) == (1, None, None)
    take("2026-11-07", [])
    assert usage("2026-11-07") == {"a": (True, first, 3, 2)}
    take("2026-11-08", ["a", "a"])
    assert usage("2026-11-08") == {"a": (True, dt.date(2026, 11, 8), 4, 0)}


def test_a_use_counts_on_a_day_that_is_not_observed_and_its_absence_does_not():
    take("2026-11-01", [])
    take("2026-11-02", [])
    sources = {"notebooks": WHOLE, "training_jobs": ERROR}
    take("2026-11-03", [{"image_id": "a"}], ids="a b", sources=sources)
    third = dt.date(2026, 11, 3)
    assert usage("2026-11-03") == {"a": (False, third, 2, 0), "b": (False, None, 0, 0)}
    (row, _) = rows("2026-11-03")
    assert (row["notebooks"], row["training_jobs"], row["running"], row["required"]) == (1, None, 0, 1)
    take("2026-11-04", [{"image_id": "b"}], ids="a b c", c="failed")
    fourth = dt.date(2026, 11, 4)
    assert usage("2026-11-04") == {"a": (False, third, 2, 0), "b": (False, fourth, 0, 0)}
    # The incomplete day is not forgotten: it saw a use.
    take("2026-11-05", [], ids="a b")
    assert usage("2026-11-05") == {"a": (True, third, 3, 1), "b": (True, fourth, 1, 1)}


@pytest.mark.parametrize(
    ("sources", "outside"),
    [
        ({"notebooks": ERROR}, []),
        ({"notebooks": PARTIAL}, []),
        ({"notebooks": WHOLE}, ["7"]),
        ({"notebooks": WHOLE, "services": ERROR}, []),
        ({"notebooks": WHOLE, "services": PARTIAL}, []),
    ],
)
def test_nothing_grows_on_a_day_on_which_something_was_not_looked_at(sources, outside):
    take("2026-11-01", ["a"], ids="a b")
    take("2026-11-02", [], ids="a b")
    before = usage("2026-11-02")
    scope = ScopeFacts(workspaces=["0"], origin="asked", outside=outside)
    assert take("2026-11-03", [], ids="a b", sources=sources, scope=scope).used is None
    assert usage("2026-11-03") == {id_: (False, *state[1:]) for id_, state in before.items()}


def test_incomplete_day_is_not_continued():
    take("2026-11-01", [])
    take("2026-11-02", [], b="failed")
    take("2026-11-03", [], ids="a b")
    assert usage("2026-11-03") == {"a": (True, None, 2, 2), "b": (True, None, 1, 1)}


def test_an_image_that_an_incomplete_day_lacks_goes_on_from_the_last_complete_day():
    take("2026-11-01", [], ids="a b")
    take("2026-11-02", [], ids="b", a="not_found", c="failed")
    assert usage("2026-11-02") == {"b": (False, None, 1, 1)}
    take("2026-11-03", [], ids="a b")
    assert usage("2026-11-03") == {"a": (True, None, 2, 2), "b": (True, None, 2, 2)}


def test_there_are_no_rows_until_a_source_was_read_once():
    result = take("2026-11-01", None)
    assert usage("2026-11-01") == {}
    assert (result.images, result.used, result.unused, result.file.rows) == (0, None, 0, 0)
    take("2026-11-02", [], b="failed")
    assert usage("2026-11-02") == {"a": (False, None, 0, 0)}
    take("2026-11-03", [])
    assert usage("2026-11-03") == {"a": (True, None, 1, 1)}


def test_returning_image_starts_at_zero():
    take("2026-11-01", [], ids="a b")
    take("2026-11-02", [], ids="b", a="not_found")
    assert usage("2026-11-02") == {"b": (True, None, 2, 2)}
    take("2026-11-03", [], ids="a b")
    assert usage("2026-11-03") == {"a": (True, None, 1, 1), "b": (True, None, 3, 3)}


def test_image_without_response_is_still_observed():
    take("2026-11-01", [], ids="a b")
    write_history(day_of("2026-11-01"), [{"id": "b", "valid_from": dt.date(2026, 11, 1)}])
    take("2026-11-02", ["b"], b="forbidden")
    assert usage("2026-11-02") == {"a": (True, None, 2, 2), "b": (True, dt.date(2026, 11, 2), 2, 0)}


def job(image_id, last_active_at):
    return {"kind": "training_job", "image_id": image_id, "strength": "past", "last_active_at": last_active_at}


def take_jobs(date, jobs, ids="a"):
    return take(date, [job(*one) for one in jobs], ids=ids, kinds=("training_jobs",))


def test_a_job_that_ran_since_the_last_observed_day_is_a_use():
    # Days are read at noon. The job of a runs each night, that of b ran once, the clock of c is wrong.
    jobs = [("b", at("2026-10-01")), ("c", at("2026-11-09"))]
    take_jobs("2026-11-01", [("a", at("2026-11-01", 3)), *jobs], ids="a b c d")
    assert usage("2026-11-01") == {
        "a": (True, dt.date(2026, 11, 1), 1, 0),
        "b": (True, dt.date(2026, 10, 1), 1, 1),
        "c": (True, dt.date(2026, 11, 1), 1, 0),
        "d": (True, None, 1, 1),
    }
    take_jobs("2026-11-02", [("a", at("2026-11-01", 22))])
    assert usage("2026-11-02") == {"a": (True, dt.date(2026, 11, 1), 2, 0)}
    take_jobs("2026-11-03", [("a", at("2026-11-02", 11))])
    assert usage("2026-11-03") == {"a": (True, dt.date(2026, 11, 2), 3, 1)}
    # It ran while nobody looked.
    take_jobs("2026-11-09", [("a", at("2026-11-06"))])
    assert usage("2026-11-09") == {"a": (True, dt.date(2026, 11, 6), 4, 0)}
    take_jobs("2026-11-10", [("a", at("2026-11-06")), ("a", None)])
    assert usage("2026-11-10") == {"a": (True, dt.date(2026, 11, 6), 5, 1)}


def test_a_use_that_a_source_tells_late_counts_from_its_day():
    for number in range(1, 6):
        take(f"2026-11-0{number}", [])
    both = {"notebooks": WHOLE, "training_jobs": WHOLE}
    take("2026-11-06", [job("a", at("2026-11-04"))], sources={"notebooks": PARTIAL, "training_jobs": WHOLE})
    assert usage("2026-11-06") == {"a": (False, dt.date(2026, 11, 4), 5, 1)}
    take("2026-11-07", [job("a", at("2026-11-04"))], sources=both)
    assert usage("2026-11-07") == {"a": (True, dt.date(2026, 11, 4), 6, 1)}


def test_days_that_looked_at_less_do_not_count_for_a_day_that_looks_at_more():
    both = ("notebooks", "services")
    states = []
    for number, kinds in enumerate([both, both, ("notebooks",), both, ("notebooks", "models"), both], start=1):
        date = f"2026-11-0{number}"
        take(date, [], kinds=kinds)
        (row,) = rows(date)
        states.append((row["observed_kinds"], row["observed_days"], row["unused_days"]))
    assert states == [
        ("notebooks|services", 1, 1),
        ("notebooks|services", 2, 2),
        # Narrower: both days before looked at notebooks as well.
        ("notebooks", 3, 3),
        ("notebooks|services", 4, 3),
        ("notebooks|models", 5, 1),
        ("notebooks|services", 6, 2),
    ]


def test_a_workspace_that_was_left_out_before_is_looked_at_from_its_first_day():
    stated, asked = ({"workspaces": ["0"], "origin": origin} for origin in ("stated", "asked"))
    take("2026-11-01", [], scope=ScopeFacts(**stated))
    take("2026-11-02", [], scope=ScopeFacts(**asked))
    assert usage("2026-11-02")["a"][-1] == 2
    # The API listed all that there were on the day before, and only those stated on the first.
    take("2026-11-03", [], scope=ScopeFacts(workspaces=["0", "7"], origin="asked"))
    assert usage("2026-11-03")["a"][-1] == 2
    assert rows("2026-11-03")[0]["workspaces"] == 2


def test_an_image_is_unused_after_thirty_observed_days():
    first = dt.date(2026, 10, 1)
    for number in range(31):
        publish(str(first + dt.timedelta(days=number)), [])
    before = day_of("2026-10-31")
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
    result = take("2026-11-01", [], ids="a b c")
    assert {id_: row[-1] for id_, row in usage("2026-11-01").items()} == {"a": 29, "b": 30, "c": 31}
    assert (result.images, result.used, result.unused) == (3, 0, 2)


@pytest.mark.parametrize(
    ("kinds", "workspaces", "words"),
    [
        ("notebooks", 1, "notebook in 1 workspace"),
        ("notebooks|services", 2, "notebook or service in 2 workspaces"),
        (
            "|".join(USAGE_SOURCES),
            1000,
            "notebook, training job, algorithm, model, service or workflow in 1,000 workspaces",
        ),
    ],
)
def test_what_was_looked_at_in_words(kinds, workspaces, words):
    assert users_in_words(kinds.split("|"), workspaces) == words
