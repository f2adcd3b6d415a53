"""A project without a published day for today turns red, and the projects beside it do not."""

import datetime as dt

import dagster as dg
import pytest
from proved_days import A, B, proved_day, publish_proved

from assets.build import build_definitions
from assets.freshness import check_names
from pipelines.lake.failures import Failure, note_failure
from pipelines.settings import Settings

TODAY = dt.date(2026, 11, 30)
YESTERDAY = TODAY - dt.timedelta(days=1)
SETTINGS = Settings(projects={"alpha": "a" * 32, "beta": "b" * 32, "gamma": "c" * 32})


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def publish(day, project):
    return publish_proved(proved_day(str(day), project), {A: "PUBLIC", B: "PRIVATE"})


def at(hour, day=TODAY):
    return dt.datetime.combine(day, dt.time(hour), dt.UTC)


def tick(instance, now, cursor=None):
    """Evaluate the sensor as the daemon does; returns the evaluations by project, and the cursor."""
    definitions = build_definitions(SETTINGS, now=lambda: now)
    (sensor,) = [one for one in definitions.sensors if one.name == "project_freshness_sensor"]
    result = sensor(dg.build_sensor_context(instance=instance, cursor=cursor, definitions=definitions))
    for event in result.asset_events:
        instance.report_runless_asset_event(event)
    return {event.check_name: event for event in result.asset_events}, result.cursor


def red(instance):
    """The projects whose check is red in the UI, of those that have a result."""
    keys = [dg.AssetCheckKey(dg.AssetKey("project_days"), name) for name in SETTINGS.project_keys]
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    return {key.name: record.status.value == "FAILED" for key, record in latest.items()}


def test_project_without_a_day_for_today_turns_red_alone_and_recovers(instance, tmp_path):
    for project in ("alpha", "beta"):
        publish(YESTERDAY, project)
    publish(TODAY, "alpha")
    # Before the hour, yesterday counts.
    early, cursor = tick(instance, at(5))
    assert {project: event.passed for project, event in early.items()} == {"alpha": True, "beta": True, "gamma": False}
    due, cursor = tick(instance, at(6), cursor)
    assert {project: event.passed for project, event in due.items()} == {"beta": False, "gamma": False}
    assert red(instance) == {"alpha": False, "beta": True, "gamma": True}
    assert due["beta"].severity == dg.AssetCheckSeverity.ERROR
    assert due["beta"].description == "2026-11-30 is not published."
    # Nothing has changed, so nothing is written.
    assert tick(instance, at(7), cursor) == ({}, cursor)
    publish(TODAY, "beta")
    assert {project: event.passed for project, event in tick(instance, at(8), cursor)[0].items()} == {"beta": True}
    assert red(instance) == {"alpha": False, "beta": False, "gamma": True}


def test_metadata_lists_missing_and_incomplete_days_with_the_reason(instance, tmp_path):
    day = proved_day(str(TODAY - dt.timedelta(days=3)), "beta")
    publish_proved(day, {A: "PUBLIC"})
    today = proved_day(str(TODAY), "beta")
    failure = Failure(at=at(3), run_id="r", step=None, sentence="It cannot be reached.")
    note_failure(today.lake, today.partition, failure)
    beta = tick(instance, at(6))[0]["beta"]
    assert beta.metadata["missing"].value == 3
    rows = [record.data for record in beta.metadata["missing_or_incomplete"].records]
    assert rows == [
        {"day": "2026-11-30", "state": "missing", "why": "It cannot be reached."},
        {"day": "2026-11-29", "state": "missing", "why": ""},
        {"day": "2026-11-28", "state": "missing", "why": ""},
    ]


def test_lake_that_cannot_be_read_turns_all_red(instance, tmp_path):
    for project in ("alpha", "beta", "gamma"):
        publish(TODAY, project)
    found, cursor = tick(instance, at(6))
    assert all(event.passed for event in found.values())
    manifests = tmp_path / "lake" / "_manifests" / f"dt={TODAY}"
    manifests.rename(manifests.with_name("away"))
    manifests.write_text("")
    found, cursor = tick(instance, at(7), cursor)
    assert red(instance) == {"alpha": True, "beta": True, "gamma": True}
    assert found["alpha"].description.startswith("The lake cannot be used: ")
    manifests.unlink()
    manifests.with_name("away").rename(manifests)
    assert all(event.passed for event in tick(instance, at(8), cursor)[0].values())


def test_checks_can_be_run_by_hand_together_or_alone(instance, tmp_path):
    publish(TODAY, "alpha")
    definitions = build_definitions(SETTINGS, now=lambda: at(6))
    (checks,) = definitions.asset_checks

    def run(selection):
        result = dg.materialize([checks], instance=instance, selection=selection)
        return {event.check_name: event.passed for event in result.get_asset_check_evaluations()}

    assert run(dg.AssetSelection.checks(checks)) == {"alpha": True, "beta": False, "gamma": False}
    key = dg.AssetCheckKey(dg.AssetKey("project_days"), "beta")
    assert run(dg.AssetSelection.checks(key)) == {"beta": False}


def test_names_of_checks_are_unique():
    names = check_names(["a-b", "a.b", "a_c", "d-e"])
    assert (names["a_c"], names["d-e"]) == ("a_c", "d_e")
    assert len({*names.values()}) == 4
    assert all(name.isidentifier() for name in names.values())
