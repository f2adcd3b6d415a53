"""The dbt package follows the tables, and the files that its exposures name."""

import json
import re

import pytest
import yaml
from dbt_fixture import INSTALL

from pipelines import fingerprint
from pipelines.engine.sql_files import VIEWS
from pipelines.settings import ROOT
from pipelines.warehouse.dbt import sources
from pipelines.warehouse.ddl import WAREHOUSE_TABLES

DBT = ROOT / "sql" / "dbt"
# The tables that each question of `open_lake` rests on.
QUESTIONS = {"days": "days", "changes": "image_changes", "history": "image_history", "evidence": "responses"}
# Their views choose the newest statement, which may be known since an incomplete day.
WITHOUT_STAGING = {"image_bills", "bill_days"}


def models(kind):
    """Names of the models of a folder, and those of their descriptions."""
    described = yaml.safe_load((DBT / "models" / kind / f"{kind}.yml").read_text())["models"]
    assert all(model["description"] for model in described)
    return {path.stem for path in (DBT / "models" / kind).glob("*.sql")}, {model["name"] for model in described}


def test_sources_are_those_that_the_tables_give():
    assert (DBT / "models" / "sources.yml").read_text() == sources(), (
        "write it again: .venv/bin/python -m pipelines.warehouse.dbt > sql/dbt/models/sources.yml"
    )


def test_each_table_has_a_staging_model_that_reads_it():
    expected = {f"stg_image_snapshots__{name}" for name in WAREHOUSE_TABLES.keys() - WITHOUT_STAGING}
    assert models("staging") == (expected, expected)
    for name in expected:
        table = name.removeprefix("stg_image_snapshots__")
        text = (DBT / "models" / "staging" / f"{name}.sql").read_text()
        reads = f"complete_days('{table}')" if table not in ("days", "image_history") else f"'{table}') }}}}"
        assert reads in text


def test_marts_are_described():
    marts = {"images_current", "image_costs_daily", "findings_open", "changes"}
    assert models("marts") == (marts, marts)


def test_values_of_a_column_are_in_its_meaning():
    stated = {
        f"{table.name}.{column.name}": (column.meaning, column.values)
        for table in WAREHOUSE_TABLES.values()
        for column in table.columns
        if column.values
    }
    assert len(stated) > 15
    for name, (meaning, values) in stated.items():
        assert [value for value in values if not re.search(rf"\b{value}\b", meaning)] == [], name


EXPOSURES = {one["name"]: one for one in yaml.safe_load((DBT / "models" / "exposures.yml").read_text())["exposures"]}


@pytest.mark.parametrize("name", EXPOSURES)
def test_exposure_depends_on_what_its_files_read(name):
    files = sorted(ROOT.glob(EXPOSURES[name]["config"]["meta"]["reads"]))
    assert files
    text = "\n".join(code(path) for path in files)
    found = set(re.findall(r"\b(?:FROM|JOIN)\s+(\w+)", text)) & {*WAREHOUSE_TABLES, *VIEWS}
    found |= {QUESTIONS[question] for question in re.findall(r"\blake\.(\w+)\(", text) if question != "sql"}
    assert EXPOSURES[name]["depends_on"] == [f"source('image_snapshots', '{table}')" for table in sorted(found)]


def code(path):
    if path.suffix != ".ipynb":
        return path.read_text().replace("\\n", "\n")
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def test_dbt_reports_to_nobody_and_fetches_no_package():
    assert yaml.safe_load((DBT / "dbt_project.yml").read_text())["flags"] == {"send_anonymous_usage_stats": False}
    outputs = yaml.safe_load((DBT / "profiles.yml").read_text())["image_snapshots"]["outputs"]
    assert outputs["duckdb"]["settings"] == {"autoinstall_known_extensions": False}
    assert [name for name in ("packages.yml", "dependencies.yml") if (DBT / name).exists()] == []


def test_ci_and_the_docs_install_dbt_alike():
    assert INSTALL in (ROOT / "docs" / "dbt.md").read_text()
    assert INSTALL in (ROOT / ".ci" / "run").read_text()


def test_dbt_models_do_not_change_the_version_of_the_code(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path)
    model = tmp_path / "sql" / "dbt" / "target" / "model.sql"
    model.parent.mkdir(parents=True)
    (tmp_path / "sql" / "view.sql").write_text("SELECT 1")
    before = fingerprint.fingerprint.__wrapped__("sql")
    model.write_text("SELECT 2")
    assert fingerprint.fingerprint.__wrapped__("sql") == before
    (tmp_path / "sql" / "view.sql").write_text("SELECT 2")
    assert fingerprint.fingerprint.__wrapped__("sql") != before
