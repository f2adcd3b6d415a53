"""The scripts and views for other warehouses follow `tables`, and are SQL of their dialects."""

import re

import pytest
import sqlglot
from sqlglot import exp

from pipelines import tables as columns
from pipelines.engine.sql_files import VIEWS, read_sql
from pipelines.inputs.catalog_places import CatalogPlace
from pipelines.settings import ROOT
from pipelines.warehouse.attaching import ATTACHING
from pipelines.warehouse.ddl import SCRIPTS, WAREHOUSE_TABLES


def test_ddl_command_prints_the_script(image_snapshots):
    printed = image_snapshots("ddl", "snowflake")
    assert (printed.returncode, printed.stdout, printed.stderr) == (0, SCRIPTS["snowflake"](), "")


def test_ddl_command_attaches_the_catalog_that_is_set(image_snapshots):
    printed = image_snapshots("ddl", "trino", env={"IMAGE_SNAPSHOTS_CATALOG": "lakehouse.snapshots"})
    expected = ATTACHING["trino"](CatalogPlace("lakehouse", "snapshots"))
    assert (printed.returncode, printed.stdout, printed.stderr) == (0, expected, "")


@pytest.mark.parametrize("name", ATTACHING)
def test_attaching_is_short_and_names_the_namespace_and_no_table(name):
    script = ATTACHING[name](CatalogPlace("lakehouse", "snapshots"))
    assert len(script.splitlines()) <= 35 < len(SCRIPTS[name]().splitlines()) / 10
    assert "PyIceberg's catalog lakehouse." in script
    assert "snapshots" in script.replace("image_snapshots", "").replace("image-snapshots", "")
    statements = [line for line in script.splitlines() if not line.startswith("--")]
    assert not any(table in line for table in WAREHOUSE_TABLES for line in statements)
    # Types of tables stay with the catalog, so there is no statement on one.
    assert "TABLE " not in "\n".join(statements)
    assert "only PyIceberg reads" in ATTACHING[name](CatalogPlace("image_snapshots", "image_snapshots", "./catalog"))


def test_unknown_warehouse_is_one_sentence_with_the_known_names(image_snapshots):
    printed = image_snapshots("ddl", "oracle")
    assert (printed.returncode, printed.stdout) == (2, "")
    assert printed.stderr == (
        "Error: There is no script for 'oracle': choose one of postgresql, snowflake, bigquery, redshift, dws, trino, "
        "hive.\n"
    )


# Dialect, the parts that sqlglot cannot parse, and their replacements.
DIALECTS = {
    "postgresql": [("postgres", [])],
    "snowflake": [("snowflake", [])],
    "bigquery": [("bigquery", [(r"WITH PARTITION COLUMNS \(.*\)\n", "")])],
    "redshift": [("redshift", [])],
    # sqlglot has no DWS dialect: columns and types are checked as a PostgreSQL table.
    "dws": [("postgres", [("FOREIGN TABLE", "TABLE"), (r"\)\nSERVER [^;]*;", ");")])],
    "trino": [("trino", [(r"CALL .*;\n", "")])],
    "hive": [("hive", [(r"MSCK .*;\n", "")]), ("spark", [(r"MSCK .*;\n", "")])],
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_parse_in_their_dialect(name):
    for dialect, unknown in DIALECTS[name]:
        text = SCRIPTS[name]()
        for pattern, instead in unknown:
            assert re.search(pattern, text)
            text = re.sub(pattern, instead, text)
        statements = [statement for statement in sqlglot.parse(text, dialect=dialect) if statement]
        assert [s for s in statements if list(s.find_all(exp.Command))] == []
        created = [s for s in statements if isinstance(s, exp.Create)]
        expected = WAREHOUSE_TABLES if name == "postgresql" else columns.TABLES | columns.ANALYSIS_TABLES
        for create in created:
            table = expected[create.find(exp.Table).name]
            names = [c.name for c in create.this.find_all(exp.ColumnDef)]
            assert set(names) - {"dt", "project"} == {c.name for c in table.columns} - {"project"}
        assert len(created) == (len(WAREHOUSE_TABLES) if name == "postgresql" else 16)


def test_views_parse_in_every_dialect():
    assert sorted(VIEWS) == sorted(path.stem for path in (ROOT / "sql" / "views").glob("*.sql"))
    for name in VIEWS:
        for dialect in ("duckdb", "postgres", "spark", "snowflake", "bigquery", "redshift", "trino"):
            assert isinstance(sqlglot.parse_one(read_sql(f"views/{name}.sql"), dialect=dialect), exp.Select)
