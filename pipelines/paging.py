"""The API's lists, page by page: how far the reading has come, and what a page adds to it.

Asking for a page, and what a refusal means, belongs to `pipelines.api`.
"""

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

import orjson

PAGE_SIZE = 200
NOTEBOOKS_PAGE_SIZE = 100


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
        page = orjson.loads(body)
        self.total = _count(page.get("total"))
        self.most = max(self.most, self.total or 0)
        items = []
        for item in page["data"]:
            id_ = item.get("id") if isinstance(item, dict) else None
            key = id_.strip().lower() if isinstance(id_, str) else ""
            if not key:
                self.skipped += 1
            elif key not in self.seen:
                self.seen.add(key)
                items.append(item)
        self.offset += len(page["data"])
        return ListPage(items, body, observed_at, self.total) if items else None


def reduce_notebook(item: dict[str, Any], observed_at: dt.datetime) -> Notebook:
    """What is kept of an item of the notebook list."""
    image = item.get("image")
    image_id = _string(image.get("id")) if isinstance(image, dict) else None
    return Notebook(
        item["id"].strip().lower(),
        _string(item.get("name")),
        _string(item.get("status")),
        (image_id or "").strip().lower() or None,
        observed_at,
    )


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
