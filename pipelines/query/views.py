"""Opens the whole lake for read-only SQL: every table over all days and projects, and the views of `sql/views`.

Notebooks and the command line open the lake here. SQL over one day, which derives tables, belongs to `derive.analysis`;
each view is defined in its own file.
"""

import datetime as dt
import json
import re
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from pipelines.derive.history import DAYS_KEY
from pipelines.engine.duckdb import engine_types, parquet_files
from pipelines.engine.spreadsheet import inert, inert_sql
from pipelines.engine.sql_files import VIEWS, read_sql, read_view
from pipelines.engine.sql_text import RUNNING_TEXT, quoted, quoted_name
from pipelines.errors import ConfigurationError, StorageError
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import known_partitions, read_manifest
from pipelines.lake.monthly_manifests import monthly_files
from pipelines.lake.names import project_of
from pipelines.lake.storage import LakePath
from pipelines.tables import ANALYSIS_TABLES, IMAGE_HISTORY, TABLES, Outcome, Table


class Format(StrEnum):
    """How rows are written to a file."""

    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


# Sorted so that each view comes after those that it uses.
_AS_OF = "images_as_of"
_AS_OF_PARAMETERS = "as_of_date, of_project := NULL"

# The view that others are made of, and that is constant while the lake is open.
_LATEST = "latest_days"

# A file of the lake -> its name in SQL over the whole lake.
_FileName = Callable[[LakePath], str]

_BATCH_ROWS = 32_768
_PROJECT_OF_FILE = "regexp_extract(filename, '/project=([^/]+)/[^/]+$', 1) AS project"

# The fields of a manifest that the view `days` reads.
_MANIFEST = {
    "project": "VARCHAR",
    "snapshot_date": "DATE",
    "is_complete": "BOOLEAN",
    "run_id": "VARCHAR",
    "started_at": "TIMESTAMP WITH TIME ZONE",
    "published_at": "TIMESTAMP WITH TIME ZONE",
    "rebuilt": "BOOLEAN",
    "code_version": "VARCHAR",
    "schema_version": "BIGINT",
    "inventory": "STRUCT(source VARCHAR, kind VARCHAR, ids BIGINT, is_whole BOOLEAN)",
    "fetch": "STRUCT(project_id VARCHAR, endpoint_host VARCHAR, is_sandbox BOOLEAN, mode VARCHAR, "
    f"outcomes STRUCT({', '.join(f'{outcome} BIGINT' for outcome in Outcome)}))",
}

# The parts of a SELECT that only read. Others may write: WITH x AS (COPY ... TO ...) SELECT writes a file.
_READING_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}

# Types that Arrow writes to CSV without quotes; it quotes text.
_PLAIN = {
    *("boolean", "tinyint", "smallint", "integer", "bigint", "hugeint"),
    *("float", "double", "decimal", "date", "timestamp", "timestamp with time zone"),
}

# Options of EXPLAIN: how the plan is shown, and whether the query is run.
_EXPLAIN_OPTIONS = {
    *("ANALYZE", "ANALYSE", "FORMAT", ",", "TRUE", "FALSE"),
    *("JSON", "TEXT", "HTML", "GRAPHVIZ", "YAML", "MERMAID"),
}


def relations() -> dict[str, str]:
    """The tables and views of a connection of `connect_lake`: name -> meaning, tables first."""
    meanings = {name: table.meaning for name, table in _all_tables().items()}
    for name in ("days", _AS_OF):
        meanings[name] = read_view(f"query/{name}.sql").meaning
    for name in VIEWS:
        meanings[name] = read_view(f"views/{name}.sql").meaning
    return meanings


