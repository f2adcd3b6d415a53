"""The Iceberg catalog has the lake's rows, value by value, whole days only; earlier snapshots have what was known."""

import datetime as dt
import hashlib
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from loaded_days import A, B, day_in, image, lake_rows, normalised, publish_images
from pyiceberg.catalog import load_catalog
from pyiceberg.expressions.visitors import _ManifestEvalVisitor
from pyiceberg.types import LongType, StringType
from pyiceberg.utils.concurrent import ExecutorFactory
from rest_catalog import TOKEN, RestCatalogServer

from pipelines.catalog import loading
from pipelines.catalog.loading import load_catalog_project
from pipelines.derive.days import derive_days
from pipelines.errors import ConfigurationError, EndpointUnreachableError, PipelineError
from pipelines.lake.derived_manifests import bases
from pipelines.lake.retention_records import Rules
from pipelines.maintenance.retention import apply_retention
from pipelines.settings import ROOT, Settings
from pipelines.warehouse.ddl import DAYS, WAREHOUSE_TABLES

CATALOG = Path("catalog")
OF_A_DAY = WAREHOUSE_TABLES.keys() - {DAYS.name, "image_history"}


@pytest.fixture
def lake(made, tmp_path):
    """A copy of the lake of few days, for one test."""
    return Path(shutil.copytree(made, tmp_path / "lake"))


@pytest.fixture
def days(lake):
    """The three days of project `default`."""
    return [day_in(lake, f"2026-11-{number}") for number in (20, 21, 22)]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A lake of one day of two images."""
    day = day_in(tmp_path_factory.mktemp("small") / "lake", "2026-11-20")
    publish_images(day, [image(A, name="a"), image(B, name="b", size_bytes=5)])
    derive_days(day)
    return Path(str(day.lake.root))


@pytest.fixture
def one_day(small, tmp_path):
    """A day that is cheap to load, in a copy of that lake."""
    return day_in(shutil.copytree(small, tmp_path / "small"), "2026-11-20")


@pytest.fixture
def rest(tmp_path, monkeypatch):
    """A running REST catalog, and PyIceberg's configuration for it, named `served`."""
    server = RestCatalogServer(tmp_path / "served")
    monkeypatch.setenv("PYICEBERG_CATALOG__SERVED__URI", server.uri)
    monkeypatch.setenv("PYICEBERG_CATALOG__SERVED__TOKEN", TOKEN)
    with server.running():
        yield server


def read_catalog(directory=CATALOG):
    """The catalog in a directory, as a reader opens it."""
    place = directory.absolute()
    return load_catalog("image_snapshots", uri=f"sqlite:///{place}/catalog.db", warehouse=f"file://{place}")


def load(*days, setting="./catalog"):
    return [load_catalog_project(day.lake, day.partition, setting) for day in days][-1]


def everything(directory=CATALOG):
    with read_catalog(directory) as catalog:
        tables = {name: catalog.load_table(f"image_snapshots.{name}") for name in WAREHOUSE_TABLES}
        return {name: normalised(table.scan().to_arrow().to_pylist()) for name, table in tables.items()}


def snapshots(name, directory=CATALOG):
    with read_catalog(directory) as catalog:
        return catalog.load_table(f"image_snapshots.{name}").snapshots()


def files_of(lake):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(lake.rglob("*")) if path.is_file()}


def evidence_of(lake):
    return {path: digest for path, digest in files_of(lake).items() if "_locks" not in path.parts}


def assert_same_as_lake(held, *days):
    for name in WAREHOUSE_TABLES.keys() - {DAYS.name}:
        assert held[name] == normalised(lake_rows(name, *days)), name
    keys = sorted((row["project"], row["snapshot_date"]) for row in held[DAYS.name])
    assert keys == sorted((day.partition.project, day.partition.date) for day in days)


def sentence(kind, call):
    with pytest.raises(kind) as raised:
        call()
    return str(raised.value)


def threads_that_look(monkeypatch):
    """The threads that decide which manifests may have files to replace, from now on."""
    threads, evaluate = set(), _ManifestEvalVisitor.eval

    def evaluated(visitor, manifest):
        threads.add(threading.current_thread())
        return evaluate(visitor, manifest)

    monkeypatch.setattr(ExecutorFactory, "_instance", None)
    monkeypatch.setattr(_ManifestEvalVisitor, "eval", evaluated)
    return threads


