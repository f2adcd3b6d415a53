"""Spark compared with DuckDB: the same statements give the same rows, and rules have the same limits."""

import datetime as dt
import os
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from audited_days import SPINS, write_rule
from published_days import day_of, publish_snapshot, registry_and_bill
from pyspark import SparkContext

from pipelines.derive import audit, bills, storage
from pipelines.derive.days import derive_days
from pipelines.engine.duckdb import DuckDBEngine
from pipelines.engine.opening import open_engine
from pipelines.engine.spark import SparkEngine, _uri
from pipelines.engine.sql_files import read_sql
from pipelines.errors import ConfigurationError, PipelineError
from pipelines.lake.derived_manifests import read_derived_manifest
from pipelines.lake.local_storage import LocalPath
from pipelines.settings import ROOT, Settings
from pipelines.tables import (
    ANALYSIS_TABLES,
    AUDIT_FINDINGS,
    IMAGE_COSTS,
    IMAGE_HISTORY,
    IMAGE_STORAGE,
    IMAGE_USAGE,
    IMAGES,
    TABLES,
    USAGE_SOURCES,
)

UTC = dt.UTC
ROWS = pa.table(
    {
        "id": ["b", "a", None, "Ä", "\U0001f433"],
        "n": pa.array([3, None, 1, -7, 2], pa.int64()),
        "x": [0.1, 1e300, None, float("nan"), 2.5],
        "flag": [True, None, False, True, None],
        "day": pa.array([dt.date(2026, 2, 28), None, *[dt.date(2024, 2, 29)] * 3], pa.date32()),
        "moment": pa.array(
            [
                dt.datetime(2026, 2, 27, 23, 59, 59, 999999, UTC),
                None,
                *[dt.datetime(2024, 2, 29, 0, 0, 1, tzinfo=UTC)] * 3,
            ],
            pa.timestamp("us", "UTC"),
        ),
        "text": ["\u00a0 x\u3000", 'it\'s a \\ "b"\n\t\x01', "", "\t", "é"],
    }
)

# Cases in which the engines differ, or sqlglot would let them.
STATEMENTS = {
    "nulls_last": "SELECT id, n FROM rows ORDER BY n, id",
    "nulls_last_downwards": "SELECT id, n FROM rows ORDER BY n DESC, id DESC",
    "text_by_bytes": "SELECT id, id < 'b' AS is_less, MIN(text) OVER () AS first FROM rows ORDER BY id",
    "case_of_names": "SELECT ID AS id, Rows.N AS n FROM ROWS ORDER BY 1",
    "division": "SELECT n / 2 AS quotient, n // 2 AS whole, n % 2 AS rest FROM rows ORDER BY n",
    "filter": "SELECT COUNT(*) FILTER (WHERE flag) AS t, COUNT(*) FILTER (WHERE NOT flag) AS f, COUNT(flag) AS n"
    " FROM rows",
    "trim": "SELECT TRIM(text) AS t, TRIM(COALESCE(text, '')) = '' AS is_empty FROM rows ORDER BY n",
    "days": "SELECT DATE_DIFF('day', moment, TIMESTAMPTZ '2026-03-01 00:00:00+00') AS d,"
    " DATE_DIFF('day', CAST(moment AS DATE), day) AS e, DAY(LAST_DAY(day)) AS f FROM rows ORDER BY n",
    "times": "SELECT STRFTIME(moment, '%Y-%m-%dT%H:%M:%S.%fZ') AS iso, STRFTIME(moment, 'Day %d''s %y%%') AS t"
    " FROM rows ORDER BY n",
    "literals": "SELECT 'it''s' AS a, 'a\\nb' AS b, DATE '2026-02-23' AS c, \"id\" AS \"The Id\" FROM rows ORDER BY n",
    "distinct_on": "SELECT * FROM (SELECT DISTINCT ON (day) * FROM rows ORDER BY day, n) AS one ORDER BY id",
    "qualify": "SELECT rows.* FROM rows QUALIFY ROW_NUMBER() OVER (PARTITION BY day ORDER BY n DESC) = 1 ORDER BY n",
    "distinct_from": "SELECT a.n FROM rows AS a JOIN rows AS b ON a.n IS NOT DISTINCT FROM b.n"
    " WHERE a.id IS DISTINCT FROM 'a' ORDER BY 1",
    "values": "SELECT field, class FROM (VALUES ('a', 1), ('b', NULL)) AS listed (field, class) ORDER BY field",
    "hash": "SELECT SUBSTRING(SHA256(CONCAT('p', '/', id)), 1, 32) AS h FROM rows WHERE id IS NOT NULL ORDER BY id",
    "upper": "SELECT UPPER(id) AS u, LOWER('ABC') AS l, UPPER(COALESCE(text, '')) <> 'É' AS is_other"
    " FROM rows ORDER BY n",
    "numbers_as_text": "SELECT CAST(n AS VARCHAR) AS n, CAST(day AS VARCHAR) AS d FROM rows ORDER BY rows.n",
    "exists": "SELECT id FROM rows WHERE EXISTS (SELECT 1 FROM rows WHERE n > 2) OR flag ORDER BY id",
    "grouped_by_alias": "SELECT n IS NULL AS is_null, COUNT(*) AS c FROM rows GROUP BY is_null ORDER BY is_null",
}


