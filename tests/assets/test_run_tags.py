"""Tags of a run, set in Dagster's UI or by the command line, reach the run of every step."""

import dagster as dg
import pytest

from assets.partitions import partition_grid, partition_key
from assets.resources import (
    ACCEPT_HISTORY_TAG,
    ACCEPT_SHRUNK_TAG,
    FRESH_TAG,
    PROJECT_MOVED_TAG,
    LogReporter,
    run_resource,
)
from pipelines.lake.layout import Partition
from pipelines.run import utc_now
from pipelines.settings import Settings

SAID = ("is_fresh", "accepts_shrunk", "is_moved", "accepted_history")


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({}, (False, False, False, None)),
        ({ACCEPT_SHRUNK_TAG: "true"}, (False, True, False, None)),
        ({PROJECT_MOVED_TAG: "true"}, (False, False, True, None)),
        ({FRESH_TAG: "true", ACCEPT_HISTORY_TAG: "ab"}, (True, False, False, "ab")),
        ({ACCEPT_SHRUNK_TAG: "yes", PROJECT_MOVED_TAG: "false"}, (False, False, False, None)),
    ],
)
def test_tag_of_a_run_reaches_the_run_of_every_step(tmp_path, tags, said):
    settings = Settings(lake=str(tmp_path / "lake"))
    days = []

    @dg.asset(partitions_def=partition_grid(settings))
    def step(context: dg.AssetExecutionContext, runs: dg.ResourceParam[object]) -> None:
        with runs.step(context) as today:
            days.append(today)

    today = Partition(utc_now().date(), "default")
    result = dg.materialize(
        [step], partition_key=partition_key(today), resources={"runs": run_resource(settings, LogReporter())}, tags=tags
    )
    assert result.success
    (day,) = days
    assert (day.partition, tuple(getattr(day, name) for name in SAID)) == (today, said)