def test_catalog_has_the_lake_s_rows_and_a_rebuilt_day_is_a_new_snapshot(days, lake, made_again, tmp_path, monkeypatch):
    # Polars would warn that it lacks its own, quicker planner.
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")
    other = day_in(lake, "2026-11-22", "other")
    evidence = evidence_of(lake)
    looking = threads_that_look(monkeypatch)
    first = load(days[2])
    # Several would overlook files that are to be replaced: PyIceberg's evaluator keeps in itself what it looks at.
    assert len(looking - {threading.main_thread()}) == 1
    assert (first.catalog, first.other_days) == ("./catalog", 2)
    assert first.commits == 3 * (len(OF_A_DAY) + 1) + 1
    assert set(first.rows) == set(WAREHOUSE_TABLES)
    load(other)
    before = everything()
    assert min(len(rows) for rows in before.values()) > 0
    assert_same_as_lake(before, *days, other)
    assert evidence_of(lake) == evidence

    # Each snapshot names the manifest that its rows are from, the run, and whether the day is complete.
    facts = [snapshot.summary.additional_properties for snapshot in snapshots("images")]
    assert [
        {name.removeprefix("image-snapshots."): value for name, value in fact.items() if "image-snapshots." in name}
        for fact in facts
    ] == [
        {
            "project": day.partition.project,
            "snapshot-date": str(day.partition.date),
            "manifest-sha256": day.lake.manifest(day.partition).sha256(),
            "basis": next(
                row["basis"]
                for row in before["days"]
                if (row["project"], row["snapshot_date"]) == (day.partition.project, day.partition.date)
            ),
            "run-id": "run-1",
            "is-complete": str(day is not days[1]).lower(),
            "source-sha256": hashlib.sha256(day.lake.table("images", day.partition).read_bytes()).hexdigest(),
        }
        for day in (*days, other)
    ]
    # A load without anything new commits nothing.
    assert (load(days[2]).commits, load(days[0]).commits) == (0, 0)
    _assert_read_back_by_others(tmp_path / "catalog", before)

    settings = Settings(lake=str(shutil.copytree(made_again, tmp_path / "again")))
    again = [replace(day, settings=settings) for day in days]
    assert load(again[0]).other_days == 2
    after = everything()
    assert_same_as_lake(after, *again, replace(other, settings=settings))
    assert [row["id"] for row in after["images"] if str(row["snapshot_date"]) == "2026-11-20"] == [B]
    # Time travel finds what was known before: at the last snapshot that is not of the rebuilt manifests.
    manifests = {row["manifest_sha256"] for row in before["days"]}
    with read_catalog() as catalog:
        for name in WAREHOUSE_TABLES:
            table = catalog.load_table(f"image_snapshots.{name}")
            known = [
                snapshot for snapshot in table.snapshots() if snapshot.timestamp_ms <= snapshots("days")[3].timestamp_ms
            ]
            assert known[-1].summary.additional_properties["image-snapshots.manifest-sha256"] in manifests
            travelled = table.scan(snapshot_id=known[-1].snapshot_id).to_arrow().to_pylist()
            assert normalised(travelled) == before[name], name


def _assert_read_back_by_others(directory, expected):
    """Polars reads the table itself, DuckDB its Arrow rows."""
    with read_catalog(directory) as catalog:
        for name in WAREHOUSE_TABLES:
            table = catalog.load_table(f"image_snapshots.{name}")
            assert normalised(pl.scan_iceberg(table).collect().to_dicts()) == expected[name], name
            arrow = table.scan().to_arrow()
            with duckdb.connect() as connection:
                connection.register("rows", arrow)
                found = connection.sql("SELECT * FROM rows").to_arrow_table()
            assert normalised(found.to_pylist()) == expected[name], name


