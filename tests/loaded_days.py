"""A lake of few days whose values break formats, made once for all tests that load it somewhere, and its rows."""

import datetime as dt
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from once_per_run import once_per_run
from published_days import publish_snapshot, registry_and_bill

from pipelines.derive.days import derive_days
from pipelines.lake.layout import Partition
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun

A, B, C = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abc")
MB = 1024**2

# Text that breaks formats based on lines, quotes or escapes.
AWKWARD = [
    "",
    " ",
    "\\N",
    "\\.",
    "a\n\\.\nb",
    "a\tb\r\nc",
    "\"quoted\", 'single' and \\back",
    "NULL",
    "été 😀 \u2028",
    "x" * 70_000,
    "{}",
]


def at(text):
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def image(id_, **values):
    return {"id": id_, "type": "DEDICATED", "size": 1024, "size_bytes": MB, **values}


def day_in(lake, date, project="default"):
    settings = Settings(lake=str(lake), max_failed_ratio=1)
    return SnapshotRun(Partition(dt.date.fromisoformat(date), project), "run-1", settings)


def publish_images(day, images, *, failed=(), inventory=(), **tables):
    """Publish a day with these images; the requests for the other ids failed."""
    ids = sorted([row["id"] for row in images] + list(failed))
    publish_snapshot(
        day,
        inventory=[*({"id": id_, "owner": "vision", "cost_center": "0042"} for id_ in ids), *inventory],
        responses=[{"id": row["id"], "outcome": "ok", "body": b"{}", "http_status": 200} for row in images]
        + [{"id": id_, "outcome": "failed", "error_code": "HTTP.500"} for id_ in failed],
        images=images,
        **tables,
    )


def awkward_images():
    texts = [
        image(
            f"{number:08x}-0000-4000-8000-000000000000",
            name=text,
            description=text,
            create_at=at("1969-12-31T23:59:59.999999"),
            update_at=at("2026-11-22T10:00:00.000001"),
            supports_gpu=[True, False, None][number % 3],
            age_days=[-1, 2**62, None][number % 3],
        )
        for number, text in enumerate(AWKWARD)
    ]
    return [*texts, {"id": A}, image(B, namespace="team", size=None, size_bytes=None)]


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A lake, read-only: an incomplete day between complete ones of a project, and a day of another project."""
    return once_per_run(tmp_path_factory, "loaded-days", _make)


@pytest.fixture(scope="session")
def made_again(made, tmp_path_factory):
    """That lake, read-only, after reruns of the first and the last day of the first project."""
    return once_per_run(tmp_path_factory, "loaded-days-again", lambda root: _make_again(made, root))


def _make(root):
    lake = root / "lake"
    publish_images(day_in(lake, "2026-11-20"), [image(A, name="a"), image(C, visibility="PRIVATE")])
    publish_images(day_in(lake, "2026-11-21"), [image(A, name="b"), image(C, visibility="PUBLIC")], failed=[B])
    publish_images(
        day_in(lake, "2026-11-22"),
        awkward_images(),
        inventory=[{"id": "no id \\.", "id_as_read": " No id\t", "is_valid": False, "attributes": '{"a": "\\n"}'}],
        listed=[{"id": A, "name": "a"}, {"id": C, "name": "c", "size": 5}],
        references=[{"resource_id": "n1", "image_id": A, "strength": "running"}],
        image_values=[{"id": A, "field": "dev_services", "position": 0, "value": "SSH"}],
        image_tags=[{"id": A, "key": "team", "value": "vision"}],
        **registry_and_bill("2026-11-22", "team/a:1", "team/x:1"),
    )
    other = day_in(lake, "2026-11-22", "other")
    publish_images(other, [image(A), image(C, namespace="other")])
    # With all other days of the project.
    derive_days(day_in(lake, "2026-11-20"))
    derive_days(other)
    return lake


def _make_again(made, root):
    lake = Path(shutil.copytree(made, root / "lake"))
    publish_images(day_in(lake, "2026-11-20"), [image(B, name="not seen before")])
    publish_images(day_in(lake, "2026-11-22"), [image(B, name="new")])
    derive_days(day_in(lake, "2026-11-20"))
    return lake


def lake_rows(name, *days):
    """The expected warehouse rows, read from the lake by pyarrow."""
    found = []
    files = {
        day.lake.project_table(name, day.partition.project)
        if name == "image_history"
        else day.lake.table(name, day.partition): day.partition.project
        for day in days
    }
    for path, project in files.items():
        with path.open("rb") as file:
            found += [{"project": project} | row for row in pq.read_table(file).to_pylist()]
    return [{name: value for name, value in row.items() if name != "body"} for row in found]


def normalised(rows):
    """Rows in a fixed order, times in UTC."""

    def value(item):
        return item.astimezone(dt.UTC) if isinstance(item, dt.datetime) else item

    return sorted(({name: value(item) for name, item in row.items()} for row in rows), key=repr)
