"""Inputs are checked before the first request; derived files and their manifest change together."""

from dataclasses import replace

import pytest
from published_days import day_of, publish_snapshot

import pipelines.derive.days
from pipelines.derive.days import derive_days
from pipelines.errors import ConfigurationError
from pipelines.lake.derived_manifests import read_derived_manifest
from pipelines.lake.layout import Lake
from pipelines.maintenance.verify import verify_derived
from pipelines.preflight import check_inputs
from pipelines.settings import Settings

ID = "0e1f2a3b-4c5d-6e7f-8091-a2b3c4d5e6f7"


def derived_files(lake):
    """Path and content of all files of the lake except locks."""
    files = (path for path in lake.root.rglob("*") if path.is_file() and "_locks" not in path.parts)
    return {lake.key(path): path.read_bytes() for path in files}


def published(date, name="torch"):
    day = day_of(date)
    image = {"id": ID, "status": "ACTIVE", "type": "BUILD_IN", "name": name}
    publish_snapshot(day, responses=[{"id": ID, "outcome": "ok"}], images=[image])
    return day


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"price_book": "none.toml"}, id="price book"),
        pytest.param({"suppressions": "none.toml"}, id="suppressions"),
        pytest.param({"audit_rules": "none"}, id="rules"),
    ],
)
def test_failed_derivation_changes_nothing(tmp_path, settings):
    day = published("2026-11-23")
    derive_days(day)
    before = derived_files(day.lake)
    broken = {name: tmp_path / value for name, value in settings.items()}
    with pytest.raises(ConfigurationError):
        derive_days(replace(day, run_id="run-2", settings=Settings(lake="lake", **broken)))
    assert derived_files(day.lake) == before
    assert list(verify_derived(day.lake, "default")) == []


def test_kill_between_two_files_leaves_the_day_underived(monkeypatch):
    day = published("2026-11-23")
    derive_days(day)
    replaced = Lake.replace

    def killed(lake, source, target):
        if target.name == "audit_findings.parquet":
            raise KeyboardInterrupt
        replaced(lake, source, target)

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            derive_days(replace(day, run_id="run-2"))
    assert read_derived_manifest(day.lake, day.partition) is None
    problems = [problem.sentence for problem in verify_derived(day.lake, "default")]
    assert problems
    assert not [sentence for sentence in problems if "was changed" in sentence]
    derive_days(day)
    assert list(verify_derived(day.lake, "default")) == []


def test_derivation_leaves_nothing_in_staging():
    day = published("2026-11-23")
    derive_days(day)
    assert not day.lake.staged_derived(day.partition).exists()
    assert pipelines.derive.days.read_derived_manifest(day.lake, day.partition).files


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"price_book": "none.toml"}, "PRICE_BOOK"),
        ({"suppressions": "none.toml"}, "SUPPRESSIONS"),
        ({"audit_rules": "none"}, "AUDIT_RULES"),
        ({"endpoint": "https://modelarts.example", "ca_bundle": "none.pem"}, "CA_BUNDLE"),
        ({"inventory": "none.csv"}, "INVENTORY"),
        ({"inventory": "postgresql://db.example/images", "inventory_query": "none.sql"}, "INVENTORY_QUERY"),
        ({"warehouse": "oracle://db.example/images"}, "WAREHOUSE"),
    ],
)
def test_missing_input_file_is_reported_before_any_request(settings, named):
    with pytest.raises(ConfigurationError, match=f"IMAGE_SNAPSHOTS_{named}"):
        check_inputs(Settings(**settings))


def test_default_settings_pass_the_preflight():
    check_inputs(Settings())
