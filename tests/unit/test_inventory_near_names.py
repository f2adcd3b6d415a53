"""Inventory headers that nearly match one of our columns are used or refused, never ignored."""

import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import ConfigurationError
from pipelines.inventory.cleaning import Inventory

A = "0f0c1f6e-0000-4000-8000-00000000000a"
B = "0f0c1f6e-0000-4000-8000-00000000000b"


def read(path: Path) -> list[dict]:
    inventory = Inventory(snapshot_date=date(2026, 11, 23), project_key="main", project_keys=("main", "lab"))
    return [row for batch in inventory.read(str(path), Path("not-read.sql")) for row in batch.to_pylist()]


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigurationError) as raised:
        read(path)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("i.csv", f'"id", "project", "owner"\n"{A}", "main", "Lee, Ann"\n"{B}", "lab", "x"\n'),
        ("i.csv", f'id, project, owner\n{A}, "main", "Lee, Ann"\n{B}, "lab", x\n'),
        ("i.csv", f'id,project,owner\n{A}, "main", "Lee, Ann"\n{B},lab,x\n'),
        ("i.csv", f'\ufeff "id",  "Project", "OWNER"\n {A},main,"Lee, Ann"\n{B},lab,x\n'),
        ("i.tsv", f'"id"\t "project"\t "owner"\n{A}\t "main"\t "Lee, Ann"\n{B}\tlab\tx\n'),
        ("i.csv", f"'id','project','owner'\n{A},main,\"Lee, Ann\"\n{B},lab,x\n"),
        ("i.csv", f'`id`,“project”,\u200bowner\u00a0\n{A},main,"Lee, Ann"\n{B},lab,x\n'),
    ],
)
def test_blanks_and_quotes_around_names_and_values_are_removed(tmp_path, name, content):
    rows = read(written(tmp_path / name, content))
    assert [(row["id"], row["owner"], row["attributes"]) for row in rows] == [(A, "Lee, Ann", None)]


def test_value_with_a_leading_blank_is_kept_as_read(tmp_path):
    rows = read(written(tmp_path / "i.csv", f'id,note\n {A}, x\n{B},"y ""z"", w"\n'))
    assert [(row["id_as_read"], row["attributes"]) for row in rows] == [
        (f" {A}", '{"note":" x"}'),
        (B, '{"note":"y \\"z\\", w"}'),
    ]


@pytest.mark.parametrize(
    ("header", "meant"),
    [
        ("projects", "project"),
        ("projekt", "project"),
        ("projcet", "project"),
        ("Pro ject", "project"),
        ("project.", "project"),
        ("Owners", "owner"),
        ("ower", "owner"),
        ("cost center", "cost_center"),
        ("Cost-Center", "cost_center"),
        ("CostCentre", "cost_center"),
        ("cost_centers", "cost_center"),
        ("enviroment", "environment"),
        ("Environments", "environment"),
    ],
)
def test_misspelt_column_is_refused_with_the_known_name(tmp_path, header, meant):
    message = refusal(written(tmp_path / "i.csv", f"id,{header}\n{A},lab\n"))
    assert message == (
        f"The inventory {tmp_path}/i.csv has a column {header!r}, which would be kept only as an attribute: did you "
        f"mean {meant!r}? Rename it to that, or to a name that is less similar."
    )


@pytest.mark.parametrize("header", ["imageId", "Image ID", "image-id", "images_id", "ImageIDs", "_id", "i.d."])
def test_misspelt_id_column_is_suggested(tmp_path, header):
    message = refusal(written(tmp_path / "i.csv", f"owner,{header}\nx,{A}\n"))
    assert f"has no column 'id' or 'image_id' (columns found: 'owner', {header!r}): did you mean {header!r}?" in message


@pytest.mark.parametrize("name", ["i.json", "i.jsonl", "i.parquet"])
def test_misspelt_columns_are_refused_in_every_kind_of_file(tmp_path, name):
    row = {"id": A, "Projects": "lab"}
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / name)
    else:
        written(tmp_path / name, json.dumps([row] if name == "i.json" else row))
    assert "did you mean 'project'?" in refusal(tmp_path / name)


def test_project_with_remaining_quotes_is_refused(tmp_path):
    message = refusal(written(tmp_path / "i.json", json.dumps([{"id": A, "project": '"main"'}])))
    assert "has quotation marks around a project, '\"main\"'" in message


def test_different_names_stay_attributes(tmp_path):
    row = {"id": A, "project_id": "p", "owner_email": "o", "env": "e", "uuid": "u", "cost_code": "c", "product": "d"}
    (kept,) = read(written(tmp_path / "i.json", json.dumps([row])))
    assert json.loads(kept["attributes"]) == {name: value for name, value in row.items() if name != "id"}


def test_similar_name_beside_the_known_one_stays_an_attribute(tmp_path):
    rows = read(written(tmp_path / "i.csv", f"image_id,_id,owner,owners\n{A},7,x,y\n"))
    assert [(row["id"], row["owner"], row["attributes"]) for row in rows] == [(A, "x", '{"_id":"7","owners":"y"}')]