def connect_lake(lake: Lake, *, include_incomplete: bool = False) -> duckdb.DuckDBPyConnection:
    """Open the lake for SQL; the caller closes the connection.

    Every table of `tables` is a view over all days and projects, with the project's key as last column, `project`.
    Columns have their documented types; a column is null in files from before it was added. Further views:

    - `days`: the published days (project, snapshot_date, is_complete, run_id, published_at, ..., outcome counts);
    - `latest_days`: project and snapshot_date of each project's last complete day (`include_incomplete`: last day);
    - `images_latest`: the images that exist on those days, without deleted ones;
    - `images_with_owner`: images of complete days, with owner, cost_center, environment, attributes;
    - `public_periods`, `open_findings`, `unused_images`, `changes_by_class`, `billed_days`, `billed_images`,
      `daily_costs`: as in a warehouse;
    - `images_as_of('2026-11-01')`, `images_as_of('2026-11-01', 'default')`: the living images on a day, of all projects
      or of one, with the columns of `image_history` and `rests_on`, the complete day that they come from. It fails for
      a day that a project's complete days do not cover;
    - `manifests` and `history_days`, which the other views read.

    The views show the days that the lake has when it is opened. Where monthly files replace daily ones (see
    `maintenance.compaction`), they are read instead; the rows are the same.

    Times are UTC. No SQL statement can reach files other than the lake's (by names like `lake://images/dt=...`) or the
    network, write a file, or change the settings.

        connection = connect_lake(Lake("lake"))
        connection.sql("SELECT * FROM images_latest").df()

    Raises:
        ConfigurationError: nothing is published in the lake, or it cannot be read.
    """
    partitions = known_partitions(lake)
    if not partitions:
        raise ConfigurationError(
            f"Nothing is published in the lake {lake.root}: take a snapshot with `image-snapshots run`, or set "
            "IMAGE_SNAPSHOTS_LAKE to the lake to read."
        )
    # DuckDB creates it when a query needs more than its memory, and removes it with the connection.
    scratch = Path(tempfile.gettempdir()) / f"image-snapshots-{uuid.uuid4().hex}"
    config: dict[str, Any] = {
        "temp_directory": str(scratch),
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
        # DuckDB 2.0.0 has an internal error on ORDER BY ... LIMIT if a condition on the file's name was pushed into the
        # scan.
        "disabled_optimizers": "late_materialization",
    }
    connection = duckdb.connect(":memory:", config=config)
    try:
        with sql_errors():
            # Both file systems are read-only. The engine could also write to a directory that it allows itself.
            files = lake.root.reader()
            connection.register_filesystem(files)
            _create_views(connection, lake, partitions, files.name_of, include_incomplete=include_incomplete)
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(f"SET allowed_directories = [{quoted(files.prefix)}]")
            connection.execute("SET allow_persistent_secrets = false")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
    except BaseException:
        connection.close()
        raise
    return connection


def _all_tables() -> dict[str, Table]:
    return TABLES | ANALYSIS_TABLES


def _create_views(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    partitions: Sequence[Partition],
    name_of: _FileName,
    *,
    include_incomplete: bool,
) -> None:
    projects = {partition.project for partition in partitions}
    daily = {
        # Skip copied directories such as `project=default.bak`: they belong to no project.
        name: {
            partition: path for partition, path in lake.contents.files_of(name).items() if partition.project in projects
        }
        for name, table in _all_tables().items()
        if table is not IMAGE_HISTORY
    }
    histories = [
        path for path in lake.contents.project_files_of(IMAGE_HISTORY.name) if project_of(path.parent.name) in projects
    ]
    monthly = monthly_files(lake, daily)
    for name, table in _all_tables().items():
        if table is IMAGE_HISTORY:
            source = _rows(connection, table, [name_of(path) for path in histories], {})
        else:
            months = monthly.get(name, [])
            compacted = {Partition(day, file.project) for file in months for day in file.days}
            files = [name_of(path) for partition, path in daily[name].items() if partition not in compacted]
            source = _rows(connection, table, files, {name_of(file.path): file.others for file in months})
        connection.execute(f"CREATE VIEW {name} AS {source}")
    columns = ", ".join(f'manifest."{name}"' for name in _MANIFEST)
    # This is ten times as fast as read_json, which uses large buffers for each file.
    manifest = f"json_transform(content, {quoted(json.dumps(_MANIFEST))}) AS manifest"
    manifests = ", ".join(quoted(name_of(lake.manifest(partition))) for partition in partitions)
    connection.execute(
        f"CREATE VIEW manifests AS SELECT {columns} FROM (SELECT {manifest} FROM read_text([{manifests}]))"  # noqa: S608
    )
    connection.execute(
        f"CREATE VIEW history_days AS {_history_days(sorted(projects), [name_of(path) for path in histories])}"
    )
    connection.execute(f"CREATE VIEW days AS {read_sql('query/days.sql')}")
    latest = _last_days(lake, partitions, include_incomplete=include_incomplete)
    for name in VIEWS:
        select = read_view(f"views/{name}.sql").select
        if name == _LATEST:
            if latest is not None:
                select = _as_rows(latest)
            elif include_incomplete:
                select = "SELECT project, MAX(snapshot_date) AS snapshot_date FROM days GROUP BY project"
        elif latest is not None and re.search(rf"\b{_LATEST}\b", select):
            select = on_days(f"({select}) AS of_all_days", latest)
        connection.execute(f"CREATE VIEW {name} AS {select}")
    connection.execute(f"CREATE MACRO {_AS_OF}({_AS_OF_PARAMETERS}) AS TABLE {read_sql(f'query/{_AS_OF}.sql')}")


