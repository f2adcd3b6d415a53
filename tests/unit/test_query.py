"""SQL over the lake: its views, and that it is read-only."""

import csv
import datetime as dt
import io
import json
import re
import shutil
from contextlib import closing
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from published_days import PROJECT_ID, publish_snapshot, rows_of, write_history

from pipelines.engine.spreadsheet import inert
from pipelines.engine.sql_files import read_view
from pipelines.engine.sql_text import quoted
from pipelines.errors import ConfigurationError
from pipelines.lake.layout import Lake, Partition
from pipelines.query.views import Format, connect_lake, relations, select, sql_errors, write_rows
from pipelines.settings import ROOT, Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.tables import ANALYSIS_TABLES, IMAGE_COSTS, IMAGES, TABLES

FIRST, SECOND, THIRD = (dt.date(2026, 11, day) for day in (1, 2, 3))
ONE, TWO = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"


@pytest.fixture(scope="module")
def published_lake(tmp_path_factory):
    """Two projects; the last day of the default one is incomplete."""
    root = tmp_path_factory.mktemp("published") / "lake"

    def day_of(date, project="default"):
        return SnapshotRun(Partition(date, project), f"run-{date}-{project}", Settings(lake=str(root)))

    publish_snapshot(
        day_of(FIRST),
        inventory=[{"id": ONE, "owner": "ann", "cost_center": "c1"}, {"id": TWO}],
        responses=[{"id": ONE, "outcome": "ok", "body": b'{"id":1}'}, {"id": TWO, "outcome": "not_found"}],
        images=[{"id": ONE, "name": "old", "visibility": "PRIVATE", "size_bytes": 1024}],
    )
    publish_snapshot(
        day_of(SECOND),
        inventory=[{"id": ONE, "owner": "bob", "cost_center": "c1"}],
        responses=[{"id": ONE, "outcome": "ok"}],
        images=[{"id": ONE, "name": "new", "visibility": "PUBLIC", "size_bytes": 2048}],
    )
    publish_snapshot(
        day_of(THIRD),
        inventory=[{"id": ONE}, {"id": TWO}],
        responses=[{"id": ONE, "outcome": "ok"}, {"id": TWO, "outcome": "failed"}],
        images=[{"id": ONE, "name": "newest", "visibility": "PUBLIC", "size_bytes": 4096}],
    )
    publish_snapshot(
        day_of(FIRST, "other"),
        inventory=[{"id": TWO}],
        responses=[{"id": TWO, "outcome": "ok"}],
        images=[{"id": TWO, "name": "else", "size_bytes": 8}],
    )
    write_history(
        day_of(SECOND),
        [
            {"id": ONE, "name": "old", "valid_from": FIRST, "valid_to": SECOND, "is_current": False},
            {"id": ONE, "name": "new", "valid_from": SECOND},
            {"id": TWO, "name": "gone", "valid_from": FIRST, "valid_to": SECOND, "is_current": False},
            {"id": TWO, "name": "gone", "valid_from": SECOND, "is_deleted": True, "deleted_reason": "not_found"},
        ],
    )
    write_history(day_of(FIRST, "other"), [{"id": TWO, "name": "else", "valid_from": FIRST}])
    return Lake(str(root))


@pytest.fixture(scope="module")
def connection(published_lake):
    with closing(connect_lake(published_lake)) as opened:
        yield opened


