"""`images_as_of` for a day that nothing is known about: one sentence, never today's content."""

import datetime as dt
import shutil
from contextlib import closing

import pytest
from published_days import publish_snapshot, write_history

from pipelines.errors import ConfigurationError
from pipelines.lake.layout import Lake, Partition
from pipelines.query.views import connect_lake, select, sql_errors
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.tables import IMAGE_HISTORY

ONE, TWO = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"


def day_of(number, project="default"):
    return SnapshotRun(Partition(dt.date(2026, 11, number), project), "run", Settings(lake="lake"))


def publish(number, *ids, project="default", outcome="ok"):
    day = day_of(number, project)
    publish_snapshot(
        day,
        inventory=[{"id": id_} for id_ in ids],
        responses=[{"id": id_, "outcome": outcome} for id_ in ids],
        images=[{"id": id_, "name": "a"} for id_ in ids] if outcome == "ok" else [],
    )
    return day


def version(id_, first, last=None, **values):
    until = {"valid_to": dt.date(2026, 11, last), "is_current": False} if last else {}
    return {"id": id_, "name": "a", "valid_from": dt.date(2026, 11, first), **until, **values}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The default project: complete on the 3rd and 5th, incomplete on the 6th; another: complete on the 5th."""
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(root)
        for number in (3, 5):
            day = publish(number, ONE)
        publish(6, ONE, outcome="failed")
        write_history(day, [version(ONE, 3, 5), version(ONE, 5, name="b")])
        day = publish(5, TWO, project="other")
        write_history(day, [version(TWO, 5)])
    return root / "lake"


@pytest.fixture(scope="module")
def opened(made):
    """A connection to that lake, for tests that change nothing."""
    with closing(connect_lake(Lake(str(made)))) as connection:
        yield connection


@pytest.fixture
def lake(made, tmp_path):
    shutil.copytree(made, tmp_path / "lake")
    return Lake("lake")


def asked(connection, arguments, columns="project, name, rests_on"):
    with sql_errors():
        return select(connection, f"SELECT {columns} FROM images_as_of({arguments}) ORDER BY ALL").fetchall()


def refused(connection, arguments, columns="project, name, rests_on"):
    with pytest.raises(ConfigurationError) as raised:
        asked(connection, arguments, columns)
    return str(raised.value)


def as_of(lake, arguments, columns="project, name, rests_on"):
    with closing(connect_lake(lake)) as connection:
        return asked(connection, arguments, columns)


def sentence(lake, arguments, columns="project, name, rests_on"):
    with closing(connect_lake(lake)) as connection:
        return refused(connection, arguments, columns)


def test_images_as_of_names_the_complete_day_behind_it(opened):
    assert asked(opened, "'2026-11-05'") == [
        ("default", "b", dt.date(2026, 11, 5)),
        ("other", "a", dt.date(2026, 11, 5)),
    ]
    assert asked(opened, "DATE '2026-11-03', 'default'") == [("default", "a", dt.date(2026, 11, 3))]
    # Between two complete days, the earlier one counts.
    assert asked(opened, "'2026-11-04', of_project := 'default'") == [("default", "a", dt.date(2026, 11, 3))]


SPAN = "complete days speak for default from 2026-11-03 to 2026-11-05, other from 2026-11-05 to 2026-11-05"
ADVICE = "Ask for such a day, or for one project: images_as_of('2026-11-01', 'project')."


@pytest.mark.parametrize("columns", ["project, name, rests_on", "COUNT(*)", "1"])
@pytest.mark.parametrize(
    ("day", "said"),
    [
        # After the last complete day: even if an incomplete one was published, and a year later.
        ("'2026-11-06'", "2026-11-06"),
        ("'2027-11-10'", "2027-11-10"),
        # Before the first day of all projects, and of one of them.
        ("'2026-11-02'", "2026-11-02"),
        ("'2026-11-04'", "2026-11-04"),
        ("NULL", "NULL"),
    ],
)
def test_images_as_of_an_unknown_day_is_an_error(opened, day, said, columns):
    assert refused(opened, day, columns) == (
        f"The query failed: What images there were as of {said} is not known: {SPAN}. {ADVICE}"
    )


def test_images_as_of_a_day_unknown_for_one_project_is_an_error(opened):
    assert refused(opened, "'2026-11-04', 'other'") == (
        "The query failed: What images there were as of 2026-11-04 is not known: complete days speak for other from "
        f"2026-11-05 to 2026-11-05. {ADVICE}"
    )
    assert refused(opened, "'2026-11-05', 'nobody'") == (
        "The query failed: The lake has no project nobody, so nothing is known of its images."
    )


def test_published_day_that_is_not_derived_is_unknown(lake):
    publish(7, ONE)
    assert "default from 2026-11-03 to 2026-11-05" in sentence(lake, "'2026-11-07', 'default'")
    lake.project_table(IMAGE_HISTORY.name, "default").unlink()
    assert "complete days speak for default on no day." in sentence(lake, "'2026-11-05', 'default'")
    lake.project_table(IMAGE_HISTORY.name, "other").unlink()
    assert "complete days speak for default on no day, other on no day." in sentence(lake, "'2026-11-05'")


def test_history_without_images_still_knows_its_days(lake):
    write_history(day_of(5), [])
    assert as_of(lake, "'2026-11-05', 'default'") == []
    assert "is not known" in sentence(lake, "'2026-11-06', 'default'")
    assert "is not known" in sentence(lake, "'2026-11-06', 'default'", "COUNT(*)")