def _last_days(lake: Lake, partitions: Sequence[Partition], *, include_incomplete: bool) -> list[Partition] | None:
    """The last complete day (`include_incomplete`: the last day) of each project that has one.

    None if a manifest on the way is damaged or lies in another's place: `days`, which reads all of them, then says so.
    """
    found: dict[str, Partition] = {}
    for partition in sorted(partitions, reverse=True):
        if partition.project in found:
            continue
        try:
            manifest = read_manifest(lake.manifest(partition))
        except StorageError:
            return None
        if (manifest.project, manifest.snapshot_date) != (partition.project, partition.date):
            return None
        if manifest.is_complete or include_incomplete:
            found[partition.project] = partition
    return list(found.values())


def _as_rows(partitions: Collection[Partition]) -> str:
    """SQL for days as rows (project, snapshot_date)."""
    if not partitions:
        return "SELECT CAST(NULL AS VARCHAR) AS project, CAST(NULL AS DATE) AS snapshot_date WHERE FALSE"
    values = ", ".join(f"({quoted(day.project)}, DATE {quoted(str(day.date))})" for day in partitions)
    return f"SELECT * FROM (VALUES {values}) AS known(project, snapshot_date)"  # noqa: S608


def on_days(relation: str, partitions: Iterable[Partition]) -> str:
    """SQL for the rows of some days of a relation with the columns `project` and `snapshot_date`.

    Each date has a SELECT of its own: only from a comparison with a single constant does the engine conclude which
    files of further tables, joined by project and day, it need not open.
    """
    projects: dict[dt.date, list[str]] = {}
    for day in partitions:
        projects.setdefault(day.date, []).append(day.project)
    rows = f"SELECT * FROM {relation} WHERE"  # noqa: S608
    selects = []
    for date, keys in projects.items():
        of_projects = f"= {quoted(keys[0])}" if len(keys) == 1 else f"IN ({', '.join(map(quoted, keys))})"
        selects.append(f"{rows} snapshot_date = DATE {quoted(str(date))} AND project {of_projects}")
    return " UNION ALL ".join(selects) or f"{rows} FALSE"


def _history_days(projects: Sequence[str], files: Sequence[str]) -> str:
    """SQL for the complete days that each published project's `image_history` was derived from.

    A project without a history has one row, without a day.
    """
    values = ", ".join(f"({quoted(project)})" for project in projects)
    published = f"(VALUES {values}) AS published(project)"
    if not files:
        return f"SELECT project, CAST(NULL AS DATE) AS snapshot_date FROM {published}"  # noqa: S608
    names = ", ".join(map(quoted, files))
    return (
        "SELECT project, CAST(made_of.snapshot_date AS DATE) AS snapshot_date "  # noqa: S608
        f"FROM {published} LEFT JOIN ("
        "SELECT regexp_extract(file_name, '/project=([^/]+)/[^/]+$', 1) AS project, "
        """UNNEST(from_json(decode(value), '[["VARCHAR"]]'))[1] AS snapshot_date """
        f"FROM parquet_kv_metadata([{names}]) WHERE decode(key) = {quoted(DAYS_KEY)}"
        ") AS made_of USING (project)"
    )


def _rows(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    daily: Sequence[str],
    monthly: Mapping[str, frozenset[dt.date]],
) -> str:
    """SQL that reads a table from daily files (or one per project), and from monthly files that replace daily ones.

    For each monthly file: the days in it that it does not replace.
    """
    selects = [_daily_rows(connection, table, daily)] if daily else []
    if monthly:
        selects.append(_monthly_rows(connection, table, monthly))
    return " UNION ALL ".join(selects) if selects else _no_rows(connection, table)


def _daily_rows(connection: duckdb.DuckDBPyConnection, table: Table, names: Sequence[str]) -> str:
    # The list of files has the directory names. So a condition on the day or the project skips all other files without
    # opening them. Because the column types are named, no file is opened before rows are needed.
    from_path = {"project": _PROJECT_OF_FILE}
    if "snapshot_date" in table.schema.names:
        day = "regexp_extract(filename, '/dt=([^/]+)/project=[^/]+/[^/]+$', 1)"
        from_path["snapshot_date"] = f"CAST({day} AS DATE) AS snapshot_date"
    selected = ", ".join(from_path.get(name, name) for name in (*table.schema.names, "project"))
    files = parquet_files(connection, table, names, without=("snapshot_date",))
    return f"SELECT {selected} FROM {files}"  # noqa: S608


