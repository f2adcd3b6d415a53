"""Copies of directories and manifests beside the originals: readers ignore them, `verify` reports them."""

import datetime as dt
import json
import shutil
from contextlib import closing

import pytest
from published_days import publish_snapshot

from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import known_partitions
from pipelines.maintenance.status import day_statuses
from pipelines.query.views import connect_lake
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun

DATE = dt.date(2026, 11, 23)
ID = "00000000-0000-4000-8000-00000000000a"
ENDS = [".bak", ".orig", "~", " (copy)", "-old", "_2", ".2026-11-25"]


def publish(date):
    publish_snapshot(
        SnapshotRun(Partition(date, "default"), "run", Settings(lake="lake")),
        inventory=[{"id": ID}],
        responses=[{"id": ID, "outcome": "ok"}],
        images=[{"id": ID, "name": "n", "visibility": "PUBLIC"}],
    )


@pytest.fixture
def lake(tmp_path):
    """A published day with copies of all kinds beside it; some have valid project names."""
    publish(DATE)
    lake = Lake("lake")
    for end in ENDS:
        for directory in (f"images/dt={DATE}", f"images/dt={DATE}/project=default", f"_manifests/dt={DATE}", "images"):
            shutil.copytree(lake.root / directory, lake.root / f"{directory}{end}")
        manifest = lake.manifest(Partition(DATE, "default"))
        for name in (f"project=default{end}.json", f"project=default.json{end}", f"Copy of project=default{end}.json"):
            shutil.copy(manifest, manifest.with_name(name))
        (lake.root / "_staging" / f"dt={DATE}" / f"project=default{end}").mkdir(parents=True)
    return lake


def test_copied_directories_are_not_read_as_projects(lake):
    assert known_partitions(lake) == [Partition(DATE, "default")]
    assert [(one.project, one.state) for one in day_statuses(lake, ["default"], DATE, DATE)] == [
        ("default", "complete")
    ]
    with closing(connect_lake(lake)) as connection:
        assert connection.sql("SELECT project, name FROM images").fetchall() == [("default", "n")]
        assert connection.sql("SELECT project FROM days").fetchall() == [("default",)]


def test_next_day_is_published_beside_copies(lake):
    publish(DATE + dt.timedelta(days=1))
    assert [day.date for day in known_partitions(lake)] == [DATE, DATE + dt.timedelta(days=1)]


def test_verify_reports_each_copy(lake, image_snapshots):
    done = image_snapshots("verify")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    said = done.stdout + done.stderr
    for end in ENDS:
        for copy in (
            f"images/dt={DATE}{end}/project=default/images.parquet",
            f"_manifests/dt={DATE}{end}",
            f"images{end}",
        ):
            assert copy in said, copy
    for end in ("~", " (copy)"):
        assert f"images/dt={DATE}/project=default{end}/images.parquet: No record names this file" in said
    # For a valid project name, the manifest states the real project.
    assert f"_manifests/dt={DATE}/project=default.bak.json: It is the manifest of {DATE} of project default" in said


def test_project_with_a_changed_newest_manifest_is_still_a_project(lake):
    day = Partition(DATE + dt.timedelta(days=1), "default")
    publish(day.date)
    manifest = lake.manifest(day)
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"project": "other"}))
    assert known_partitions(lake) == [Partition(DATE, "default"), day]
    lake.manifest(Partition(DATE, "default")).write_text("{}")
    assert known_partitions(lake) == [Partition(DATE, "default"), day]


def test_exchanged_projects_are_still_projects(lake):
    manifest = lake.manifest(Partition(DATE, "default"))
    other = json.loads(manifest.read_text()) | {"project": "other"}
    lake.manifest(Partition(DATE, "default")).rename(lake.manifest(Partition(DATE, "other")))
    manifest.write_text(json.dumps(other))
    assert {"default", "other"} <= {day.project for day in known_partitions(lake)}
