"""Reads a page of one of the API's lists: its items and their ids."""

from collections.abc import Sequence
from typing import Any

from pipelines.bodies.json_text import NotJSONError, parse, text_or_none


def read_page(body: bytes, items: str = "data") -> dict[str, Any]:
    """Parse a page of a list: an object with a list under the name `items`.

    Raises:
        NotJSONError: the body is not such a page.
    """
    page = parse(body)
    if not isinstance(page, dict) or not isinstance(page.get(items), list):
        raise NotJSONError("not a page of a list")
    return page


def value_at(item: Any, *names: str) -> Any:
    """The value at a path of names in nested objects; None where it ends early."""
    for name in names:
        item = item.get(name) if isinstance(item, dict) else None
    return item


def text_at(item: Any, *names: str) -> str | None:
    """The text at a path of names in nested objects; None when there is none, or none that can be kept."""
    return text_or_none(value_at(item, *names))


def id_of(item: Any, names: Sequence[str] = ("id",)) -> str | None:
    """The id of a list's item, in lower case; None if it has none, or one that cannot be stored."""
    return (text_at(item, *names) or "").strip().lower() or None
