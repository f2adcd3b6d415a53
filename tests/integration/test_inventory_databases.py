import socket
import sqlite3
import uuid
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest

from pipelines import tables as columns
from pipelines.errors import ConfigurationError, EndpointUnreachableError, PipelineError
from pipelines.inventory.cleaning import Inventory, InventoryCounts
from pipelines.inventory.sources import BATCH_ROWS, InventorySource, describe_source
from pipelines.settings import Settings

DAY = date(2026, 11, 23)
A = "0f0c1f6e-0000-4000-8000-00000000000a"
B = "0f0c1f6e-0000-4000-8000-00000000000b"
C = "0f0c1f6e-0000-4000-8000-00000000000c"
PASSWORD = "c0rrect-h0rse/battery"

TABLE = "CREATE TABLE image_inventory (id TEXT, project TEXT, owner TEXT, cost_center TEXT, environment TEXT)"
ROWS = [
    (B, None, "vision", "0042", "prod"),
    (A.upper(), "main", None, " ", "test"),
    (C, "lab", "nlp", "1", "prod"),
    ("not-a-uuid", "main", None, None, None),
    (B, "main", "second", None, None),
    (None, "main", None, None, None),
    (C, "gone", None, None, None),
]


def default_query() -> Path:
    path: Path = Settings.model_fields["inventory_query"].default
    return path


def inventory(**options) -> Inventory:
    return Inventory(snapshot_date=DAY, project_key="main", project_keys=["lab", "main"], **options)


def read(source: str, query: Path | None = None) -> tuple[list[dict], InventoryCounts]:
    reading = inventory()
    batches = list(reading.read(source, query or default_query()))
    return pa.Table.from_batches(batches, columns.INVENTORY.schema).to_pylist(), reading.counts


def refusal(source: str, query: Path | None = None, kind: type[PipelineError] = ConfigurationError) -> str:
    with pytest.raises(PipelineError) as caught:
        read(source, query)
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert "\n" not in message
    assert "sqlalche.me" not in message
    assert "SELECT\n" not in message
    assert PASSWORD not in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return message


def query(tmp_path: Path, sql: str) -> Path:
    path = tmp_path / "query.sql"
    path.write_text(sql)
    return path


@pytest.fixture
def sqlite_url(tmp_path) -> str:
    path = tmp_path / "in ven#tory?.db"
    with sqlite3.connect(path) as connection:
        connection.execute(TABLE)
        connection.executemany("INSERT INTO image_inventory VALUES (?, ?, ?, ?, ?)", ROWS)
    connection.close()
    return f"sqlite:///{str(path).replace('?', '%3F')}"


@pytest.fixture(scope="module")
def reader(postgres) -> Iterator[str]:
    """URL of a role with a password, for its own database with the default table."""
    admin_url = postgres.new_database()
    with psycopg.connect(admin_url) as connection:
        connection.execute(TABLE)
        connection.cursor().executemany("INSERT INTO image_inventory VALUES (%s, %s, %s, %s, %s)", ROWS)
        connection.execute(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
        connection.execute("GRANT SELECT ON image_inventory TO reader")
        connection.execute("CREATE TABLE secret_table (id TEXT)")
        connection.execute("CREATE TABLE may_write (id TEXT)")
        connection.execute("GRANT ALL ON may_write TO reader")
    return admin_url.replace("postgres@", f"reader:{PASSWORD.replace('/', '%2F')}@")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, sqlite_url) -> str:
    return sqlite_url if request.param == "sqlite" else request.getfixturevalue("reader")


def test_default_query_reads_the_inventory(url):
    rows, counts = read(url)
    found = [(r["id"], r["is_valid"], r["owner"], r["cost_center"], r["environment"], r["attributes"]) for r in rows]
    assert sorted(found) == [
        (A, True, None, None, "test", None),
        (B, True, "vision", "0042", "prod", None),
        ("not-a-uuid", False, None, None, None, None),
    ]
    assert {(r["snapshot_date"], r["project_key"]) for r in rows} == {(DAY, "main")}
    assert counts == InventoryCounts(
        rows_read=7, other_project=1, unknown_project=1, blank=1, duplicate=1, ids=3, invalid=1
    )


