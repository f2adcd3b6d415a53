import json
import os
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from permissions import unreadable

from pipelines import tables as columns
from pipelines.errors import ConfigurationError
from pipelines.inventory import sources as inventory_sources
from pipelines.inventory.cleaning import Inventory, InventoryCounts
from pipelines.inventory.sources import InventorySource, describe_source

DAY = date(2026, 11, 23)
A = "0f0c1f6e-0000-4000-8000-00000000000a"
B = "0f0c1f6e-0000-4000-8000-00000000000b"
C = "0f0c1f6e-0000-4000-8000-00000000000c"
NO_QUERY = Path("not-read.sql")


def reading(project_key: str = "main", project_keys: tuple[str, ...] = ("main", "lab"), **options) -> Inventory:
    return Inventory(snapshot_date=DAY, project_key=project_key, project_keys=project_keys, **options)


def read(path: Path, **options) -> tuple[list[dict], InventoryCounts]:
    inventory = reading(**options)
    batches = list(inventory.read(str(path), NO_QUERY))
    assert all(batch.schema.equals(columns.INVENTORY.schema) for batch in batches)
    return pa.Table.from_batches(batches, columns.INVENTORY.schema).to_pylist(), inventory.counts


def ids(path: Path, **options) -> list[str]:
    return [row["id"] for row in read(path, **options)[0]]


def refusal(path: Path, **options) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# What every kind of file must give


def make_csv(path: Path, rows: list[dict]) -> None:
    lines = [",".join(rows[0])] + [",".join(row.values()) for row in rows]
    path.write_text("\n".join(lines) + "\n")


def make_tsv(path: Path, rows: list[dict]) -> None:
    lines = ["\t".join(rows[0])] + ["\t".join(row.values()) for row in rows]
    path.write_text("\n".join(lines) + "\n")


def make_json(path: Path, rows: list[dict]) -> None:
    path.write_text(json.dumps(rows))


def make_wrapped_json(path: Path, rows: list[dict]) -> None:
    path.write_text(json.dumps({"total": len(rows), "data": rows, "more": {"pages": [1]}}))


def make_jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("\n".join(json.dumps(row) for row in rows))


def make_parquet(path: Path, rows: list[dict]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


MAKERS = [
    pytest.param("i.csv", make_csv, id="csv"),
    pytest.param("i.tsv", make_tsv, id="tsv"),
    pytest.param("i.json", make_json, id="json"),
    pytest.param("i.json", make_wrapped_json, id="json object with one list"),
    pytest.param("I.JSONL", make_jsonl, id="jsonl"),
    pytest.param("i.parquet", make_parquet, id="parquet"),
]


@pytest.mark.parametrize(("name", "make"), MAKERS)
def test_every_kind_of_file_gives_the_same_table(tmp_path, name, make):
    make(
        tmp_path / name,
        [
            {"Image_ID": f" {A.upper()} ", "project": "main", "OWNER": "vision", "cost_center": "00123", "team": "x"},
            {"Image_ID": B, "project": "", "OWNER": " ", "cost_center": "NA", "team": ""},
            {"Image_ID": A, "project": "main", "OWNER": "other", "cost_center": "1", "team": "y"},
            {"Image_ID": "", "project": "main", "OWNER": "x", "cost_center": "1", "team": "z"},
            {"Image_ID": C, "project": "lab", "OWNER": "x", "cost_center": "1", "team": "z"},
            {"Image_ID": C, "project": "gone", "OWNER": "x", "cost_center": "1", "team": "z"},
            {"Image_ID": "1e5", "project": "main", "OWNER": "x", "cost_center": "1", "team": "z"},
        ],
    )
    rows, counts = read(tmp_path / name)
    key = {"snapshot_date": DAY, "project_key": "main", "id_source": "inventory"}
    nothing = {"owner": None, "cost_center": None, "environment": None, "attributes": None}
    assert rows == [
        key
        | {"id": A, "id_as_read": f" {A.upper()} ", "is_valid": True}
        | {"owner": "vision", "cost_center": "00123", "environment": None, "attributes": '{"team":"x"}'},
        key | {"id": B, "id_as_read": B, "is_valid": True} | nothing | {"cost_center": "NA"},
        key
        | {"id": "1e5", "id_as_read": "1e5", "is_valid": False}
        | {"owner": "x", "cost_center": "1", "environment": None, "attributes": '{"team":"z"}'},
    ]
    assert counts == InventoryCounts(
        rows_read=7, other_project=1, unknown_project=1, blank=1, duplicate=1, ids=3, invalid=1
    )


# Text files


def test_txt_skips_comments_and_blank_lines(tmp_path):
    path = write(tmp_path / "i.txt", f"\ufeff# images\r\n{A}\r\n\r\n  {B}\t# bob's\n#{C}\nname#1\n{A}")
    rows, counts = read(path)
    assert [(r["id"], r["id_as_read"]) for r in rows] == [(A, A), (B, f"  {B}"), ("name#1", "name#1")]
    assert counts == InventoryCounts(rows_read=4, duplicate=1, ids=3, invalid=1)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(f"\ufeffid,owner\n{A},x\n", id="byte order mark"),
        pytest.param(f" ID , owner \n{A},x\n", id="spaces and capitals in the header"),
        pytest.param(f"id,owner\r\n{A},x\r\n\r\n", id="CRLF and a blank line at the end"),
        pytest.param(f'"id","owner"\n"{A}","x"', id="quotes, and no end of line at the end"),
        pytest.param(f"\n\nowner,image_id\nx,{A}\n", id="blank lines before the header"),
        pytest.param(f"id,owner,,\n{A},x,,\n", id="unnamed empty columns"),
    ],
)
def test_csv_from_spreadsheets_is_read(tmp_path, content):
    rows, _ = read(write(tmp_path / "i.csv", content))
    assert [(r["id"], r["owner"], r["attributes"]) for r in rows] == [(A, "x", None)]