@pytest.fixture
def lake(published_lake, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(published_lake.root, tmp_path / "lake")
    return Lake(str(tmp_path / "lake"))


def rows(connection, sql):
    return select(connection, sql).fetchall()


def written(connection, sql, form):
    file = io.BytesIO()
    write_rows(select(connection, sql), file, form)
    return file.getvalue()


def test_table_is_a_view_over_all_days_and_projects(connection):
    assert rows(connection, "SELECT snapshot_date, project, name, size_bytes FROM images ORDER BY 1, 2") == [
        (FIRST, "default", "old", 1024),
        (FIRST, "other", "else", 8),
        (SECOND, "default", "new", 2048),
        (THIRD, "default", "newest", 4096),
    ]
    assert rows(connection, "SELECT body FROM responses WHERE body IS NOT NULL") == [(b'{"id":1}',)]


@pytest.mark.parametrize("name", [*TABLES, *ANALYSIS_TABLES])
def test_view_has_the_documented_columns_even_without_files(connection, name):
    table = (TABLES | ANALYSIS_TABLES)[name]
    shown = rows(connection, f"DESCRIBE {name}")
    assert [row[0] for row in shown] == [*table.schema.names, "project"]
    read = select(connection, f"SELECT * FROM {name}").to_arrow_table().drop_columns(["project"])
    assert [str(type_) for type_ in read.schema.types] == [str(type_) for type_ in table.schema.types]


def test_table_without_files_has_no_rows(connection):
    assert rows(connection, "SELECT COUNT(*), SUM(estimated_cost) FROM image_costs") == [(0, None)]


def test_column_missing_in_old_files_is_null(lake):
    path = lake.table("images", Partition(FIRST, "default"))
    table = pq.ParquetFile(io.BytesIO(path.read_bytes())).read()
    pq.write_table(table.drop_columns(["repository", "name"]), path)
    with closing(connect_lake(lake)) as opened:
        assert rows(opened, "SELECT snapshot_date, name, repository FROM images WHERE project = 'default'") == [
            (FIRST, None, None),
            (SECOND, "new", None),
            (THIRD, "newest", None),
        ]


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("snapshot_date = '2026-11-01'", ["else", "old"]),
        ("project = 'other'", ["else"]),
        ("snapshot_date = '2026-11-01' AND project = 'default'", ["old"]),
        ("project = 'default' AND snapshot_date = '2026-11-01'", ["old"]),
        ("snapshot_date IN ('2026-11-01', '2026-10-31')", ["else", "old"]),
        ("snapshot_date BETWEEN '2026-10-01' AND '2026-11-01' AND project = 'default'", ["old"]),
        ("project = 'other' OR (project = 'default' AND snapshot_date = '2026-11-01')", ["else", "old"]),
    ],
)
def test_conditions_on_day_and_project_open_no_other_file(lake, condition, names):
    for date in (SECOND, THIRD):
        lake.table("images", Partition(date, "default")).write_bytes(b"damaged")
    with closing(connect_lake(lake)) as opened:
        assert rows(opened, f"SELECT name FROM images WHERE {condition} ORDER BY name") == [(name,) for name in names]


def test_first_rows_of_a_project_are_found(connection):
    # The engine's optimizer of late materialization fails on this.
    sql = "SELECT * FROM images WHERE project = 'default' ORDER BY size_bytes DESC LIMIT 2"
    assert select(connection, sql).project("name").fetchall() == [("newest",), ("new",)]


def test_latest_day_is_the_last_complete_day(connection):
    assert rows(connection, "SELECT project, name FROM images_latest ORDER BY project") == [
        ("default", "new"),
        ("other", "else"),
    ]


def test_latest_day_may_be_incomplete_if_requested(published_lake):
    with closing(connect_lake(published_lake, include_incomplete=True)) as opened:
        assert rows(opened, "SELECT project, name FROM images_latest ORDER BY project") == [
            ("default", "newest"),
            ("other", "else"),
        ]


def test_latest_day_is_the_same_whether_it_is_a_constant_or_read_from_all_manifests(connection, published_lake):
    from_manifests = rows(connection, f"SELECT * FROM ({read_view('views/latest_days.sql').select}) ORDER BY ALL")
    assert rows(connection, "SELECT * FROM latest_days ORDER BY ALL") == from_manifests
    assert from_manifests == [("default", SECOND), ("other", FIRST)]


