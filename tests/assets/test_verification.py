"""The weekly verification as Dagster runs it: its checks, its metadata, what it tells, and its schedule."""

import dagster as dg
import pytest
from published_days import day_of, publish_snapshot

from assets.build import build_definitions
from assets.verification import VERIFY_JOB
from pipelines.lake.manifests import published
from pipelines.lake.witnesses import open_witness
from pipelines.settings import Settings

A = "aaaaaaaa-0000-4000-8000-000000000000"


@pytest.fixture
def lake(tmp_path, webhook):
    """Two published days, noted in a witness file outside the lake."""
    witness = tmp_path / "witness.tsv"
    for date in ("2026-11-22", "2026-11-23"):
        day = day_of(date)
        publish_snapshot(
            day,
            inventory=[{"id": A}],
            responses=[{"id": A, "outcome": "ok", "body": b"{}"}],
            images=[{"id": A}],
        )
        with open_witness(witness, day.lake) as note:
            note(published(day.lake, day.partition))
    return day.lake


def verified(webhook, tmp_path):
    """Run the job by its records alone; returns the checks by name, the metadata and what was told."""
    settings = Settings(lake="lake", notify=webhook.url, witness=tmp_path / "witness.tsv")
    webhook.requests.clear()
    with dg.DagsterInstance.ephemeral() as instance:
        result = (
            build_definitions(settings)
            .resolve_job_def(VERIFY_JOB)
            .execute_in_process(
                instance=instance, run_config={"ops": {"lake_verification": {"config": {"quick": True}}}}
            )
        )
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    (event,) = result.asset_materializations_for_node("lake_verification")
    return checks, event.metadata, webhook.taken()


def test_verification_of_a_whole_lake_passes_and_shows_the_newest_hash(lake, webhook, tmp_path):
    checks, metadata, told = verified(webhook, tmp_path)
    assert {name: check.passed for name, check in checks.items()} == {
        "lake_is_as_published": True,
        "noted_manifests_are_there": True,
    }
    assert checks["noted_manifests_are_there"].metadata["noted"].value == 2
    assert metadata["partitions"].value == 2
    (newest,) = metadata["newest_manifests"].value.records
    assert newest.data == {
        "project": "default",
        "manifest_sha256": lake.manifest(day_of("2026-11-23").partition).sha256(),
    }
    assert "verify_failed" not in told


def test_newest_day_that_was_cut_off_is_noticed_by_the_witness_alone(lake, webhook, tmp_path):
    partition = day_of("2026-11-23").partition
    digest = lake.manifest(partition).sha256()
    for path in list(lake.root.all_files()):
        if f"dt={partition.date}" in str(path):
            path.remove()
    checks, metadata, told = verified(webhook, tmp_path)
    assert {name: check.passed for name, check in checks.items()} == {
        "lake_is_as_published": False,
        "noted_manifests_are_there": False,
    }
    assert checks["noted_manifests_are_there"].metadata["missing"].value == 1
    (item,) = told["verify_failed"]["items"]
    assert item["problems"] == 1
    assert item["first"][0]["problem"].startswith(f"No record has the noted SHA-256 {digest}")
    assert metadata["found"].value.records[0].data == item["first"][0]
    assert "newest_manifests" not in metadata


def test_witness_file_that_was_removed_is_noticed(lake, webhook, tmp_path):
    (tmp_path / "witness.tsv").unlink()
    checks, _, told = verified(webhook, tmp_path)
    assert {name: check.passed for name, check in checks.items()} == {
        "lake_is_as_published": True,
        "noted_manifests_are_there": False,
    }
    assert checks["noted_manifests_are_there"].description.startswith("The witness file is not there, though days ")
    (item,) = told["verify_failed"]["items"]
    assert item["first"][0]["path"] == str(tmp_path / "witness.tsv")


def test_weekly_schedule_is_on_for_a_cloud_and_off_for_the_sandbox():
    for settings, expected in (
        (Settings(endpoint="https://modelarts.example"), dg.DefaultScheduleStatus.RUNNING),
        (Settings(), dg.DefaultScheduleStatus.STOPPED),
    ):
        schedule = build_definitions(settings).resolve_schedule_def("verify_lake_schedule")
        assert schedule.default_status == expected
        assert schedule.job_name == VERIFY_JOB
    assert schedule.cron_schedule == "37 9 * * 0"
