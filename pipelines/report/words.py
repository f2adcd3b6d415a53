"""Formats the report's figures, dates and values as text."""

import datetime as dt
import re
from decimal import Decimal
from typing import Any

import orjson

from pipelines.plain_text import UNITS, unit_of

# A text is cut off after this many characters.
SHOWN_TEXT = 200

_ISO_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(:\d\d)?(\.\d+)?Z")
_MINUS = "\u2212"


def count(value: int | None) -> str:
    """Format a count."""
    return "not known" if value is None else f"{value:,}"


def size(value: int | None) -> str:
    """Format bytes in the largest unit that gives at least one."""
    if value is None:
        return "not known"
    power = unit_of(value)
    amount = f"{abs(value):,}" if power == 0 else f"{abs(value) / 1024**power:,.2f}"
    unit = "byte" if power == 0 and abs(value) == 1 else UNITS[power]
    return f"{_MINUS if value < 0 else ''}{amount}\u00a0{unit}"


def freed(exact: int | None, known: int, unknown_images: int) -> str:
    """Format what deleting images frees: `exact`, or at least the `known` bytes while some images are unknown."""
    if exact is not None:
        return size(exact)
    return f"at least {size(known)}" if known and unknown_images else "unknown"


def signed(change: float | Decimal | None, amount: str) -> str:
    """Format a change; `amount` is its size without a sign."""
    if change is None:
        return "not known"
    if change == 0:
        return "no change"
    return f"{'+' if change > 0 else _MINUS}{amount}"


def money(value: float | Decimal | None) -> str:
    """Format an amount of money without its currency."""
    if value is None:
        return "not known"
    return "below 0.01" if 0 < value < 0.005 else f"{value:,.2f}"


def difference(value: float | Decimal | None) -> str:
    """Format a difference of two amounts of money, to the cent as they are shown."""
    if value is None:
        return "not known"
    return "0.00" if abs(float(value)) < 0.005 else signed(value, f"{abs(value):,.2f}")


def long_date(value: dt.date) -> str:
    """Format a day for use in a sentence."""
    return f"{value.day}\u00a0{value:%B}\u00a0{value.year}"


def moment(value: dt.datetime) -> str:
    """Format a point in time, in UTC."""
    return f"{value.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def words(value: Any) -> str:
    """Format a value of evidence or of a change as text of bounded length."""
    if value is None:
        return "none"
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    if found := _ISO_TIME.fullmatch(text):
        return f"{found[1]} {found[2]} UTC"
    if text == "":
        return "empty"
    return text if len(text) <= SHOWN_TEXT else f"{text[:SHOWN_TEXT]}\u2026"


def plural(number: int, one: str, many: str) -> str:
    """Format a number with its noun in singular or plural."""
    return f"{number:,} {one if number == 1 else many}"
