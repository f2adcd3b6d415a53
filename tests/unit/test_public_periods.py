"""Periods in which an image was public, over any number of versions, and whether their start is known."""

import datetime as dt
import shutil
from contextlib import closing

import duckdb
import psycopg
import pyarrow as pa
import pytest
from published_days import publish_snapshot, write_history

from pipelines.lake.layout import Lake, Partition
from pipelines.query.views import connect_lake
from pipelines.settings import ROOT, Settings
from pipelines.snapshot.snapshot_run import SnapshotRun

LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
DAYS = "SELECT project, snapshot_date, published_at, is_complete FROM days"
PERIOD = "public_since, is_start_known, public_until, end_reason, name"


def on(number):
    return dt.date(2026, 11, number)


def day_of(number):
    return SnapshotRun(Partition(on(number), "default"), "run", Settings(lake="lake"))


@pytest.fixture(scope="module")
def six_days(tmp_path_factory):
    """A lake whose days are complete but for the third, each read at noon."""
    root = tmp_path_factory.mktemp("six-days")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(root)
        for number in (1, 2, 3, 4, 5, 6):
            outcome = "failed" if number == 3 else "ok"
            publish_snapshot(day_of(number), responses=[{"id": "a", "outcome": outcome}], images=[])
    return root / "lake"


@pytest.fixture
def periods(postgres, six_days, tmp_path):
    """The public periods of an image with these versions, on those days."""
    shutil.copytree(six_days, tmp_path / "lake")

    def read(*versions):
        write_history(day_of(6), [{"id": "a", "create_at": LONG_AGO, "visibility": "PUBLIC"} | one for one in versions])
        with closing(connect_lake(Lake("lake"))) as connection:
            found = connection.sql(f"SELECT {PERIOD} FROM public_periods ORDER BY public_since").fetchall()
            tables = [connection.sql(sql).to_arrow_table() for sql in ("FROM image_history", DAYS)]
        assert found == in_warehouse(tables)
        assert found == in_postgres(postgres.url, tables)
        return found

    return read


def in_warehouse(tables):
    with closing(duckdb.connect()) as connection:
        connection.execute("SET TimeZone = 'Pacific/Auckland'")
        for name, table in zip(("image_history", "days"), tables, strict=True):
            connection.register(name, table)
        view = (ROOT / "sql/views/public_periods.sql").read_text()
        return connection.sql(f"SELECT {PERIOD} FROM ({view}) ORDER BY public_since").fetchall()


TYPES = {pa.string(): "text", pa.date32(): "date", pa.bool_(): "boolean", pa.int64(): "bigint"}


def in_postgres(url, tables):
    """From temporary tables, in another time zone."""
    view = (ROOT / "sql/views/public_periods.sql").read_text()
    with psycopg.connect(url) as connection:
        connection.execute("SET TimeZone = 'Pacific/Auckland'")
        for name, table in zip(("image_history", "days"), tables, strict=True):
            types = {field.name: TYPES.get(field.type, "timestamptz") for field in table.schema}
            columns = ", ".join(f'"{column}" {type_}' for column, type_ in types.items())
            connection.execute(f"CREATE TEMP TABLE {name} ({columns})")
            rows = [tuple(row.values()) for row in table.to_pylist()]
            connection.cursor().executemany(f"INSERT INTO {name} VALUES ({', '.join(['%s'] * len(types))})", rows)
        found = connection.execute(f"SELECT {PERIOD} FROM ({view}) AS periods ORDER BY public_since").fetchall()
        connection.rollback()
    return found


def version(first, last=None, **values):
    """A version that is valid from one day until before another."""
    name = f"from {first}"
    until = {"valid_to": on(last), "is_current": False} if last else {}
    return {"valid_from": on(first), "name": name, **until, **values}


def test_uninterrupted_versions_are_one_period(periods):
    assert periods(
        version(1, 2, visibility="PRIVATE"),
        version(2, 4),
        version(4, 5, visibility="Public"),
        version(5, 6),
        version(6, visibility="PRIVATE"),
    ) == [(on(2), True, on(6), "visibility", "from 5")]


def test_image_public_at_the_first_snapshot_has_no_known_start(periods):
    assert periods(version(1, 2), version(2)) == [(on(1), False, None, None, "from 2")]


def test_image_made_private_and_public_again_has_two_periods(periods):
    assert periods(version(1, 2), version(2, 5, visibility=None), version(5)) == [
        (on(1), False, on(2), "visibility", "from 1"),
        (on(5), True, None, None, "from 5"),
    ]


def test_deletion_ends_a_period_and_reappearance_begins_one(periods):
    assert periods(
        version(1, 2), version(2, 5, is_deleted=True, deleted_reason="not_found"), version(5, visibility="PUBLIC")
    ) == [(on(1), False, on(2), "not_found", "from 1"), (on(5), True, None, None, "from 5")]


def test_time_outside_the_inventory_is_unknown(periods):
    gone = version(2, 5, is_deleted=True, deleted_reason="not_in_inventory")
    assert periods(version(1, 2), gone, version(5)) == [
        (on(1), False, on(2), "not_in_inventory", "from 1"),
        (on(5), False, None, None, "from 5"),
    ]


def test_new_public_image_has_a_known_start(periods):
    # The complete day before the 4th is the 2nd, published at noon.
    before, after = (dt.datetime(2026, 11, 2, hour, tzinfo=dt.UTC) for hour in (11, 13))
    assert periods(version(4, create_at=before)) == [(on(4), False, None, None, "from 4")]
    assert periods(version(4, create_at=after)) == [(on(4), True, None, None, "from 4")]
    assert periods(version(4, create_at=None)) == [(on(4), False, None, None, "from 4")]


def test_private_image_has_no_period(periods):
    assert periods(version(1, 4, visibility="PRIVATE"), version(4, visibility="SECRET")) == []
    assert periods(version(1, is_deleted=True, deleted_reason="deleted")) == []


def test_periods_are_separate_by_image_and_project(periods):
    assert periods(version(1), version(2, id="b"), version(4, 5, id="b2", name="c")) == [
        (on(1), False, None, None, "from 1"),
        (on(2), False, None, None, "from 2"),
        (on(4), False, on(5), "visibility", "c"),
    ]
