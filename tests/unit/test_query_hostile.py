"""Hostile SQL against a real lake: no statement, by any route, changes a byte of the lake."""

import datetime as dt
import io
import os
from contextlib import closing, suppress
from pathlib import Path

import duckdb
import pytest
from published_days import publish_snapshot

from assets.cli import focus, report
from assets.query_command import query
from pipelines.errors import ConfigurationError
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.witnesses import open_witness
from pipelines.query.views import Format, connect_lake, select, write_rows
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun

ID = "00000000-0000-4000-8000-000000000001"
EVIDENCE = "responses/dt=2026-11-01/project=default/responses.parquet"


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A lake with a link out of it, beside a secret; nothing here may change either."""
    around = tmp_path_factory.mktemp("around")
    root = around / "lake"
    publish_snapshot(
        SnapshotRun(Partition(dt.date(2026, 11, 1), "default"), "run", Settings(lake=str(root))),
        inventory=[{"id": ID}],
        responses=[{"id": ID, "outcome": "ok", "body": b"{}"}],
        images=[{"id": ID, "name": "base"}],
    )
    (root / "out").symlink_to(around)
    (around / "secret").write_text("secret")
    return Lake(str(root))


@pytest.fixture(scope="module")
def connection(lake):
    with closing(connect_lake(lake)) as opened:
        yield opened


def tree(root):
    """All files and links under a directory, byte for byte."""
    found = {path: path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}
    return found | {path: os.readlink(path) for path in Path(root).rglob("*") if path.is_symlink()}


COPIES = [
    "COPY (SELECT 1) TO '{to}'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{to}'",
    # Parsers without nested comments read another text than the engine.
    "EXPLAIN ANALYZE /* /* */ SELECT 1 -- */ COPY (SELECT 1) TO '{to}'",
    "EXPLAIN /* /* */ ANALYZE SELECT 1 -- */ ANALYZE COPY (SELECT 1) TO '{to}'",
    "/* /* */ EXPLAIN SELECT 1 -- */ */ EXPLAIN ANALYZE COPY (SELECT 1) TO '{to}'",
    # For the engine, a carriage return ends a line.
    "EXPLAIN ANALYZE -- a\rCOPY (SELECT 1) TO '{to}'",
    "EXPLAIN ANALYZE -- SELECT 1\rCOPY (SELECT 1) TO '{to}'\n",
    "EXPLAIN -- SELECT 1\r ANALYZE COPY (SELECT 1) TO '{to}' -- \n SELECT 1",
    "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{to}'",
    "EXPLAIN (ANALYZE, FORMAT json) COPY (SELECT 1) TO '{to}'",
    "EXPLAIN (FORMAT json, ANALYZE) COPY (SELECT 1) TO '{to}'",
    "EXPLAIN ANALYZE\u00a0COPY (SELECT 1) TO '{to}'",
    "EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1) TO '{to}') SELECT 1",
    "WITH x AS (COPY (SELECT 1) TO '{to}') SELECT 1",
    "SELECT * FROM (EXPLAIN ANALYZE COPY (SELECT 1) TO '{to}')",
    "SELECT * FROM query('COPY (SELECT 1) TO ''{to}''')",
    "SELECT 1; COPY (SELECT 1) TO '{to}'",
    "SELECT 1) TO '{to}' -- ",
    "SELECT 1 /* */ ) TO '{to}' /*",
    "PREPARE x AS COPY (SELECT 1) TO '{to}'",
    "COPY (SELECT 1 AS a) TO '{to}' (FORMAT parquet, PARTITION_BY (a), OVERWRITE)",
    "EXPORT DATABASE '{to}'",
    "ATTACH '{to}'",
    "SELECT * FROM enable_logging(storage = 'file', storage_path = '{to}')",
    "CALL enable_profiling(save_location = '{to}')",
    "SELECT * FROM enable_profiling(save_location = '{to}')",
    "SET log_query_path = '{to}'",
    "PRAGMA profiling_output = '{to}'",
    "SET temp_directory = '{to}'",
    "IMPORT DATABASE '{to}'",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('WITH x AS (COPY (SELECT 1) TO ''{to}'') SELECT 1'))",
    "SELECT * FROM query('WITH x AS (COPY (SELECT 1) TO ''{to}'') SELECT 1')",
]
PLACES = [
    "{root}/" + EVIDENCE,
    "{root}/new",
    "lake://" + EVIDENCE,
    "lake://new",
    "lake://out/new",
    "lake/" + EVIDENCE,
    "file://{root}/" + EVIDENCE,
]


def texts(sql, lake):
    return [sql.replace("{to}", place.replace("{root}", str(lake.root))) for place in PLACES]


@pytest.mark.parametrize("sql", COPIES)
def test_hostile_query_does_not_write(lake, connection, tmp_path, sql):
    before = tree(lake.root.parent), tree(tmp_path)
    for text in texts(sql, lake):
        with suppress(ConfigurationError):
            # An EXPLAIN of a SELECT may be answered, but must not write.
            select(connection, text).fetchall()
    assert (tree(lake.root.parent), tree(tmp_path)) == before


@pytest.mark.parametrize("sql", COPIES)
def test_connection_itself_cannot_write(lake, connection, tmp_path, sql):
    before = tree(lake.root.parent), tree(tmp_path)
    for text in texts(sql, lake):
        with suppress(duckdb.Error, OSError):
            connection.execute(text).fetchall()
    assert (tree(lake.root.parent), tree(tmp_path)) == before


@pytest.mark.parametrize(
    "sql",
    [
        "EXPLAIN ANALYZE COPY (SELECT 1) TO 'x'",
        "EXPLAIN ANALYZE -- SELECT 1\rCOPY (SELECT 1) TO 'x'\n",
        "EXPLAIN /* /* */ ANALYZE SELECT 1 -- */ ANALYZE COPY (SELECT 1) TO 'x'",
        "EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1",
        "EXPLAIN ANALYZE SET threads = 1",
    ],
)
def test_query_inside_explain_is_checked(connection, sql):
    with pytest.raises(ConfigurationError, match="this EXPLAIN statement does more"):
        select(connection, sql)


@pytest.mark.parametrize("name", ["json_execute_serialized_sql", '"JSON_Execute_Serialized_SQL"'])
def test_statement_within_a_text_is_not_run(lake, connection, name):
    """The engine would run it: that the file system cannot write is the second barrier, not the first."""
    copy = "WITH x AS (COPY (SELECT 1) TO 'lake://new') SELECT 1"
    ((text,),) = connection.execute("SELECT json_serialize_sql(?)", [copy]).fetchall()
    for sql in (f"SELECT * FROM {name}($${text}$$)", f"SELECT (SELECT 1 FROM {name}($${text}$$))"):
        with pytest.raises(ConfigurationError, match="this SELECT statement does more than read"):
            select(connection, sql)


def test_statement_without_a_name_is_refused(connection):
    with pytest.raises(ConfigurationError, match="this statement does more than read"):
        select(connection, "UPDATE EXTENSIONS")


def test_query_in_nested_comments_is_parsed_by_the_engine(connection):
    # The text in the comment is not run.
    with pytest.raises(ConfigurationError, match="this EXPLAIN statement does more"):
        select(connection, "EXPLAIN ANALYZE /* /* */ SELECT 1 -- */ COPY (SELECT 1) TO 'x'")
    plan = select(connection, "EXPLAIN /* é /* a */ SELECT 'no' */ SELECT 1 AS ü").fetchall()
    assert "ü" in plan[0][1]
    assert "'no'" not in plan[0][1]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_blob('{root}/../secret')",
        "SELECT * FROM read_text('lake://../secret')",
        "SELECT * FROM read_text('lake://out/secret')",
        "SELECT * FROM read_text('lake:///etc/passwd')",
        "SELECT * FROM read_text('lake://images/../../secret')",
        "SELECT * FROM read_text('{root}/../secret')",
        "SELECT * FROM 'lake://out/secret.csv'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_duckdb('/tmp/x.db')",
        "SELECT * FROM 's3://bucket/x.parquet'",
        "SELECT getenv('HOME')",
    ],
)
def test_query_reads_only_the_lake(lake, connection, sql):
    text = sql.replace("{root}", str(lake.root))
    with pytest.raises(ConfigurationError) as raised:
        write_rows(select(connection, text), io.BytesIO(), Format.CSV)
    assert "Traceback" not in str(raised.value)
    assert "root:" not in str(raised.value)


@pytest.mark.parametrize(
    "sql", ["INSTALL httpfs", "LOAD httpfs", "CREATE PERSISTENT SECRET s (TYPE http)", "SET disabled_filesystems = ''"]
)
def test_connection_refuses_extensions_secrets_and_settings(connection, sql):
    with pytest.raises(duckdb.Error):
        connection.execute(sql)


def test_lake_file_is_read_by_its_name(connection):
    sql = f"SELECT decode(body) AS body FROM read_parquet('lake://{EVIDENCE}')"
    assert select(connection, sql).fetchall() == [("{}",)]


@pytest.mark.parametrize(
    "sql", ["COPY (SELECT 1) TO '{root}/x'", "EXPLAIN ANALYZE -- SELECT 1\rCOPY (SELECT 1) TO '{root}/x'\n"]
)
def test_query_from_a_file_does_not_write(lake, monkeypatch, sql):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_LAKE", str(lake.root))
    Path("hostile.sql").write_bytes(sql.replace("{root}", str(lake.root)).encode())
    before = tree(lake.root.parent)
    with pytest.raises(ConfigurationError, match="does more"):
        query(file=Path("hostile.sql"))
    assert tree(lake.root.parent) == before


@pytest.mark.parametrize(
    "write",
    [
        lambda output: query("SELECT 1", output=output),
        lambda output: focus(output=output),
        lambda output: report(output=output),
    ],
    ids=["query", "focus", "report"],
)
def test_output_does_not_replace_files_or_links_in_the_lake(monkeypatch, tmp_path, write):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_LAKE", "lake")
    images = tmp_path / "lake" / "images"
    images.mkdir(parents=True)
    (images / "link.csv").symlink_to(tmp_path / "elsewhere.csv")
    Path("way").symlink_to(images)
    for output in (images / "link.csv", Path("way/link.csv"), Path("way/x.csv"), Path("lake/x.csv")):
        with pytest.raises(ConfigurationError, match="is inside the lake, which is read-only"):
            write(output)


def test_output_through_a_link_does_not_append_to_the_lake(lake, tmp_path):
    Path("way").symlink_to(lake.root)
    with pytest.raises(ConfigurationError, match="is inside the lake"), open_witness(Path("way") / EVIDENCE, lake):
        pass
