"""The sandbox's invented images never pass for real ones: not in a lake, in a warehouse, or in files."""

import datetime as dt

import pyarrow.parquet as pq
import pytest
from published_days import day_of, publish_snapshot

from pipelines.derive.costs import write_focus
from pipelines.derive.days import derive_days
from pipelines.errors import ConfigurationError, StorageError
from pipelines.lake.layout import Partition
from pipelines.lake.manifests import holds_sandbox, published, write_manifest
from pipelines.maintenance.status import day_statuses
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.tables import IMAGES
from pipelines.warehouse.loading import load_project

ID = "0e1f2a3b-4c5d-6e7f-8091-a2b3c4d5e6f7"
REAL = "https://modelarts.example"


def publish_of(date, *, is_sandbox):
    """Publish a day whose manifest states its origin."""
    day = day_of(date)
    publish_snapshot(
        day, responses=[{"id": ID, "outcome": "ok"}], images=[{"id": ID, "status": "ACTIVE", "type": "BUILD_IN"}]
    )
    manifest = published(day.lake, day.partition)
    fetch = manifest.fetch.model_copy(update={"is_sandbox": is_sandbox, "endpoint_host": "modelarts.example"})
    write_manifest(day.lake, day.partition, manifest.model_copy(update={"fetch": fetch}))
    return day


def another_project(**settings):
    return SnapshotRun(Partition(dt.date(2026, 11, 24), "other"), "run-2", Settings(lake="lake", **settings))


@pytest.mark.parametrize("endpoint", [None, "sandbox"])
def test_sandbox_day_is_refused_in_a_lake_of_real_days(endpoint):
    publish_of("2026-11-23", is_sandbox=False)
    with pytest.raises(ConfigurationError, match=r"holds days of modelarts\.example \(project default\).* invented"):
        another_project(endpoint=endpoint).check_source()


def test_real_day_is_refused_in_a_lake_of_sandbox_days():
    publish_of("2026-11-23", is_sandbox=True)
    with pytest.raises(ConfigurationError, match=r"holds days of the sandbox \(project default\)"):
        another_project(endpoint=REAL).check_source()


@pytest.mark.parametrize(("is_sandbox", "endpoint"), [(True, None), (True, "sandbox"), (False, REAL)])
def test_days_of_one_kind_share_a_lake(is_sandbox, endpoint):
    publish_of("2026-11-23", is_sandbox=is_sandbox)
    another_project(endpoint=endpoint).check_source()
    another_project(endpoint=endpoint).check_kind(is_sandbox=is_sandbox)


def test_publication_checks_which_kind_of_server_answered():
    publish_of("2026-11-23", is_sandbox=False)
    # A server on this machine is unknown until it has answered.
    day = another_project(endpoint="http://127.0.0.1:9")
    day.check_source()
    with pytest.raises(ConfigurationError, match="invented"):
        day.check_kind(is_sandbox=True)


def test_damaged_manifest_does_not_hide_the_kind_of_a_lake():
    publish_of("2026-11-22", is_sandbox=False)
    damaged = publish_of("2026-11-23", is_sandbox=False)
    damaged.lake.manifest(damaged.partition).write_text("{}")
    with pytest.raises(ConfigurationError, match="invented"):
        another_project().check_source()


def test_lake_with_only_damaged_manifests_is_readable_but_takes_no_day():
    damaged = publish_of("2026-11-23", is_sandbox=False)
    damaged.lake.manifest(damaged.partition).write_text("{}")
    with pytest.raises(StorageError, match="is damaged"):
        another_project().check_source()
    assert not holds_sandbox(damaged.lake)


@pytest.mark.parametrize(
    "stated",
    [
        {"OS_CLOUD": "otc"},
        {"OS_AUTH_URL": "https://iam.example/v3", "OS_USERNAME": "u"},
        {"OS_ACCESS_KEY": "hidden-key"},
        {"OS_TOKEN": "hidden-token"},
        {"OS_PROJECT_NAME": "eu-de_project"},
        {"OS_ACCESS_KEY": "AK", "OS_SECRET_KEY": "hidden", "OS_PROJECT_ID": "p1"},
        {"HW_ACCESS_KEY": "AK", "HW_SECRET_KEY_FILE": "/run/secrets/none"},
    ],
)
def test_credentials_without_an_endpoint_are_refused(monkeypatch, stated):
    # The library looks for the file where the process began, which may be the directory of another test.
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", "none.yaml")
    for name, value in stated.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as raised:
        day_of("2026-11-23").check_source()
    assert ", ".join(stated).replace("_FILE", "") in str(raised.value)
    assert "IMAGE_SNAPSHOTS_ENDPOINT" in str(raised.value)
    assert "`sandbox`" in str(raised.value)
    assert "hidden" not in str(raised.value)