def test_csv_values_stay_text(tmp_path):
    path = write(tmp_path / "i.csv", f'id,size,note,flag,\n00123,1e5,"a\nb, ""c""",true,x\nnull,NA,,,\n{A},007,ä,,\n')
    rows, _ = read(path)
    assert [r["id"] for r in rows] == ["00123", "null", A]
    assert [r["is_valid"] for r in rows] == [False, False, True]
    assert [r["attributes"] for r in rows] == [
        '{"column_5":"x","flag":"true","note":"a\\nb, \\"c\\"","size":"1e5"}',
        '{"size":"NA"}',
        '{"note":"ä","size":"007"}',
    ]


# JSON


def test_json_array_of_ids_is_read(tmp_path):
    assert ids(write(tmp_path / "i.json", json.dumps([A, f" {B}", "", None, 12, A]))) == [A, B, "12"]


def test_json_lines_of_ids_are_read(tmp_path):
    assert ids(write(tmp_path / "i.jsonl", f'\ufeff"{A}"\n\n{{"id": "{B}"}}\n')) == [A, B]


def test_json_attributes_keep_their_types(tmp_path):
    item = {"id": A, "z": 1, "b": True, "n": None, "e": "", "f": 1.5, "l": ["x", {"k": 1}], "big": 2**70, "owner": 7}
    rows, _ = read(write(tmp_path / "i.json", json.dumps([item])))
    assert rows[0]["attributes"] == (
        '{"b":true,"big":"1180591620717411303424","f":1.5,"l":["x",{"k":1}],"z":1}'  # sorted by name
    )
    assert rows[0]["owner"] == "7"


@pytest.mark.parametrize("name", ["i.json", "i.jsonl"])
def test_json_keeps_nan_as_text_and_the_last_of_equal_names(tmp_path, name):
    item = f'{{"id": "{B}", "x": NaN, "id": "{A}", "n": {10**30}}}'
    rows, _ = read(write(tmp_path / name, f"[{item}]" if name == "i.json" else item))
    assert [(row["id"], row["attributes"]) for row in rows] == [(A, f'{{"n":"{10**30}","x":"NaN"}}')]


def test_json_objects_may_differ_in_their_fields(tmp_path, monkeypatch):
    # The second chunk has no id at all; these are blank ids, not a missing column.
    monkeypatch.setattr(inventory_sources, "BATCH_ROWS", 2)
    lines = [{"ID": A}, {"ID": B, "owner": "x"}, {"owner": "y"}, {"team": "z"}]
    rows, counts = read(write(tmp_path / "i.jsonl", "\n".join(map(json.dumps, lines))))
    assert [(r["id"], r["owner"]) for r in rows] == [(A, None), (B, "x")]
    assert counts.blank == 2


