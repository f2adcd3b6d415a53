"""An unreadable directory is an error that names it, never an absence; foreign names are ignored."""

import ast
import datetime as dt
from pathlib import Path

import pytest
from permissions import unreadable
from published_days import day_of, publish_snapshot

from pipelines.derive.audit import read_rules
from pipelines.errors import ConfigurationError, StorageError
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.local_storage import LocalPath
from pipelines.lake.manifests import published
from pipelines.maintenance.status import day_statuses
from pipelines.maintenance.verify import verify
from pipelines.query.views import connect_lake

ROOT = Path(__file__).resolve().parents[2]
DATE = dt.date(2026, 11, 23)
PARTITION = Partition(DATE, "default")
IMAGE = "00000000-0000-4000-8000-000000000001"


# Reader of the lake -> the directory that it cannot list.
READERS = {
    "_manifests/dt=2026-11-01": [
        lambda lake: lake.contents.partitions(),
        lambda lake: lake.contents.manifests("default"),
        lambda lake: published(lake, Partition(dt.date(2026, 11, 1), "default")),
        lambda lake: day_statuses(lake, ["default"], DATE, DATE),
        lambda lake: verify(lake, [PARTITION]),
        connect_lake,
        lambda lake: day_of("2026-11-23").check_source(),
        lambda lake: day_of("2026-11-23").check_clock(),
    ],
    "_manifests/superseded": [lambda lake: lake.contents.superseded_manifests("default")],
    "_derived/dt=2026-11-01": [
        lambda lake: lake.contents.derived_manifests("default"),
        lambda lake: lake.contents.derived("default"),
    ],
    "_retention/project=default": [lambda lake: lake.contents.retention_records("default")],
    "_staging/dt=2026-11-01": [
        lambda lake: lake.contents.unfinished(),
        lambda lake: day_statuses(lake, ["default"], DATE, DATE),
    ],
    "_monthly/month=2026-11": [lambda lake: lake.contents.monthly_manifests(), connect_lake],
    "images/dt=2026-11-01": [
        lambda lake: lake.contents.partitions_of("images"),
        lambda lake: lake.contents.files_of("images"),
        lambda lake: lake.contents.sizes("images", "default"),
        connect_lake,
        lambda lake: verify(lake, [PARTITION]),
    ],
    "image_history/project=default": [
        lambda lake: lake.project_table("image_history", "default").is_there(),
        lambda lake: lake.contents.project_files_of("image_history"),
    ],
    "reports/dt=2026-11-01": [lambda lake: lake.contents.reported("default")],
    "images/dt=2026-11-23/project=default": [lambda lake: verify(lake, [PARTITION])],
}


def test_unreadable_directory_is_an_error_that_names_it(open_directory):
    publish_snapshot(day_of("2026-11-23"), images=[{"id": IMAGE}], responses=[{"id": IMAGE, "outcome": "ok"}])
    lake = Lake("lake")
    for name, readers in READERS.items():
        (open_directory / "lake" / name).mkdir(parents=True, exist_ok=True)
        with unreadable(open_directory / "lake" / name):
            for number, reader in enumerate(readers):
                with pytest.raises(ConfigurationError, match=r"^The lake cannot be used: Permission denied") as told:
                    reader(lake)
                assert f"{open_directory}/lake/{name}" in str(told.value), (name, number)


def test_unreadable_rules_directory_is_an_error(open_directory):
    (open_directory / "rules").mkdir()
    with unreadable(open_directory / "rules"):
        with pytest.raises(ConfigurationError, match=r"^The audit rules at .*/rules cannot be read"):
            read_rules(open_directory / "rules")
    with pytest.raises(ConfigurationError, match=r"^There is no directory .*/no-rules: set"):
        read_rules(open_directory / "no-rules")


@pytest.mark.parametrize("name", ["images", "images/dt=2026-11-23"])
def test_link_to_a_missing_disk_is_an_error(tmp_path, name):
    link = tmp_path / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "disk")
    lake = Lake(str(tmp_path))
    for read in (lambda: lake.contents.files_of("images"), lambda: lake.table("images", PARTITION).is_there()):
        with pytest.raises(StorageError, match=f"the link is broken: '{link}'"):
            read()
    (tmp_path / "disk").mkdir()
    assert lake.contents.files_of("images") == {}
    assert not lake.table("images", PARTITION).is_there()


def test_link_to_an_existing_directory_is_followed(tmp_path):
    elsewhere = tmp_path / "disk" / "project=default"
    (LocalPath(elsewhere) / "images.parquet").write_whole(b"")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "dt=2026-11-23").symlink_to(tmp_path / "disk")
    assert list(Lake(str(tmp_path)).contents.files_of("images")) == [PARTITION]


