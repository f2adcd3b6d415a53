"""Deriving ranges of ids one after the other gives the same rows, in the same order, as deriving all at once."""

import random
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from published_days import day_of, publish_snapshot

from pipelines.derive.analysis import by_rule, id_ranges
from pipelines.derive.days import derive_days
from pipelines.engine.duckdb import DuckDBEngine
from pipelines.tables import ANALYSIS_TABLES

IDS = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(0, 900, 100)]
LATE = "ffffffff-0000-4000-8000-000000000000"


def image(id_: str, day: int) -> dict:
    number = int(id_[:8], 16)
    return {
        "id": id_,
        "name": f"image-{number}",
        "namespace": f"team-{number % 3}",
        "swr_path": f"swr.example.com/team/{number}:{day if number % 2 else 1}",
        "type": "DEDICATED",
        "visibility": "PUBLIC" if number % 300 == 0 else "PRIVATE",
        "arch": "RISCV" if number % 400 == 0 else "X86_64",
        "size": number + day,
        "size_bytes": 1024 * (number + day),
        "registry": "swr.example.com",
        "tags": f'{{"environment":"of {id_}","owner":"tag"}}',
        "content_hash": f"{number}-{day if number % 2 == 0 else 1}",
    }


def take(day: int, ids: list[str], outcomes: dict[str, str], *, reads_usage: bool = True) -> None:
    """Publish and derive a day; the inventory has the ids in reverse order."""
    responses = [{"id": id_, "outcome": outcomes.get(id_, "ok")} for id_ in sorted(ids)]
    described = [row["id"] for row in responses if row["outcome"] in ("ok", "deleted")]
    today = day_of(f"2026-11-{day}")
    publish_snapshot(
        today,
        listed=[{"id": id_, "name": id_, "size": 1} for id_ in [LATE, *sorted(ids, reverse=True)]],
        references=[{"resource_id": "n", "image_id": IDS[0], "strength": "running"}] if reads_usage else None,
        inventory=[{"id": id_, "owner": None if number % 2 else "a"} for number, id_ in enumerate(reversed(ids))],
        responses=responses,
        images=[image(id_, day) for id_ in described],
        image_values=[
            {"id": id_, "field": "resource_categories", "position": 0, "value": "TPU"} for id_ in described[::2]
        ],
        image_tags=[
            {"id": id_, "key": key, "value": value}
            for id_ in described
            for key, value in (("environment", f"of {id_}"), ("owner", "tag"))
        ],
    )
    derive_days(today)


def derive_everything(
    directory: Path, monkeypatch: pytest.MonkeyPatch, ids_at_a_time: int | None
) -> dict[str, pa.Table]:
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.setattr(DuckDBEngine, "ids_at_a_time", ids_at_a_time)
    take(20, IDS[2:], {})
    # The first two are new; nobody observes their usage.
    take(21, IDS, {IDS[3]: "forbidden", IDS[4]: "deleted"}, reads_usage=False)
    take(22, IDS[:7], {IDS[2]: "not_found"})
    tables = [path for path in sorted(Path("lake").rglob("*.parquet")) if path.parts[1] in ANALYSIS_TABLES]
    return {str(path): pq.ParquetFile(path).read() for path in tables}


