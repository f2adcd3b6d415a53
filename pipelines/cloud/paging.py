"""Puts the pages of the API's lists together: the position in a list, and the new items of each page.

Requesting a page and handling a refusal belong to `cloud.modelarts`.
"""

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from pipelines.bodies.json_text import text_or_none
from pipelines.bodies.list_page import id_of, read_page

PAGE_SIZE = 200
NOTEBOOKS_PAGE_SIZE = 100
# A larger count is ignored as nonsense.
_MAX_TOTAL = 2**53


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a list: `items` that no earlier page had, each with a string `id`; the body as received."""

    items: list[dict[str, Any]]
    body: bytes
    observed_at: dt.datetime
    total: int | None


@dataclass(frozen=True, slots=True)
class Notebook:
    """The fields of a notebook that are kept. The API sends more, such as access tokens; they are dropped."""

    id: str
    name: str | None
    status: str | None
    image_id: str | None
    observed_at: dt.datetime


@dataclass(slots=True)
class Paging:
    """The position in a list that is being read; `skipped` counts items without an id."""

    what: str
    path: str
    page_size: int
    seen: set[str] = field(default_factory=set)
    skipped: int = 0
    offset: int = 0
    total: int | None = None
    # The largest total that any page stated: a total that falls during reading must not hide missing items.
    most: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether the pages have shown all items that the list counts."""
        return self.total is not None and len(self.seen) >= self.total

    @property
    def target(self) -> str:
        """Path and query of the next page."""
        return f"{self.path}?limit={self.page_size}&offset={self.offset}"

    def take(self, body: bytes, observed_at: dt.datetime) -> ListPage | None:
        """Add a received page and return its new items; None if it has none, which is the end of the list."""
        page = read_page(body)
        self.total = _count(page.get("total"))
        self.most = max(self.most, self.total or 0)
        items = []
        for item in page["data"]:
            key = id_of(item)
            if key is None:
                self.skipped += 1
            elif key not in self.seen:
                self.seen.add(key)
                items.append(item)
        self.offset += len(page["data"])
        return ListPage(items, body, observed_at, self.total) if items else None


def reduce_notebook(item: dict[str, Any], observed_at: dt.datetime) -> Notebook:
    """Reduce an item of the notebook list to the fields that are kept."""
    image = item.get("image")
    return Notebook(
        item["id"].strip().lower(),
        text_or_none(item.get("name")),
        text_or_none(item.get("status")),
        id_of(image),
        observed_at,
    )


def _count(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        digits = value.strip().lstrip("0")
        value = int(digits or "0") if len(digits) < 20 else None
    return value if type(value) is int and 0 <= value <= _MAX_TOTAL else None
