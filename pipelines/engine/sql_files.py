"""Reads the files under `sql/`, which both people and this package run."""

from dataclasses import dataclass

from pipelines.settings import ROOT

# The views of `sql/views/`, each after those that it reads; the lake and every warehouse have the same views.
VIEWS = (
    "latest_days",
    "images_latest",
    "images_with_owner",
    "public_periods",
    "open_findings",
    "unused_images",
    "changes_by_class",
    "billed_days",
    "billed_images",
    "daily_costs",
)


@dataclass(frozen=True, slots=True)
class View:
    """A view of `sql/views/`: a description of its rows, and its SELECT."""

    meaning: str
    select: str


def read_sql(name: str) -> str:
    """The text of a file under `sql/`."""
    return (ROOT / "sql" / name).read_text()


def read_view(name: str) -> View:
    """Read a view's file; its description is the first paragraph of the comment at the beginning."""
    lines = read_sql(name).splitlines()
    comment = [line.removeprefix("--").strip() for line in lines if line.startswith("--")]
    select = [line for line in lines if not line.startswith("--")]
    return View(" ".join(comment[: comment.index("")]), "\n".join(select))