def _monthly_rows(connection: duckdb.DuckDBPyConnection, table: Table, files: Mapping[str, frozenset[dt.date]]) -> str:
    # With one scan per month the engine could skip some files, but planning a scan takes longer than opening a few.
    columns = ", ".join(table.schema.names)
    select = f"SELECT {columns}, {_PROJECT_OF_FILE} FROM {parquet_files(connection, table, list(files))}"  # noqa: S608
    conditions = []
    for name, others in files.items():
        if others:
            void = ", ".join(f"DATE '{day}'" for day in sorted(others))
            conditions.append(f"NOT (filename = {quoted(name)} AND snapshot_date IN ({void}))")
    return f"{select} WHERE {' AND '.join(conditions)}" if conditions else select


def _no_rows(connection: duckdb.DuckDBPyConnection, table: Table) -> str:
    types = engine_types(connection, table) | {"project": "VARCHAR"}
    return f"SELECT {', '.join(f'CAST(NULL AS {type_}) AS {name}' for name, type_ in types.items())} WHERE FALSE"


@contextmanager
def sql_errors() -> Iterator[None]:
    """Turn the engine's errors into one sentence.

    Raises:
        ConfigurationError: with the engine's message.
    """
    try:
        yield
    except (duckdb.Error, OSError) as error:  # Arrow raises OSError for a failure while reading rows
        message, _, where = str(error).partition("\n\nLINE ")
        if "Traceback (most recent call last)" in message:
            # An error from reading a file contains a traceback; the last line says why.
            message = message.strip().splitlines()[-1].partition(": ")[2]
        if type(error) is duckdb.Error or message.startswith("Invalid Error: "):
            # No query causes this kind of error: the file reader found something unexpected.
            advice = "A file of the lake may be damaged: `image-snapshots verify --quick` says which."
            message = f"{message.rstrip(' .:')}. {advice}"
        # The views' own errors are already a sentence.
        message = message.removeprefix("Invalid Input Error: ")
        # Only the parser counts lines in the user's own text.
        line = f" (line {where.partition(':')[0]})" if isinstance(error, duckdb.ParserException) and where else ""
        raise ConfigurationError(f"The query failed: {' '.join(message.split())}{line}") from error


def select(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Mapping[str, Any] | None = None
) -> duckdb.DuckDBPyRelation:
    """The rows of a SQL text that must be one read-only statement; `parameters` are the values of its `$name`s.

    The engine's own parse tree is checked, and exactly the checked statement is run. An EXPLAIN is rebuilt from its
    options and its query, which is checked separately.

    Raises:
        ConfigurationError: the text has no statement or several, or the statement fails or does more than read.
    """
    with sql_errors():
        statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise ConfigurationError(
            f"The query holds {len(statements) or 'no'} statements: give one; SHOW TABLES lists the tables."
        )
    (statement,) = statements
    with sql_errors():
        reading = _reading(connection, statement)
        kind = _kind(statement)
        if reading is None and kind == duckdb.StatementType.EXPLAIN:
            options, explained = _explained(statement.query)
            queries = connection.extract_statements(explained)
            if len(queries) == 1 and (query := _reading(connection, queries[0])) is not None:
                reading = f"EXPLAIN {options}{query}"
        if reading is None:
            name = "PIVOT without IN (...) " if kind == duckdb.StatementType.MULTI else f"{kind.name} " if kind else ""
            raise ConfigurationError(
                f"The lake is read-only here, and this {name}statement does more than read: give a SELECT, WITH, "
                "SHOW, DESCRIBE, SUMMARIZE or EXPLAIN; --output writes the rows to a file."
            )
        return connection.sql(reading, params=dict(parameters) if parameters else None)


def _kind(statement: duckdb.Statement) -> duckdb.StatementType | None:
    """The kind of a statement; None for one that the engine knows and its package has no name for."""
    try:
        return statement.type
    except ValueError:
        return None


def _reading(connection: duckdb.DuckDBPyConnection, statement: duckdb.Statement) -> str | None:
    """The text of a statement that only reads; None for any other."""
    if _kind(statement) != duckdb.StatementType.SELECT:
        return None
    text = statement.query.strip().removesuffix(";")
    ((serialised,),) = connection.execute("SELECT json_serialize_sql(?)", [text]).fetchall()
    tree = json.loads(serialised)
    return text if not tree["error"] and _nodes(tree) <= _READING_NODES else None


