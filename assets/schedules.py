"""The schedule of the daily snapshot."""

import datetime as dt
from collections.abc import Iterator

import dagster as dg

from assets.partitions import partition_key
from pipelines.lake.layout import Partition
from pipelines.settings import Settings


def daily_schedule(job_name: str, settings: Settings) -> dg.ScheduleDefinition:
    """One run per project for the day of the tick; switched on by default if any project has a real endpoint."""
    is_sandbox = all(own.uses_sandbox for own in settings.of_each_project)
    default = dg.DefaultScheduleStatus.STOPPED if is_sandbox else dg.DefaultScheduleStatus.RUNNING

    @dg.schedule(
        name="daily_snapshot_schedule",
        job_name=job_name,
        cron_schedule=settings.schedule,
        execution_timezone="UTC",
        default_status=default,
        description="Takes the day's snapshot of every project; not at a full hour, when many other jobs run.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
        date = context.scheduled_execution_time.astimezone(dt.UTC).date()
        for project in settings.project_keys:
            key = partition_key(Partition(date, project))
            yield dg.RunRequest(run_key=str(key), partition_key=key)

    return schedule
