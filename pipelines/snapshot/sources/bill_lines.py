"""A line of a bill: what is kept of it, which days are read, and the store of lines until the day is staged.

Amounts are decimals from the text that the bill sends to the table: no float is between. How each bill is read belongs
to `sources.bills` and `sources.focus_exports`.
"""

import datetime as dt
import hashlib
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, DecimalException
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from pipelines.snapshot.image_list import microseconds
from pipelines.tables import AMOUNT_DIGITS, AMOUNT_PLACES, BILLED_COSTS, BILLED_DAYS

REGISTRY, MODELARTS = "registry", "modelarts"

_ROWS_A_BATCH = 10_000
_PLACES = Decimal(1).scaleb(-AMOUNT_PLACES)
_CONTEXT = Context(prec=AMOUNT_DIGITS + 12, rounding=ROUND_HALF_EVEN)
_LARGEST = Decimal(10) ** (AMOUNT_DIGITS - AMOUNT_PLACES)
_KINDS = (
    (REGISTRY, re.compile(r"(^|[^a-z])swr([^a-z]|$)|software[\s_-]*repository")),
    (MODELARTS, re.compile(r"model[\s_-]*arts")),
)
_COLUMNS = [column.name for column in BILLED_COSTS.columns[3:] if column.name != "version"]
_TIMES = frozenset({"charge_period_start", "charge_period_end", "observed_at"})
# A statement says the same, wherever and whenever it was read.
_PROVENANCE = ("source", "source_sha256", "observed_at")
_SAID = len(_COLUMNS) - len(_PROVENANCE)


@dataclass(frozen=True, slots=True)
class BillLine:
    """A line of a bill for the registry or ModelArts. The costs are decimals with `AMOUNT_PLACES` places."""

    charge_date: dt.date
    charge_period_start: dt.datetime
    charge_period_end: dt.datetime
    time_zone: str
    kind: str
    service: str
    resource_id: str | None
    resource_name: str | None
    description: str | None
    currency: str
    list_cost: Decimal | None
    contracted_cost: Decimal | None
    billed_cost: Decimal
    source: str
    source_sha256: str
    observed_at: dt.datetime


def window(day: dt.date) -> tuple[dt.date, dt.date]:
    """The first and the last charge day whose statements a day reads: the days before it, which are over everywhere."""
    return day - dt.timedelta(days=BILLED_DAYS), day - dt.timedelta(days=1)


def months(first: dt.date, last: dt.date) -> list[str]:
    """The months that some days lie in, such as 2026-11, in order."""
    numbers = range(first.year * 12 + first.month - 1, last.year * 12 + last.month)
    return [f"{number // 12}-{number % 12 + 1:02}" for number in numbers]


def kind_of(*names: Any) -> str | None:
    """What a service is to us, by any of its names; None for services that have nothing to do with images."""
    texts = [name.lower() for name in names if isinstance(name, str)]
    return next((kind for kind, pattern in _KINDS if any(pattern.search(text) for text in texts)), None)


def day_in(zone: str, date: dt.date) -> tuple[dt.datetime, dt.datetime]:
    """Begin and end (UTC) of a calendar day in a time zone: 23 to 25 hours where clocks change."""
    where = ZoneInfo(zone)
    begin, end = (
        dt.datetime.combine(one, dt.time(), where).astimezone(dt.UTC) for one in (date, date + dt.timedelta(days=1))
    )
    return begin, end


def amount(value: Any) -> Decimal | None:
    """A number or its text as a decimal with `AMOUNT_PLACES` places, rounded half to even; None for no value.

    Raises:
        ValueError: it is not a number, or too large for the table.
    """
    if value is None or value == "":
        return None
    # The shortest text of a float is what was written before it became one.
    text = repr(value) if isinstance(value, float) else str(value).strip()
    try:
        number = _CONTEXT.create_decimal(text)
        if not number.is_finite() or abs(number) >= _LARGEST:
            raise ValueError("not a number of the table")
        return number.quantize(_PLACES, context=_CONTEXT)
    except DecimalException:
        raise ValueError("not a number") from None


class BillStore:
    """The lines that were read, in an SQLite table."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database
        columns = ", ".join(f'"{name}" {"INTEGER" if name in _TIMES else "TEXT"}' for name in _COLUMNS)
        self._db.execute(f"CREATE TABLE IF NOT EXISTS bills ({columns})")

    def clear(self) -> None:
        """Drop all lines."""
        self._db.execute("DELETE FROM bills")

    def add(self, lines: list[BillLine]) -> None:
        """Store lines. Two lines may be equal: both are charged."""
        self._db.executemany(
            f"INSERT INTO bills VALUES ({', '.join('?' * len(_COLUMNS))})",  # noqa: S608  (question marks)
            [[_stored(getattr(line, name)) for name in _COLUMNS] for line in lines],
        )

    def batches(self, snapshot_date: dt.date, project_id: str) -> Iterator[pa.RecordBatch]:
        """All lines in a fixed order, as batches of the `billed_costs` table."""
        versions: dict[str, Any] = {}
        for row in self._rows():
            digest = versions.setdefault(row[0], hashlib.sha256())
            digest.update(repr(row[:_SAID]).encode("utf-8", "surrogatepass"))
        schema, rows, line = BILLED_COSTS.schema, self._rows(), 0
        while some := rows.fetchmany(_ROWS_A_BATCH):
            found = [
                (snapshot_date, project_id, number, *_read(row[:-1]), versions[row[0]].hexdigest(), row[-1])
                for number, row in enumerate(some, line)
            ]
            line += len(found)
            arrays = [
                pa.array(values, field.type) for values, field in zip(zip(*found, strict=True), schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _rows(self) -> sqlite3.Cursor:
        order = ", ".join(
            f'"{name}"' for name in ("charge_date", "kind", "service", "resource_id", "description", *_COLUMNS)
        )
        return self._db.execute(f"SELECT * FROM bills ORDER BY {order}")  # noqa: S608  (names of ours)


def _stored(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return microseconds(value)
    return value.isoformat() if isinstance(value, dt.date) else str(value) if isinstance(value, Decimal) else value


def _read(row: tuple[Any, ...]) -> list[Any]:
    values = dict(zip(_COLUMNS, row, strict=False))
    values["charge_date"] = dt.date.fromisoformat(values["charge_date"])
    for name in ("list_cost", "contracted_cost", "billed_cost"):
        values[name] = None if values[name] is None else Decimal(values[name])
    return list(values.values())
