"""Published days of images with costs, by a test's own price book."""

import datetime as dt
from pathlib import Path

from published_days import publish_snapshot, rows_of

from pipelines.derive.analysis import Analysis
from pipelines.derive.bills import derive_bills
from pipelines.derive.costs import derive_image_costs
from pipelines.lake.layout import Partition
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.tables import IMAGE_USAGE

GB = 1024**3
A, B, C, D = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abcd")

BOOK = """
currency = "EUR"

[[price]]
valid_from = 2020-01-01
per_gb_month = 1
"""


def priced_day(date: str, book: str = BOOK, project: str = "default") -> SnapshotRun:
    path = Path(f"book-{abs(hash(book))}.toml")
    path.write_text(book)
    return SnapshotRun(Partition(dt.date.fromisoformat(date), project), "run-1", Settings(lake="lake", price_book=path))


def publish_images(day, images, *, failed=(), inventory=None, **tables):
    """Publish a day with these images; the requests for the other ids failed."""
    publish_snapshot(
        day,
        inventory=inventory or [{"id": i} for i in sorted([image["id"] for image in images] + list(failed))],
        responses=[{"id": image["id"], "outcome": "ok"} for image in images]
        + [{"id": i, "outcome": "failed", "error_code": "HTTP.500"} for i in failed],
        images=images,
        **tables,
    )


def derive(day):
    with Analysis(day) as analysis:
        return derive_image_costs(analysis, derive_bills(analysis))


def write_usage(day, unused_days):
    """Write the day's usage: id -> observed days without a notebook."""
    rows = [
        {"id": i, "is_observed": True, "observed_days": days, "unused_days": days} for i, days in unused_days.items()
    ]
    with day.lake.writer(day.lake.table("image_usage", day.partition), IMAGE_USAGE, "run-1") as writer:
        writer.write(rows_of(IMAGE_USAGE, rows, snapshot_date=day.partition.date, project_id="p1"))


def entry(price, valid_from="2026-01-01", **selectors):
    lines = [f'{name} = "{value}"' for name, value in selectors.items()]
    return "\n".join(["[[price]]", f"valid_from = {valid_from}", f"per_gb_month = {price}", *lines, ""])