@pytest.mark.parametrize("block", [1, 2, 7, 64, 1 << 20])
def test_json_is_read_the_same_in_blocks_of_any_size(tmp_path, monkeypatch, block):
    monkeypatch.setattr(inventory_sources, "_BLOCK_CHARACTERS", block)
    items = [{"id": A, "n": 123456, "s": 'q"\\u00e4,]}', "l": [[], {}]}, B, {"id": C, "n": -1.5e3}]
    path = write(tmp_path / "i.json", json.dumps({"n": 12, "data": items, "m": "x"}, indent=3))
    rows, _ = read(path)
    assert [r["id"] for r in rows] == [A, B, C]
    assert [r["attributes"] for r in rows] == [
        json.dumps({"l": [[], {}], "n": 123456, "s": 'q"\\u00e4,]}'}, separators=(",", ":")),
        None,
        '{"n":-1500.0}',
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param("", "an array, or an object with one list (it has 0)", id="empty"),
        pytest.param('"x"', "(it has 0)", id="a bare string"),
        pytest.param('{"a": 1}', "(it has 0)", id="no list"),
        pytest.param('{"a": ["x"], "b": []}', "(it has 2)", id="two lists"),
        pytest.param('[\n"a",\n"b"\n"c"]', "line 4: expected ','", id="missing comma"),
        pytest.param('[\n"a",\n', "line 3: Expecting value", id="cut off after a comma"),
        pytest.param('[\n"a"', "line 2: expected ','", id="cut off after an item"),
        pytest.param('[\n"a', "line 2: Unterminated string", id="cut off in a string"),
        pytest.param('["a",]', "line 1: Expecting value", id="trailing comma"),
        pytest.param('{"a" ["x"]}', "line 1: expected ':'", id="missing colon"),
        pytest.param('["a"]\n["b"]', "line 2: there is text after its end", id="two documents"),
        pytest.param('{"id": "a"}\n{"id": "b"}\n', "(it has 0)", id="JSON lines"),
        pytest.param('[["a"]]', "a list as its item 1", id="list of lists"),
        pytest.param("[" + "[" * 100_000, "line 1: it is nested too deeply", id="nested without end"),
        pytest.param('["\\ud800"]', "a value that cannot be stored, between rows 1 and 1", id="half a surrogate pair"),
    ],
)
def test_broken_json_is_refused_with_its_place(tmp_path, content, said):
    assert said in refusal(write(tmp_path / "i.json", content))


def test_broken_json_names_the_line_in_a_later_block(tmp_path, monkeypatch):
    monkeypatch.setattr(inventory_sources, "_BLOCK_CHARACTERS", 50)
    items = ",\n".join(f'"{UUID(int=n)}"' for n in range(100))
    assert "broken JSON in line 101:" in refusal(write(tmp_path / "i.json", f"[{items},\nx]"))


def test_broken_json_line_is_refused_with_its_number(tmp_path):
    path = write(tmp_path / "i.jsonl", f'{{"id": "{A}"}}\n\n{{"id": }}\n')
    assert "i.jsonl is broken JSON in line 3: Expecting value." in refusal(path)


# Parquet


def test_parquet_values_keep_their_types(tmp_path):
    table = pa.table(
        {
            "id": pa.array([UUID(A).bytes, UUID(B).bytes, None], pa.uuid()),
            "owner": pa.array(["x", "y", "x"]).dictionary_encode(),
            "cost_center": pa.array([12, None, 3], pa.int64()),
            "environment": pa.array([b"prod", b"", None], pa.binary()),
            "seen": pa.array([datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), None, None], pa.timestamp("us", "UTC")),
            "tags": pa.array([["a", None], [], None], pa.list_(pa.string())),
        }
    )
    pq.write_table(table, tmp_path / "i.parquet")
    rows, counts = read(tmp_path / "i.parquet")
    assert [(r["id"], r["owner"], r["cost_center"], r["environment"]) for r in rows] == [
        (A, "x", "12", "prod"),
        (B, "y", None, None),
    ]
    assert rows[0]["attributes"] == '{"seen":"2026-01-02T03:04:05+00:00","tags":["a",null]}'
    assert counts == InventoryCounts(rows_read=3, blank=1, ids=2)