def _explained(text: str) -> tuple[str, str]:
    """The options of an EXPLAIN, rebuilt, and the text of its query, both by the engine's own tokens."""
    content = text.encode()
    words = [(offset, kind) for offset, kind in duckdb.tokenize(text) if kind != duckdb.token_type.comment]
    ends = [offset for offset, _ in words[1:]] + [len(content)]
    # A token includes the blanks and comments after it; the options of EXPLAIN are plain words.
    names = [
        re.split(rb"[^\w(),]", content[start:end], maxsplit=1)[0].decode(errors="replace").upper()
        for (start, _), end in zip(words, ends, strict=True)
    ]
    at, options = 1, ""
    if names[at : at + 1] and names[at] in {"ANALYZE", "ANALYSE"}:
        at, options = at + 1, "ANALYZE "
    if names[at : at + 1] == ["("] and names[at + 1 : at + 2] and names[at + 1] in {"ANALYZE", "ANALYSE", "FORMAT"}:
        close = names.index(")", at) if ")" in names[at:] else len(names)
        if set(names[at + 1 : close]) <= _EXPLAIN_OPTIONS:
            options += f"({' '.join(names[at + 1 : close])}) "
            at = close + 1
    return options, content[words[at][0] :].decode() if at < len(words) else ""


def _nodes(tree: Any) -> set[str]:
    """Types of all query nodes of a parsed statement, and the names of functions that run further ones."""
    if isinstance(tree, list):
        return set().union(*map(_nodes, tree))
    if not isinstance(tree, dict):
        return set()
    type_ = tree.get("type")
    own = {type_} if isinstance(type_, str) and type_.endswith("_NODE") else set()
    own |= RUNNING_TEXT & {str(tree.get("function_name")).lower()}
    return own.union(*map(_nodes, tree.values()))


def write_rows(relation: duckdb.DuckDBPyRelation, file: BinaryIO, form: Format, *, exact: bool = False) -> None:
    """Write all rows of a query in bounded memory.

    `csv`: comma, header, text in quotes, nulls empty, and text that a spreadsheet would run made harmless unless
    `exact`; `json`: an array with one object on each line; `parquet`: the columns with their types. Times are UTC, in
    ISO 8601.

    Raises:
        ConfigurationError: the query fails.
        OSError: the file cannot be written.
    """
    # `project` gives a second column with the same name another name.
    rows = relation.project("*")
    if form == Format.CSV:
        _write_csv(rows, file, exact=exact)
    elif form == Format.JSON:
        _write_json(rows, file)
    else:
        _write_parquet(rows, file)


def _write_csv(rows: duckdb.DuckDBPyRelation, file: BinaryIO, *, exact: bool) -> None:
    columns = []
    for (name, type_), heading in zip(_columns(rows), rows.columns, strict=True):
        value = name
        if type_.id not in _PLAIN:
            text = f"CAST({name} AS VARCHAR)"
            value = text if exact else inert_sql(text)
        columns.append(f"{value} AS {name if exact else quoted_name(inert(heading))}")
    schema, batches = _batches(rows.project(", ".join(columns)))
    with pa_csv.CSVWriter(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_json(rows: duckdb.DuckDBPyRelation, file: BinaryIO) -> None:
    columns = ", ".join(
        f"strftime({name}, '%Y-%m-%dT%H:%M:%S.%fZ') AS {name}" if type_.id == "timestamp with time zone" else name
        for name, type_ in _columns(rows)
    )
    objects = rows.project(columns).set_alias("result").project("CAST(to_json(result) AS VARCHAR) AS object")
    separator = b"[\n"
    for batch in _batches(objects)[1]:
        for text in batch["object"].to_pylist():
            file.write(separator + text.encode())
            separator = b",\n"
    file.write(b"[]\n" if separator == b"[\n" else b"\n]\n")


def _write_parquet(rows: duckdb.DuckDBPyRelation, file: BinaryIO) -> None:
    schema, batches = _batches(rows)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


def _columns(rows: duckdb.DuckDBPyRelation) -> Iterator[tuple[str, Any]]:
    """The name, quoted for SQL, and the type of each column."""
    for name, type_ in zip(rows.columns, rows.types, strict=True):
        yield quoted_name(name), type_


def _batches(rows: duckdb.DuckDBPyRelation) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    with sql_errors():
        reader = rows.to_arrow_reader(_BATCH_ROWS)

    def read() -> Iterator[pa.RecordBatch]:
        while True:
            with sql_errors():
                batch = next(reader, None)
            if batch is None:
                return
            yield batch

    return reader.schema, read()
