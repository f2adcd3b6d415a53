"""What the API lists, as an attempt stages it: the items of its own list of images, and the project's notebooks.

The list of images is a witness, too: it returns nearly all fields of an image, 200 images a request, and so may confirm
a stored answer. Who uses that: change-only days (`snapshot.incremental`) and `maintenance.verify`.
"""

import datetime as dt
import sqlite3
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipelines.bodies.json_text import NotJSONError, dumps, ordered, parse
from pipelines.bodies.list_page import id_of, read_page
from pipelines.cloud.paging import Notebook
from pipelines.tables import IMAGE_REFERENCES, Table

# Fields of the details that the list does not show; a change of these alone is found when the details are refreshed.
NOT_LISTED = frozenset({"support_res_categories"})
_NOTEBOOKS_A_BATCH = 10_000
_SINGLE = frozenset({str, int, float, bool, type(None)})

_EPOCH, _MICROSECOND = dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.timedelta(microseconds=1)


def confirms(item: dict[str, Any], body: bytes) -> bool:
    """Tell whether an item of the list says the same as the body of a details answer."""
    try:
        details = parse(body)
    except NotJSONError:
        return False
    if not isinstance(details, dict) or not details.keys() - item.keys() <= NOT_LISTED:
        return False
    # The ids were compared already, without regard to letter case.
    return all(name in details and _same(value, details[name]) for name, value in item.items() if name != "id")


def _same(left: Any, right: Any) -> bool:
    # True == 1 in Python, and not in JSON.
    if type(left) is type(right) and type(left) in _SINGLE:
        return bool(left == right)
    if type(left) is list and left == right and {*map(type, left)} == {str}:
        return True
    # The API does not promise an order of the elements of lists.
    return dumps(ordered(left)) == dumps(ordered(right))


class ImageList:
    """Items of the list, to be found by id, in a table of an SQLite database, so that memory stays as it is."""

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
        """Store the items of one page, listed at a time in microseconds since the epoch; the first for an id counts.

        Raises:
            NotJSONError: the body is no page of a list.
        """
        rows = [(id_, observed_at, dumps(item)) for item in read_page(body)["data"] if (id_ := id_of(item)) is not None]
        self._db.executemany("INSERT OR IGNORE INTO listed VALUES (?, ?, ?)", rows)

    def find(self, ids: list[str]) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """Those of some ids that were listed, each with the time and the item, one after the other."""
        marks = ",".join("?" * len(ids))
        rows = self._db.execute(
            f"SELECT id, observed_at, item FROM listed WHERE id IN ({marks})",  # noqa: S608  (question marks only)
            ids,
        )
        for id_, observed_at, item in rows:
            yield id_, observed_at, parse(item)


class NotebookList:
    """Notebooks, reduced to what is kept of them, in a table of an SQLite database."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS notebooks (id TEXT PRIMARY KEY, name TEXT, status TEXT, image_id TEXT,"
            " observed_at INTEGER NOT NULL) WITHOUT ROWID"
        )

    def clear(self) -> None:
        """Drop all notebooks."""
        self._db.execute("DELETE FROM notebooks")

    def add(self, notebooks: list[Notebook]) -> None:
        """Store notebooks of ids that are not there yet."""
        rows = [(book.id, book.name, book.status, book.image_id, microseconds(book.observed_at)) for book in notebooks]
        self._db.executemany("INSERT INTO notebooks VALUES (?, ?, ?, ?, ?)", rows)

    def batches(self, snapshot_date: dt.date, project_id: str) -> Iterator[pa.RecordBatch]:
        """All notebooks, by id, as batches of the `notebooks` table."""
        cursor = self._db.execute("SELECT * FROM notebooks ORDER BY id")
        yield from batches_of(cursor, IMAGE_REFERENCES, _NOTEBOOKS_A_BATCH, snapshot_date, project_id)


def batches_of(
    cursor: sqlite3.Cursor, table: Table, rows_a_batch: int, snapshot_date: dt.date, project_id: str
) -> Iterator[pa.RecordBatch]:
    """Rows that hold the columns of `table` after its two keys of the partition, as batches of that table."""
    schema = table.schema
    while rows := cursor.fetchmany(rows_a_batch):
        columns = [[snapshot_date] * len(rows), [project_id] * len(rows), *zip(*rows, strict=True)]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def microseconds(moment: dt.datetime) -> int:
    """A time as SQLite keeps it here: microseconds since the epoch."""
    return (moment - _EPOCH) // _MICROSECOND