@pytest.mark.parametrize("type_", [pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()])
def test_parquet_text_of_any_layout_is_read(tmp_path, type_):
    pq.write_table(pa.table({"image_id": pa.array([A, "00123"]).cast(type_)}), tmp_path / "i.parquet")
    assert ids(tmp_path / "i.parquet") == [A, "00123"]


def test_parquet_bytes_that_are_not_text_are_refused(tmp_path):
    pq.write_table(pa.table({"id": pa.array([A.encode(), b"\xff"])}), tmp_path / "i.parquet")
    assert "i.parquet holds a value that cannot be stored, between rows 1 and 2:" in refusal(tmp_path / "i.parquet")


# Ids and projects


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(A.replace("-", ""), id="without dashes"),
        pytest.param(f"{{{A}}}", id="in braces"),
        pytest.param(f"urn:uuid:{A}", id="as a URN"),
        pytest.param(A[:-1], id="a digit short"),
        pytest.param(A + "\n" + B, id="two in one"),
        pytest.param(A[:-1] + "\uff11", id="a digit of another script"),
        pytest.param("group", id="a word of the API's paths"),
        pytest.param("../projects", id="a path"),
    ],
)
def test_other_forms_of_an_id_are_kept_as_invalid(tmp_path, written):
    rows, counts = read(write(tmp_path / "i.json", json.dumps([f" {written.upper()}", written, C])))
    assert [(r["id"], r["is_valid"]) for r in rows] == [(written.upper().lower(), False), (C, True)]
    assert (counts.ids, counts.invalid, counts.duplicate) == (2, 1, 1)


def test_rows_without_a_project_belong_to_every_project(tmp_path):
    path = write(tmp_path / "i.csv", f"id,project\n{A},\n{B}, main \n{C},lab\n")
    assert ids(path, project_key="main") == [A, B]
    assert ids(path, project_key="lab") == [A, C]


def test_same_id_in_another_project_is_not_a_duplicate(tmp_path):
    rows, counts = read(write(tmp_path / "i.csv", f"id,project,owner\n{A},lab,x\n{A},main,y\n"))
    assert [(r["id"], r["owner"]) for r in rows] == [(A, "y")]
    assert counts == InventoryCounts(rows_read=2, other_project=1, ids=1)


def test_project_is_matched_exactly(tmp_path):
    _, counts = read(write(tmp_path / "i.csv", f"id,project\n{A},Main\n{B},main\n"))
    assert counts == InventoryCounts(rows_read=2, unknown_project=1, ids=1)


@pytest.mark.parametrize(
    ("name", "content"),
    [("i.csv", "id\n"), ("i.txt", "# none\n"), ("i.json", "[]"), ("i.jsonl", ""), ("i.csv", "id,project\nx,lab\n,\n")],
)
def test_empty_inventory_is_refused_unless_allowed(tmp_path, name, content):
    path = write(tmp_path / name, content)
    assert "holds no image id for project 'main'" in refusal(path)
    assert ids(path, allow_empty=True) == []


def test_refusal_of_an_empty_inventory_counts_the_dropped_rows(tmp_path):
    message = refusal(write(tmp_path / "i.csv", "id,project\nx,lab\n,\n,main\ny,gone\n"))
    assert "(4 rows read, 2 blank, 1 of other projects, 1 of projects that are not configured)" in message


@pytest.mark.parametrize("wrong", ["'{}'", "img-{}", "{{{}}}", "undashed"])
def test_inventory_without_valid_ids_is_refused_with_an_example(tmp_path, wrong):
    written = [A.replace("-", "") if wrong == "undashed" else wrong.format(id_) for id_ in (A, B, C)]
    message = refusal(write(tmp_path / "i.json", json.dumps(written)))
    count = len(set(written))
    assert f", {count} of {count} ids for project 'main' are not image ids, such as {written[0]!r}" in message


def test_too_many_invalid_ids_are_refused_but_fewer_are_not(tmp_path):
    path = write(tmp_path / "i.json", json.dumps([A, B, C, "no id"]))
    assert len(ids(path, max_invalid_ratio=0.25)) == 4
    assert "IMAGE_SNAPSHOTS_MAX_INVALID_RATIO allows 0.2 of them" in refusal(path, max_invalid_ratio=0.2)
    # `allow_empty` does not make invalid ids acceptable.
    only = write(tmp_path / "j.json", json.dumps(["no id"]))
    assert "not image ids" in refusal(only, max_invalid_ratio=0.2, allow_empty=True)


