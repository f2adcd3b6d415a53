"""The API's lists, page by page: how far the reading has come, and what a page adds to it.

Asking for a page, and what a refusal means, belongs to `cloud.modelarts`.
"""

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from pipelines.bodies.json_text import text_or_none
from pipelines.bodies.list_page import id_of, read_page

PAGE_SIZE = 200
NOTEBOOKS_PAGE_SIZE = 100
# No list is longer; a count beyond it is none.
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
    """What is kept of a notebook. The API sends more, access tokens among it: nothing of that is kept."""

    id: str
    name: str | None
    status: str | None
    image_id: str | None
    observed_at: dt.datetime


@dataclass(slots=True)
class Paging:
    """How far the reading of a list has come; `skipped` items had no id."""

    what: str
    path: str
    page_size: int
    seen: set[str] = field(default_factory=set)
    skipped: int = 0
    offset: int = 0
    total: int | None = None
    # The most that any page counted: a count that falls while pages are read must not hide what none of them showed.
    most: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether everything that the list counts was on its pages."""
        return self.total is not None and len(self.seen) >= self.total

    @property
    def target(self) -> str:
        """Path and query of the next page."""
        return f"{self.path}?limit={self.page_size}&offset={self.offset}"

    def take(self, body: bytes, observed_at: dt.datetime) -> ListPage | None:
        """Add a page that came; None when it has nothing new, which is the end of the list."""
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
    """What is kept of an item of the notebook list."""
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