@pytest.fixture
def engines(spark_master):
    with DuckDBEngine() as duckdb, SparkEngine(spark_master) as spark:
        for engine in (duckdb, spark):
            engine.load("rows", ROWS)
        yield duckdb, spark


def test_statements_give_the_same_rows_on_both_engines(engines):
    duckdb, spark = engines
    tables = {name: (duckdb.read(sql), spark.read(sql)) for name, sql in STATEMENTS.items()}
    # As text, where NaN is what it is.
    differing = {
        name: (str(expected.to_pylist()), str(found.to_pylist()))
        for name, (expected, found) in tables.items()
        if str(expected.to_pylist()) != str(found.to_pylist())
    }
    assert differing == {}


def test_rows_arrive_in_order_and_in_parts(engines, monkeypatch):
    """More rows than are sent or fetched at a time, and a relation with more additions than parts."""
    _, spark = engines
    monkeypatch.setattr("pipelines.engine.spark._BATCH_ROWS", 1000)
    schema = pa.schema([pa.field("id", pa.int32(), nullable=False)])
    batches = [
        pa.record_batch([pa.array(range(first, first + 700), pa.int32())], schema) for first in range(0, 3500, 700)
    ]
    spark.load("numbers", pa.RecordBatchReader.from_batches(schema, batches))
    spark._session.conf.set("spark.sql.shuffle.partitions", "4")
    spark._session.conf.set("spark.sql.adaptive.enabled", "false")
    fetched = list(spark.stream("SELECT id FROM numbers ORDER BY id DESC", schema))
    assert [number for batch in fetched for number in batch["id"].to_pylist()] == list(range(3499, -1, -1))
    assert len(fetched) > 1
    for number in range(18):
        spark.append("numbers", f"SELECT CAST({10_007 + 10_000 * number} AS INTEGER) AS id")
    (counted,) = spark.read("SELECT COUNT(*) AS n, MAX(id) AS last FROM numbers").to_pylist()
    assert counted == {"n": 3518, "last": 180_007}


# --- the files under sql/ -------------------------------------------------------------------------------------------

