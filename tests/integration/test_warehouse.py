"""The warehouse has the lake's rows, value by value, whole days only; the same tests for DuckDB and PostgreSQL."""

import datetime as dt
import re
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlsplit

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loaded_days import AWKWARD, MB, A, B, C, awkward_images, day_in, image, lake_rows, normalised, publish_images
from warehouse_targets import DuckDBTarget, PostgresTarget, read, rows

from pipelines import tables as columns
from pipelines.derive.days import derive_days
from pipelines.engine.sql_files import VIEWS, View
from pipelines.errors import (
    ConfigurationError,
    EndpointUnreachableError,
    PartitionBusyError,
    PipelineError,
    StorageError,
)
from pipelines.lake import locks
from pipelines.lake.derived_manifests import read_derived_manifest
from pipelines.lake.layout import Lake
from pipelines.query.views import connect_lake
from pipelines.settings import ROOT, Settings
from pipelines.warehouse import loading as warehouse
from pipelines.warehouse.ddl import DAYS, WAREHOUSE_TABLES
from pipelines.warehouse.loading import load_project
from pipelines.warehouse.postgres import binary_rows

PASSWORD = "c0rrect/h0rse@battery"


@pytest.fixture
def lake(made, tmp_path):
    """A copy of that lake, for one test."""
    return Path(shutil.copytree(made, tmp_path / "lake"))


@pytest.fixture
def days(lake):
    """The three days of project `default`."""
    return [day_in(lake, f"2026-11-{number}") for number in (20, 21, 22)]


@pytest.fixture(params=["duckdb", "postgres"])
def target(request, tmp_path):
    if request.param == "duckdb":
        return DuckDBTarget(tmp_path)
    return PostgresTarget(request.getfixturevalue("postgres").new_database())


def load(target, *days, **options):
    return [load_project(day.lake, day.partition, target.url, **options) for day in days][-1]


def assert_same_as_lake(target, *days):
    held = everything(target)
    for name in WAREHOUSE_TABLES.keys() - {DAYS.name}:
        assert held[name] == normalised(lake_rows(name, *days)), name
    keys = sorted((row["project"], row["snapshot_date"]) for row in held[DAYS.name])
    assert keys == sorted((day.partition.project, day.partition.date) for day in days)


def everything(target):
    held = read(target, *(f'SELECT * FROM "{name}"' for name in WAREHOUSE_TABLES))
    return dict(zip(WAREHOUSE_TABLES, map(normalised, held), strict=True))


def test_warehouse_has_the_lake_s_rows(target, days, lake):
    other = day_in(lake, "2026-11-22", "other")
    load(target, *days[:2])
    result = load(target, days[2])
    load(target, other)
    assert result.rows["images"] == len(AWKWARD) + 2
    assert result.rows["inventory"] == len(AWKWARD) + 3
    assert result.rows["image_values"] == 1
    assert result.rows["days"] == 1
    assert set(result.rows) == set(WAREHOUSE_TABLES)
    # Make sure that the comparison compares something.
    assert min(len(rows) for rows in everything(target).values()) > 0
    assert_same_as_lake(target, *days, other)


def test_two_threads_load_the_same_rows(tmp_path, days, monkeypatch):
    monkeypatch.setattr("pipelines.warehouse.duckdb._MANY_ROWS", 1)
    target = DuckDBTarget(tmp_path)
    load(target, *days)
    load(target, days[1])
    assert_same_as_lake(target, *days)


def test_days_table_has_the_manifests_facts(target, days):
    load(target, days[0])
    held = rows(target, "SELECT * FROM days WHERE snapshot_date < DATE '2026-11-22' ORDER BY snapshot_date")
    facts = {
        "inventory_is_whole": True,
        "is_sandbox": True,
        "mode": "full",
        "run_id": "run-1",
        "project": "default",
        "project_id": "p1",
    }
    outcomes = {"deleted": 0, "not_found": 0, "forbidden": 0, "invalid_id": 0}
    assert held == [
        {
            **facts,
            **outcomes,
            "snapshot_date": day.partition.date,
            "is_complete": failed == 0,
            "published_at": dt.datetime.combine(day.partition.date, dt.time(12), dt.UTC),
            "ok": 2,
            "failed": failed,
            "manifest_sha256": day.lake.manifest(day.partition).sha256(),
            "basis": read_derived_manifest(day.lake, day.partition).basis,
        }
        for day, failed in zip(days, (0, 1), strict=False)
    ]