def test_columns_have_types_descriptions_and_keys_and_partitions_are_days_of_projects(one_day):
    load(one_day)
    with read_catalog() as catalog:
        for name, table in WAREHOUSE_TABLES.items():
            held = catalog.load_table(f"image_snapshots.{name}")
            schema = held.schema()
            assert [(f.name, f.doc, f.required) for f in schema.fields] == [
                (column.name, column.meaning, column.required) for column in table.columns
            ]
            assert {schema.find_column_name(id_) for id_ in schema.identifier_field_ids} == set(table.key)
            assert held.properties["comment"] == table.meaning
            by_day = [] if name in ("days", "image_history") else ["snapshot_date"]
            assert [field.name for field in held.spec().fields] == [*by_day, "project"]
        types = {
            field.name: str(field.field_type)
            for field in catalog.load_table("image_snapshots.image_bills").schema().fields
        }
        assert (types["billed_cost"], types["charge_date"]) == ("decimal(28, 12)", "date")
        images = {
            field.name: str(field.field_type) for field in catalog.load_table("image_snapshots.images").schema().fields
        }
        assert (images["create_at"], images["size_bytes"], images["supports_gpu"]) == ("timestamptz", "long", "boolean")


def test_column_of_a_later_version_is_added_and_an_own_one_is_left_alone(one_day):
    load(one_day)
    with read_catalog() as catalog:
        table = catalog.load_table("image_snapshots.images")
        with table.update_schema() as update:
            # As an earlier version made it; and the user's own.
            update.delete_column("size_bytes").add_column("checked_by", StringType())
        shape = [field.name for field in table.schema().fields]
    publish_images(one_day, [image(A, name="a", size_bytes=7)])
    derive_days(one_day)
    load(one_day)
    with read_catalog() as catalog:
        table = catalog.load_table("image_snapshots.images")
        assert [field.name for field in table.schema().fields] == [*shape, "size_bytes"]
        (row,) = table.scan(selected_fields=("id", "size_bytes", "checked_by")).to_arrow().to_pylist()
        # A new id: values of the column that was there before are not taken for it.
        assert row == {"id": A, "size_bytes": 7, "checked_by": None}
        (earlier,) = table.snapshots()[:1]
        assert table.scan(snapshot_id=earlier.snapshot_id).to_arrow().num_rows == 2


def test_table_of_another_shape_is_refused_before_anything_is_written(one_day):
    load(one_day)
    with read_catalog() as catalog:
        catalog.drop_table("image_snapshots.audit_rules")
        table = catalog.load_table("image_snapshots.images")
        with table.update_schema(allow_incompatible_changes=True) as update:
            update.delete_column("name")
        with table.update_schema() as update:
            update.add_column("name", LongType())
    assert sentence(ConfigurationError, lambda: load(one_day)) == (
        "The column name of the table images in the catalog ./catalog has the type long instead of string, so nothing "
        "was loaded: rename the table and load its days again."
    )
    with read_catalog() as catalog:
        catalog.drop_table("image_snapshots.images")
        catalog.create_table("image_snapshots.images", pa.schema([("id", pa.string())]))
    assert "has a table images without the key column project, so another program made it" in sentence(
        ConfigurationError, lambda: load(one_day)
    )


def test_maintenance_of_the_catalog_and_retention_of_the_lake_touch_only_their_own(days, lake):
    load(days[2])
    kept, evidence = everything(), evidence_of(lake)
    with read_catalog() as catalog:
        table = catalog.load_table("image_snapshots.images")
        old = [snapshot.snapshot_id for snapshot in table.snapshots()[:-1]]
        table.maintenance.expire_snapshots().by_ids(old).commit()
        table = catalog.load_table("image_snapshots.images")
        assert len(table.snapshots()) == 1
        assert normalised(table.scan().to_arrow().to_pylist()) == kept["images"]
    assert evidence_of(lake) == evidence
    # Retention removes files of a day in the lake; its rows stay in the catalog, also with later loads.
    noon = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
    apply_retention(days[0].lake, "default", Rules(snapshots_days=1, responses_days=1), noon)
    assert not days[0].lake.table("responses", days[0].partition).is_there()
    load(days[2])
    assert everything() == kept
    # Whoever drops tables with all their files leaves the lake as it is.
    evidence = evidence_of(lake)
    with read_catalog() as catalog, warnings.catch_warnings(action="ignore"):
        for name in WAREHOUSE_TABLES:
            catalog.purge_table(f"image_snapshots.{name}")
    assert list(CATALOG.rglob("*.parquet")) == []
    assert evidence_of(lake) == evidence