def test_ranges_of_ids_give_the_rows_and_the_order_of_all_ids(tmp_path, monkeypatch):
    at_once = derive_everything(tmp_path / "at_once", monkeypatch, None)
    # As on a day of many rows, which are read and held by two threads, in several groups.
    monkeypatch.setattr("pipelines.engine.duckdb.ROW_GROUP_ROWS", 2)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    threads, expect = set(), DuckDBEngine.expect

    def expect_and_note(engine: DuckDBEngine, rows: int) -> None:
        expect(engine, rows)
        threads.update(engine.read("SELECT CURRENT_SETTING('threads') AS threads")["threads"].to_pylist())

    monkeypatch.setattr(DuckDBEngine, "expect", expect_and_note)
    in_ranges = derive_everything(tmp_path / "in_ranges", monkeypatch, 2)
    assert threads == {2}
    assert at_once.keys() == in_ranges.keys()
    for path, table in at_once.items():
        assert in_ranges[path].to_pylist() == table.to_pylist(), path
    # One has no response, and the tags of its last version.
    costs = in_ranges["lake/image_costs/dt=2026-11-21/project=default/image_costs.parquet"].to_pylist()
    assert {row["id"]: row["environment"] for row in costs} == {
        id_: f"of {id_}" for id_ in sorted(IDS) if id_ != IDS[4]
    }
    assert {row["owner_source"] for row in costs} == {"inventory", "tag"}
    # There are rows of every kind that ranges could split.
    assert {path.split("/")[1] for path, table in at_once.items() if table.num_rows > len(IDS) // 2} >= {
        "image_history",
        "image_changes",
        "image_usage",
        "image_costs",
        "audit_findings",
    }


def write_responses(path: Path, ids: list[str], body: bytes) -> Path:
    pq.write_table(pa.table({"id": ids, "body": pa.array([body] * len(ids), pa.binary())}), path)
    return path


def test_each_id_is_in_exactly_one_range(tmp_path):
    ranges = id_ranges(write_responses(tmp_path / "r.parquet", IDS, b"{}"), 4)
    assert len(ranges) == 3
    asked = ["", "0", "it's", LATE, *IDS, *(id_ + "x" for id_ in IDS)]
    with DuckDBEngine() as engine:
        engine.load("asked", pa.table({"id": asked}))
        found = [engine.read(f"SELECT id FROM asked WHERE {condition}")["id"].to_pylist() for condition in ranges]
    assert sorted(chain.from_iterable(found)) == sorted(asked)
    assert next(ids for ids in found if IDS[0] in ids) == [i for i in asked if i < IDS[4]]


def test_long_responses_make_smaller_ranges(tmp_path):
    short = write_responses(tmp_path / "short.parquet", IDS, b"{}")
    assert id_ranges(short, 100) == [None]
    assert id_ranges(short, None) == [None]
    # Each has a different body: equal bodies are stored once.
    bodies = [bytes([number]) * 20_000_000 for number in range(len(IDS))]
    rows = pa.table({"id": IDS, "body": pa.array(bodies, pa.binary())})
    pq.write_table(rows, tmp_path / "long.parquet", use_dictionary=False, compression="zstd")
    assert len(id_ranges(tmp_path / "long.parquet", 100)) == len(IDS)


def test_images_of_long_texts_are_derived_in_the_memory_of_any_day(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    today = day_of("2026-11-20")
    ids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(1_000)]
    texts = {id_: random.Random(id_).randbytes(9_000).hex() for id_ in ids}
    publish_snapshot(
        today,
        responses=[{"id": id_, "outcome": "ok", "body": (text + text[::-1]).encode()} for id_, text in texts.items()],
        images=[
            {"id": id_, "visibility": "PUBLIC", "description": text, "extra": text[::-1], "content_hash": id_}
            for id_, text in texts.items()
        ],
    )
    result = derive_days(today)
    assert result.history.versions == len(ids)
    history = pq.ParquetFile(result.history.path.local).read(["id", "description"]).to_pylist()
    assert {row["id"]: row["description"] for row in history} == texts


def test_findings_of_ranges_are_ordered_by_rule_and_id(tmp_path):
    schema = pa.schema([("rule", pa.string()), ("id", pa.string())])
    rows = [[("b", "1"), ("z", "1")], [], [("a", "2"), ("b", "2"), ("b", "3")], [("z", "4")]]
    ranges = [
        [pa.RecordBatch.from_pylist([{"rule": rule, "id": id_} for rule, id_ in of_range], schema)] for of_range in rows
    ]
    found = [tuple(row.values()) for batch in by_rule(ranges, schema, tmp_path / "x") for row in batch.to_pylist()]
    assert found == sorted(chain.from_iterable(rows))
