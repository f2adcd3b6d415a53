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
from pipelines.lake.manifests import published
from pipelines.lake.stored_files import exists, write_atomically
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
        lambda lake: lake.partitions(),
        lambda lake: lake.manifests("default"),
        lambda lake: published(lake, Partition(dt.date(2026, 11, 1), "default")),
        lambda lake: day_statuses(lake, ["default"], DATE, DATE),
        lambda lake: verify(lake, [PARTITION]),
        connect_lake,
        lambda lake: day_of("2026-11-23").check_source(),
        lambda lake: day_of("2026-11-23").check_clock(),
    ],
    "_manifests/superseded": [lambda lake: lake.superseded("default")],
    "_derived/dt=2026-11-01": [
        lambda lake: lake.derived_manifests("default"),
        lambda lake: lake.derived("default"),
    ],
    "_retention/project=default": [lambda lake: lake.retention_records("default")],
    "_staging/dt=2026-11-01": [
        lambda lake: lake.unfinished(),
        lambda lake: day_statuses(lake, ["default"], DATE, DATE),
    ],
    "_monthly/month=2026-11": [lambda lake: lake.monthly_manifests(), connect_lake],
    "images/dt=2026-11-01": [
        lambda lake: lake.partitions_of("images"),
        lambda lake: lake.files_of("images"),
        lambda lake: lake.sizes("images", "default"),
        connect_lake,
        lambda lake: verify(lake, [PARTITION]),
    ],
    "image_history/project=default": [
        lambda lake: exists(lake.project_table("image_history", "default")),
        lambda lake: lake.project_files_of("image_history"),
    ],
    "reports/dt=2026-11-01": [lambda lake: lake.reported("default")],
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
    for read in (lambda: lake.files_of("images"), lambda: exists(lake.table("images", PARTITION))):
        with pytest.raises(StorageError, match=f"the link is broken: '{link}'"):
            read()
    (tmp_path / "disk").mkdir()
    assert lake.files_of("images") == {}
    assert not exists(lake.table("images", PARTITION))


def test_link_to_an_existing_directory_is_followed(tmp_path):
    elsewhere = tmp_path / "disk" / "project=default"
    write_atomically(elsewhere / "images.parquet", b"")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "dt=2026-11-23").symlink_to(tmp_path / "disk")
    assert list(Lake(str(tmp_path)).files_of("images")) == [PARTITION]


def test_names_that_are_not_day_month_or_project_are_ignored(tmp_path):
    lake = Lake(str(tmp_path))
    for day in ("dt=2026-11-23", "dt=foo", "dt=2026-11-23.bak", "dt=20261123", "dt=2026-W48-1", "dt=2026-13-01", "dt="):
        for project in ("project=default", "project=default (copy)", "project=Default", "project=a.", "project="):
            write_atomically(tmp_path / "_manifests" / day / f"{project}.json", b"{}")
            write_atomically(tmp_path / "_derived" / day / f"{project}.json", b"{}")
            write_atomically(tmp_path / "_staging" / day / project / "attempt.json", b"{}")
            write_atomically(tmp_path / "images" / day / project / "images.parquet", b"")
            write_atomically(tmp_path / "reports" / day / project / "report.html", b"")
    for month in ("month=2026-11", "month=2026-13", "month=2026-11 (2)", "month=2026"):
        write_atomically(tmp_path / "_monthly" / month / "project=default.json", b"{}")
    for record in ("000001", "000001 (copy)", "notes"):
        write_atomically(tmp_path / "_retention" / "project=default" / f"{record}.json", b"{}")
    write_atomically(tmp_path / "images" / "dt=2026-11-24", b"no directory")
    assert lake.partitions() == lake.unfinished() == lake.partitions_of("images") == [PARTITION]
    assert (
        [*lake.manifests("default")]
        == [*lake.derived_manifests("default")]
        == [*lake.files_of("images")]
        == [PARTITION]
    )
    assert [*lake.derived("default")] == [*lake.reported("default")] == [PARTITION]
    assert lake.monthly_manifests() == [("2026-11", "default")]
    assert [path.stem for path in lake.retention_records("default")] == ["000001"]


def test_no_code_lists_files_with_pathlib():
    # `glob` and similar functions report unreadable files as absent: `pipelines.inputs.local_files` does not.
    forbidden = {"glob", "rglob", "iglob", "iterdir", "exists", "is_dir", "is_file", "walk", "listdir", "scandir"}
    allowed = {
        "pipelines/inputs/local_files.py": forbidden,
        # Buckets have methods of these names, which raise errors.
        "pipelines/lake/object_storage.py": {"exists", "glob"},
        "pipelines/lake/leases.py": {"exists"},
        "pipelines/lake/stored_files.py": {"exists"},
        "pipelines/lake/layout.py": {"glob"},
        # Other places that openstacksdk reads.
        "pipelines/cloud/clouds_file.py": {"exists"},
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
    assert lake.partitions() == [PARTITION]
    for read in (lambda: lake.manifests("default"), lambda: published(lake, PARTITION)):
        with pytest.raises(StorageError, match=r"the link is broken|No such file or directory"):
            read()
