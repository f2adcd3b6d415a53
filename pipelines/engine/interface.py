"""The interface of every engine that runs the SQL of the derived tables.

All SQL is in DuckDB's dialect, for every engine. The engines are `duckdb` and `spark`; `opening` chooses one. The SQL
itself belongs to its files and to the modules named after them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import pyarrow as pa

from pipelines.errors import ValidationError
from pipelines.lake.local_storage import LocalPath
from pipelines.lake.parquet_files import read_batches
from pipelines.lake.storage import LakePath

_BATCH_ROWS = 32_768


class Engine(ABC):
    """Named relations and SELECTs over them; a context manager. Times are UTC.

    A new relation replaces an existing one of the same name. Relations made from the old one keep its rows.
    """

    # A local engine gets this many ids at a time, so that its memory does not grow with their number; None: all.
    ids_at_a_time: ClassVar[int | None] = None

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @abstractmethod
    def session(self) -> "Engine":
        """An engine with no relations yet, to be entered while this one is open: cheaper than one opened anew."""

    @abstractmethod
    def expect(self, rows: int) -> None:
        """Say how many rows the largest relation will have: for many, an engine may use more of the machine."""

    @abstractmethod
    def load(self, name: str, data: pa.Table | pa.RecordBatchReader) -> None:
        """Create a relation from Arrow data."""

    @abstractmethod
    def load_file(self, name: str, path: LakePath, columns: str = "*") -> None:
        """Create a relation that reads a Parquet file of the lake, without its directory keys."""

    def load_local(self, name: str, paths: Iterable[Path], schema: pa.Schema) -> None:
        """Create a relation that reads Parquet files of this machine; they must stay while the engine is open."""
        batches = (batch.cast(schema) for path in paths for batch in read_batches(LocalPath(path), _BATCH_ROWS))
        self.load(name, pa.RecordBatchReader.from_batches(schema, batches))

    @abstractmethod
    def create(self, name: str, sql: str) -> None:
        """Create a relation with the current rows of a SELECT."""

    @abstractmethod
    def append(self, name: str, sql: str) -> None:
        """Add the rows of a SELECT to a relation made by `create`, or by `load` from a table."""

    @abstractmethod
    def create_view(self, name: str, sql: str) -> None:
        """Create a relation that runs a SELECT each time it is read."""

    def narrow(self, name: str, condition: str | None) -> None:
        """Restrict a relation to the rows of a condition (None: all rows); only if `ids_at_a_time` is a number."""
        raise NotImplementedError

    @abstractmethod
    def hold(self, name: str, selects: Iterable[str]) -> None:
        """Create a relation with the rows of several SELECTs, one after the other, outside this process's memory."""

    def hold_sorted(self, name: str, sql: str, key: str) -> None:
        """As `hold`, of one SELECT, ordered by a column."""
        self.hold(name, [f"{sql} ORDER BY {key}"])

    def held_files(self, _name: str) -> tuple[str, ...]:
        """The local Parquet files of a relation made by `hold`; none if it is held elsewhere."""
        return ()

    @abstractmethod
    def rest(self) -> None:
        """Release memory that is not needed until the next statement."""

    @abstractmethod
    def read(self, sql: str) -> pa.Table:
        """The rows of a SELECT, in memory."""

    def stream(self, sql: str, schema: pa.Schema) -> pa.RecordBatchReader:
        """The rows of a SELECT, in its order, in batches of exactly this schema.

        Raises:
            ValidationError: the SELECT has other columns.
        """
        names, batches = self._select(sql)
        if names != schema.names:
            raise ValidationError(f"A SELECT has the columns {names} instead of {schema.names}.")
        return pa.RecordBatchReader.from_batches(schema, (batch.cast(schema) for batch in batches))

    @abstractmethod
    def _select(self, sql: str) -> tuple[list[str], Iterator[pa.RecordBatch]]:
        """The column names of a SELECT, and its rows in batches, in bounded memory."""
