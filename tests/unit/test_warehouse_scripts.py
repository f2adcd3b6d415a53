"""The scripts and views for other warehouses follow `tables`, and are SQL of their dialects."""

import re

import pytest
import sqlglot
from sqlglot import exp

from pipelines import tables as columns
from pipelines.engine.sql_files import VIEWS, read_sql
from pipelines.settings import ROOT
from pipelines.warehouse.ddl import SCRIPTS, WAREHOUSE_TABLES


def test_ddl_command_prints_the_script(image_snapshots):
    printed = image_snapshots("ddl", "snowflake")
    assert (printed.returncode, printed.stdout, printed.stderr) == (0, SCRIPTS["snowflake"](), "")


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