def test_custom_query_reads_the_inventory(url, tmp_path):
    own = query(
        tmp_path,
        """-- what's :this? a comment; it isn't read -- 'quoted
        /* nor :that */
        WITH mine AS (SELECT * FROM image_inventory WHERE project = :project AND owner LIKE '%eco%')
        SELECT id AS "Image_ID", 7 AS number, '12:30 :no -- x' AS "at:noon", 1.5 AS share, NULL AS empty
        FROM mine;
        """,
    )
    rows, counts = read(url, own)
    assert [(r["id"], r["attributes"]) for r in rows] in (
        [(B, '{"at:noon":"12:30 :no -- x","number":7,"share":1.5}')],
        [(B, '{"at:noon":"12:30 :no -- x","number":7,"share":"1.5"}')],  # PostgreSQL's is an exact decimal
    )
    assert counts == InventoryCounts(rows_read=1, ids=1)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DELETE FROM image_inventory", "query.sql must be one SELECT statement"),
        ("", "must be one SELECT statement"),
        ("-- SELECT 1", "must be one SELECT statement"),
        ("SELECT id FROM image_inventory WHERE project = :team", "uses the parameter :team: only :project is known"),
        ("SELECT owner FROM image_inventory", "has no column 'id' or 'image_id' (columns found: 'owner')"),
        ("SELECT id, id AS image_id FROM image_inventory", "two columns for 'id' ('id' and 'image_id')"),
        ("SELECT id FROM images_of_old", "images_of_old"),
        ("SELECT id FRM image_inventory", "syntax error"),
        ("SELECT id FROM image_inventory WHERE 1 = 0", "holds no image id for project 'main' (0 rows read"),
        ("SELECT id FROM image_inventory; DROP TABLE image_inventory", "refused"),
    ],
)
def test_unusable_queries_are_refused(url, tmp_path, sql, said):
    assert said in refusal(url, query(tmp_path, sql))
    assert read(url)[1].ids == 3


def test_unreadable_query_file_is_refused(sqlite_url, tmp_path):
    message = refusal(sqlite_url, tmp_path / "none.sql")
    assert message.endswith(
        "none.sql cannot be read: No such file or directory (setting IMAGE_SNAPSHOTS_INVENTORY_QUERY)."
    )
    (tmp_path / "latin.sql").write_bytes(b"SELECT '\xe4'")
    assert "it is not UTF-8 text" in refusal(sqlite_url, tmp_path / "latin.sql")


# PostgreSQL


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_is_accepted_by_any_of_its_schemes(reader, scheme):
    assert read(reader.replace("postgresql", scheme))[1].ids == 3


def test_postgresql_values_keep_their_types(reader, postgres, tmp_path):
    own = query(
        tmp_path,
        f"""SELECT '{A}'::uuid AS id, ARRAY['a', 'b'] AS labels, '{{"k": [1, null]}}'::jsonb AS document,
        true AS active, '2026-11-23 12:00+02'::timestamptz AT TIME ZONE 'UTC' AS seen, 12.50::numeric AS price,
        'x'::bytea AS raw, 42::bigint AS owner""",
    )
    rows, _ = read(reader, own)
    assert (rows[0]["id"], rows[0]["id_as_read"], rows[0]["is_valid"], rows[0]["owner"]) == (A, A, True, "42")
    assert rows[0]["attributes"] == (
        '{"active":true,"document":{"k":[1,null]},"labels":["a","b"],"price":"12.50","raw":"78","seen":"2026-11-23T10:00:00"}'
    )


def test_postgresql_query_cannot_write(reader, tmp_path):
    own = query(tmp_path, "WITH added AS (INSERT INTO may_write VALUES ('x') RETURNING id) SELECT id FROM added")
    assert "refused: " in refusal(reader, own)
    writing = query(tmp_path, "SELECT lo_create(0) AS id")
    assert "read-only transaction" in refusal(reader, writing)
    with pytest.raises(ConfigurationError, match="holds no image id"):
        read(reader, query(tmp_path, "SELECT id FROM may_write"))


def test_postgresql_rows_are_streamed_by_a_server_cursor(reader, tmp_path):
    count = 3 * BATCH_ROWS
    own = query(
        tmp_path,
        "SELECT md5(n::text)::uuid AS id, (SELECT count(*) FROM pg_cursors) AS cursors"
        f" FROM generate_series(1, {count}) n",
    )
    reading = inventory()
    batches = list(reading.read(reader, own))
    assert [batch.num_rows for batch in batches] == [BATCH_ROWS] * 3
    assert set(batches[0].column("attributes").to_pylist()) == {'{"cursors":1}'}
    assert reading.counts == InventoryCounts(rows_read=count, ids=count)


def test_postgresql_error_while_reading_is_one_sentence(reader, tmp_path):
    own = query(tmp_path, "SELECT md5((100000 / (100000 - n))::text) AS id FROM generate_series(1, 100000) n")
    assert "refused: division by zero" in refusal(reader, own)


