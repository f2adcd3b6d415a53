"""Extreme values do not break an inventory, and are kept unchanged."""

import csv
import json
from datetime import date
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import ConfigurationError
from pipelines.inventory.cleaning import Inventory

ID = "0f0c1f6e-0000-4000-8000-00000000000a"
AGES = 253_402_300_800  # 10000-01-01, in seconds


def read(source, query="not-read.sql"):
    inventory = Inventory(snapshot_date=date(2026, 11, 23), project_key="main", project_keys=("main",))
    (row,) = [row for batch in inventory.read(str(source), Path(query)) for row in batch.to_pylist()]
    return row | {"attributes": json.loads(row["attributes"] or "null")}


@pytest.mark.parametrize(
    ("value", "type_", "text"),
    [
        (AGES * 1000, pa.timestamp("ms"), "10000-01-01T00:00:00"),
        (AGES * 1000 + 1, pa.timestamp("ms"), "10000-01-01T00:00:00.001"),
        (AGES * 1_000_000, pa.timestamp("us", "UTC"), "10000-01-01T00:00:00+00:00"),
        (AGES * 1000, pa.timestamp("ms", "Europe/Berlin"), "10000-01-01T00:00:00+00:00"),
        (-(10**14), pa.timestamp("ms"), "-1199-02-15T14:13:20"),
        (2**62, pa.timestamp("us"), "4611686018427387904 us since 1970-01-01"),
        (2**62, pa.timestamp("us", "UTC"), "4611686018427387904 us since 1970-01-01"),
        (AGES // 86_400, pa.date32(), "10000-01-01"),
        (AGES * 1000, pa.date64(), "10000-01-01"),
        (2**30, pa.date32(), "1073741824 d since 1970-01-01"),
        (2**62, pa.duration("ms"), "4611686018427387904 ms"),
        (1_764_028_800_000, pa.timestamp("ms", "UTC"), "2025-11-25T00:00:00+00:00"),
    ],
)
def test_time_of_any_year_is_kept(tmp_path, value, type_, text):
    number = pa.int32() if type_ == pa.date32() else pa.int64()
    column = pa.array([value], number).view(type_)
    lists = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), column)
    pairs = pa.StructArray.from_arrays([column, pa.array([7])], ["at", "n"])
    pq.write_table(
        pa.table({"id": [ID], "at": column, "all": lists, "pair": pairs, "owner": column}), tmp_path / "i.parquet"
    )
    row = read(tmp_path / "i.parquet")
    assert row["attributes"] == {"at": text, "all": [text], "pair": {"at": text, "n": 7}}
    assert row["owner"].replace(" ", "T", 1) == text.replace(" ", "T", 1)


@pytest.mark.parametrize("name", ["i.csv", "i.tsv"])
def test_value_of_any_length_is_read(tmp_path, name):
    long = "x" * 1_000_000
    with (tmp_path / name).open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if name == "i.tsv" else ",")
        writer.writerows([["id", "note", "owner"], [ID, long, long]])
    row = read(tmp_path / name)
    assert (row["attributes"], row["owner"]) == ({"note": long}, long)


def database(postgres, encoding, content):
    """URL of a database with this encoding whose table has a note of these bytes."""
    name = f"coded_{encoding.lower()}"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'")
    url = postgres.url.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(url, client_encoding=encoding) as connection:
        connection.execute("CREATE TABLE t (id TEXT, owner TEXT, note TEXT)")
        hexed = content.hex()
        expression = f"convert_from('\\x{hexed}', '{encoding}')"
        connection.execute(f"INSERT INTO t VALUES ('{ID}', {expression}, {expression})".encode())
    return url


@pytest.fixture
def query(tmp_path):
    path = tmp_path / "q.sql"
    path.write_text("SELECT id, owner, note FROM t WHERE owner <> :project")
    return path


def test_database_without_encoding_gives_text(postgres, query):
    url = database(postgres, "SQL_ASCII", "Müller".encode())
    row = read(url, query)
    assert (row["id"], row["owner"], row["attributes"]) == (ID, "Müller", {"note": "Müller"})
    with psycopg.connect(url) as connection:
        connection.execute(b"UPDATE t SET owner = convert_from('\\xfc', 'SQL_ASCII'), note = owner")
    with pytest.raises(ConfigurationError, match=r"not UTF-8 .*: state its encoding .* \?client_encoding=LATIN1"):
        read(url, query)
    row = read(f"{url}?client_encoding=LATIN1", query)
    assert row["owner"] == "ü"


def test_database_in_another_encoding_gives_the_same_text(postgres, query):
    assert read(database(postgres, "LATIN1", "Müller".encode("latin-1")), query)["owner"] == "Müller"