DATE, TEXT = pa.date32(), pa.string()
PARAMETERS = {"snapshot_date": DATE, "project": TEXT, "project_id": TEXT, "is_complete": pa.bool_()} | {
    "compared_with": DATE,
    "list_was_read": pa.bool_(),
    "usage_is_observed": pa.bool_(),
    "usage_kinds": TEXT,
    "workspaces": pa.int64(),
    "inventory_is_whole": pa.bool_(),
    "registry_was_wanted": pa.bool_(),
    "images_are_whole": pa.bool_(),
    "traces_are_whole": pa.bool_(),
    "traces_from": pa.timestamp("us", "UTC"),
    "traces_until": pa.timestamp("us", "UTC"),
}
LISTED = dict.fromkeys(("id", "name", "namespace", "swr_path", "type", "visibility"), TEXT) | {"size_bytes": pa.int64()}
ADDRESSES = dict.fromkeys(("id", "namespace", "repository", "tag"), TEXT)
# Files that make a relation for other files, in the order in which they need each other.
RELATIONS = (
    *("image_owners", "current_images", "layer_tags", "numbered_layers", "manifests"),
    *("shared_layers", "manifest_storage", "tag_storage"),
    *("unused_sets", "sets", "stored_tags", "set_members", "set_tags", "set_layers", "freed_bytes"),
)
SCHEMAS = {
    **{name: table.schema for name, table in (TABLES | ANALYSIS_TABLES).items()},
    "parameters": PARAMETERS,
    "day": {"snapshot_date": DATE, "project_id": TEXT, "inventory_is_whole": pa.bool_()},
    "day_responses": {"id": TEXT, "outcome": TEXT},
    "day_images": IMAGES.schema,
    "versions": IMAGE_HISTORY.schema,
    "listed_ids": {"id": TEXT, "position": pa.int64()},
    "unregistered_rows": LISTED | {"position": pa.int64()},
    "previous_usage": IMAGE_USAGE.schema,
    "later_usage": IMAGE_USAGE.schema,
    "observed_dates": {"snapshot_date": DATE},
    "usage_parameters": dict.fromkeys(("was_read", "has_previous_usage"), pa.bool_())
    | {f"{name}_were_read": pa.bool_() for name in USAGE_SOURCES}
    | {"looked_at": pa.timestamp("us", "UTC")},
    "referenced_images": dict.fromkeys(("id", "matched_by", "kind", "resource_id", "strength"), TEXT)
    | {"position": pa.int32(), "last_active_at": pa.timestamp("us", "UTC")},
    "tag_keys": dict.fromkeys(("field", "key"), TEXT),
    "past_tags": dict.fromkeys(("id", "key", "value"), TEXT),
    "unmatched_images": dict.fromkeys(("kind", "outcome", "owner", "cost_center", "environment"), TEXT) | LISTED,
    "previous_costs": IMAGE_COSTS.schema,
    "previous_findings": AUDIT_FINDINGS.schema,
    "findings": AUDIT_FINDINGS.schema,
    "prices": {"registry": TEXT, "namespace": TEXT, "type": TEXT, "valid_from": DATE}
    | {"per_gb_month": pa.float64(), "currency": TEXT},
    "cost_parameters": {"has_previous_costs": pa.bool_(), "unused_after_days": pa.int64()},
    "newest_bill": bills._BILL,
    "known_addresses": dict.fromkeys(("id", "swr_path", "swr_instance_id"), TEXT),
    "image_addresses": ADDRESSES,
    "listed_addresses": ADDRESSES,
    "tag_images": dict.fromkeys(("namespace", "repository", "tag"), TEXT) | {"images": pa.int64()},
    "previous_storage": IMAGE_STORAGE.schema,
    "registry_namespaces": storage._NAMESPACES,
    "unread_repositories": storage._UNREAD,
    "found": audit._FOUND,
    "rules": audit._RULES,
    "suppressions": audit._SUPPRESSIONS,
}
FILES = [path.relative_to(ROOT / "sql").as_posix() for path in (ROOT / "sql" / "derive").glob("*.sql")]
FILES += ["cost/image_costs.sql", "cost/unused.sql"]


def test_spark_runs_every_sql_file(spark_master):
    """Each result has the columns of the table of that name."""
    with SparkEngine(spark_master) as spark:
        for name, schema in SCHEMAS.items():
            spark.load(name, (schema if isinstance(schema, pa.Schema) else pa.schema(schema)).empty_table())
        for name in RELATIONS:
            spark.create_view(name, read_sql(f"derive/{name}.sql"))
        for file in sorted(FILES):
            sql, name = read_sql(file), Path(file).stem
            spark.create_view("made", sql)
            if name in ANALYSIS_TABLES:
                assert spark._session.table("made").columns == ANALYSIS_TABLES[name].schema.names
    assert len(FILES) > 9