@pytest.mark.parametrize("name", ["images_latest", "open_findings", "unused_images"])
def test_view_of_the_latest_days_opens_no_file_of_another_day(lake, name):
    last = {Partition(SECOND, "default"), Partition(FIRST, "other")}
    for table in ("images", "responses", "audit_findings", "audit_rules", "image_costs", "image_usage"):
        for partition in {Partition(date, "default") for date in (FIRST, SECOND, THIRD)} - last:
            path = lake.table(table, partition)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"damaged")
    with closing(connect_lake(lake)) as opened:
        assert len(rows(opened, f"SELECT * FROM {name}")) == (2 if name == "images_latest" else 0)


def test_damaged_manifest_stops_only_what_needs_it(lake):
    lake.manifest(Partition(THIRD, "default")).write_bytes(b"{")
    with closing(connect_lake(lake)) as opened:
        assert rows(opened, "SELECT COUNT(*) FROM images") == [(4,)]
        with pytest.raises(ConfigurationError, match="Malformed JSON"), sql_errors():
            rows(opened, "SELECT * FROM images_latest")


def test_project_without_a_complete_day_has_no_latest_one(lake):
    for partition in (Partition(FIRST, "default"), Partition(SECOND, "default"), Partition(FIRST, "other")):
        lake.remove(lake.manifest(partition))
    with closing(connect_lake(lake)) as opened:
        assert rows(opened, "SELECT * FROM latest_days") == []
        assert rows(opened, "SELECT * FROM images_latest") == []


def test_images_have_the_owner_of_their_day_s_inventory(connection):
    sql = "SELECT snapshot_date, owner, cost_center FROM images_with_owner WHERE project = 'default' ORDER BY 1"
    assert rows(connection, sql) == [(FIRST, "ann", "c1"), (SECOND, "bob", "c1")]


def test_days_come_from_the_manifests(connection):
    sql = (
        "SELECT snapshot_date, project, is_complete, run_id, published_at, project_id, ok, not_found, failed FROM days "
        "ORDER BY snapshot_date, project"
    )
    noon = dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC)
    assert rows(connection, sql) == [
        (FIRST, "default", True, "run-2026-11-01-default", noon, PROJECT_ID, 1, 1, 0),
        (FIRST, "other", True, "run-2026-11-01-other", noon, PROJECT_ID, 1, 0, 0),
        (SECOND, "default", True, "run-2026-11-02-default", noon + dt.timedelta(days=1), PROJECT_ID, 1, 0, 0),
        (THIRD, "default", False, "run-2026-11-03-default", noon + dt.timedelta(days=2), PROJECT_ID, 1, 0, 1),
    ]


def test_replaced_manifest_is_not_a_day(lake):
    kept = lake.superseded_manifests("default")
    kept.mkdir(parents=True)
    lake.manifest(Partition(FIRST, "default")).rename(kept / "0.json")
    with closing(connect_lake(lake)) as opened:
        assert rows(opened, "SELECT COUNT(*) FROM days") == [(3,)]


def test_derived_table_is_found_after_it_was_written(lake):
    with lake.writer(lake.table("image_costs", Partition(FIRST, "default")), IMAGE_COSTS, "run") as writer:
        cost = {"id": ONE, "is_carried": False, "currency": "EUR", "owner_source": "none", "estimated_cost": 0.5}
        writer.write(rows_of(IMAGE_COSTS, [cost], snapshot_date=FIRST, project_id=PROJECT_ID))
    with closing(connect_lake(lake)) as opened:
        assert rows(opened, "SELECT snapshot_date, estimated_cost, project FROM image_costs") == [
            (FIRST, 0.5, "default")
        ]


def test_every_table_and_view_has_a_meaning(connection):
    shown = {row[0] for row in rows(connection, "SHOW TABLES")}
    meanings = relations()
    assert set(meanings) - {"images_as_of"} == shown - {"manifests", "history_days"}
    assert meanings["images"] == "The snapshot: one row per id that the API described on that day."
    assert meanings["images_latest"] == (
        "The images that the API described on the last day of each project, without deleted ones."
    )


