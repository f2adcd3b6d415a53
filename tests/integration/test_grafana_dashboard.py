"""The dashboard of deploy/: each of its queries, as Grafana sends it, against a real PostgreSQL warehouse with days."""

import datetime as dt
import json
import re
from calendar import monthrange
from decimal import Decimal

import psycopg
import pytest
from published_days import publish_snapshot
from warehouse_targets import PostgresTarget, rows

from pipelines.derive.days import derive_days
from pipelines.lake.layout import Partition
from pipelines.settings import ROOT, Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.warehouse.loading import load_project

BOARD = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
PANELS = {panel["title"]: panel for panel in BOARD["panels"]}
# Grafana reads the arguments of a macro up to the first closing parenthesis.
MACRO = re.compile(r"\$__timeFilter\(([^)]*)\)")
A, B, C = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abc")
MB = 1024**2
TODAY = dt.datetime.now(dt.UTC).date()
FIRST, SECOND, LAST = (TODAY - dt.timedelta(days=days) for days in (3, 2, 1))


def as_grafana_sends_it(sql, projects, first, last):
    sql = sql.replace("${project:sqlstring}", ",".join(f"'{project}'" for project in projects))
    return MACRO.sub(rf"\1 BETWEEN '{first}T00:00:00Z' AND '{last}T23:59:59.999Z'", sql)


@pytest.fixture(scope="module")
def warehouse(postgres, tmp_path_factory):
    """Two projects. `alpha`: a complete day, one with a change and an incomplete one. `beta`: a complete day."""
    lake = str(tmp_path_factory.mktemp("dashboard") / "lake")
    url = postgres.new_database()
    # Three euros a month for each megabyte.
    prices = tmp_path_factory.mktemp("prices") / "prices.toml"
    prices.write_text('currency = "EUR"\n[[price]]\nvalid_from = 2020-01-01\nper_gb_month = 3072\n')
    settings = Settings(lake=lake, max_failed_ratio=1, price_book=prices)

    def publish(project, date, sizes, failed=(), visibility="PRIVATE"):
        run = SnapshotRun(Partition(date, project), "run-1", settings)
        ids = sorted([*sizes, *failed])
        publish_snapshot(
            run,
            inventory=[{"id": id_, "owner": "vision", "cost_center": "7"} for id_ in ids],
            responses=[{"id": id_, "outcome": "ok", "body": b"{}", "http_status": 200} for id_ in sizes]
            + [{"id": id_, "outcome": "failed", "error_code": "HTTP.500"} for id_ in failed],
            images=[
                {
                    "id": id_,
                    "name": id_[:2],
                    "type": "DEDICATED",
                    "size_bytes": size,
                    "visibility": visibility,
                    "content_hash": f"{size} {visibility}",
                }
                for id_, size in sizes.items()
            ],
        )
        derive_days(run)
        load_project(run.lake, run.partition, url)

    publish("alpha", FIRST, {A: MB})
    publish("alpha", SECOND, {A: 2 * MB, B: MB}, visibility="PUBLIC")
    publish("alpha", LAST, {A: 2 * MB}, failed=[B])
    publish("beta", SECOND, {C: 5 * MB})
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE dashboard LOGIN PASSWORD 'x'")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO dashboard")
        # Grafana's own session: another time zone, and a role that may only read.
        connection.execute("ALTER DATABASE " + url.rpartition("/")[2] + " SET timezone TO 'America/Los_Angeles'")
    yield PostgresTarget(url.replace("postgres@", "dashboard:x@"))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP OWNED BY dashboard; DROP ROLE dashboard")


def shown(warehouse, title, projects=("alpha", "beta"), first=FIRST, last=TODAY):
    (target,) = PANELS[title]["targets"]
    return rows(warehouse, as_grafana_sends_it(target["rawSql"], projects, first, last))


def midnight(date):
    return dt.datetime.combine(date, dt.time(), dt.UTC)


def test_last_complete_day_is_that_of_each_project(warehouse):
    found = shown(warehouse, "Last complete day")
    assert {row["project"]: (row["last_complete_day"], row["days_ago"], row["last_day"]) for row in found} == {
        "alpha": (str(SECOND), 2, str(LAST)),
        "beta": (str(SECOND), 2, str(SECOND)),
    }


def test_missing_and_incomplete_days_are_listed(warehouse):
    found = shown(warehouse, "Missing and incomplete days")
    assert [(row["project"], row["day"], row["state"], row["ids_without_a_response"]) for row in found] == [
        ("alpha", str(TODAY), "missing", None),
        ("beta", str(TODAY), "missing", None),
        ("alpha", str(LAST), "incomplete", 1),
        ("beta", str(LAST), "missing", None),
    ]
    assert len(shown(warehouse, "Missing and incomplete days", ["alpha"], LAST, LAST)) == 1