def test_day_derived_by_spark_equals_the_day_derived_by_duckdb(spark_master, tmp_path):
    """The second of two days of few rows, with a rule that never ends; a slow test compares days of a fortnight."""
    write_rule(tmp_path / "rules", "spins", SPINS)
    settings = Settings(lake="lake", audit_rules=tmp_path / "rules", audit_rule_seconds=1)
    image = {"type": "DEDICATED", "status": "ACTIVE", "visibility": "PRIVATE", "size_bytes": 1024**3, "name": "a"}
    days = [day_of("2026-02-26"), day_of("2026-02-27")]
    for day, visibility, ids in zip(days, ("PRIVATE", "PUBLIC"), ("abc", "abd"), strict=True):
        publish_snapshot(
            day,
            inventory=[{"id": id_, "owner": "o"} for id_ in ids],
            responses=[{"id": id_, "outcome": "ok"} for id_ in ids],
            images=[
                image
                | {"id": id_, "visibility": visibility, "content_hash": visibility}
                | {"registry": "swr.x", "swr_path": f"swr.x/Team/{id_}:1"}
                for id_ in ids
            ],
            listed=[{"id": "e", "name": "not registered", "size": 5}],
            **registry_and_bill(str(day.partition.date), "team/a:1", "team/b:1", "team/x:1"),
            references=[
                {"resource_id": "n1", "image_id": "a", "strength": "running"},
                {"resource_id": "n2", "image_id": "z", "image_path": "team/b", "image_tag": "1"},
                {"resource_id": "n3", "image_path": "team/b"},
                {"resource_id": "n4", "kind": "training_job", "image_id": "c", "strength": "past"}
                | {"last_active_at": dt.datetime(2026, 2, 25, 22, tzinfo=UTC)},
            ],
        )
    last = replace(days[-1], settings=settings)
    derive_days(last)

    def derived():
        paths = [last.lake.table(name, last.partition) for name in ANALYSIS_TABLES.keys() - {IMAGE_HISTORY.name}]
        paths.append(last.lake.project_table(IMAGE_HISTORY.name, last.partition.project))
        return {path.stem: pq.ParquetFile(path).read().to_pylist() for path in paths}

    before, derived_manifest = derived(), read_derived_manifest(last.lake, last.partition)
    assert all(before.values())
    on_spark = settings.model_copy(update={"engine": "spark", "spark_master": spark_master})
    derive_days(replace(last, settings=on_spark))
    assert derived() == before
    assert read_derived_manifest(last.lake, last.partition).summary == derived_manifest.summary
    assert derived_manifest.summary.rule_errors == {
        "spins": "The rule took more than 1 seconds of processor time and was stopped: let it do less, or raise "
        "IMAGE_SNAPSHOTS_AUDIT_RULE_SECONDS."
    }


# --- the process ----------------------------------------------------------------------------------------------------


def test_spark_listens_only_on_loopback(spark_master, tmp_path):
    with SparkEngine(spark_master) as spark:
        spark.load("rows", ROWS)
        assert spark.read("SELECT COUNT(*) AS n FROM rows").to_pylist() == [{"n": 5}]
    process = Path("/proc") / str(SparkContext._gateway.proc.pid)
    links = [os.readlink(link) for link in (process / "fd").iterdir() if link.is_symlink()]
    inodes = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:[")}
    listening = set()
    for line in [
        line.split() for name in ("tcp", "tcp6") for line in (process / "net" / name).read_text().splitlines()
    ]:
        if line[3] == "0A" and line[9] in inodes:
            listening.add(line[1].partition(":")[0])
    # 127.0.0.1, as the kernel writes it for either family.
    assert listening
    assert listening <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert list(tmp_path.iterdir()) == []


def test_spark_reads_files_with_odd_names():
    assert _uri(Path("/data/la ke/[a]*.parquet")) == "file:///data/la ke/\\[a\\]\\*.parquet"
    assert _uri("s3://bucket/lake/images.parquet") == "s3a://bucket/lake/images.parquet"


def test_file_that_spark_cannot_read_is_one_sentence(spark_master, tmp_path):
    path = tmp_path / "images.parquet"
    pq.write_table(ROWS, path)
    with (
        pytest.raises(PipelineError, match=r"^Spark failed: .*images\.parquet.*\. See its log"),
        SparkEngine(spark_master) as spark,
    ):
        spark.load_file("images", LocalPath(path))
        path.write_bytes(b"no more")
        spark.read("SELECT * FROM images")


def test_missing_java_is_one_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(ConfigurationError, match="needs Java 17 or newer: install it"):
        open_engine(Settings(engine="spark", spark_master="local[7]")).__enter__()


def test_missing_extra_is_one_sentence(monkeypatch):
    monkeypatch.delitem(sys.modules, "pipelines.engine.spark")
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(ConfigurationError) as refused:
        open_engine(Settings(engine="spark"))
    assert str(refused.value) == (
        "IMAGE_SNAPSHOTS_ENGINE=spark needs the extra `spark`: install it with `pip install 'image-snapshots[spark]'` "
        "(from a clone: `pip install -e '.[spark]'`), or leave the setting out."
    )
