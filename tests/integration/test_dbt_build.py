"""`dbt build` on a DuckDB and on a PostgreSQL warehouse of the golden fortnight, and on a broken copy of the first."""

import datetime as dt
from urllib.parse import urlsplit

import duckdb
import psycopg
import pytest
from golden_days import COMPLETE, DATES, INCOMPLETE, make_golden
from once_per_run import once_per_run
from warehouse_targets import DuckDBTarget, PostgresTarget, read, rows

from pipelines.lake.layout import Lake, Partition
from pipelines.warehouse.loading import load_project

pytestmark = pytest.mark.slow  # A run of dbt takes 15 seconds of processor time.

MARTS = ("images_current", "image_costs_daily", "findings_open", "changes")
# The sandbox plays values that the API does not document.
UNDOCUMENTED = {
    "images_service_type_is_documented",
    "image_history_service_type_is_documented",
    "image_values_value_of_dev_services_is_documented",
}
PASSWORD = "analyst-secret-pa55"


@pytest.fixture(scope="module")
def golden_lake(tmp_path_factory):
    return once_per_run(tmp_path_factory, "golden", make_golden).settings.lake


@pytest.fixture
def warehouse(golden_lake, tmp_path):
    """A DuckDB warehouse of the fortnight."""
    target = DuckDBTarget(tmp_path)
    load_fortnight(golden_lake, target)
    return target


def load_fortnight(lake, target):
    load_project(Lake(lake), Partition(DATES[-1], "default"), target.url)


def in_duckdb(warehouse):
    return {"WAREHOUSE_DUCKDB": str(warehouse.path)}


def marts_in(path, *queries):
    """Rows of queries to the DuckDB file that dbt has written."""
    target = DuckDBTarget(path.parent)
    target.path = path
    return read(target, *queries)


def sorted_rows(found):
    return sorted(found, key=lambda row: [str(value) for value in row.values()])


def test_build_passes_on_both_warehouses_with_equal_marts(dbt, warehouse, golden_lake, postgres):
    built = dbt.run("build", env=in_duckdb(warehouse))
    assert built.returncode == 0, built.output
    assert built.having("warn") == UNDOCUMENTED
    assert built.having("pass", "success", "no-op", "warn") == built.statuses.keys()
    assert len(built.having("pass")) > 70

    selects = [f"SELECT * FROM dbt.{name}" for name in MARTS]
    marts = dict(zip(MARTS, map(sorted_rows, marts_in(dbt.marts, *selects)), strict=True))
    assert {row["snapshot_date"] for row in marts["image_costs_daily"]} == set(COMPLETE)
    assert {row["snapshot_date"] for row in marts["changes"]} <= set(COMPLETE)
    assert rows(warehouse, f"SELECT id FROM image_costs WHERE snapshot_date = '{INCOMPLETE}'") != []
    views = [f"SELECT * FROM {name} ORDER BY id" for name in ("images_latest", "open_findings")]
    images, findings = read(warehouse, *views)
    assert [
        {name: row[name] for name in image} for image, row in zip(images, marts["images_current"], strict=True)
    ] == images
    assert sorted_rows(findings) == marts["findings_open"]
    assert sum(row["open_findings"] for row in marts["images_current"]) <= len(findings)

    # A mart that says something else than the views does not pass.
    with duckdb.connect(dbt.marts) as connection:
        connection.execute("DELETE FROM dbt.images_current WHERE id = (SELECT MIN(id) FROM dbt.images_current)")
        connection.execute(
            f"UPDATE dbt.image_costs_daily SET growth_bytes = growth_bytes + 1 WHERE snapshot_date = '{COMPLETE[-1]}'"
        )
        connection.execute("UPDATE dbt.changes SET change_class = 'access' WHERE change_class = 'content'")
    differing = dbt.run("test", "--select", *MARTS, env=in_duckdb(warehouse))
    assert differing.having("fail", "error") == {
        "images_current_has_the_rows_of_images_latest",
        "image_costs_daily_add_up_to_daily_costs",
        "changes_are_counted_by_changes_by_class",
    }

    database = PostgresTarget(postgres.new_database())
    load_fortnight(golden_lake, database)
    url = urlsplit(database.url)
    name = url.path.removeprefix("/")
    with psycopg.connect(database.url, autocommit=True) as connection:
        # All that dbt needs: to read what is loaded, and a schema of its own.
        connection.execute(f"CREATE ROLE analyst LOGIN PASSWORD '{PASSWORD}'")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO analyst")
        connection.execute(f"GRANT CREATE ON DATABASE {name} TO analyst")
    env = {"DBT_TARGET": "postgres", "PGHOST": "127.0.0.1", "PGPORT": str(url.port), "PGDATABASE": name}
    again = dbt.run("build", env={**env, "PGUSER": "analyst", "PGPASSWORD": PASSWORD})
    assert again.returncode == 0, again.output
    assert again.statuses == built.statuses
    assert dict(zip(MARTS, map(sorted_rows, read(database, *selects)), strict=True)) == marts
    files = [path for path in dbt.directory.rglob("*") if path.is_file()]
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []


def test_broken_rows_are_named_and_an_incomplete_day_is_left_out(dbt, warehouse):
    last, before = COMPLETE[-1], COMPLETE[-2]
    with duckdb.connect(warehouse.path) as connection:
        # DuckDB has no primary keys that would refuse this.
        connection.execute(f"INSERT INTO images SELECT * FROM images WHERE snapshot_date = '{before}' LIMIT 1")
        connection.execute(
            "UPDATE responses SET outcome = 'vanished' WHERE (snapshot_date, id) IN "
            f"(SELECT snapshot_date, MIN(id) FROM responses WHERE snapshot_date = '{before}' GROUP BY ALL)"
        )
        connection.execute(
            "INSERT INTO image_tags (project, snapshot_date, project_id, id, key) "
            f"VALUES ('default', '{before}', 'p', 'nobody', 'team')"
        )
        connection.execute(f"UPDATE days SET is_complete = FALSE WHERE snapshot_date = '{last}'")
    built = dbt.run("build", env=in_duckdb(warehouse))
    assert built.returncode == 1
    assert built.having("fail", "error") == {
        "images_key_is_unique",
        "responses_outcome_is_known",
        "image_tags_belong_to_images",
    }
    assert "images_key_is_unique" in built.output
    # What rests on them is not built; the rest is, without the day.
    assert "images_current" in built.having("skipped")
    days = [f"SELECT MAX(snapshot_date) AS day FROM dbt.{name}" for name in ("image_costs_daily", "findings_open")]
    assert marts_in(dbt.marts, *days) == [[{"day": before}], [{"day": before}]]


def test_freshness_is_that_of_the_newest_day(dbt, warehouse):
    assert dbt.run("source", "freshness", env=in_duckdb(warehouse)).statuses == {"days": "error"}
    now = dt.datetime.now(dt.UTC)
    with duckdb.connect(warehouse.path) as connection:
        connection.execute("UPDATE days SET published_at = ? WHERE snapshot_date = ?", [now, DATES[-1]])
    fresh = dbt.run("source", "freshness", env=in_duckdb(warehouse))
    assert (fresh.returncode, fresh.statuses) == (0, {"days": "pass"})
