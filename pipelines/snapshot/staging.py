"""Where the tables of an attempt are written until the day is published."""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipelines.lake.layout import Lake
from pipelines.lake.parquet_files import ROW_GROUP_ROWS, SANDBOX_MARK, TableWriter
from pipelines.lake.storage import LakePath
from pipelines.tables import Table


@dataclass(frozen=True, slots=True)
class Staging:
    """Where the tables of an attempt are written, and what all their rows have in common."""

    lake: Lake
    directory: LakePath
    date: dt.date
    project_id: str
    run_id: str
    # Asked when a table is whole: an endpoint may say only in its first answer that it is a sandbox.
    is_sandbox: Callable[[], bool]

    @contextmanager
    def writer(self, table: Table, row_group_rows: int = ROW_GROUP_ROWS) -> Iterator[TableWriter]:
        """Write a table's staged file."""
        path = self.directory / f"{table.name}.parquet"
        with self.lake.writer(path, table, self.run_id, row_group_rows) as writer:
            yield writer
            if self.is_sandbox():
                writer.note(SANDBOX_MARK)