def test_notebook_reads_the_lake_as_frames(connection):
    frame = connection.sql("SELECT name, size_bytes FROM images_latest ORDER BY name").df()
    assert frame.to_dict("list") == {"name": ["else", "new"], "size_bytes": [8, 2048]}
    # A registered frame can be joined; other Python variables are not read.
    mine = pd.DataFrame({"name": ["new"], "team": ["x"]})
    connection.register("teams", mine)
    assert connection.sql("SELECT team FROM images_latest JOIN teams USING (name)").fetchall() == [("x",)]
    connection.unregister("teams")
    with pytest.raises(duckdb.CatalogException):
        connection.sql("SELECT * FROM mine")


def test_times_are_utc(connection):
    assert rows(connection, "SELECT CAST(published_at AS VARCHAR) FROM days ORDER BY 1 LIMIT 1") == [
        ("2026-11-01 12:00:00+00",)
    ]


def files_of(root):
    return {path: path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        ("COPY images TO '{lake}/x.csv'", "COPY"),
        ("-- hello\nCOPY images TO 'x.csv'", "COPY"),
        ("WITH x AS (COPY images TO '{lake}/x.csv') SELECT 1", "SELECT"),
        ("WITH x AS (INSERT INTO images VALUES (1) RETURNING *) SELECT * FROM x", "SELECT"),
        ("EXPLAIN ANALYZE COPY images TO '{lake}/x.csv'", "EXPLAIN"),
        ("EXPLAIN (ANALYZE, FORMAT json) COPY images TO '{lake}/x.csv'", "EXPLAIN"),
        ("EXPLAIN /* a */ ANALYZE COPY images TO '{lake}/x.csv'", "EXPLAIN"),
        ("EXPLAIN ANALYZE WITH x AS (COPY images TO '{lake}/x.csv') SELECT 1", "EXPLAIN"),
        ("CREATE TABLE t AS SELECT 1", "CREATE"),
        ("DROP VIEW images", "DROP"),
        ("DELETE FROM images", "DELETE"),
        ("UPDATE images SET name = 'x'", "UPDATE"),
        ("ATTACH '{lake}/x.db'", "ATTACH"),
        ("EXPORT DATABASE '{lake}/x'", "EXPORT"),
        ("INSTALL httpfs", "LOAD"),
        ("LOAD httpfs", "LOAD"),
        ("SET threads = 1", "SET"),
        ("PRAGMA enable_profiling", "PRAGMA"),
        ("CALL pragma_version()", "CALL"),
        ("PIVOT images ON name USING COUNT(*)", "PIVOT without IN (...)"),
    ],
)
def test_statement_that_does_more_than_read_is_refused(published_lake, connection, sql, name):
    before = files_of(published_lake.root)
    with pytest.raises(ConfigurationError) as raised:
        select(connection, sql.replace("{lake}", str(published_lake.root)))
    assert str(raised.value) == (
        f"The lake is read-only here, and this {name} statement does more than read: give a SELECT, WITH, SHOW, "
        "DESCRIBE, SUMMARIZE or EXPLAIN; --output writes the rows to a file."
    )
    assert files_of(published_lake.root) == before
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/x.csv'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM sniff_csv('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_text('{lake}/../secret')",
        "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
        "SELECT * FROM 'http://127.0.0.1:9/x.parquet'",
        "SELECT * FROM enable_logging(storage = 'file', storage_path = '{lake}/log')",
        "EXPLAIN ANALYZE SELECT * FROM read_text('/etc/passwd')",
    ],
)
def test_query_reaches_nothing_outside_the_lake(published_lake, connection, sql):
    (published_lake.root.parent / "secret").write_text("secret")
    before = files_of(published_lake.root)
    with pytest.raises(ConfigurationError, match=r"disabled by configuration|configuration has been locked"):
        written(connection, sql.replace("{lake}", str(published_lake.root)), Format.CSV)
    assert files_of(published_lake.root) == before
    assert list(Path.cwd().iterdir()) == []


