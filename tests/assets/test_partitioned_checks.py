"""Results of a check for different days and projects stand side by side in a Dagster instance."""

import datetime as dt

import dagster as dg
import pytest
from check_states import check_states
from proved_days import A, B, proved_day, publish_proved

from assets.build import REPUBLISH_JOB, build_definitions
from assets.partitions import partition_grid, partition_key
from pipelines.settings import Settings

DAYS = [dt.datetime.now(dt.UTC).date() - dt.timedelta(days=back) for back in (3, 2, 1)]
PROJECTS = {"alpha": "a" * 32, "beta": "b" * 32}


@pytest.fixture
def instance(tmp_path):
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def test_two_projects_by_three_days_show_six_results_of_a_check(instance):
    settings = Settings(projects=PROJECTS)
    job = build_definitions(settings).resolve_job_def(REPUBLISH_JOB)
    days = [proved_day(str(day), project) for day in DAYS for project in PROJECTS]
    for day in days:
        # An undocumented value, on one day of one project alone.
        is_odd = (day.partition.date, day.partition.project) == (DAYS[1], "beta")
        publish_proved(day, {A: "SHARED" if is_odd else "PUBLIC", B: "PRIVATE"})
        assert job.execute_in_process(instance=instance, partition_key=partition_key(day.partition)).success
    key = dg.AssetCheckKey(dg.AssetKey("images"), "no_new_values")
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=20)
    shown = {record.partition: record.evaluation.passed for record in history}
    every, odd = {f"{day}|{project}" for day in DAYS for project in PROJECTS}, f"{DAYS[1]}|beta"
    assert shown == {partition: partition != odd for partition in every}
    states = check_states(instance, "images", "no_new_values", partition_grid(settings))
    assert states == {"SUCCEEDED": every - {odd}, "FAILED": {odd}}