def test_large_day_is_written_in_several_files_of_one_snapshot(one_day, monkeypatch):
    monkeypatch.setattr(loading, "FILE_BYTES", 1)
    monkeypatch.setattr("pipelines.warehouse.interface._BATCH_ROWS", 1)
    load(one_day)
    assert (
        len(list(CATALOG.glob("image_snapshots/images/data/snapshot_date=2026-11-20/project=default/*.parquet"))) == 2
    )
    (snapshot,) = snapshots("images")
    assert snapshot.summary["added-records"] == "2"
    assert_same_as_lake(everything(), one_day)


# Kills itself at a commit: before it, when the new files are written; or at once after it.
KILLED = """
import datetime as dt, os, signal, sys
from pyiceberg.catalog.sql import SqlCatalog
from pipelines.catalog.loading import load_catalog_project
from pipelines.lake.layout import Lake, Partition

lake, date = sys.argv[1:3]
commit = SqlCatalog.commit_table
left = 0

def killed(self, table, *rest):
    global left
    left -= 0.5
    if left < 0.5:
        os.kill(os.getpid(), signal.SIGKILL)
    done = commit(self, table, *rest)
    left -= 0.5
    if left < 0.5:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

SqlCatalog.commit_table = killed
# One process imports everything; each child of it is killed elsewhere.
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        left = float(line)
        load_catalog_project(Lake(lake), Partition(dt.date.fromisoformat(date), "default"), "./catalog")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(-status if os.WIFSIGNALED(status) else status, flush=True)
"""


@pytest.mark.slow
def test_load_killed_at_any_instant_leaves_whole_days_and_the_next_completes_it(days, made_again, tmp_path):
    load(days[2])
    before = everything()
    lake = shutil.copytree(made_again, tmp_path / "again")
    again = [replace(day, settings=Settings(lake=str(lake))) for day in days]
    shutil.copytree(CATALOG, tmp_path / "whole" / "catalog")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(lake), "2026-11-22"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    expected = None
    try:
        # Points of one load after the other, each going on where the one before was killed.
        for point in (1, 1.5, 2, 3.5, 9, 11.5, 14, 30):
            process.stdin.write(f"{point}\n")
            process.stdin.flush()
            outcome = int(process.stdout.readline())
            assert outcome in (0, -signal.SIGKILL)
            held = everything()
            for name in OF_A_DAY:
                for day in again:
                    of_day = [row for row in held[name] if row["snapshot_date"] == day.partition.date]
                    old = [row for row in before[name] if row["snapshot_date"] == day.partition.date]
                    new = [row for row in normalised(lake_rows(name, day)) if row["project"] == "default"]
                    assert of_day in (old, new), (point, name)
                    # A day that `days` has with its new basis is whole.
                    listed = {row["snapshot_date"]: row["basis"] for row in held["days"]}
                    if listed[day.partition.date] == bases(day.lake, "default")[day.partition]:
                        assert of_day == new, (point, name)
            expected = outcome
        assert expected == 0 or load(again[2]).commits > 0
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()
    load(again[2])
    assert_same_as_lake(everything(), *again)
    assert load(again[2]).commits == 0


def test_rest_catalog_is_loaded_and_a_fault_of_it_is_made_up_for(one_day, rest):
    commits = []

    def fails_once(method, path):
        if method == "POST" and path.endswith("/tables/images"):
            commits.append(path)
            return 503 if len(commits) == 1 else None
        return None

    rest.fault = fails_once
    assert sentence(EndpointUnreachableError, lambda: load(one_day, setting="served.tables")) == (
        "The catalog served.tables does not answer: Refused: broken on purpose. Load again when it is up."
    )
    result = load(one_day, setting="served.tables")
    assert result.catalog == "served.tables"
    # The tables before that one were committed the first time.
    assert 0 < result.commits < len(WAREHOUSE_TABLES)
    with load_catalog("served", uri=rest.uri, token=TOKEN) as catalog:
        for name in WAREHOUSE_TABLES.keys() - {"days"}:
            rows = catalog.load_table(f"tables.{name}").scan().to_arrow().to_pylist()
            assert normalised(rows) == normalised(lake_rows(name, one_day)), name