def test_engine_settings_are_locked(connection):
    for sql in ("SET enable_external_access = true", "SET allowed_directories = ['/']", "RESET lock_configuration"):
        with pytest.raises(duckdb.InvalidInputException, match="locked"):
            connection.execute(sql)


@pytest.mark.parametrize(
    ("sql", "count"),
    [
        ("SHOW TABLES", 37),
        ("DESCRIBE days", 20),
        ("SUMMARIZE SELECT name FROM images", 1),
        ("VALUES (1), (2)", 2),
        ("FROM images LIMIT 1", 1),
        ("WITH x AS (SELECT 1) SELECT * FROM x -- end", 1),
        ("WITH RECURSIVE x AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM x WHERE n < 3) SELECT * FROM x;", 3),
        ("SELECT 1 UNION ALL SELECT 2", 2),
        ("PIVOT images ON project IN ('default', 'other') USING COUNT(*) GROUP BY snapshot_date", 3),
        ("EXPLAIN SELECT 1", 1),
        ("/* why */ EXPLAIN ANALYZE SELECT * FROM images", 1),
        ("EXPLAIN (FORMAT json) SELECT 1", 1),
        ("EXPLAIN (SELECT 1)", 1),
    ],
)
def test_read_only_statement_is_answered(connection, sql, count):
    assert len(rows(connection, sql)) == count


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("", "The query holds no statements: give one; SHOW TABLES lists the tables."),
        ("-- nothing", "The query holds no statements: give one; SHOW TABLES lists the tables."),
        ("SELECT 1; SELECT 2", "The query holds 2 statements: give one; SHOW TABLES lists the tables."),
        ("\nSELEC 1", 'The query failed: Parser Error: syntax error at or near "SELEC" (line 2)'),
        (
            "SELECT * FROM imagse",
            'The query failed: Catalog Error: Table with name imagse does not exist! Did you mean "images"?',
        ),
    ],
)
def test_wrong_query_is_one_sentence(connection, sql, sentence):
    with pytest.raises(ConfigurationError) as raised:
        select(connection, sql)
    assert str(raised.value) == sentence


def test_query_that_fails_while_reading_is_one_sentence(connection):
    sql = "SELECT CAST(CASE WHEN i = 99999 THEN 'a' ELSE '1' END AS INTEGER) AS n FROM range(100000) AS r(i)"
    for form in Format:
        with pytest.raises(ConfigurationError) as raised:
            written(connection, sql, form)
        assert str(raised.value) == "The query failed: Conversion Error: Could not convert string 'a' to INT32"


def test_damaged_file_is_named(lake):
    path = lake.table("images", Partition(FIRST, "default"))
    path.write_bytes(b"damaged, and long enough to be looked at")
    with closing(connect_lake(lake)) as opened:
        with pytest.raises(ConfigurationError, match=f"The query failed: .*{path.name}"):
            written(opened, "SELECT name FROM images", Format.CSV)


def test_empty_lake_says_what_to_do(tmp_path):
    with pytest.raises(ConfigurationError) as raised:
        connect_lake(Lake("lake"))
    assert str(raised.value) == (
        f"Nothing is published in the lake {tmp_path}/lake: take a snapshot with `image-snapshots run`, or set "
        "IMAGE_SNAPSHOTS_LAKE to the lake to read."
    )


MIXED = """
    SELECT 1 AS n, 2 AS n, 'a,"b"' AS t, '' AS e, NULL AS z, [1, 2] AS l, TRUE AS b, SUM(size_bytes) AS s,
        CAST('x' AS BLOB) AS o, DATE '2026-11-01' AS d, TIMESTAMPTZ '2026-11-01 01:00:00+01' AS w
    FROM images
"""


def test_rows_are_written_as_csv(connection):
    assert written(connection, MIXED, Format.CSV).decode() == (
        '"n","n_1","t","e","z","l","b","s","o","d","w"\n'
        '1,2,"a,""b""","",,"[1, 2]",true,7176,"x",2026-11-01,2026-11-01 00:00:00.000000Z\n'
    )
    assert written(connection, "SELECT 1 AS n WHERE FALSE", Format.CSV) == b'"n"\n'