CELL = st.one_of(st.sampled_from(["", " ", A, A.upper(), B, f" {C}\t", "x", "X "]), st.text(max_size=4))


@given(st.lists(st.tuples(CELL, st.sampled_from([None, "", "main", "lab", "gone"])), max_size=30))
def test_every_row_is_counted_once(tmp_path_factory, pairs):
    path = tmp_path_factory.getbasetemp() / "property.jsonl"
    path.write_text("\n".join(json.dumps({"id": i, "project": p}) for i, p in pairs))
    rows, c = read(path, allow_empty=True)
    assert c.rows_read == len(pairs) == c.other_project + c.unknown_project + c.blank + c.duplicate + c.ids
    kept = [row["id"] for row in rows]
    assert kept == list(dict.fromkeys(i.strip().lower() for i, p in pairs if p in (None, "", "main") and i.strip()))
    assert c.ids == len(kept)
    assert c.invalid == len([id_ for id_ in kept if id_ not in (A, B, C)])


# Columns


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("name;id", "has no column 'id' or 'image_id' (columns found: 'name;id')"),
        ("name,owner", "(columns found: 'name', 'owner')"),
        ("id,Image_Id", "two columns for 'id' ('id' and 'Image_Id')"),
        ("id,owner,Owner", "two columns for 'owner' ('owner' and 'Owner')"),
        ("id,x,x", "two columns for 'x' ('x' and 'x')"),
    ],
)
def test_unusable_headers_are_refused(tmp_path, header, said):
    assert said in refusal(write(tmp_path / "i.csv", f"{header}\n"))


def test_attribute_names_that_differ_in_case_are_two_columns(tmp_path):
    rows, _ = read(write(tmp_path / "i.csv", f"id,Team,team\n{A},x,y\n"))
    assert rows[0]["attributes"] == '{"Team":"x","team":"y"}'


@pytest.mark.parametrize(("name", "content"), [("i.json", '[{"name": "a"}]'), ("i.jsonl", '{"name": "a"}')])
def test_json_without_an_id_column_is_refused(tmp_path, name, content):
    assert "has no column 'id' or 'image_id' (columns found: 'name')" in refusal(write(tmp_path / name, content))


def test_parquet_without_an_id_is_refused_although_it_has_no_rows(tmp_path):
    pq.write_table(pa.table({"name": pa.array([], pa.string())}), tmp_path / "i.parquet")
    assert "(columns found: 'name')" in refusal(tmp_path / "i.parquet")


# Files that cannot be read


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        pytest.param("i.csv", b"", "i.csv is empty: it needs a header", id="empty csv"),
        pytest.param("i.csv", b"id,x\n1,2\n\n3\n", "in line 4: it has 1 values for 2 columns", id="a value short"),
        pytest.param("i.csv", b'id,x\n"1\n","2"\n1,2,3\n', "line 4: it has 3 values for 2", id="a value too many"),
        pytest.param("i.csv", b'id,x\n1,"2\n3,4\n', "begins in line 2: unexpected end of data", id="open quote"),
        pytest.param("i.csv", b'id\n1\n"2\n"3\n4\n', "begins in line 3: ',' expected", id="two open quotes"),
        pytest.param("i.csv", b'id\n"' + b"1\n" * 99_999, "line 2: unexpected end of data", id="open quote, long file"),
        pytest.param("i.csv", b"id,x\n1,\xe4\n", "is not UTF-8 text", id="latin-1 in a value"),
        pytest.param("i.csv", b"id,\xe4\n1,a\n", "is not UTF-8 text", id="latin-1 in the header"),
        pytest.param("i.txt", b"a\xe4\n", "is not UTF-8 text", id="latin-1 lines"),
        pytest.param("i.json", b'["\xe4"]', "is not UTF-8 text", id="latin-1 JSON"),
        pytest.param("i.jsonl", b'"\xe4"', "is not UTF-8 text", id="latin-1 JSON lines"),
        pytest.param("i.parquet", b"", "is not valid PARQUET: Parquet file size is 0 bytes", id="empty parquet"),
        pytest.param("i.parquet", b"id\n1\n" * 9, "is not valid PARQUET: Parquet magic", id="csv named parquet"),
    ],
)
def test_broken_files_are_refused(tmp_path, name, content, said):
    assert said in refusal(write(tmp_path / name, content))