def test_wrong_token_and_stopped_server_are_one_sentence_without_the_token(one_day, rest, monkeypatch):
    monkeypatch.setenv("PYICEBERG_CATALOG__SERVED__TOKEN", "wrong-token-0815")
    # The server's own message quotes what it got.
    assert sentence(ConfigurationError, lambda: load(one_day, setting="served")) == (
        "The catalog served.image_snapshots refused: Refused: who is Bearer ***. Check IMAGE_SNAPSHOTS_CATALOG and "
        "PyIceberg's configuration."
    )
    monkeypatch.setenv("PYICEBERG_CATALOG__SERVED__URI", "http://127.0.0.1:9")
    assert sentence(EndpointUnreachableError, lambda: load(one_day, setting="served")) == (
        "The catalog served.image_snapshots does not answer: Connection refused. Load again when it is up."
    )


def test_catalog_in_postgresql_with_files_in_a_bucket_has_the_rows_and_no_secret(one_day, s3, postgres, monkeypatch):
    bucket = s3.make_bucket("iceberg-bucket")
    options = {
        "uri": postgres.new_database(),
        "warehouse": f"{bucket}/warehouse",
        "s3.endpoint": s3.endpoint,
        "s3.access-key-id": s3.env["AWS_ACCESS_KEY_ID"],
        "s3.secret-access-key": s3.env["AWS_SECRET_ACCESS_KEY"],
        "s3.region": s3.env["AWS_REGION"],
    }
    for name, value in options.items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__BUCKET__{name.upper().replace('.', '__').replace('-', '_')}", value)
    load(one_day, setting="bucket")
    with load_catalog("bucket", **options) as catalog:
        table = catalog.load_table("image_snapshots.images")
        assert table.location() == "s3://iceberg-bucket/warehouse/image_snapshots/images"
        assert normalised(table.scan().to_arrow().to_pylist()) == normalised(lake_rows("images", one_day))
        assert s3.env["AWS_SECRET_ACCESS_KEY"] not in table.metadata.model_dump_json()
    monkeypatch.setenv("PYICEBERG_CATALOG__BUCKET__S3__ENDPOINT", "http://127.0.0.1:9")
    said = sentence(PipelineError, lambda: load(one_day, setting="bucket"))
    assert said.startswith("A file of the catalog bucket.image_snapshots cannot be written or read: ")
    assert s3.env["AWS_SECRET_ACCESS_KEY"] not in said


def test_days_of_a_cloud_and_of_the_sandbox_are_not_mixed(one_day, tmp_path):
    load(one_day)
    before = everything()
    cloud = day_in(tmp_path / "cloud", "2026-11-21", "real")
    publish_images(cloud, [image(A)])
    manifest = Path(str(cloud.lake.manifest(cloud.partition)))
    manifest.write_text(manifest.read_text().replace('"is_sandbox": true', '"is_sandbox": false'))
    derive_days(cloud)
    assert "holds days of the sandbox, but 2026-11-21 of real is from a cloud" in sentence(
        ConfigurationError, lambda: load(cloud)
    )
    assert everything() == before


@pytest.mark.slow
def test_commands_load_the_catalog_beside_the_warehouse_and_say_what_failed(one_day, image_snapshots, tmp_path):
    env = {"IMAGE_SNAPSHOTS_LAKE": str(one_day.lake.root), "IMAGE_SNAPSHOTS_CATALOG": "served"}
    env |= {"PYICEBERG_CATALOG__SERVED__URI": "http://127.0.0.1:9", "PYICEBERG_CATALOG__SERVED__TOKEN": TOKEN}
    failed = image_snapshots("load", "--from", "2026-11-20", env=env, keeps_runs=True)
    assert failed.returncode == 3
    assert (
        "Error: 2026-11-20 of project default is published, but it was not loaded into the catalog: The catalog "
        "served.image_snapshots does not answer: Connection refused. Load again when it is up.\n" in failed.stderr
    )
    assert "loading the warehouse" in failed.stderr
    with duckdb.connect(tmp_path / "small" / "warehouse.duckdb", read_only=True) as warehouse:
        assert warehouse.execute("SELECT COUNT(*) FROM images").fetchone() == (2,)
    loaded = image_snapshots(
        "load", "--from", "2026-11-20", env=env | {"IMAGE_SNAPSHOTS_CATALOG": "./catalog"}, keeps_runs=True
    )
    assert loaded.returncode == 0, loaded.stderr
    assert_same_as_lake(everything(), one_day)
    # Dagster's record of the runs, and all else that was written here, has no token.
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 100
    assert not any(TOKEN.encode() in path.read_bytes() for path in written)
