"""Lakes and storage at paths with wildcards, and directories that are links."""

import datetime as dt
import shutil
from contextlib import closing
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from once_per_run import once_per_run
from published_days import publish_snapshot

from assets.run_history import use_instance_home
from pipelines.derive.days import derive_days
from pipelines.errors import ConfigurationError
from pipelines.lake.layout import Lake, Partition
from pipelines.query.views import connect_lake
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun

FIRST, SECOND = dt.date(2026, 11, 1), dt.date(2026, 11, 2)
ID = "00000000-0000-4000-8000-00000000000a"


def day(root, date):
    return SnapshotRun(Partition(date, "default"), "run", Settings(lake=str(root)))


def publish(root, date, name):
    publish_snapshot(
        day(root, date),
        inventory=[{"id": ID}],
        responses=[{"id": ID, "outcome": "ok"}],
        images=[{"id": ID, "name": name, "content_hash": name, "size": 1, "size_bytes": 1024, "visibility": "PUBLIC"}],
        listed=[],
        references=[],
    )


def check_each(roots):
    """Publish two days in each lake, with an image named after it; derive them, and check each lake's content."""
    for root in roots:
        publish(root, FIRST, f"old {root}")
        publish(root, SECOND, f"new {root}")
    for root in roots:
        derive_days(day(root, SECOND))
        with closing(connect_lake(Lake(root))) as connection:
            assert connection.sql("SELECT name FROM images ORDER BY snapshot_date").fetchall() == [
                (f"old {root}",),
                (f"new {root}",),
            ]
            changed = "SELECT old_value, new_value FROM image_changes WHERE field = 'name'"
            assert connection.sql(changed).fetchall() == [(f"old {root}", f"new {root}")]


def test_lake_path_with_wildcards_reads_only_its_own_files(tmp_path):
    for name in ("lake1", "lake?"):
        publish(name, FIRST, "of another lake")
        publish(name, SECOND, "of another lake")
    check_each(["lake*", "lake[1]"])


def test_object_store_prefix_with_wildcards_reads_only_its_own_files(s3):
    bucket = s3.make_bucket("patterns")
    for date in (FIRST, SECOND):
        publish(f"{bucket}/lake[1]", date, "of another lake")
    check_each([f"{bucket}/lake*"])


@pytest.fixture(scope="module")
def two_days(tmp_path_factory):
    """A lake of two days with derived tables."""

    def make(root):
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.chdir(root)
            publish("lake", FIRST, "old")
            publish("lake", SECOND, "new")
            derive_days(day("lake", SECOND))
        return root / "lake"

    return once_per_run(tmp_path_factory, "linked-days", make)


@pytest.mark.parametrize(("table", "is_day"), [("images", False), ("image_changes", True), ("_manifests", True)])
def test_linked_directory_is_read(two_days, tmp_path, table, is_day):
    shutil.copytree(two_days, tmp_path / "lake")
    place = tmp_path / "lake" / table / (f"dt={SECOND}" if is_day else "")
    shutil.move(place, tmp_path / "disk")
    place.symlink_to(tmp_path / "disk")
    with closing(connect_lake(Lake("lake"))) as connection:
        assert connection.sql("SELECT name FROM images_latest").fetchall() == [("new",)]
        assert connection.sql("SELECT count(*) FROM image_changes WHERE field = 'name'").fetchall() == [(1,)]
        # Only by their names; other files there are not in the lake.
        (tmp_path / "disk" / "secret.csv").write_text("a\n1\n")
        with pytest.raises(duckdb.Error, match="not in the lake"):
            connection.sql(f"FROM read_csv('lake://{place.relative_to(tmp_path / 'lake')}/secret.csv')").fetchall()
    publish("lake", SECOND, "newer")
    with closing(connect_lake(Lake("lake"))) as connection:
        assert connection.sql("SELECT name FROM images_latest").fetchall() == [("newer",)]


@pytest.mark.parametrize("name", ["x[1]", "x*", "x?"])
def test_telemetry_is_off_for_any_storage_path(monkeypatch, tmp_path, name):
    # As a pattern, the path would match the settings of another directory.
    (tmp_path / "x1").mkdir()
    (tmp_path / "x1" / "dagster.yaml").write_text("telemetry:\n  enabled: true\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / name))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "links"))
    (tmp_path / "links").mkdir()
    for _ in range(2):
        assert use_instance_home().resolve() == tmp_path / name
        with dg.DagsterInstance.get() as instance:
            assert not instance.telemetry_enabled
            assert Path(instance.root_directory).resolve() == tmp_path / name
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / name))
    assert (tmp_path / name / "history").is_dir()
    assert not (tmp_path / "x1" / "history").exists()


def test_link_of_another_user_is_not_followed(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "links"))
    (tmp_path / "links").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "x*"))
    use_instance_home()
    (link,) = (tmp_path / "links").iterdir()
    link.unlink()
    link.symlink_to(tmp_path / "elsewhere")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "x*"))
    with pytest.raises(ConfigurationError, match=r"holds one of \* \? \[, which Dagster reads as a pattern"):
        use_instance_home()