def test_postgresql_table_without_permission_is_refused(reader, tmp_path):
    own = query(tmp_path, "SELECT id FROM secret_table")
    assert "refused: permission denied for table secret_table" in refusal(reader, own)


def test_postgresql_wrong_password_is_refused(reader):
    message = refusal(reader.replace("c0rrect", "wr0ng-pass"))
    assert 'password authentication failed for user "reader"' in message
    assert "wr0ng-pass" not in message
    assert "//reader:***@127.0.0.1:" in message


def test_postgresql_missing_password_is_refused(reader):
    scheme, rest = reader.split("reader:")
    assert "no password supplied" in refusal(f"{scheme}reader@{rest.split('@')[1]}")


def test_postgresql_unknown_database_is_refused(postgres):
    assert 'database "none" does not exist' in refusal(
        postgres.url.replace("/postgres", "/none").replace("none@", "postgres@")
    )


def test_postgresql_that_does_not_answer_is_unreachable():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        message = refusal(
            f"postgresql://u:{uuid.uuid4()}@127.0.0.1:{port}/db?password={PASSWORD}", kind=EndpointUnreachableError
        )
    assert message.startswith(f"The inventory database postgresql+psycopg://u:***@127.0.0.1:{port}/db does not answer:")
    assert "Connection refused" in message


# SQLite


def test_sqlite_is_opened_read_only(sqlite_url, tmp_path):
    before = sorted(p.name for p in tmp_path.iterdir())
    attempt = query(tmp_path, "WITH x AS (SELECT 1) INSERT INTO image_inventory SELECT 'a', 'b', 'c', 'd', 'e' FROM x")
    assert "attempt to write a readonly database" in refusal(sqlite_url, attempt)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*before, "query.sql"])


def test_sqlite_missing_file_is_not_created(tmp_path):
    message = refusal(f"sqlite:///{tmp_path}/none.db")
    assert message.startswith(f"The inventory file {tmp_path}/none.db does not exist")
    assert not (tmp_path / "none.db").exists()


def test_sqlite_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "i.db").write_text("id\n1\n" * 1000)
    assert "refused: file is not a database" in refusal(f"sqlite:///{tmp_path}/i.db")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///"])
def test_sqlite_url_without_a_file_is_refused(url):
    assert refusal(url) == "The inventory's database URL names no file: write sqlite:///path/to/file."


def test_sqlite_numbers_and_bytes_become_ids(tmp_path):
    path = tmp_path / "i.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (image_id, raw BLOB)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(A.encode(), b"\xff"), (5, None), (B, None)])
    connection.close()
    rows, _ = read(f"sqlite:///{path}", query(tmp_path, "SELECT * FROM t"))
    assert [(r["id"], r["is_valid"], r["attributes"]) for r in rows] == [
        (A, True, '{"raw":"ff"}'),
        ("5", False, None),
        (B, True, None),
    ]


def test_sqlite_text_that_is_not_utf_8_is_refused(tmp_path):
    path = tmp_path / "i.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE image_inventory AS SELECT CAST(x'ff' AS TEXT) AS id")
    connection.close()
    assert "refused: Could not decode to UTF-8" in refusal(
        f"sqlite:///{path}", query(tmp_path, "SELECT id FROM image_inventory")
    )


# URLs


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (f"postgres://u:{PASSWORD[:7]}@db.example:5433/cmdb", "postgresql+psycopg://u:***@db.example:5433/cmdb"),
        (f"postgresql://db.example/cmdb?user=u&password={PASSWORD}", "postgresql+psycopg://db.example/cmdb"),
        ("sqlite:////srv/cmdb.db", "sqlite:////srv/cmdb.db"),
    ],
)
def test_describing_a_database_needs_no_connection_and_shows_no_password(source, name):
    assert describe_source(source) == InventorySource("database", name, None)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (f"oracledb9://u:{PASSWORD[:7]}@h/d", "database of an unknown kind, 'oracledb9'"),
        ("file:///srv/images.csv", "database of an unknown kind, 'file'"),
        ("mysql+pymysql://u:c0rrect@h/d", "needs the Python package 'pymysql'"),
        ("postgresql://u:c0rrect@h:port/d", "database URL is malformed"),
        ("://u:c0rrect@h", "database URL is malformed"),
    ],
)
def test_unusable_urls_are_refused(source, said):
    message = refusal(source)
    assert said in message
    assert "c0rrect" not in message


def test_unknown_connection_option_is_named(reader):
    assert 'invalid connection option "colour"' in refusal(f"{reader}?colour=red")


def test_sqlite_path_that_is_a_directory_is_refused(tmp_path):
    assert refusal(f"sqlite:///{tmp_path}").endswith("cannot be read: Is a directory.")
