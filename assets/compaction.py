"""The asset of the monthly files, with its partitions (month x project), job and schedule."""

import datetime as dt
from collections.abc import Iterator

import dagster as dg

from assets.common import made_by
from assets.derived_tables import OF_THE_REGISTRY
from assets.partitions import PROJECT
from assets.resources import EXIT_STATUS
from pipelines.errors import PipelineError
from pipelines.lake.layout import Lake
from pipelines.maintenance.compaction import compact
from pipelines.run import utc_now
from pipelines.settings import Settings
from pipelines.tables import SNAPSHOT_TABLES

COMPACT_JOB = "compact_months"
MONTH = "month"


def month_grid(settings: Settings) -> dg.MultiPartitionsDefinition:
    """The partitions: past months x projects."""
    months = dg.MonthlyPartitionsDefinition(start_date=settings.first_day.replace(day=1).isoformat(), timezone="UTC")
    return dg.MultiPartitionsDefinition({MONTH: months, PROJECT: dg.StaticPartitionsDefinition(settings.project_keys)})


def monthly_asset(settings: Settings) -> dg.AssetsDefinition:
    """Build the asset; the daily job does not include it."""

    @dg.asset(
        description="The daily files of a past month, compacted into one file per table, for analysis only.",
        group_name="delivery",
        kinds={"parquet", "duckdb"},
        partitions_def=month_grid(settings),
        # Its inputs are the month's days; the lake knows which of them exist.
        deps=[dg.AssetDep(name, partition_mapping=dg.AllPartitionMapping()) for name in sorted(_inputs(settings))],
        code_version=made_by("pipelines/maintenance/compaction.py"),
    )
    def monthly_tables(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        keys = context.multi_partition_key.keys_by_dimension
        lake = Lake(settings.lake, settings.parquet_compression)
        try:
            month = compact(lake, keys[PROJECT], keys[MONTH][: len("2026-11")], utc_now(), context.log.info)
        except PipelineError as error:
            raise dg.Failure(
                description=str(error), metadata={EXIT_STATUS: error.exit_status}, allow_retries=False
            ) from None
        return dg.MaterializeResult(
            metadata={
                "dagster/partition_row_count": month.rows,
                "was_current": month.was_current,
                "days": month.days,
                "bytes": month.bytes,
                "daily_files": month.daily_files,
                "daily_bytes": month.daily_bytes,
            }
        )

    return monthly_tables


def _inputs(settings: Settings) -> set[str]:
    unread = set() if any(own.reads_usage for own in settings.of_each_project) else {"image_usage"}
    if not any(own.reads_registry for own in settings.of_each_project):
        unread |= {table.name for table in OF_THE_REGISTRY}
    return {"image_inventory" if name == "inventory" else name for name in SNAPSHOT_TABLES} - unread


def monthly_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """One run per project for the last month, when its last day can no longer be published; off until switched on."""

    @dg.schedule(
        name="compact_months_schedule",
        job_name=COMPACT_JOB,
        cron_schedule="47 7 2 * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Writes the monthly files of the last month, for faster queries over many days.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
        first = context.scheduled_execution_time.astimezone(dt.UTC).date().replace(day=1)
        month = (first - dt.timedelta(days=1)).replace(day=1)
        for project in settings.project_keys:
            key = dg.MultiPartitionKey({MONTH: month.isoformat(), PROJECT: project})
            yield dg.RunRequest(run_key=str(key), partition_key=key)

    return schedule
