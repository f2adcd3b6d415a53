"""The tables of a warehouse and their DDL in every dialect, generated from `tables`.

`warehouse.loading` creates and loads `WAREHOUSE_TABLES`. `SCRIPTS`, which `image-snapshots ddl` prints, are for
warehouses that read the lake's Parquet files themselves. Loading does not belong here, nor how an Iceberg catalog is
attached (`attaching`).
"""

from collections.abc import Callable, Mapping

import pyarrow as pa

from pipelines.engine.sql_text import quoted
from pipelines.tables import (
    AMOUNT,
    AMOUNT_DIGITS,
    AMOUNT_PLACES,
    ANALYSIS_TABLES,
    IMAGE_HISTORY,
    IMAGE_TAGS,
    IMAGE_VALUES,
    IMAGES,
    INVENTORY,
    RESPONSES,
    TIMESTAMP,
    Column,
    Outcome,
    Table,
)

PROJECT = Column("project", pa.string(), "key", "Key of the project (half of the partition key).", True)
_DATE = Column("snapshot_date", pa.date32(), "key", "Day (UTC) of the snapshot.", True)

# These have one value in each partition, so in a primary key after `project` they would only widen the index.
_CONSTANT = frozenset({"project_id", "project_key"})

# Bodies stay in the lake: they are binary, and as large as all other columns together.
_STAYS_IN_THE_LAKE = frozenset({"body"})


def _loaded(table: Table) -> Table:
    key = tuple(name for name in table.key if name not in _CONSTANT)
    columns = tuple(column for column in table.columns if column.name not in _STAYS_IN_THE_LAKE)
    return Table(table.name, table.meaning, (PROJECT.name, *key), (PROJECT, *columns))


def _count(outcome: Outcome) -> Column:
    return Column(outcome.value, pa.int64(), "provenance", f"Ids of the inventory with the outcome {outcome}.", True)


DAYS = Table(
    "days",
    "The loaded days: one row for each day and project, from its manifest.",
    (PROJECT.name, _DATE.name),
    (
        PROJECT,
        _DATE,
        Column("project_id", pa.string(), "key", "Project id in the cloud, as used in the URL.", True),
        Column("is_complete", pa.bool_(), "provenance", "Whether every id has a response.", True),
        Column("is_sandbox", pa.bool_(), "provenance", "Whether the data comes from the embedded sandbox.", True),
        Column(
            "mode",
            pa.string(),
            "provenance",
            "full, or changed (unchanged responses were carried over).",
            True,
            values=("full", "changed"),
        ),
        Column("run_id", pa.string(), "provenance", "Run that published the day.", True),
        Column("published_at", TIMESTAMP, "provenance", "When the day was published (UTC).", True),
        *(_count(outcome) for outcome in Outcome),
        Column("manifest_sha256", pa.string(), "provenance", "SHA-256 of the day's manifest.", True),
        Column("basis", pa.string(), "provenance", "Hash over the manifests that the derived tables come from.", True),
        Column(
            "inventory_is_whole",
            pa.bool_(),
            "provenance",
            "Whether an image that is missing from the day's inventory counts as gone.",
            True,
        ),
    ),
)

# In loading order; `days` comes last.
WAREHOUSE_TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        *(_loaded(table) for table in (INVENTORY, RESPONSES, IMAGES, IMAGE_VALUES, IMAGE_TAGS)),
        *(_loaded(table) for table in ANALYSIS_TABLES.values() if table is not IMAGE_HISTORY),
        _loaded(IMAGE_HISTORY),
        DAYS,
    )
}

_TYPES: dict[pa.DataType, str] = {
    pa.string(): "TEXT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.bool_(): "BOOLEAN",
    pa.float64(): "DOUBLE PRECISION",
    pa.date32(): "DATE",
    TIMESTAMP: "TIMESTAMP WITH TIME ZONE",
    AMOUNT: f"NUMERIC({AMOUNT_DIGITS},{AMOUNT_PLACES})",
}
_DECIMAL = {AMOUNT: f"DECIMAL({AMOUNT_DIGITS},{AMOUNT_PLACES})"}