def test_rerun_changes_nothing_and_a_rebuilt_day_is_loaded_with_the_days_after_it(target, days, lake, made_again):
    other = day_in(lake, "2026-11-22", "other")
    load(target, *days, other)
    before = everything(target)
    load(target, days[2], days[0])
    assert everything(target) == before

    days = [replace(day, settings=Settings(lake=str(made_again))) for day in days]
    # Later days' derived tables, and the history, depend on the rebuilt day: those are loaded again.
    result = load(target, days[0])
    assert (result.other_days, result.rows["images"]) == (2, 1)
    assert [row["id"] for row in rows(target, "SELECT id FROM images WHERE snapshot_date = DATE '2026-11-20'")] == [B]
    assert_same_as_lake(target, *days, other)
    assert load(target, days[0]).other_days == 0


def test_text_with_nul_is_kept_or_replaced(target, tmp_path):
    day = day_in(tmp_path / "lake", "2026-11-20")
    publish_images(day, [image(A, name="a\0b", description="\0"), image(B, name="plain")])
    derive_days(day)
    load(target, day)
    shown = {row["id"]: (row["name"], row["description"]) for row in rows(target, "SELECT * FROM images")}
    nul = "\0" if isinstance(target, DuckDBTarget) else "\u2400"
    assert shown == {A: (f"a{nul}b", nul), B: ("plain", None)}


# Loads in a separate process, which stops before it writes the given table.
LOADING = """
import datetime as dt, sys, time
from pipelines.lake.layout import Lake, Partition
from pipelines.warehouse.loading import load_project
from pipelines.warehouse.duckdb import DuckDBWarehouse
from pipelines.warehouse.postgres import PostgresWarehouse

lake, date, project, url, stop_before, seconds = sys.argv[1:]

def stopping(replace):
    def wrapped(self, table, *rest):
        if table.name == stop_before:
            print("stopped", flush=True)
            time.sleep(float(seconds))
        return replace(self, table, *rest)
    return wrapped

for kind in (DuckDBWarehouse, PostgresWarehouse):
    kind.replace = stopping(kind.replace)
load_project(Lake(lake), Partition(dt.date.fromisoformat(date), project), url)
"""


@contextmanager
def loading(target, day, stop_before="days", seconds=120):
    partition = day.partition
    arguments = [str(day.lake.root), str(partition.date), partition.project, target.url, stop_before, str(seconds)]
    process = subprocess.Popen([sys.executable, "-c", LOADING, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "stopped\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_killed_load_leaves_the_old_day_and_blocks_no_other_project(target, days, lake, made_again, monkeypatch):
    other = day_in(lake, "2026-11-22", "other")
    load(target, *days)
    before = everything(target)
    days = [replace(day, settings=Settings(lake=str(made_again))) for day in days]
    with loading(target, days[2]) as process:
        # Everything is written except the row in `days`.
        if isinstance(target, PostgresTarget):
            assert everything(target) == before
            load(target, other, wait_seconds=20)
            before = everything(target)
            with pytest.raises(PartitionBusyError) as caught:
                load(target, days[2], wait_seconds=0.2)
            assert "was in use by another load or a report for more than 0.2 seconds" in str(caught.value)
        else:
            monkeypatch.setattr(locks, "WAIT_SECONDS", 0.0)
            with pytest.raises(PartitionBusyError) as caught:
                load(target, other)
            assert f"The warehouse {target.path} is held by a load (process {process.pid} on " in str(caught.value)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert everything(target) == before
    load(target, *days, other)
    assert_same_as_lake(target, *days, other)


def test_days_and_projects_are_loaded_in_parallel(target, days, lake):
    other = day_in(lake, "2026-11-22", "other")
    if isinstance(target, PostgresTarget):
        # Into an empty database, so that all of them want to create the tables.
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda day: load(target, day), [*days, other]))
    else:
        # One process at a time has the file: the second waits until the first has ended.
        with loading(target, other, stop_before="images", seconds=1) as process:
            load(target, *days)
            assert process.wait() == 0
    assert_same_as_lake(target, *days, other)


