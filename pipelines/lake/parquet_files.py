"""Parquet files in bounded memory: rows streamed into row groups, and out of them. What a table holds is not here."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import ValidationError
from pipelines.lake.storage import LakePath, storage_errors

# Larger groups are read a little faster, and cost writers memory: one waits while the one before it is written.
ROW_GROUP_ROWS = 32_768
# Rows may be of any length, so groups and batches are bounded by their bytes, too. Usual rows never reach that. Groups
# of long rows are smaller: who reads a few rows has a whole group of each long column in memory.
ROW_GROUP_BYTES = 64 * 2**20
LONG_ROW_BYTES = 4 * 2**10
LONG_ROW_GROUP_BYTES = 16 * 2**20
BATCH_BYTES = 16 * 2**20

# In the footer of each file that holds data of the sandbox, so that a copy elsewhere still says so.
SANDBOX_MARK = {"image_snapshots.is_sandbox": "true"}


class TableWriter:
    """Streams batches into one Parquet file, in row groups of even size or of many bytes; made by `Lake.writer`.

    A group is encoded by the thread `beside`, while the next one is made.
    """

    def __init__(self, parquet: pq.ParquetWriter, schema: pa.Schema, row_group_rows: int, beside: Executor) -> None:
        self._parquet = parquet
        self._beside = beside
        self._writing: Future[None] | None = None
        self._schema = schema
        self._row_group_rows = row_group_rows
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = self._pending_bytes = 0
        self.rows = 0

    def write(self, data: pa.Table | pa.RecordBatch) -> None:
        """Add rows; they must have exactly the table's schema, metadata aside."""
        for batch in data.to_batches() if isinstance(data, pa.Table) else [data]:
            # Arrow itself would accept a null in a column that is declared never to be null.
            if not batch.schema.equals(self._schema):
                raise ValidationError(f"A batch has the schema\n{batch.schema}\ninstead of\n{self._schema}.")
            for field, column in zip(self._schema, batch.columns, strict=True):
                if not field.nullable and column.null_count:
                    raise ValidationError(f"The required column {field.name} holds {column.null_count} nulls.")
            self._pending.append(batch)
            self._pending_rows += batch.num_rows
            self._pending_bytes += batch.nbytes
            self.rows += batch.num_rows
            is_long = self._pending_bytes >= LONG_ROW_BYTES * self._pending_rows
            most = LONG_ROW_GROUP_BYTES if is_long else ROW_GROUP_BYTES
            if self._pending_rows >= self._row_group_rows or self._pending_bytes >= most:
                self.flush()

    def note(self, metadata: Mapping[str, str]) -> None:
        """Add file metadata that is known only after the rows."""
        self.wait()
        self._parquet.add_key_value_metadata(dict(metadata))

    def flush(self) -> None:
        """Write what is pending as one row group, once the one before it is written."""
        self.wait()
        if self._pending_rows:
            table = pa.Table.from_batches(self._pending, self._schema)
            self._writing = self._beside.submit(self._parquet.write_table, table, row_group_size=self._pending_rows)
            self._pending, self._pending_rows, self._pending_bytes = [], 0, 0

    def wait(self) -> None:
        """Wait until the last row group is written; raises what writing it raised."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()


@contextmanager
def open_parquet(path: LakePath) -> Iterator[pq.ParquetFile]:
    """Open a table's file; a file that is replaced meanwhile is read as it was, or is an error."""
    # With pre-buffering, Arrow's default, the reader keeps every row group until the file ends.
    with storage_errors(path), path.open("rb") as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
        yield parquet


def is_marked_sandbox(path: LakePath) -> bool:
    """Whether a table's file says that it holds data of the sandbox."""
    with open_parquet(path) as file:
        footer = file.metadata.metadata or {}
    return all(footer.get(name.encode()) == value.encode() for name, value in SANDBOX_MARK.items())


def read_batches(path: LakePath, batch_rows: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Stream a table's file in bounded memory, without the file metadata in the schema.

    No batch has more than `batch_rows` rows, or more rows than have `BATCH_BYTES` on average of their row group.
    """
    with open_parquet(path) as file:
        for group in range(file.num_row_groups):
            rows = _rows_a_batch(file.metadata.row_group(group), batch_rows, columns)
            for batch in file.iter_batches(rows, row_groups=[group], columns=columns):
                yield batch.replace_schema_metadata(None)


def _rows_a_batch(group: pq.RowGroupMetaData, batch_rows: int, columns: list[str] | None) -> int:
    chunks = (group.column(index) for index in range(group.num_columns))
    size = sum(chunk.total_uncompressed_size for chunk in chunks if columns is None or chunk.path_in_schema in columns)
    fitting = BATCH_BYTES * int(group.num_rows) // max(int(size), 1)
    return max(1, min(batch_rows, fitting))
