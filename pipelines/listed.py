"""The API's own list as a witness: what it shows of an image, and whether that confirms a stored answer.

The list returns nearly all fields of an image, 200 images a request. Who uses the witness: change-only days
(`pipelines.changed`) and `pipelines.verify`.
"""

import datetime as dt
import hashlib
import sqlite3
from collections.abc import Iterator
from typing import Any

import orjson
import pyarrow as pa

from pipelines.columns import LIST_PAGES

# Fields of the details that the list does not show; a change of these alone is found when the details are refreshed.
NOT_LISTED = frozenset({"support_res_categories"})
_PAGES_A_BATCH = 64
_ABSENT = object()


def confirms(item: dict[str, Any], body: bytes) -> bool:
    """Tell whether an item of the list says the same as the body of a details answer."""
    details = orjson.loads(body)
    if not details.keys() - item.keys() <= NOT_LISTED:
        return False
    # The ids were compared already, without regard to letter case.
    return all(_same(value, details.get(name, _ABSENT)) for name, value in item.items() if name != "id")


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, list) and isinstance(right, list):
        # The API does not promise an order.
        return sorted(map(orjson.dumps, left)) == sorted(map(orjson.dumps, right))
    # True == 1 in Python, and not in JSON.
    return type(left) is type(right) and bool(left == right)


class ListedImages:
    """Pages of the list and their items, in tables of an SQLite database, so that memory does not grow with them."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS pages (page INTEGER PRIMARY KEY, observed_at INTEGER NOT NULL,"
            " body BLOB NOT NULL, body_sha256 TEXT NOT NULL)"
        )
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS listed (id TEXT PRIMARY KEY, observed_at INTEGER NOT NULL, item BLOB NOT NULL)"
            " WITHOUT ROWID"
        )

    def clear(self) -> None:
        """Drop all pages."""
        self._db.execute("DELETE FROM pages")
        self._db.execute("DELETE FROM listed")

    def add(self, page: int, observed_at: int, body: bytes) -> None:
        """Store one page and its items, of which the first for an id counts; time in microseconds since the epoch."""
        digest = hashlib.sha256(body).hexdigest()
        self._db.execute("INSERT INTO pages VALUES (?, ?, ?, ?)", (page, observed_at, body, digest))
        rows = [
            (item["id"].strip().lower(), observed_at, orjson.dumps(item))
            for item in orjson.loads(body)["data"]
            if isinstance(item, dict) and isinstance(item.get("id"), str)
        ]
        self._db.executemany("INSERT OR IGNORE INTO listed VALUES (?, ?, ?)", rows)

    def find(self, ids: list[str]) -> dict[str, tuple[int, dict[str, Any]]]:
        """When each of some ids was listed, and as what; ids that were not are left out."""
        marks = ",".join("?" * len(ids))
        rows = self._db.execute(
            f"SELECT id, observed_at, item FROM listed WHERE id IN ({marks})",  # noqa: S608  (question marks only)
            ids,
        )
        return {id_: (observed_at, orjson.loads(item)) for id_, observed_at, item in rows}

    def batches(self, snapshot_date: dt.date, project_id: str) -> Iterator[pa.RecordBatch]:
        """All pages, in order, as batches of the `list_pages` table."""
        cursor = self._db.execute("SELECT * FROM pages ORDER BY page")
        while rows := cursor.fetchmany(_PAGES_A_BATCH):
            columns = [[snapshot_date] * len(rows), [project_id] * len(rows), *zip(*rows, strict=True)]
            schema = LIST_PAGES.schema
            arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
