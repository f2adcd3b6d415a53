"""Loads published partitions into a warehouse, each in one transaction, and brings the warehouse's schema up to date.

Not here: the interface of a warehouse (`interface`), each kind (`duckdb`, `postgres`), its tables (`ddl`), and the
files that are loaded (`sources`).
"""

import hashlib
import re
import time
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from pipelines.engine.sql_files import VIEWS, read_view
from pipelines.engine.sql_text import quoted
from pipelines.errors import ConfigurationError
from pipelines.inputs.environment import at_home
from pipelines.inputs.secret_urls import looks_like_url
from pipelines.lake.derived_manifests import bases
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.retention_records import RetentionRecords
from pipelines.tables import IMAGE_HISTORY, Table
from pipelines.warehouse.ddl import (
    DAYS,
    PROJECT,
    WAREHOUSE_TABLES,
    add_column,
    create_table,
    sql_type,
)
from pipelines.warehouse.duckdb import open_duckdb
from pipelines.warehouse.interface import Warehouse
from pipelines.warehouse.sources import OpenPartition, is_loadable, open_partition, open_source

# The warehouse in a local lake, if no other is set.
_DUCKDB_FILE = "warehouse.duckdb"
# How long PostgreSQL waits for another load of the same day, or for a report that holds a table we must alter.
WAIT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The result of a load: the warehouse's name (without secrets), rows by table, and wall-clock seconds.

    The rows are those of the requested day; `other_days` is the number of further days that were loaded.
    """

    warehouse: str
    rows: dict[str, int]
    other_days: int
    seconds: float


def load_project(lake: Lake, partition: Partition, url: str | None, wait_seconds: float = WAIT_SECONDS) -> LoadResult:
    """Load a day, and every other day of its project that is missing or outdated in the warehouse.

    Each day is its own transaction: it replaces the day, and the last one the project's history, and readers see all of
    it or nothing. `url` is None for the embedded DuckDB file in the lake's root. Missing tables are created.

    Raises:
        ConfigurationError: the URL is of an unknown kind, the warehouse refuses it, a column there has another type,
            the partition is not published or not derived, or retention removed files of it.
        EndpointUnreachableError: the warehouse does not answer, or the connection broke.
        PartitionBusyError: the tables were locked for longer than `wait_seconds`, or the DuckDB file is being written.
        StorageError: a file is not the one that its manifest names.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        # Check the day before changing anything in the warehouse.
        day = open_partition(lake, partition, stack)
        warehouse = stack.enter_context(_open(lake, url, wait_seconds))
        _bring_up_to_date(warehouse)
        loaded = warehouse.loaded_days(partition.project)
        removed = RetentionRecords(lake, partition.project)
        others = [
            other
            for other, basis in bases(lake, partition.project).items()
            if other != partition and loaded.get(other.date) != basis and is_loadable(lake, other, removed)
        ]
        for other in others:
            with ExitStack() as files:
                # The history belongs to the whole project; it is loaded once, with the last day.
                _load(lake, other, open_partition(lake, other, files), warehouse, with_history=False)
        rows = _load(lake, partition, day, warehouse)
    return LoadResult(warehouse.name, rows, len(others), time.monotonic() - started)


def _load(
    lake: Lake, partition: Partition, day: OpenPartition, warehouse: Warehouse, *, with_history: bool = True
) -> dict[str, int]:
    rows: dict[str, int] = {}
    (is_sandbox,) = day.row["is_sandbox"].to_pylist()
    key: dict[str, object] = {PROJECT.name: partition.project, "snapshot_date": partition.date}
    with ExitStack() as stack, warehouse.transaction():
        warehouse.hold(str(partition))
        if warehouse.kinds() - {is_sandbox}:
            raise ConfigurationError(
                f"The warehouse {warehouse.name} holds days of {'a cloud' if is_sandbox else 'the sandbox'}, but "
                f"{partition} is from {'the sandbox, whose images are invented' if is_sandbox else 'a cloud'}: set "
                "IMAGE_SNAPSHOTS_WAREHOUSE to another one."
            )
        for source in day.sources:
            name = source.table.name
            rows[name] = warehouse.replace(WAREHOUSE_TABLES[name], key, source.batches(partition.project), source)
        if with_history:
            # Two days of a project may be loaded at once: the second load waits, then reads the newest history.
            warehouse.hold(f"history of project {partition.project}")
            history = open_source(IMAGE_HISTORY, lake.project_table(IMAGE_HISTORY.name, partition.project), stack)
            rows[IMAGE_HISTORY.name] = warehouse.replace(
                WAREHOUSE_TABLES[IMAGE_HISTORY.name],
                {PROJECT.name: partition.project},
                history.batches(partition.project),
                history,
            )
        rows[DAYS.name] = warehouse.replace(DAYS, key, iter([day.row]))
    return rows


