"""Reads the API's image list: stages its pages, finds its items by id, and compares them with stored responses.

The list returns nearly all fields of an image, 200 images a request, so it can confirm a stored response. This is used
on incremental days (`snapshot.incremental`) and by `maintenance.verify`.
"""

import datetime as dt
import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from pipelines.bodies.json_text import NotJSONError, dumps, ordered, parse
from pipelines.bodies.list_page import id_of, read_page, text_at
from pipelines.cloud.modelarts import ModelArtsClient
from pipelines.cloud.paging import IMAGES, ListPage
from pipelines.cloud.service import Reading
from pipelines.errors import ListUnreadableError
from pipelines.lake.parquet_files import TableWriter
from pipelines.snapshot.scope import Scope
from pipelines.snapshot.staging import Staging
from pipelines.tables import LIST_PAGES, Table

# Fields of the details that the list does not show. A change of these alone is found when the details are next fetched.
NOT_LISTED = frozenset({"support_res_categories"})
# Bodies are long, so small row groups bound the memory of writers and readers.
_PAGES_A_GROUP = 64
_SINGLE = frozenset({str, int, float, bool, type(None)})

_EPOCH, _MICROSECOND = dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.timedelta(microseconds=1)


def confirms(item: dict[str, Any], body: bytes) -> bool:
    """Whether an item of the list says the same as the body of a details response."""
    try:
        details = parse(body)
    except NotJSONError:
        return False
    if not isinstance(details, dict) or not details.keys() - item.keys() <= NOT_LISTED:
        return False
    # The ids were already compared, ignoring letter case.
    return all(name in details and _same(value, details[name]) for name, value in item.items() if name != "id")


def _same(left: Any, right: Any) -> bool:
    # In Python True == 1, but not in JSON.
    if type(left) is type(right) and type(left) in _SINGLE:
        return bool(left == right)
    if type(left) is list and left == right and {*map(type, left)} == {str}:
        return True
    # The API does not promise an order of list elements.
    return dumps(ordered(left)) == dumps(ordered(right))


class ImageList:
    """Items of the image list, to be found by id. They are in an SQLite table, so that memory does not grow."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS listed (id TEXT PRIMARY KEY, observed_at INTEGER NOT NULL, item BLOB NOT NULL)"
            " WITHOUT ROWID"
        )

    def clear(self) -> None:
        """Drop all items."""
        self._db.execute("DELETE FROM listed")

    def index(self, observed_at: int, body: bytes) -> None:
        """Store the items of one page; the first item of an id counts.

        `observed_at` is in microseconds since the epoch.

        Raises:
            NotJSONError: the body is not a page of a list.
        """
        rows = [(id_, observed_at, dumps(item)) for item in read_page(body)["data"] if (id_ := id_of(item)) is not None]
        self._db.executemany("INSERT OR IGNORE INTO listed VALUES (?, ?, ?)", rows)

    def find(self, ids: list[str]) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """Those of some ids that the list shows, one by one: id, time of observation (microseconds) and item."""
        marks = ",".join("?" * len(ids))
        rows = self._db.execute(
            f"SELECT id, observed_at, item FROM listed WHERE id IN ({marks})",  # noqa: S608  (question marks only)
            ids,
        )
        for id_, observed_at, item in rows:
            yield id_, observed_at, parse(item)


class ImageListReading:
    """Writes the pages of the image list to the staged `list_pages`, and stores the items in `items` if it is given.

    Use it as a context manager: the table appears when the block ends without an error. If the list cannot be read, the
    table has no rows. `read` may be called again after further workspaces became known.
    """

    def __init__(self, client: ModelArtsClient, scope: Scope, staging: Staging, items: ImageList | None) -> None:
        self._client, self._scope, self._staging, self._items = client, scope, staging, items
        self._reading = Reading(IMAGES)
        self._stack = ExitStack()
        self._writer: TableWriter | None = None
        self._workspaces = self._pages = self._shortfall = 0
        self.error: ListUnreadableError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)
        # The ids of a large list take memory that others need now.
        self._reading = Reading(IMAGES)
        if error is None and self._writer is None:
            with self._staging.writer(LIST_PAGES):
                pass

    @property
    def was_read(self) -> bool:
        """Whether the list was read to its end."""
        return self._workspaces > 0 and self.error is None

    @property
    def shortfall(self) -> int:
        """How many images the list counts but shows on none of its pages."""
        return self._shortfall if self.was_read else 0

    async def read(self) -> None:
        """Read the list in the workspaces that were not read yet. If it cannot be read, `error` says why.

        Raises:
            PipelineError: no request can succeed, or the storage failed.
        """
        if self.error is not None:
            return
        if self._writer is None:
            self._writer = self._stack.enter_context(self._staging.writer(LIST_PAGES, _PAGES_A_GROUP))
        try:
            while self._workspaces < len(self._scope.workspaces):
                workspace = self._scope.workspaces[self._workspaces]
                async for page in self._client.pages(self._reading, workspace):
                    self._write(self._writer, page)
                self._workspaces += 1
                self._shortfall = self._reading.shortfall
        except ListUnreadableError as error:
            # A day may be published without the image list.
            self.error, self._writer = error, None
            self._stack.__exit__(type(error), error, error.__traceback__)

    def _write(self, writer: TableWriter, page: ListPage) -> None:
        for item in page.items:
            self._scope.note(text_at(item, "workspace_id"))
        digest = hashlib.sha256(page.body).hexdigest()
        row = (self._staging.date, self._staging.project_id, self._pages, page.observed_at, page.body, digest)
        arrays = [pa.array([value], field.type) for value, field in zip(row, LIST_PAGES.schema, strict=True)]
        writer.write(pa.RecordBatch.from_arrays(arrays, schema=LIST_PAGES.schema))
        if self._items is not None:
            self._items.index(microseconds(page.observed_at), page.body)
        self._pages += 1


def batches_of(
    cursor: sqlite3.Cursor, table: Table, rows_a_batch: int, snapshot_date: dt.date, project_id: str
) -> Iterator[pa.RecordBatch]:
    """The cursor's rows as batches of `table`.

    A row must have the columns of `table` after the two keys of the partition.
    """
    schema = table.schema
    while rows := cursor.fetchmany(rows_a_batch):
        columns = [[snapshot_date] * len(rows), [project_id] * len(rows), *zip(*rows, strict=True)]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def microseconds(moment: dt.datetime) -> int:
    """A time as the SQLite tables store it: microseconds since the epoch."""
    return (moment - _EPOCH) // _MICROSECOND
