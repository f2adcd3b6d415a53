"""The price book: what the user states that a GB-month of image storage costs, read from a TOML file and checked.

Which price applies to which image is decided by `sql/cost/image_costs.sql`; `sql/cost/price-book.toml` is the book
that ships with the project, and says what a book may hold.
"""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.errors import ConfigurationError
from pipelines.inputs.text_files import decoded, parse_toml
from pipelines.settings import PREFIX

PRICES = pa.schema(
    [
        ("registry", pa.string()),
        ("namespace", pa.string()),
        ("type", pa.string()),
        ("valid_from", pa.date32()),
        ("per_gb_month", pa.float64()),
        ("currency", pa.string()),
    ]
)

_TEXT = "must be text in quotes that is not empty"
_MUST = {
    "currency": "must be an ISO 4217 code of three capital letters in quotes, such as EUR",
    "price": "must be at least one entry [[price]]: a price of 0 is stated too",
    "valid_from": "must be a date without quotes, such as 2026-01-01",
    "per_gb_month": "must be a number of 0 or more without quotes, such as 0.05",
    "registry": _TEXT,
    "namespace": _TEXT,
    "type": "must be BUILD_IN or DEDICATED in quotes",
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Price(_Strict):
    valid_from: dt.date
    per_gb_month: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    registry: Annotated[str, Field(min_length=1)] | None = None
    namespace: Annotated[str, Field(min_length=1)] | None = None
    type: Literal["BUILD_IN", "DEDICATED"] | None = None


class _Book(_Strict):
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    price: Annotated[list[_Price], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class PriceBook:
    """A price book: `prices` has the schema `PRICES`, a row for each entry; a selector that is null matches all.

    Registries are in lower case. `is_priced`: whether any price is other than zero.
    """

    currency: str
    prices: pa.Table
    is_priced: bool


def read_price_book(path: Path) -> PriceBook:
    """Read and check a price book.

    Raises:
        ConfigurationError: the file cannot be read or is wrong; names the entry, counted from 1, and the field.
    """
    try:
        text = decoded(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"The price book {path} cannot be read: {error.strerror}. Correct {PREFIX}PRICE_BOOK."
        ) from error
    except ValueError as reason:
        raise ConfigurationError(f"The price book {path} {reason}.") from None
    try:
        stated = parse_toml(text)
    except ValueError as error:
        raise ConfigurationError(f"The price book {path} is no valid TOML: {error}.") from error
    try:
        book = _Book.model_validate(stated)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise ConfigurationError(f"The price book {path} is wrong: {_problem(first['loc'], first['type'])}.") from None
    rows = [price.model_dump() | {"currency": book.currency} for price in book.price]
    entries: dict[tuple[Any, ...], int] = {}
    for number, row in enumerate(rows, start=1):
        if row["registry"] is not None:
            row["registry"] = row["registry"].lower()
        other = entries.setdefault(tuple(row[name] for name in ("registry", "namespace", "type", "valid_from")), number)
        if other != number:
            raise ConfigurationError(
                f"The price book {path} is wrong: entry {number} has the `valid_from` and selectors of entry {other}, "
                "so it is not clear which holds."
            )
    return PriceBook(
        book.currency,
        pa.Table.from_pylist(rows, PRICES),
        is_priced=any(price.per_gb_month > 0 for price in book.price),
    )


def _problem(location: tuple[int | str, ...], kind: str) -> str:
    """What pydantic found, in the words of the price book."""
    name = str(location[-1])
    entry = f"entry {location[1] + 1}" if len(location) > 1 and isinstance(location[1], int) else ""
    if kind == "extra_forbidden":
        known = _Price.model_fields if entry else _Book.model_fields
        return f"{entry or 'it'} has the unknown field `{name}`; known are {', '.join(known)}"
    if name not in _MUST:
        return f"{entry} must be a table that begins with [[price]]"
    return f"`{name}` {f'of {entry} ' if entry else ''}{'is missing: it ' if kind == 'missing' else ''}{_MUST[name]}"