def test_new_column_is_added_and_is_null_on_old_days(target, days, monkeypatch):
    full = WAREHOUSE_TABLES["images"]
    monkeypatch.setitem(WAREHOUSE_TABLES, "images", replace(full, columns=full.columns[:-1]))
    load(target, days[0])
    assert "anomalies" not in rows(target, "SELECT * FROM images_latest")[0]
    added = columns.Column("labels", pa.int64(), "api", "It's new.")
    monkeypatch.setitem(WAREHOUSE_TABLES, "images", replace(full, columns=(*full.columns, added)))
    load(target, days[2])
    found = rows(target, "SELECT snapshot_date, anomalies, labels FROM images")
    assert {(row["anomalies"], row["labels"]) for row in found} == {(None, None)}
    assert {row["snapshot_date"].day for row in found} == {20, 21, 22}
    assert list(rows(target, "SELECT * FROM images_latest")[0])[-2:] == ["anomalies", "labels"]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (
            "images (project TEXT, snapshot_date DATE, id TEXT, size INTEGER)",
            "The column size of the table images in the warehouse {} has the type INTEGER instead of BIGINT",
        ),
        (
            "days (number INTEGER)",
            "The warehouse {} has a table days without the key column project",
        ),
    ],
)
def test_unsuitable_table_is_left_alone(target, days, table, reason):
    with target.connect() as connection:
        connection.execute(f"CREATE TABLE {table}")
    name = str(target.path) if isinstance(target, DuckDBTarget) else f"{urlsplit(target.url).path[1:]} on 127.0.0.1"
    with pytest.raises(ConfigurationError) as caught:
        load(target, days[0])
    assert str(caught.value).startswith(f"{reason.format(name)}, so ")
    tables = rows(target, "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()")
    assert tables == [{"table_name": table.split()[0]}]


def refusal(lake, url, kind=ConfigurationError, day="2026-11-20", wait_seconds=1.0):
    with pytest.raises(PipelineError) as caught:
        load_project(Lake(str(lake)), day_in(lake, day).partition, url, wait_seconds)
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert "\n" not in message
    for piece in re.split("[/@]", PASSWORD):
        assert piece not in message
        assert piece not in "".join(traceback.format_exception(caught.value))
    return message


def test_refusal_by_postgresql_is_one_sentence_without_the_password(postgres, days, lake):
    database = postgres.new_database()
    where = urlsplit(database)
    with psycopg.connect(database, autocommit=True) as connection:
        role = f"loader{where.path[6:]}"
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")

    def url(password, port=where.port, path=where.path):
        return f"postgresql://{role}:{password}@127.0.0.1:{port}{path}"

    right = quote(PASSWORD, safe="")
    name = f"{where.path[1:]} on 127.0.0.1"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        message = refusal(lake, url(right, port=closed.getsockname()[1]), EndpointUnreachableError)
        assert message.startswith(f"The warehouse {name} does not answer: ")
        assert message.endswith("Connection refused. Load again when it is up.")
    wrong = refusal(lake, url("wrong"))
    assert wrong.startswith(f"The warehouse {name} refused: ")
    assert wrong.endswith(f'password authentication failed for user "{role}". Check IMAGE_SNAPSHOTS_WAREHOUSE.')
    assert 'database "gone" does not exist' in refusal(lake, url(right, path="/gone"))
    assert refusal(lake, url(right)) == (
        f"The warehouse {name} refused: permission denied for schema public. Its previous content is intact; correct "
        "that and load again."
    )
    assert refusal(lake, url(PASSWORD)).startswith("The URL of the warehouse is malformed")
    assert refusal(lake, url(PASSWORD.replace("/", ""))).startswith("The URL of the warehouse is malformed")
    assert refusal(lake, url(PASSWORD.replace("/", "?"))).startswith("The URL of the warehouse is malformed")

    # A role that cannot change the schema can load if there is nothing to change.
    load(PostgresTarget(database), days[0])
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
    load_project(days[1].lake, days[1].partition, url(right))
    assert_same_as_lake(PostgresTarget(database), *days)


