"""The lists of the API: how each is requested, how far the reading of one is, and what each page adds.

Sending the request for a page and handling errors belong to `cloud.service`.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import urlencode

import orjson

from pipelines.bodies.list_page import id_of, read_page, text_at

# A larger count is ignored as nonsense.
_MAX_TOTAL = 2**53


class Step(Enum):
    """What `offset` counts: records, pages, or records in multiples of the page size. A marker replaces the offset."""

    RECORDS = 1
    PAGES = 2
    MULTIPLES = 3
    MARKER = 4


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of the API.

    `what`: the name of its items in messages. `path`: the path below the endpoint, with `{project_id}`. `items` and
    `total`: the fields of a page that hold its items and the number of all items. `id`: the names on the path to an
    item's id. `page_sizes` are tried in order, because some clouds refuse sizes that others document. `workspace`: the
    parameters that choose a workspace; empty if the list has no workspaces. `may_be_missing`: a cloud may lack this
    list, so a missing list does not mean that the endpoint is wrong.
    """

    what: str
    path: str
    items: str = "data"
    total: str = "total"
    id: tuple[str, ...] = ("id",)
    step: Step = Step.RECORDS
    page_sizes: tuple[int, ...] = (50, 20, 10)
    parameters: Mapping[str, str] = field(default_factory=dict)
    workspace: tuple[str, ...] = ("workspace_id",)
    by_post: bool = False
    may_be_missing: bool = False


IMAGES = Listing("image", "/v1/{project_id}/images", page_sizes=(200, 50, 20, 10))


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a list: the body as received, and the `items` with an id that no earlier page had."""

    items: list[dict[str, Any]]
    body: bytes
    observed_at: dt.datetime
    total: int | None


@dataclass(slots=True)
class Paging:
    """How far the reading of a list is in one workspace.

    `shown`: the ids of all workspaces so far, because an API that ignores the workspace shows the same items in each;
    each with the `number` of the workspace that showed it last. One dictionary holds both: a million ids in two sets
    would take twice the memory. `found`: how many ids the pages of this workspace showed. `skipped`: items of this
    workspace without an id.
    """

    listing: Listing
    project_path: str
    workspace: str | None = None
    shown: dict[str, int] = field(default_factory=dict)
    number: int = 1
    found: int = 0
    skipped: int = 0
    offset: int = 0
    total: int | None = None
    # The largest total that any page stated: a total that falls during reading must not hide missing items.
    most: int = 0
    refused_sizes: int = 0
    marker: str | None = None
    is_last: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether the last page was read, or the pages have shown all items that the list counts."""
        return self.is_last or (self.total is not None and self.found >= self.total)

    @property
    def shortfall(self) -> int:
        """How many items the list counts but shows on none of its pages."""
        return max(0, self.most - self.found)

    @property
    def page_size(self) -> int:
        """The number of items that is requested for each page."""
        return self.listing.page_sizes[self.refused_sizes]

    @property
    def target(self) -> str:
        """Path and query of the request for the next page."""
        if self.listing.by_post:
            return self.project_path
        return f"{self.project_path}?{urlencode(self._parameters())}"

    @property
    def body(self) -> bytes:
        """The body of the request for the next page; empty unless the list is requested by POST."""
        return orjson.dumps(self._parameters()) if self.listing.by_post else b""

    def _parameters(self) -> dict[str, Any]:
        where = {} if self.workspace is None else dict.fromkeys(self.listing.workspace, self.workspace)
        position: dict[str, int | str]
        if self.listing.step is Step.MARKER:
            position = {} if self.marker is None else {"next": self.marker}
        else:
            position = {"offset": self.offset}
        return {"limit": self.page_size, **position, **self.listing.parameters, **where}

    def use_smaller_pages(self) -> bool:
        """Request smaller pages from now on; False if there is no smaller size, or if pages were already read."""
        if self.offset or self.found or self.refused_sizes + 1 >= len(self.listing.page_sizes):
            return False
        self.refused_sizes += 1
        return True

    def take(self, body: bytes, observed_at: dt.datetime) -> ListPage | None:
        """Add a received page; returns its new items, or None (the end) if it shows nothing new of this workspace."""
        page = read_page(body, self.listing.items)
        self.total = _count(page.get(self.listing.total))
        self.most = max(self.most, self.total or 0)
        items, found_before = [], self.found
        for item in page[self.listing.items]:
            key = id_of(item, self.listing.id)
            if key is None:
                self.skipped += 1
                continue
            shown_by = self.shown.get(key)
            if shown_by is None:
                items.append(item)
            if shown_by != self.number:
                self.shown[key] = self.number
                self.found += 1
        self._advance(page, len(page[self.listing.items]))
        return ListPage(items, body, observed_at, self.total) if self.found > found_before else None

    def _advance(self, page: dict[str, Any], shown: int) -> None:
        match self.listing.step:
            case Step.MARKER:
                self.marker = text_at(page, "meta_data", "marker")
                self.is_last = self.marker is None
            case Step.RECORDS:
                self.offset += shown
            case Step.PAGES:
                self.offset += 1
            case Step.MULTIPLES:
                self.offset += self.page_size


def _count(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        digits = value.strip().lstrip("0")
        value = int(digits or "0") if len(digits) < 20 else None
    return value if type(value) is int and 0 <= value <= _MAX_TOTAL else None
