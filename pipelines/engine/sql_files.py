"""The files under `sql/`: SQL that people read and run, and that the modules here run."""

from dataclasses import dataclass

from pipelines.settings import ROOT

# The views of `sql/views/`, which the lake and every warehouse have alike, each after those that it reads.
VIEWS = (
    "latest_days",
    "images_latest",
    "images_with_owner",
    "public_periods",
    "open_findings",
    "unused_images",
    "changes_by_class",
    "daily_costs",
)


@dataclass(frozen=True, slots=True)
class View:
    """A view of `sql/views/`: what a row is, for people, and its SELECT."""

    meaning: str
    select: str


def read_sql(name: str) -> str:
    """Text of a file under `sql/`."""
    return (ROOT / "sql" / name).read_text()


def read_view(name: str) -> View:
    """A view's file: its meaning is the first paragraph of the comment that it begins with."""
    lines = read_sql(name).splitlines()
    comment = [line.removeprefix("--").strip() for line in lines if line.startswith("--")]
    select = [line for line in lines if not line.startswith("--")]
    return View(" ".join(comment[: comment.index("")]), "\n".join(select))