def test_warehouse_that_cannot_be_opened_is_one_sentence(lake, tmp_path):
    damaged = tmp_path / "damaged.duckdb"
    damaged.write_text("no database " * 1000)
    assert refusal(lake, str(damaged)) == (
        f'The warehouse {damaged} cannot be opened: The file "{damaged}" exists, but it is not a valid DuckDB database '
        "file. Correct IMAGE_SNAPSHOTS_WAREHOUSE, or the file's permissions."
    )
    assert refusal(lake, "duckdb:///no/w.duckdb") == (
        f"The warehouse {tmp_path}/no/w.duckdb cannot be opened: there is no directory {tmp_path}/no. Correct "
        "IMAGE_SNAPSHOTS_WAREHOUSE."
    )
    for url in (f"mysql://root:{PASSWORD}@host/db", "mysql", f"root:{PASSWORD}@host"):
        kind = ", 'mysql'" if "://" in url else ""
        assert refusal(lake, url) == (
            f"The setting IMAGE_SNAPSHOTS_WAREHOUSE names a warehouse of an unknown kind{kind}: it must be a path that "
            "ends in .duckdb, duckdb:////path/to/file (four slashes for an absolute path), or "
            "postgresql://user:password@host/database."
        )


def test_only_published_derived_and_unchanged_days_are_loaded(lake, days):
    url = str(lake.parent / "w.duckdb")
    assert refusal(lake, url, day="2026-11-19") == (
        "Nothing is published for 2026-11-19 of project default, so nothing can be loaded into the warehouse. "
        "`image-snapshots status` lists the published days."
    )
    costs = days[1].lake.table("image_costs", days[1].partition)
    costs.write_bytes(days[0].lake.table("image_costs", days[0].partition).read_bytes())
    assert refusal(lake, url, StorageError, day="2026-11-21") == (
        f"{costs} is not the file that the manifest names for 2026-11-21 of project default, so nothing was loaded "
        "into the warehouse: load it again when no run replaces the day; `image-snapshots verify` shows whether a file "
        "was changed."
    )
    days[2].lake.derived_manifest(days[2].partition).unlink()
    assert refusal(lake, url, day="2026-11-22") == (
        "The derived tables of 2026-11-22 of project default are missing, or older than this day or an earlier one, so "
        "nothing was loaded into the warehouse: derive them first with `image-snapshots derive --from 2026-11-22`."
    )
    assert not Path(url).exists()


def test_file_of_a_newer_version_is_one_sentence(lake, days, monkeypatch):
    older = replace(columns.IMAGES, columns=columns.IMAGES.columns[:-1])
    monkeypatch.setitem(columns.TABLES, "images", older)
    path = days[0].lake.table("images", days[0].partition)
    assert refusal(lake, str(lake.parent / "w.duckdb"), StorageError) == (
        f"{path} has a column anomalies (string) that this version of the software does not know, so nothing was "
        "loaded into the warehouse: load it with the version that wrote it, or a newer one."
    )


@pytest.mark.parametrize("damage", ["gone", "no Parquet"])
def test_damaged_history_leaves_the_warehouse_unchanged(target, lake, days, damage):
    load(target, days[0])
    before = everything(target)
    history = lake / "image_history" / "project=default" / "image_history.parquet"
    history.unlink()
    if damage != "gone":
        history.write_text("no parquet")
    assert str(history) in refusal(lake, target.url, StorageError, day="2026-11-22")
    assert everything(target) == before


def test_default_warehouse_is_a_file_in_the_lake(lake, days):
    result = load_project(days[0].lake, days[0].partition, None)
    assert result.warehouse == str(lake / "warehouse.duckdb")
    with duckdb.connect(lake / "warehouse.duckdb", read_only=True) as connection:
        count = connection.execute("SELECT COUNT(*) FROM images WHERE snapshot_date = DATE '2026-11-20'")
        assert count.fetchall() == [(2,)]