def test_endpoint_follows_from_credentials_and_a_region(monkeypatch):
    for name, value in {"OS_ACCESS_KEY": "AK", "OS_SECRET_KEY": "SK", "OS_PROJECT_ID": "p1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OS_REGION_NAME", "eu-nl")
    day = day_of("2026-11-23")
    day.check_source()
    assert not day.settings.uses_sandbox
    with day.connect(day.settings, day.partition) as connection:
        assert connection.endpoint == "https://modelarts.eu-nl.otc.t-systems.com"
        assert connection.traces_endpoint == "https://cts.eu-nl.otc.t-systems.com"
        assert connection.derived == (
            "https://modelarts.eu-nl.otc.t-systems.com follows from the region eu-nl (OS_REGION_NAME)."
        )
    monkeypatch.setenv("OS_REGION_NAME", "eu-xx")
    with pytest.raises(ConfigurationError, match="OS_REGION_NAME names the region 'eu-xx', which is not one of Huawei"):
        day.check_source()


def test_real_day_of_a_derived_endpoint_is_refused_in_a_lake_of_sandbox_days(monkeypatch):
    publish_of("2026-11-23", is_sandbox=True)
    for name, value in {"HW_ACCESS_KEY": "AK", "HW_SECRET_KEY": "SK", "HW_REGION_NAME": "cn-north-4"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HW_PROJECT_ID", "p1")
    with pytest.raises(ConfigurationError, match=r"holds days of the sandbox \(project default\)"):
        another_project().check_source()


def test_credentials_with_the_explicit_sandbox_are_accepted(monkeypatch):
    monkeypatch.setenv("OS_CLOUD", "otc")
    another_project(endpoint="sandbox").check_source()


def test_every_derived_file_of_the_sandbox_is_marked():
    day = publish_of("2026-11-23", is_sandbox=True)
    derived_manifest = derive_days(day).derived_manifest
    history = day.lake.project_table("image_history", "default")
    for path in [*(day.lake.root / file.path for file in derived_manifest.files.values()), history]:
        assert pq.read_metadata(path).metadata[b"image_snapshots.is_sandbox"] == b"true", path


def test_no_file_of_a_cloud_is_marked_as_sandbox():
    day = publish_of("2026-11-23", is_sandbox=False)
    derived_manifest = derive_days(day).derived_manifest
    for file in derived_manifest.files.values():
        assert b"image_snapshots.is_sandbox" not in pq.read_metadata(day.lake.root / file.path).metadata


@pytest.mark.parametrize("is_sandbox", [True, False])
def test_status_and_focus_mark_the_sandbox(tmp_path, is_sandbox):
    day = publish_of("2026-11-23", is_sandbox=is_sandbox)
    derive_days(day)
    (status,) = day_statuses(day.lake, ["default"], day.partition.date, day.partition.date)
    assert status.as_json()["is_sandbox"] is is_sandbox
    write_focus(day.lake, day.partition.date, day.partition.date, ["default"], tmp_path / "focus.parquet")
    assert pq.read_table(tmp_path / "focus.parquet")["x_IsSandbox"].to_pylist() == [is_sandbox]
    assert holds_sandbox(day.lake) is is_sandbox
    assert IMAGES.name in published(day.lake, day.partition).files


def test_warehouse_refuses_a_sandbox_day_beside_real_ones(monkeypatch, tmp_path):
    real = publish_of("2026-11-23", is_sandbox=False)
    derive_days(real)
    load_project(real.lake, real.partition, str(tmp_path / "shared.duckdb"))
    monkeypatch.chdir(tmp_path_of(tmp_path, "elsewhere"))
    invented = publish_of("2026-11-24", is_sandbox=True)
    derive_days(invented)
    with pytest.raises(ConfigurationError, match=r"holds days of a cloud, but 2026-11-24 .* invented"):
        load_project(invented.lake, invented.partition, str(tmp_path / "shared.duckdb"))


def tmp_path_of(parent, name):
    (parent / name).mkdir()
    return parent / name