def sql_type(column: Column) -> str:
    """SQL type of a column in DuckDB and PostgreSQL."""
    return _TYPES[column.type]


def _comment(table: Table, column: Column) -> str:
    return f'COMMENT ON COLUMN "{table.name}"."{column.name}" IS {quoted(column.meaning)}'


def create_table(table: Table, *, keyed: bool) -> list[str]:
    """Statements that create a table with comments, for DuckDB and PostgreSQL; if `keyed`, with its primary key."""
    lines = [f'    "{c.name}" {sql_type(c)}{" NOT NULL" if c.required else ""}' for c in table.columns]
    if keyed:
        lines.append("    PRIMARY KEY (" + ", ".join(f'"{name}"' for name in table.key) + ")")
    return [
        f'CREATE TABLE "{table.name}" (\n' + ",\n".join(lines) + "\n)",
        f'COMMENT ON TABLE "{table.name}" IS {quoted(table.meaning)}',
        *(_comment(table, column) for column in table.columns),
    ]


def add_column(table: Table, column: Column) -> list[str]:
    """Statements that add a nullable column to a table that already has rows."""
    return [f'ALTER TABLE "{table.name}" ADD COLUMN "{column.name}" {sql_type(column)}', _comment(table, column)]


# Scripts for warehouses that read the lake's Parquet files in place. They leave out `responses`, because evidence stays
# in the lake, and `days`, which is not a Parquet file.

_EXTERNAL_TABLES = tuple(
    table
    for table in (INVENTORY, IMAGES, IMAGE_VALUES, IMAGE_TAGS, *ANALYSIS_TABLES.values())
    if not any(column.name in _STAYS_IN_THE_LAKE for column in table.columns)
)


_WITHOUT_CATALOG = "Nothing of this is needed with an Iceberg catalog (setting IMAGE_SNAPSHOTS_CATALOG)."


def _is_partitioned_by_day(table: Table) -> bool:
    return table is not IMAGE_HISTORY


def _header(*lines: str) -> str:
    return "\n".join(f"-- {line}".rstrip() for line in lines) + "\n\n"


def _columns(table: Table, types: Mapping[pa.DataType, str], quote: str) -> list[str]:
    return [f"    {quote}{column.name}{quote} {types[column.type]}" for column in table.columns]


def _postgresql() -> str:
    statements = [statement for table in WAREHOUSE_TABLES.values() for statement in create_table(table, keyed=True)]
    header = _header(
        "PostgreSQL: the tables that are loaded. The loader creates them by itself, and adds the columns of later",
        "versions. To see them beforehand, run this script, and create the SELECTs of views/ as views.",
    )
    return header + ";\n".join(statements) + ";\n"


def _snowflake() -> str:
    types = _TYPES | {pa.string(): "VARCHAR", TIMESTAMP: "TIMESTAMP_TZ", pa.float64(): "DOUBLE"}

    def key(name: str, type_: str) -> str:
        path = f"SPLIT_PART(SPLIT_PART(METADATA$FILENAME, '{name}=', 2), '/', 1)"
        return f"    {name} {type_} AS (CAST({path} AS {type_}))"

    def table(table: Table) -> str:
        by_day = _is_partitioned_by_day(table)
        columns = [
            *([key("dt", "DATE")] if by_day else []),
            key("project", "VARCHAR"),
            *(f"    {c.name} {types[c.type]} AS (CAST(VALUE:{c.name} AS {types[c.type]}))" for c in table.columns),
        ]
        return (
            f"CREATE OR REPLACE EXTERNAL TABLE {table.name} (\n" + ",\n".join(columns) + "\n)\n"
            f"PARTITION BY ({'dt, project' if by_day else 'project'})\n"
            f"LOCATION = @image_snapshots/{table.name}/\n"
            f"PATTERN = '.*/{table.name}[.]parquet'\n"
            "AUTO_REFRESH = FALSE\n"
            "FILE_FORMAT = (TYPE = PARQUET);\n"
        )

    header = _header(
        "Snowflake: external tables over the lake's Parquet files.",
        "First create a stage `image_snapshots` on the lake's root. After each day: ALTER EXTERNAL TABLE name REFRESH.",
        _WITHOUT_CATALOG,
    )
    return header + "\n".join(map(table, _EXTERNAL_TABLES))


