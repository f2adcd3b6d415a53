"""A page of one of the API's lists: its items, and the id of each."""

from typing import Any

from pipelines.bodies.json_text import NotJSONError, parse, text_or_none


def read_page(body: bytes) -> dict[str, Any]:
    """A page of a list: an object with a list `data`.

    Raises:
        NotJSONError: it is no page.
    """
    page = parse(body)
    if not isinstance(page, dict) or not isinstance(page.get("data"), list):
        raise NotJSONError("not a page of a list")
    return page


def id_of(item: Any) -> str | None:
    """The id of an item of a list, in lower case; None when it has none, or none that can be kept."""
    id_ = text_or_none(item.get("id")) if isinstance(item, dict) else None
    return (id_ or "").strip().lower() or None