def _open(lake: Lake, url: str | None, wait_seconds: float) -> AbstractContextManager[Warehouse]:
    if url is None:
        path = lake.root / _DUCKDB_FILE
        if path.local is None:
            raise ConfigurationError(
                f"There is no warehouse: {path} would be a database in an object store, which cannot be changed there. "
                "Set IMAGE_SNAPSHOTS_WAREHOUSE."
            )
        return open_duckdb(path.local)
    check_warehouse(url)
    if (file := _duckdb_path(url)) is not None:
        return open_duckdb(file)
    from pipelines.warehouse.postgres import open_postgres  # noqa: PLC0415  (slow, and useless for a file)

    return open_postgres(url, wait_seconds)


def _duckdb_path(url: str) -> Path | None:
    """The file of a DuckDB warehouse; None for any other URL."""
    if url.startswith("duckdb://"):
        # As in SQLAlchemy: three slashes for a relative path, four for an absolute one.
        path = url.removeprefix("duckdb://").removeprefix("/")
    elif url.endswith(".duckdb") and not looks_like_url(url):
        path = url
    else:
        return None
    try:
        return Path(at_home(path)).absolute()
    except ValueError as reason:
        raise ConfigurationError(f"The path in the setting IMAGE_SNAPSHOTS_WAREHOUSE {reason}.") from None


def check_warehouse(url: str) -> None:
    """Check that a setting names a warehouse, without opening it.

    Raises:
        ConfigurationError: its kind is unknown, its URL is malformed, or its home directory does not exist.
    """
    if _duckdb_path(url) is not None:
        return
    scheme = url.partition("://")[0] if "://" in url else None
    if scheme in ("postgresql", "postgres"):
        from pipelines.warehouse.postgres import parse_warehouse_url  # noqa: PLC0415  (slow, and useless for a file)

        parse_warehouse_url(url)
        return
    kind = f", {scheme!r}" if scheme is not None and re.fullmatch(r"[a-z0-9+.-]+", scheme) else ""
    raise ConfigurationError(
        f"The setting IMAGE_SNAPSHOTS_WAREHOUSE names a warehouse of an unknown kind{kind}: it must be a path that "
        "ends in .duckdb, duckdb:////path/to/file (four slashes for an absolute path), or "
        "postgresql://user:password@host/database."
    )


def qualified_schema(url: str | None) -> str | None:
    """Database and schema of the warehouse's tables, as SQL names them; None if the URL does not say it.

    `url` is None for the DuckDB file in the lake.
    """
    try:
        path = Path(_DUCKDB_FILE) if url is None else _duckdb_path(url)
        if path is not None:
            return f"{path.stem}.main"
        from pipelines.warehouse.postgres import postgres_schema  # noqa: PLC0415  (slow, and useless for a file)

        return postgres_schema(url or "")
    except ConfigurationError:
        # `check_warehouse` says what is wrong with it.
        return None


# The warehouse's schema


def _bring_up_to_date(warehouse: Warehouse) -> None:
    if _statements(warehouse):
        with warehouse.transaction():
            warehouse.hold("schema")
            # Ask again: another load may have done it meanwhile.
            for statement in _statements(warehouse):
                warehouse.execute(statement)


def _statements(warehouse: Warehouse) -> list[str]:
    """The DDL that is needed: missing tables, columns and views, and views whose definition has changed."""
    found = warehouse.column_types()
    statements = []
    for table in WAREHOUSE_TABLES.values():
        if table.name in found:
            statements += _missing_columns(warehouse, table, found[table.name])
        else:
            statements += create_table(table, keyed=warehouse.has_keys)
    comments = warehouse.view_comments()
    for name in VIEWS:
        view = read_view(f"views/{name}.sql")
        # The comment holds a hash of the definition, which shows whether it has changed.
        comment = f"{view.meaning} (definition {hashlib.sha256(view.select.encode()).hexdigest()[:12]})"
        # A view must be created again to see a new column of its tables.
        if statements or comments.get(name) != comment:
            statements.append(f'CREATE OR REPLACE VIEW "{name}" AS\n{view.select}')
            statements.append(f'COMMENT ON VIEW "{name}" IS {quoted(comment)}')
    return statements


def _missing_columns(warehouse: Warehouse, table: Table, found: dict[str, str]) -> list[str]:
    statements = []
    for column in table.columns:
        type_ = found.get(column.name)
        if type_ is None:
            if column.name in table.key:
                raise ConfigurationError(
                    f"The warehouse {warehouse.name} has a table {table.name} without the key column {column.name}, so "
                    "another program made it and nothing was loaded: name a schema or database for the snapshots alone."
                )
            statements += add_column(table, column)
        elif type_ != sql_type(column):
            raise ConfigurationError(
                f"The column {column.name} of the table {table.name} in the warehouse {warehouse.name} has the type "
                f"{type_} instead of {sql_type(column)}, so nothing was loaded: alter its type, or rename the table "
                "and load its days again."
            )
    return statements
