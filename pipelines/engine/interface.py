"""What runs the SQL of the derived tables: the interface that every engine has.

All SQL here is in DuckDB's dialect, whatever engine runs it. `duckdb` and `spark` are the engines; which of them a
run has is decided in `opening`. What the SQL means belongs to its files and to the modules named after
them.
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

    A relation takes the place of one of its name; what was made of that one before does not change with it.
    """

    # An engine of this machine gets so many ids at a time, so that what it holds does not grow with them; None: all.
    ids_at_a_time: ClassVar[int | None] = None

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    @abstractmethod
    def load(self, name: str, data: pa.Table | pa.RecordBatchReader) -> None:
        """Make a relation from Arrow data."""

    @abstractmethod
    def load_file(self, name: str, path: LakePath, columns: str = "*") -> None:
        """Make a relation that reads a Parquet file of the lake, without its directory keys."""

    def load_local(self, name: str, paths: Iterable[Path], schema: pa.Schema) -> None:
        """Make a relation that reads Parquet files of this machine, which stay there while the engine is open."""
        batches = (batch.cast(schema) for path in paths for batch in read_batches(LocalPath(path), _BATCH_ROWS))
        self.load(name, pa.RecordBatchReader.from_batches(schema, batches))

    @abstractmethod
    def create(self, name: str, sql: str) -> None:
        """Make a relation that holds what a SELECT gives now."""

    @abstractmethod
    def append(self, name: str, sql: str) -> None:
        """Add what a SELECT gives to a relation that was made by `create`, or by `load` from a table."""

    @abstractmethod
    def create_view(self, name: str, sql: str) -> None:
        """Make a relation that is what a SELECT gives whenever it is read."""

    def narrow(self, name: str, condition: str | None) -> None:
        """Let a relation have only its rows of a condition, or all again; only where `ids_at_a_time` is a number."""
        raise NotImplementedError

    @abstractmethod
    def hold(self, name: str, selects: Iterable[str]) -> None:
        """Make a relation of what SELECTs give, one after the other, and hold it outside this process's memory."""

    def held_files(self, _name: str) -> tuple[str, ...]:
        """The Parquet files of this machine that a relation made by `hold` is in; none where others hold it."""
        return ()

    @abstractmethod
    def rest(self) -> None:
        """Give back memory that was used and is not needed until the next statement."""

    @abstractmethod
    def read(self, sql: str) -> pa.Table:
        """What a SELECT gives, in memory."""

    def stream(self, sql: str, schema: pa.Schema) -> pa.RecordBatchReader:
        """What a SELECT gives, in its order and in batches of exactly this schema.

        Raises:
            ValidationError: the SELECT gives other columns.
        """
        names, batches = self._select(sql)
        if names != schema.names:
            raise ValidationError(f"A SELECT gives the columns {names} instead of {schema.names}.")
        return pa.RecordBatchReader.from_batches(schema, (batch.cast(schema) for batch in batches))

    @abstractmethod
    def _select(self, sql: str) -> tuple[list[str], Iterator[pa.RecordBatch]]:
        """Names of the columns that a SELECT gives, and its rows in batches, in bounded memory."""