def test_truncated_or_damaged_parquet_is_refused(tmp_path):
    pq.write_table(pa.table({"id": [str(UUID(int=n)) for n in range(5000)]}), tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    assert "is not valid PARQUET" in refusal(write(tmp_path / "cut.parquet", whole[:-100]))
    damaged = whole[:50] + bytes(2000) + whole[2050:]
    assert "is not valid PARQUET" in refusal(write(tmp_path / "damaged.parquet", damaged))


def test_missing_file_is_refused(tmp_path):
    message = refusal(tmp_path / "none.csv")
    assert message.startswith(f"The inventory file {tmp_path / 'none.csv'} does not exist (working directory")


@pytest.mark.parametrize("name", ["images.xlsx", "images", "modelarts", "i.csv.gz"])
def test_unknown_file_ending_is_refused(tmp_path, name):
    message = refusal(tmp_path / name)
    assert "ends in .csv .tsv .txt .json .jsonl .parquet, a database URL such as" in message


def test_directory_is_refused(tmp_path):
    (tmp_path / "d.csv").mkdir()
    assert refusal(tmp_path / "d.csv").endswith("d.csv cannot be read: Is a directory.")


def test_file_without_permission_is_refused(tmp_path):
    path = write(tmp_path / "i.csv", f"id\n{A}\n")
    with unreadable(path):
        message = refusal(path)
    assert message.endswith("i.csv cannot be read: Permission denied.")


# Describing a source


def test_describe_source_describes_a_file(tmp_path):
    path = write(tmp_path / "i.csv", "id\n")
    os.utime(path, (0, 1_760_000_000))
    assert describe_source(str(path)) == InventorySource(
        "file", str(path), datetime(2025, 10, 9, 8, 53, 20, tzinfo=UTC)
    )


def test_path_may_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "i.txt", A)
    assert describe_source("~/i.txt").name == str(tmp_path / "i.txt")
    assert ids(Path("~/i.txt")) == [A]


def test_describe_source_describes_the_image_list():
    assert describe_source("modelarts:") == InventorySource("modelarts", "modelarts:", None)


# The image list


async def listed(given_ids: list[str]) -> AsyncIterator[str]:
    for id_ in given_ids:
        yield id_


async def test_ids_of_the_image_list_become_the_inventory():
    inventory = reading()
    many = [str(UUID(int=n)) for n in range(inventory_sources.BATCH_ROWS + 10)]
    batches = [batch async for batch in inventory.read_listed(listed([*many, many[0].upper()]))]
    assert [batch.num_rows for batch in batches] == [inventory_sources.BATCH_ROWS, 10]
    assert batches[0].column("id").to_pylist() == many[:-10]
    assert set(batches[1].column("project_key").to_pylist()) == {"main"}
    assert inventory.counts == InventoryCounts(rows_read=len(many) + 1, duplicate=1, ids=len(many))


async def test_empty_image_list_is_refused_unless_allowed():
    with pytest.raises(ConfigurationError, match=r"^The inventory modelarts: holds no image id for project 'main'"):
        _ = [batch async for batch in reading().read_listed(listed([]))]
    assert [batch async for batch in reading(allow_empty=True).read_listed(listed([]))] == []


# Size


@pytest.mark.parametrize("name", ["i.csv", "i.json", "i.parquet"])
def test_many_ids_are_read_in_batches(tmp_path, name):
    rows = [{"id": str(UUID(int=n)), "owner": "x"} for n in range(70_000)]
    {"i.csv": make_csv, "i.json": make_json, "i.parquet": make_parquet}[name](tmp_path / name, rows)
    inventory = reading()
    batches = list(inventory.read(str(tmp_path / name), NO_QUERY))
    assert [i for batch in batches for i in batch.column("id").to_pylist()] == [row["id"] for row in rows]
    assert inventory.counts == InventoryCounts(rows_read=70_000, ids=70_000)
    assert max(batch.num_rows for batch in batches) < 200_000