def test_batch_size_does_not_change_the_rows(days):
    with days[2].lake.table("images", days[2].partition).open("rb") as file:
        batch = pq.read_table(file).to_batches()[0]
    pieces = [binary_rows(batch.slice(0, 4)), binary_rows(batch.slice(4, 1)), binary_rows(batch.slice(5))]
    assert b"".join(pieces) == binary_rows(batch)
    assert binary_rows(batch.slice(0, 0)) == b""


# Views


def test_views_give_equal_rows_in_every_warehouse(target, days, lake):
    load(target, *days, day_in(lake, "2026-11-22", "other"))

    def view(name, selected, order):
        return [tuple(row.values()) for row in rows(target, f"SELECT {selected} FROM {name} ORDER BY {order}")]

    awkward = [row["id"] for row in awkward_images()]
    assert view("images_latest", "project, id, snapshot_date", "project, id") == [
        *(("default", id_, dt.date(2026, 11, 22)) for id_ in sorted(awkward)),
        *(("other", id_, dt.date(2026, 11, 22)) for id_ in (A, C)),
    ]
    # None of them has the incomplete day of the 21st.
    owners = "project, snapshot_date, owner, cost_center, COUNT(*) AS images"
    by_owner = "images_with_owner GROUP BY project, snapshot_date, owner, cost_center"
    assert view(by_owner, owners, "project, snapshot_date") == [
        ("default", dt.date(2026, 11, 20), "vision", "0042", 2),
        ("default", dt.date(2026, 11, 22), "vision", "0042", 13),
        ("other", dt.date(2026, 11, 22), "vision", "0042", 2),
    ]
    costs = "project, snapshot_date, owner, currency, images, images_without_cost, size_bytes, growth_bytes"
    assert view("daily_costs", costs, "project, snapshot_date") == [
        ("default", dt.date(2026, 11, 20), "vision", "EUR", 2, 0, 2 * MB, None),
        ("default", dt.date(2026, 11, 22), "vision", "EUR", 13, 2, 11 * MB, 11 * MB),
        ("other", dt.date(2026, 11, 22), "vision", "EUR", 2, 0, 2 * MB, None),
    ]
    assert view("changes_by_class", "*", "change") == [
        ("default", dt.date(2026, 11, 22), "lifecycle", "added", 12, 12),
        ("default", dt.date(2026, 11, 22), "lifecycle", "removed", 1, 1),
    ]
    assert view("unused_images", "*", "id") == []
    findings = view("open_findings", "project, snapshot_date, rule, id, name, days_open, why IS NULL", "rule, id")
    assert ("default", dt.date(2026, 11, 22), "not_registered", C, "c", 0, False) in findings
    assert {finding[:2] for finding in findings} == {("default", dt.date(2026, 11, 22))}


def test_view_is_replaced_when_its_file_changes(target, days, monkeypatch):
    load(target, days[0])
    read = warehouse.read_view
    another = View("Another.", "SELECT i.* FROM images AS i WHERE i.id = 'x'")
    monkeypatch.setattr(warehouse, "read_view", lambda name: another if "images_latest" in name else read(name))
    load(target, days[0])
    assert rows(target, "SELECT * FROM images_latest") == []


def test_views_of_one_name_give_equal_rows_in_lake_and_warehouse(target, days, lake):
    load(target, *days, day_in(lake, "2026-11-22", "other"))
    with closing(connect_lake(Lake(str(lake)))) as connection:
        for name in VIEWS:
            there = rows(target, f"SELECT * FROM {name}")
            found = connection.sql(f"SELECT * FROM {name}").to_arrow_table().to_pylist()
            shared = there[0].keys() if there else set()
            # Warehouses leave out the project's id, which is the same for all rows of a project.
            assert all(row.keys() - shared <= {"project_id"} for row in found), name
            here = [{column: row[column] for column in shared} for row in found]
            key = lambda row: [str(row[column]) for column in sorted(row)]  # noqa: E731
            assert sorted(here, key=key) == sorted(there, key=key), name
