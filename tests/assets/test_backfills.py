"""Which runs of a backfill derive, when another run of their project waits."""

import datetime as dt

import dagster as dg
import pytest
from proved_days import A, proved_day, publish_proved

from assets.build import DERIVE_JOB, REBUILD_JOB, build_definitions
from assets.partitions import partition_key
from pipelines.lake.derived_manifests import read_derived_manifest
from pipelines.settings import Settings

DAY = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=2)
BACKFILL = {"dagster/backfill": "abc"}


# Only a rebuilt day is outdated until the last run. A new price does not make a day outdated: each run derives its own.
@pytest.mark.parametrize(
    ("name", "waiting", "derives"),
    [(REBUILD_JOB, "alpha", False), (REBUILD_JOB, "beta", True), (DERIVE_JOB, "alpha", True)],
)
def test_rebuild_alone_leaves_deriving_to_the_last_run_of_its_project(name, waiting, derives):
    job = build_definitions(Settings(projects={"alpha": "p1", "beta": "p1"})).resolve_job_def(name)
    day = proved_day(str(DAY), "alpha")
    publish_proved(day, {A: "PUBLIC"})
    with dg.DagsterInstance.ephemeral() as instance:
        instance.create_run_for_job(
            job, tags=BACKFILL | {"dagster/partition/project": waiting}, status=dg.DagsterRunStatus.NOT_STARTED
        )
        key = partition_key(day.partition)
        result = job.execute_in_process(instance=instance, partition_key=key, tags=BACKFILL)
    assert result.success
    assert (read_derived_manifest(day.lake, day.partition) is not None) == derives
