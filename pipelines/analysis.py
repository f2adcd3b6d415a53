"""SQL over a published day: opens what is known of it as relations, and writes what a SELECT gives as a table.

The engine is DuckDB, in bounded memory, and reads the lake alone. What the derived tables mean belongs to the SQL
files under `sql/` and to the modules named after them.
"""

import tempfile
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import Any, Self

import duckdb
import orjson
import pyarrow as pa

from pipelines.columns import IMAGE_HISTORY, LIST_PAGES, RESPONSES, TABLES, Table
from pipelines.day import Day
from pipelines.errors import ConfigurationError, StorageError, ValidationError
from pipelines.lake import LakePath, Partition, open_parquet, read_batches
from pipelines.manifest import FileFacts, last_complete_day, last_published_day, published
from pipelines.object_storage import ObjectFileSystem, ObjectPath
from pipelines.publish import file_facts
from pipelines.sql_files import read_sql

_MEMORY = "400MB"
_BATCH_ROWS = 32_768
_PAGES_A_BATCH = 16

_LISTED_TEXTS = ("name", "namespace", "swr_path", "type", "visibility")
_LISTED = pa.schema([("id", pa.string()), *((name, pa.string()) for name in _LISTED_TEXTS), ("size_bytes", pa.int64())])


def engine_types(connection: duckdb.DuckDBPyConnection, table: Table) -> dict[str, str]:
    """Column name -> the engine's type."""
    empty = connection.from_arrow(table.schema.empty_table())
    return {name: str(type_) for name, type_ in zip(empty.columns, empty.types, strict=True)}


def parquet_files(
    connection: duckdb.DuckDBPyConnection, table: Table, paths: Sequence[LakePath], without: Collection[str] = ()
) -> str:
    """SQL that reads files of a table, for FROM: its columns of their documented types, and `filename`.

    A column that a file lacks, because it is older, is null. Naming the types leaves files unopened until rows are
    asked for. Columns `without` are not read.
    """
    fields = ", ".join(
        f"{quoted(name)}: {{name: {quoted(name)}, type: {quoted(type_)}, default_value: NULL}}"
        for name, type_ in engine_types(connection, table).items()
        if name not in without
    )
    files = ", ".join(quoted(str(path)) for path in paths)
    return f"read_parquet([{files}], schema = MAP {{{fields}}})"