def test_csv_makes_text_harmless_that_a_spreadsheet_would_run(connection):
    texts = ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "\n=1", "\uff1d1", "-5", "+1,000.5", "a=1", "'=1", "", "plain"]
    listed = ", ".join(quoted(text) for text in texts)
    sql = f"SELECT UNNEST([{listed}]) AS t, -5 AS n"
    guarded = list(csv.reader(io.StringIO(written(connection, sql, Format.CSV).decode())))[1:]
    assert [row[0] for row in guarded] == [
        *(
            "'=1+1",
            "'+cmd",
            "'-2+3",
            "'@SUM(A1)",
            "'\t=1",
            "'\n=1",
            "'\uff1d1",
            "-5",
            "+1,000.5",
            "a=1",
            "'=1",
            "",
            "plain",
        )
    ]
    assert {row[1] for row in guarded} == {"-5"}
    exact = io.BytesIO()
    write_rows(select(connection, sql), exact, Format.CSV, exact=True)
    assert [row[0] for row in csv.reader(io.StringIO(exact.getvalue().decode()))][1:] == texts
    assert [row["t"] for row in json.loads(written(connection, sql, Format.JSON))] == texts
    assert [inert(text) for text in texts] == [row[0] for row in guarded]
    heading = 'SELECT 1 AS "=a"'
    assert written(connection, heading, Format.CSV) == b'"\'=a"\n1\n'


def test_rows_are_written_as_json(connection):
    text = written(connection, f"{MIXED} UNION ALL {MIXED}", Format.JSON).decode()
    expected = {
        "n": 1,
        "n_1": 2,
        "t": 'a,"b"',
        "e": "",
        "z": None,
        "l": [1, 2],
        "b": True,
        "s": 7176,
        "o": "x",
        "d": "2026-11-01",
        "w": "2026-11-01T00:00:00.000000Z",
    }
    assert json.loads(text) == [expected, expected]
    assert len(text.splitlines()) == 4
    assert written(connection, "SELECT 1 WHERE FALSE", Format.JSON) == b"[]\n"


def test_rows_are_written_as_parquet(connection):
    read = pq.read_table(io.BytesIO(written(connection, "SELECT * FROM images_latest", Format.PARQUET)))
    assert sorted(read["name"].to_pylist()) == ["else", "new"]
    assert read.schema.names == [*IMAGES.schema.names, "project"]
    assert read.schema.field("observed_at").type == IMAGES.schema.field("observed_at").type


def test_linked_lake_with_an_odd_name_is_read(lake):
    lake.root.rename("it's a lake")
    Path("link").symlink_to("it's a lake")
    with closing(connect_lake(Lake("link"))) as opened:
        assert rows(opened, "SELECT COUNT(*) FROM images") == [(4,)]


def test_documented_queries_run(connection):
    queries = re.findall(r"^```sql\n(.*?)^```", (ROOT / "docs" / "query.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(queries) == 11
    results = [written(connection, query, Format.CSV).decode() for query in queries]
    assert results[4] == (
        '"observed_at","outcome","http_status","body_sha256","answer"\n'
        '2026-11-01 12:00:00.000000Z,"ok",,,"{""id"":1}"\n'
    )
    assert results[6] == ('"name","namespace","owner","cost_center","gib"\n"new",,"bob","c1",0\n"else",,,,0\n')


@pytest.mark.parametrize("form", [*Format])
def test_damaged_file_error_advises_verify(lake, form):
    path = min(lake.root.glob("images/*/*/images.parquet"))
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    path.write_bytes(content[: -8 - length] + b"\xff" * length + content[-8:])
    with (
        closing(connect_lake(lake)) as opened,
        pytest.raises(ConfigurationError, match=r"^The query failed: .*\. A file of the lake may be damaged: `"),
    ):
        write_rows(select(opened, "SELECT * FROM images"), io.BytesIO(), form)