def _bigquery() -> str:
    types = _TYPES | {pa.string(): "STRING", pa.bool_(): "BOOL", pa.float64(): "FLOAT64", TIMESTAMP: "TIMESTAMP"}
    types |= {pa.int32(): "INT64", pa.int64(): "INT64"}
    # NUMERIC has fewer places there.
    types |= {AMOUNT: f"BIGNUMERIC({AMOUNT_DIGITS}, {AMOUNT_PLACES})"}

    def table(table: Table) -> str:
        keys = "`dt` DATE, `project` STRING" if _is_partitioned_by_day(table) else "`project` STRING"
        return (
            f"CREATE OR REPLACE EXTERNAL TABLE `image_snapshots.{table.name}` (\n"
            + ",\n".join(_columns(table, types, "`"))
            + f"\n)\nWITH PARTITION COLUMNS ({keys})\nOPTIONS (\n"
            "    format = 'PARQUET',\n"
            f"    uris = ['gs://bucket/lake/{table.name}/*'],\n"
            f"    hive_partition_uri_prefix = 'gs://bucket/lake/{table.name}'\n);\n"
        )

    header = _header(
        "BigQuery: external tables over the lake's Parquet files.",
        "Replace gs://bucket/lake by the lake's root, and create the dataset `image_snapshots`. New days appear by",
        "themselves.",
        _WITHOUT_CATALOG,
    )
    return header + "\n".join(map(table, _EXTERNAL_TABLES))


def _hive_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _hive_like(types: Mapping[pa.DataType, str], quote: str, table: Table, create: str, *, comments: bool) -> str:
    columns = _columns(table, types, quote)
    if comments:
        columns = [
            f"{line} COMMENT {_hive_quoted(column.meaning)}"
            for line, column in zip(columns, table.columns, strict=True)
        ]
    text = types[pa.string()]
    keys = [f"{quote}dt{quote} DATE"] if _is_partitioned_by_day(table) else []
    keys.append(f"{quote}project{quote} {text}")
    return (
        f"{create} image_snapshots.{table.name} (\n" + ",\n".join(columns) + "\n)\n"
        f"PARTITIONED BY ({', '.join(keys)})\nSTORED AS PARQUET\nLOCATION 's3://bucket/lake/{table.name}/';\n"
    )


def _redshift() -> str:
    types = _TYPES | _DECIMAL | {pa.string(): "VARCHAR(65535)", TIMESTAMP: "TIMESTAMP"}

    def table(table: Table) -> str:
        by_day = _is_partitioned_by_day(table)
        values = ("dt = '2026-01-01', " if by_day else "") + "project = 'default'"
        folder = ("dt=2026-01-01/" if by_day else "") + "project=default/"
        return (
            _hive_like(types, '"', table, "CREATE EXTERNAL TABLE", comments=False)
            + f"ALTER TABLE image_snapshots.{table.name} ADD IF NOT EXISTS PARTITION ({values})\n"
            f"LOCATION 's3://bucket/lake/{table.name}/{folder}';\n"
        )

    header = _header(
        "Redshift Spectrum: external tables over the lake's Parquet files.",
        "Replace s3://bucket/lake by the lake's root, and create the external schema `image_snapshots`. Add each day",
        "with ALTER TABLE statements like these, one for each day and project. Timestamps are UTC.",
        _WITHOUT_CATALOG,
    )
    return header + "\n".join(map(table, _EXTERNAL_TABLES))


