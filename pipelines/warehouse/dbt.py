"""Writes the part of the dbt package `sql/dbt` that follows from `tables`: the sources, with what dbt tests in them.

`python -m pipelines.warehouse.dbt > sql/dbt/models/sources.yml` updates the file. Models, exposures and generic tests
are written by hand and do not belong here.
"""

import sys
from collections.abc import Iterable
from typing import Any

import yaml

from pipelines.engine.sql_files import VIEWS, read_view
from pipelines.tables import (
    IMAGE_CHANGES,
    IMAGE_HISTORY,
    IMAGE_TAGS,
    IMAGE_VALUES,
    IMAGES,
    INVENTORY,
    KNOWN_VALUES,
    LIST_FIELDS,
    RESPONSES,
    Column,
    Table,
)
from pipelines.warehouse.ddl import DAYS, PROJECT, WAREHOUSE_TABLES, sql_type

_SOURCE = "image_snapshots"
# A day is due some hours after midnight UTC. So its row in `days` is at most about 30 hours old before the next comes.
_WARN_HOURS, _ERROR_HOURS = 30, 54

_DAY = (PROJECT.name, "snapshot_date")
_IMAGE_DAY = (*_DAY, "id")
# Each row of the first table has one of the second, by these columns. All tables of a day have its row in `days`, too.
_PARENTS = (
    (RESPONSES, INVENTORY, _IMAGE_DAY),
    (IMAGES, RESPONSES, _IMAGE_DAY),
    (IMAGE_VALUES, IMAGES, _IMAGE_DAY),
    (IMAGE_TAGS, IMAGES, _IMAGE_DAY),
    (IMAGE_CHANGES, IMAGE_HISTORY, (PROJECT.name, "id")),
)


def sources() -> str:
    """The whole file, as YAML."""
    source = {
        "name": _SOURCE,
        "description": "What image-snapshots loads into its warehouse: one row for each day and project and thing.",
        "loader": "image-snapshots",
        # dbt opens a DuckDB warehouse beside its own file, under this name.
        "database": "{{ var('warehouse_database', 'warehouse' if target.type == 'duckdb' else target.database) }}",
        "schema": "{{ var('warehouse_schema', 'main' if target.type == 'duckdb' else 'public') }}",
        "tables": [*map(_table, WAREHOUSE_TABLES.values()), *map(_view, VIEWS)],
    }
    header = "# Made from pipelines/tables/ by `python -m pipelines.warehouse.dbt`; do not edit by hand.\n"
    content = {"version": 2, "sources": [source]}
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    return header + text


def _table(table: Table) -> dict[str, Any]:
    described: dict[str, Any] = {"name": table.name, "description": table.meaning}
    if table is DAYS:
        described["config"] = {
            "loaded_at_field": "published_at",
            "freshness": {
                "warn_after": {"count": _WARN_HOURS, "period": "hour"},
                "error_after": {"count": _ERROR_HOURS, "period": "hour"},
            },
        }
    described["data_tests"] = [
        _test("unique_key", f"{table.name}_key_is_unique", columns=table.key),
        *(
            _test("parent_exists", f"{table.name}_belong_to_{parent}", columns=columns, parent=_source(parent))
            for parent, columns in _parents(table)
        ),
    ]
    described["columns"] = [_column(table, column) for column in table.columns]
    return described


def _view(name: str) -> dict[str, Any]:
    return {"name": name, "description": f"A view: {read_view(f'views/{name}.sql').meaning}"}


def _parents(table: Table) -> Iterable[tuple[str, tuple[str, ...]]]:
    if set(_DAY) <= {column.name for column in table.columns} and table is not DAYS:
        yield DAYS.name, _DAY
    for child, parent, columns in _PARENTS:
        if child.name == table.name:
            yield parent.name, columns


def _column(table: Table, column: Column) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": column.name,
        "description": column.meaning,
        "data_type": sql_type(column),
    }
    if tests := list(_value_tests(table, column)):
        described["data_tests"] = tests
    return described


def _value_tests(table: Table, column: Column) -> Iterable[dict[str, Any]]:
    name = f"{table.name}_{column.name}"
    if column.values:
        yield _test("accepted_values", f"{name}_is_known", values=map(str, column.values))
    if table.name == IMAGE_VALUES.name and column.name == "value":
        for field in LIST_FIELDS:
            yield _documented(f"{name}_of_{field}", KNOWN_VALUES[field], where=f"field = '{field}'")
    elif table.name in (IMAGES.name, IMAGE_HISTORY.name) and column.name in KNOWN_VALUES.keys() - set(LIST_FIELDS):
        yield _documented(name, KNOWN_VALUES[column.name])


def _documented(name: str, values: Iterable[str], **config: str) -> dict[str, Any]:
    """Warn of values that the API does not document: its enumerations are open, and letter case varies."""
    test = _test("documented_values", f"{name}_is_documented", values=sorted(values))
    test["documented_values"]["config"] = {"severity": "warn", **config}
    return test


def _test(kind: str, name: str, **arguments: Any) -> dict[str, Any]:
    listed = {key: value if isinstance(value, str) else list(value) for key, value in arguments.items()}
    return {kind: {"name": name, "arguments": listed}}


def _source(name: str) -> str:
    return f"source('{_SOURCE}', '{name}')"


if __name__ == "__main__":
    sys.stdout.write(sources())
