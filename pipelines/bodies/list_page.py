"""Reads a page of one of the API's lists: its items and their ids."""

from typing import Any

from pipelines.bodies.json_text import NotJSONError, parse, text_or_none


def read_page(body: bytes) -> dict[str, Any]:
    """Parse a page of a list: an object with a list `data`.

    Raises:
        NotJSONError: the body is not such a page.
    """
    page = parse(body)
    if not isinstance(page, dict) or not isinstance(page.get("data"), list):
        raise NotJSONError("not a page of a list")
    return page


def id_of(item: Any) -> str | None:
    """The id of a list's item, in lower case; None if it has none, or one that cannot be stored."""
    id_ = text_or_none(item.get("id")) if isinstance(item, dict) else None
    return (id_ or "").strip().lower() or None