def test_days_are_shown_at_their_utc_midnight(warehouse):
    assert [(row["time"], row["metric"], row["images"]) for row in shown(warehouse, "Images")] == [
        (midnight(FIRST), "alpha", 1),
        (midnight(SECOND), "alpha", 2),
        (midnight(SECOND), "beta", 1),
        (midnight(LAST), "alpha", 1),
    ]
    assert [row["time"] for row in shown(warehouse, "Images", ["beta"], SECOND, SECOND)] == [midnight(SECOND)]


def test_outcomes_are_summed_over_the_chosen_projects(warehouse):
    found = shown(warehouse, "Ids without an image, by outcome")
    assert [(row["time"], row["failed"], row["forbidden"]) for row in found] == [
        (midnight(FIRST), 0, 0),
        (midnight(SECOND), 0, 0),
        (midnight(LAST), 1, 0),
    ]


def test_changes_are_counted_by_class(warehouse):
    found = {row["metric"]: (row["time"], row["images"]) for row in shown(warehouse, "Changed images, by class")}
    assert found["access"] == (midnight(SECOND), 1)
    assert found["lifecycle"] == (midnight(SECOND), 1)


def test_findings_are_counted_by_severity_and_listed_by_it(warehouse):
    by_day = {(row["time"], row["metric"]): row["findings"] for row in shown(warehouse, "Open findings, by severity")}
    expected = rows(
        warehouse,
        "SELECT snapshot_date, severity, COUNT(*) AS n FROM audit_findings WHERE state <> 'resolved' GROUP BY 1, 2",
    )
    assert by_day == {(midnight(row["snapshot_date"]), row["severity"]): row["n"] for row in expected}
    assert (midnight(SECOND), "high") in by_day
    listed = shown(warehouse, "Open findings of the last complete day", ["alpha"])
    assert listed[0]["severity"] == "high"
    assert {row["project"] for row in listed} == {"alpha"}
    order = ["critical", "high", "medium", "low", "info"]
    assert [row["severity"] for row in listed] == sorted((row["severity"] for row in listed), key=order.index)
    assert all(row["what_to_do"] for row in listed)


def test_bytes_and_costs_are_those_of_complete_days(warehouse):
    assert [(row["time"], row["metric"], row["bytes"]) for row in shown(warehouse, "Bytes of images")] == [
        (midnight(FIRST), "alpha", Decimal(MB)),
        (midnight(SECOND), "alpha", Decimal(3 * MB)),
        (midnight(SECOND), "beta", Decimal(5 * MB)),
    ]
    costs = shown(warehouse, "Estimated cost of a day")
    assert [(row["time"], row["metric"], round(row["cost"], 9)) for row in costs] == [
        (midnight(date), metric, round(3 * megabytes / monthrange(date.year, date.month)[1], 9))
        for date, metric, megabytes in ((FIRST, "alpha EUR", 1), (SECOND, "alpha EUR", 3), (SECOND, "beta EUR", 5))
    ]
    # Nobody looked at who uses these images.
    assert shown(warehouse, "Reclaimable bytes") == []
    owners = shown(warehouse, "Cost by owner on the last complete day")
    assert [(row["project"], row["owner"], row["images"], row["bytes"]) for row in owners] == [
        ("beta", "vision", 1, 5 * MB),
        ("alpha", "vision", 2, 3 * MB),
    ]


def test_choices_of_projects_are_those_of_the_warehouse(warehouse):
    (variable,) = [one for one in BOARD["templating"]["list"] if one["type"] == "query"]
    assert [row["project"] for row in rows(warehouse, variable["query"])] == ["alpha", "beta"]


def test_every_panel_has_a_tested_query_and_its_place():
    taken = set()
    for panel in BOARD["panels"]:
        (target,) = panel["targets"]
        assert panel["datasource"] == target["datasource"]
        assert target["format"] == ("table" if panel["type"] == "table" else "time_series")
        # No macro or variable is left that this test does not replace.
        assert "$" not in as_grafana_sends_it(target["rawSql"], ["a"], TODAY, TODAY)
        place = panel["gridPos"]
        columns, lines = (range(place[at], place[at] + place[size]) for at, size in (("x", "w"), ("y", "h")))
        cells = {(x, y) for x in columns for y in lines}
        assert not cells & taken
        taken |= cells
        assert place["x"] + place["w"] <= 24
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(PANELS) == len(BOARD["panels"])
    source = (ROOT / "tests" / "integration" / "test_grafana_dashboard.py").read_text()
    assert [title for title in PANELS if f'"{title}"' not in source] == []