def quoted(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


class Engine:
    """DuckDB in bounded memory; a context manager. Times are UTC."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._files: set[str] = set()
        self._objects: ObjectFileSystem | None = None

    def __enter__(self) -> Self:
        scratch = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="image-snapshots-"))
        config: dict[str, Any] = {
            "memory_limit": _MEMORY,
            "temp_directory": scratch,
            # The SQL needs nothing that is not built in.
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        self.connection = duckdb.connect(":memory:", config=config)
        self._stack.callback(self.connection.close)
        self.connection.execute("SET TimeZone = 'UTC'")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def load(self, name: str, data: pa.Table | pa.RecordBatchReader) -> None:
        """Make a relation from Arrow data, in place of one of that name."""
        self.connection.register("arriving", data)
        self.create(name, "SELECT * FROM arriving")
        self.connection.unregister("arriving")

    def load_file(self, name: str, path: LakePath, columns: str = "*") -> None:
        """Make a relation that reads a Parquet file, in place of one of that name."""
        self._know(path)
        self.create_view(name, f"SELECT {columns} FROM read_parquet({quoted(str(path))}, hive_partitioning = false)")  # noqa: S608

    def load_files(self, name: str, paths: Sequence[LakePath], table: Table) -> None:
        """Make a relation that reads files of a table, with nulls where a file is older than a column."""
        for path in paths:
            self._know(path)
        self.create_view(name, f"SELECT * FROM {parquet_files(self.connection, table, paths)}")  # noqa: S608

    def _know(self, path: LakePath) -> None:
        self._files.add(str(path))
        if isinstance(path, ObjectPath):
            if self._objects is None:
                self._objects = ObjectFileSystem(ObjectPath(path.bucket, ""))
                self.connection.register_filesystem(self._objects)
            # It may have been replaced since it was read last.
            self._objects.forget(path)

    def create(self, name: str, sql: str) -> None:
        """Make a relation that holds what a SELECT gives, in place of one of that name."""
        # Every relation is a view by its name: DuckDB replaces no table by a view, nor a view by a table.
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {name}_rows AS {sql}")
        self.create_view(name, f"SELECT * FROM {name}_rows")  # noqa: S608  (names of ours)

    def append(self, name: str, sql: str) -> None:
        """Add what a SELECT gives to a relation that was made by `create` or `load`."""
        self.connection.execute(f"INSERT INTO {name}_rows {sql}")

    def create_view(self, name: str, sql: str) -> None:
        """Make a relation that is what a SELECT gives whenever it is read."""
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}")

    def lock(self) -> None:
        """Let SQL read no file but those of the relations that are open now, and no network; for good."""
        paths = ", ".join(map(quoted, sorted(self._files)))
        self.connection.execute(f"SET allowed_paths = [{paths}]")
        self.connection.execute("SET enable_external_access = false")

    def read(self, sql: str) -> pa.Table:
        """What a SELECT gives, in memory."""
        return self.connection.sql(sql).to_arrow_table()

    def stream(self, sql: str, schema: pa.Schema) -> pa.RecordBatchReader:
        """What a SELECT gives, in batches of exactly this schema.

        Raises:
            ValidationError: the SELECT gives other columns.
        """
        reader = self.connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
        if reader.schema.names != schema.names:
            raise ValidationError(f"A SELECT gives the columns {reader.schema.names} instead of {schema.names}.")
        return pa.RecordBatchReader.from_batches(schema, (batch.cast(schema) for batch in reader))


class DayAnalysis(Engine):
    """One published day, opened for SQL; a context manager.

    Relations: `parameters` (one row: snapshot_date, project, project_id, is_complete, compared_with, list_was_read,
    usage_was_read), the sealed tables of the day (`responses` without bodies), `image_history`, and `current_images`
    (what is known of each living image, see sql/derive/current_images.sql).

    `previous` is the project's last complete day before this one, `before` its last published one, or None.

    Raises:
        ConfigurationError: the day is not published.
    """

    def __init__(self, day: Day) -> None:
        super().__init__()
        manifest = published(day.lake, day.partition)
        if manifest is None:
            raise ConfigurationError(
                f"Nothing is published for {day.partition}, so nothing can be derived from it. "
                "`image-snapshots status` lists the days that are there."
            )
        self.day = day
        self.lake = day.lake
        self.partition = day.partition
        self.manifest = manifest
        self.previous = last_complete_day(day.lake, day.partition)
        self.before = last_published_day(day.lake, day.partition)

    def __enter__(self) -> Self:
        super().__enter__()
        facts = self.manifest.fetch
        parameters = {
            "snapshot_date": pa.array([self.partition.date], pa.date32()),
            "project": pa.array([self.partition.project]),
            "project_id": pa.array([facts.project_id]),
            "is_complete": pa.array([self.manifest.is_complete]),
            "compared_with": pa.array([self.previous.date if self.previous else None], pa.date32()),
            "list_was_read": pa.array([facts.list_was_read]),
            "usage_was_read": pa.array([facts.notebooks_were_read]),
        }
        self.load("parameters", pa.table(parameters))
        for name, table in TABLES.items():
            if table not in (LIST_PAGES, RESPONSES):
                self.load_file(name, self.lake.table(name, self.partition))
        columns = ", ".join(column.name for column in RESPONSES.columns if column.name != "body")
        self.load_file(RESPONSES.name, self.lake.table(RESPONSES.name, self.partition), columns)
        history = self.lake.project_table(IMAGE_HISTORY.name, self.partition.project)
        self._load_or_empty(IMAGE_HISTORY, IMAGE_HISTORY.name, history)
        self.create_view("current_images", read_sql("derive/current_images.sql"))
        return self

    def load_listed_images(self) -> None:
        """Make what the API's list shows on that day the relation `listed_images`, each image once.

        Columns: id, name, namespace, swr_path, type, visibility (strings), size_bytes.
        """
        pages = read_batches(self.lake.table(LIST_PAGES.name, self.partition), _PAGES_A_BATCH, ["body"])
        batches = (_listed(body) for batch in pages for body in batch["body"].to_pylist())
        self.load("listed_rows", pa.RecordBatchReader.from_batches(_LISTED, batches))
        self.create_view("listed_images", "SELECT DISTINCT ON (id) * FROM listed_rows")

    def load_today(self, table: Table) -> None:
        """Make a derived table of this day a relation of its name; without rows when it is not there yet."""
        self._load_or_empty(table, table.name, self.lake.table(table.name, self.partition))

    def load_derived(self, table: Table, name: str, partition: Partition | None) -> None:
        """Make a derived table of another day a relation; without rows when there is no such day."""
        self._load_or_empty(table, name, self.lake.table(table.name, partition) if partition else None)

    def write(self, table: Table, sql: str) -> FileFacts:
        """Publish what a SELECT gives as this day's file of a derived table.

        Raises:
            ValidationError: the SELECT gives other columns, or nulls where there must be none.
            StorageError: the file cannot be written.
        """
        path = self.lake.table(table.name, self.partition)
        with self.lake.writer(path, table, self.day.run_id) as writer:
            for batch in self.stream(sql, table.schema):
                writer.write(batch)
        return file_facts(self.lake, path, table.name, self.partition)

    def _load_or_empty(self, table: Table, name: str, path: LakePath | None) -> None:
        if path is not None and path.exists():
            _check_columns(path, table)
            self.load_file(name, path)
        else:
            self.load(name, table.schema.empty_table())


def _check_columns(path: LakePath, table: Table) -> None:
    try:
        with open_parquet(path) as file:
            names = file.schema_arrow.names
    except pa.ArrowInvalid as error:
        raise StorageError(
            f"{path} is damaged: remove it, and derive it again with `image-snapshots rebuild`."
        ) from error
    if names != table.schema.names:
        raise ConfigurationError(
            f"{path} has columns of another version of this software: derive the project's days again with "
            "`image-snapshots rebuild --all`."
        )


def _listed(body: bytes) -> pa.RecordBatch:
    items = [item for item in orjson.loads(body)["data"] if isinstance(item, dict) and isinstance(item.get("id"), str)]
    columns = [
        [item["id"].strip().lower() for item in items],
        *([value if isinstance(value := item.get(name), str) else None for item in items] for name in _LISTED_TEXTS),
        [_bytes(item.get("size")) for item in items],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, _LISTED, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=_LISTED)


def _bytes(size: Any) -> int | None:
    # In KB, sometimes as text.
    if isinstance(size, str) and size.isascii() and size.isdigit() and len(size) < 16:
        size = int(size)
    return size * 1024 if isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 1 << 50 else None