def _dws() -> str:
    def table(table: Table) -> str:
        # A foreign table lists the partition columns among the others; Hive's DDL does not.
        keys = ('"dt" DATE', '"project" TEXT') if _is_partitioned_by_day(table) else ('"project" TEXT',)
        columns = [*_columns(table, _TYPES, '"'), *(f"    {key}" for key in keys)]
        names = '"dt", "project"' if _is_partitioned_by_day(table) else '"project"'
        return (
            f'CREATE FOREIGN TABLE "{table.name}" (\n' + ",\n".join(columns) + "\n)\nSERVER image_snapshots\n"
            f"OPTIONS (format 'parquet', encoding 'utf8', foldername '/bucket/lake/{table.name}/')\n"
            f"READ ONLY\nDISTRIBUTE BY ROUNDROBIN\nPARTITION BY ({names}) AUTOMAPPED;\n"
        )

    header = _header(
        "Data Warehouse Service (DWS, GaussDB): foreign tables over the lake's Parquet files in OBS.",
        "Replace /bucket/lake by the lake's root, and create a server `image_snapshots` with the wrapper DFS_FDW. Set",
        "IMAGE_SNAPSHOTS_PARQUET_COMPRESSION=snappy before the first day.",
    )
    return header + "\n".join(map(table, _EXTERNAL_TABLES))


def _trino() -> str:
    types = _TYPES | _DECIMAL | {pa.string(): "VARCHAR", TIMESTAMP: "TIMESTAMP(6)", pa.float64(): "DOUBLE"}

    def table(table: Table) -> str:
        keys = ("dt", "project") if _is_partitioned_by_day(table) else ("project",)
        key_types = {"dt": "DATE", "project": "VARCHAR"}
        columns = [*_columns(table, types, '"'), *(f'    "{name}" {key_types[name]}' for name in keys)]
        names = ", ".join(quoted(name) for name in keys)
        return (
            f"CREATE TABLE hive.image_snapshots.{table.name} (\n" + ",\n".join(columns) + "\n)\nWITH (\n"
            f"    external_location = 's3://bucket/lake/{table.name}/',\n"
            f"    format = 'PARQUET',\n    partitioned_by = ARRAY[{names}]\n);\n"
            f"CALL hive.system.sync_partition_metadata('image_snapshots', '{table.name}', 'FULL');\n"
        )

    header = _header(
        "Trino (Hive connector, catalog `hive`): external tables over the lake's Parquet files.",
        "Replace s3://bucket/lake by the lake's root, and create the schema `image_snapshots`. Timestamps are UTC, and",
        "need hive.timestamp-precision=MICROSECONDS. The CALL statements register new days: run them after each day.",
        _WITHOUT_CATALOG,
    )
    return header + "\n".join(map(table, _EXTERNAL_TABLES))


def _hive() -> str:
    types = _TYPES | _DECIMAL | {pa.string(): "STRING", pa.int32(): "INT", pa.float64(): "DOUBLE"}
    types |= {TIMESTAMP: "TIMESTAMP"}

    def table(table: Table) -> str:
        return (
            _hive_like(types, "`", table, "CREATE EXTERNAL TABLE IF NOT EXISTS", comments=True)
            + f"MSCK REPAIR TABLE image_snapshots.{table.name};\n"
        )

    header = _header(
        "Hive and Spark SQL: external tables over the lake's Parquet files.",
        "Replace s3://bucket/lake by the lake's root, and create the database `image_snapshots`. Timestamps are UTC.",
        "The MSCK statements register new days: run them after each day.",
    )
    return header + "\n".join(map(table, _EXTERNAL_TABLES))


SCRIPTS: dict[str, Callable[[], str]] = {
    "postgresql": _postgresql,
    "snowflake": _snowflake,
    "bigquery": _bigquery,
    "redshift": _redshift,
    "dws": _dws,
    "trino": _trino,
    "hive": _hive,
}