@pytest.mark.parametrize("target", [".", "..", "../../images"])
def test_link_to_a_directory_around_it_is_an_error(tmp_path, target):
    """Two such links would have more paths than could ever be listed."""
    place = tmp_path / "images" / "dt=2026-11-23"
    place.mkdir(parents=True)
    (place / "images.parquet").write_bytes(b"")
    lake = Lake(str(tmp_path))
    assert [lake.key(path) for path in lake.root.all_files()] == ["images/dt=2026-11-23/images.parquet"]
    for name in ("one", "two"):
        (place / name).symlink_to(target)
    with pytest.raises(StorageError, match=f"the link leads to a directory that it lies in: '{place}/one'"):
        list(lake.root.all_files())


def test_links_to_each_other_are_an_error(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        for link in ("one", "two"):
            (tmp_path / name / link).symlink_to(tmp_path / other)
    with pytest.raises(StorageError, match="the link leads to a directory that it lies in"):
        list(Lake(str(tmp_path)).root.all_files())


def test_names_that_are_not_day_month_or_project_are_ignored(tmp_path):
    lake = Lake(str(tmp_path))
    for day in ("dt=2026-11-23", "dt=foo", "dt=2026-11-23.bak", "dt=20261123", "dt=2026-W48-1", "dt=2026-13-01", "dt="):
        for project in ("project=default", "project=default (copy)", "project=Default", "project=a.", "project="):
            (LocalPath(tmp_path) / "_manifests" / day / f"{project}.json").write_whole(b"{}")
            (LocalPath(tmp_path) / "_derived" / day / f"{project}.json").write_whole(b"{}")
            (LocalPath(tmp_path) / "_staging" / day / project / "attempt.json").write_whole(b"{}")
            (LocalPath(tmp_path) / "images" / day / project / "images.parquet").write_whole(b"")
            (LocalPath(tmp_path) / "reports" / day / project / "report.html").write_whole(b"")
    for month in ("month=2026-11", "month=2026-13", "month=2026-11 (2)", "month=2026"):
        (LocalPath(tmp_path) / "_monthly" / month / "project=default.json").write_whole(b"{}")
    for record in ("000001", "000001 (copy)", "notes"):
        (LocalPath(tmp_path) / "_retention" / "project=default" / f"{record}.json").write_whole(b"{}")
    (LocalPath(tmp_path) / "images" / "dt=2026-11-24").write_whole(b"no directory")
    assert (
        lake.contents.partitions() == lake.contents.unfinished() == lake.contents.partitions_of("images") == [PARTITION]
    )
    assert (
        [*lake.contents.manifests("default")]
        == [*lake.contents.derived_manifests("default")]
        == [*lake.contents.files_of("images")]
        == [PARTITION]
    )
    assert [*lake.contents.derived("default")] == [*lake.contents.reported("default")] == [PARTITION]
    assert lake.contents.monthly_manifests() == [("2026-11", "default")]
    assert [path.stem for path in lake.contents.retention_records("default")] == ["000001"]


def test_no_code_lists_files_with_pathlib():
    # `glob` and similar functions report unreadable files as absent: `pipelines.inputs.local_files` does not.
    forbidden = {"glob", "rglob", "iglob", "iterdir", "exists", "is_dir", "is_file", "walk", "listdir", "scandir"}
    allowed = {
        "pipelines/inputs/local_files.py": forbidden,
        # Buckets have methods of these names, which raise errors.
        # Other places that openstacksdk reads.
        "pipelines/cloud/clouds_file.py": {"exists"},
        # A script for others, without this software; it checks what it lists against the sums of the export.
        "pipelines/query/check_evidence.py": {"is_dir", "is_file", "rglob"},
        # The syntax tree of a query.
        "pipelines/engine/spark.py": {"walk"},
    }
    found = {}
    for path in sorted([*(ROOT / "pipelines").rglob("*.py"), *(ROOT / "assets").rglob("*.py")]):
        name = path.relative_to(ROOT).as_posix()
        calls = {
            node.func.attr
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if ast.unparse(node.func.value) != "local_files"
        }
        if (
            odd := (calls & forbidden)
            - allowed.get(name, set())
            - ({"exists"} if name == "pipelines/derive/audit.py" else set())
        ):
            found[name] = odd
    assert found == {}


def test_broken_link_is_not_a_missing_file(tmp_path):
    lake = Lake(str(tmp_path))
    lake.manifest(PARTITION).parent.mkdir(parents=True)
    lake.manifest(PARTITION).symlink_to(tmp_path / "gone.json")
    assert lake.contents.partitions() == [PARTITION]
    for read in (lambda: lake.contents.manifests("default"), lambda: published(lake, PARTITION)):
        with pytest.raises(StorageError, match=r"the link is broken|No such file or directory"):
            read()
