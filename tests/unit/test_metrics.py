"""The file of metrics: read by both parsers of Prometheus' own client, its values, and how it is written."""

import datetime as dt
import re
import shutil
import stat

import pytest
from once_per_run import once_per_run
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from published_days import day_of, publish_snapshot

from pipelines.derive.days import derive_days
from pipelines.errors import ConfigurationError
from pipelines.lake.derived_manifests import read_derived_manifest
from pipelines.lake.layout import Lake
from pipelines.lake.manifests import published
from pipelines.maintenance.metrics import metrics_text, write_metrics
from pipelines.settings import ROOT, Settings

A, B = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "ab")
NOW = dt.datetime(2026, 11, 23, 18, tzinfo=dt.UTC)
MB = 1024**2
SETTING = "IMAGE_SNAPSHOTS_METRICS"


@pytest.fixture(scope="module")
def two_days(tmp_path_factory):
    """A complete day, and an incomplete one after it whose image is public."""

    def make(root):
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.chdir(root)
            for date, outcomes in (("2026-11-22", ["ok", "ok"]), ("2026-11-23", ["ok", "failed"])):
                day = day_of(date)
                noon = dt.datetime.combine(day.partition.date, dt.time(12), dt.UTC)
                publish_snapshot(
                    day,
                    inventory=[{"id": id_, "owner": "o", "cost_center": "c"} for id_ in (A, B)],
                    responses=[
                        {"id": id_, "outcome": outcome, "body": b"{}"}
                        for id_, outcome in zip((A, B), outcomes, strict=True)
                    ],
                    images=[
                        {"id": id_, "type": "DEDICATED", "visibility": "PUBLIC", "size": 1024, "size_bytes": MB}
                        for id_, outcome in zip((A, B), outcomes, strict=True)
                        if outcome == "ok"
                    ],
                    fetch_facts={
                        "requests": 12,
                        "retries": 2,
                        "throttled": 1,
                        "bytes_received": 3_000,
                        "started_at": noon + dt.timedelta(seconds=2),
                        "finished_at": noon + dt.timedelta(seconds=62.5),
                    },
                    hour=13,
                )
                derive_days(day)
        return root / "lake"

    return once_per_run(tmp_path_factory, "measured-days", make)


@pytest.fixture
def lake(two_days, tmp_path):
    shutil.copytree(two_days, tmp_path / "lake")
    return Lake("lake")


def values(text):
    """Metric and labels besides the project -> value, as both parsers read them."""
    found = [
        {
            (family.name.removeprefix("image_snapshots_"), *sorted(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }
        for families in (parse(text), parse_openmetrics(text))
    ]
    assert found[0] == found[1]
    return found[0]


def test_metrics_are_those_of_the_manifests(lake):
    text = metrics_text(lake, ["default"], NOW)
    found = values(text)
    assert {labels for labels in {key[1:] for key in found} if ("project", "default") not in labels} == set()
    value = {(key[0], *(text for name, text in key[1:] if name != "project")): number for key, number in found.items()}
    complete, last = (published(lake, day_of(date).partition) for date in ("2026-11-22", "2026-11-23"))
    derived = read_derived_manifest(lake, day_of("2026-11-23").partition)
    expected = {
        ("has_complete_day",): 1,
        ("last_complete_day_timestamp_seconds",): complete.published_at.timestamp(),
        ("last_complete_day_age_seconds",): 29 * 3600,
        ("last_day_timestamp_seconds",): last.published_at.timestamp(),
        ("last_day_is_complete",): 0,
        ("images",): 1,
        ("ids", "ok"): 1,
        ("ids", "failed"): 1,
        ("ids", "deleted"): 0,
        ("requests",): 12,
        ("retries",): 2,
        ("throttled",): 1,
        ("received_bytes",): 3_000,
        ("step_seconds", "inventory"): 2,
        ("step_seconds", "fetch"): 60.5,
        ("step_seconds", "publish"): 3600 - 62.5,
        ("table_bytes",): sum(file.bytes for file in last.files.values()),
        ("image_bytes",): 2 * MB,
        ("open_findings", "high"): derived.summary.findings["high"],
        ("open_findings", "critical"): 0,
        ("new_findings",): derived.summary.new_findings,
    }
    assert {key: value[key] for key in expected} == expected
    assert derived.summary.findings["high"] > 0


def test_project_without_a_day_has_a_metric_that_says_so(lake):
    found = values(metrics_text(lake, ["default", "empty"], NOW))
    assert found["has_complete_day", ("project", "empty")] == 0
    assert [key for key in found if ("project", "empty") in key] == [("has_complete_day", ("project", "empty"))]


def test_damaged_newest_manifest_hides_no_older_day(lake):
    lake.manifest(day_of("2026-11-23").partition).write_whole(b"{")
    found = values(metrics_text(lake, ["default"], NOW))
    assert found["last_day_is_complete", ("project", "default")] == 1


def test_file_is_replaced_whole_and_readable_by_the_collector(lake, tmp_path):
    path = tmp_path / "collector" / "image_snapshots.prom"
    path.parent.mkdir()
    path.write_text("old")
    write_metrics(lake, ["default"], NOW, path, SETTING)
    assert path.read_text() == metrics_text(lake, ["default"], NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(ConfigurationError, match=r"^The file of metrics .*gone.* cannot be written \(No such file"):
        write_metrics(lake, ["default"], NOW, tmp_path / "gone" / "a.prom", SETTING)
    # A directory in its place cannot be replaced; no part is left.
    (tmp_path / "taken.prom").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be written"):
        write_metrics(lake, ["default"], NOW, tmp_path / "taken.prom", SETTING)
    assert not list(tmp_path.glob(".*.part"))


def test_project_that_is_no_longer_configured_has_no_metrics(lake):
    assert {key[1] for key in values(metrics_text(lake, ["other"], NOW))} == {("project", "other")}


def test_file_inside_the_lake_is_refused(lake):
    path = lake.root.local / "a.prom"
    with pytest.raises(ConfigurationError, match=rf"is inside the lake: set {SETTING} to a file elsewhere\.$"):
        write_metrics(lake, ["default"], NOW, path, SETTING)
    assert not path.exists()


def test_setting_must_name_a_file_that_the_collector_reads(monkeypatch):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_METRICS", "metrics.txt")
    with pytest.raises(ConfigurationError, match=r"IMAGE_SNAPSHOTS_METRICS is wrong: must end in \.prom"):
        Settings.load()


def test_page_documents_every_metric(lake):
    page = (ROOT / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"^\| `(image_snapshots_\w+)`", page, re.MULTILINE))
    assert {family.name for family in parse(metrics_text(lake, ["default"], NOW))} == documented
    named = set(re.findall(r"image_snapshots_\w+(?=[\[{ )])", page))
    assert named <= documented
