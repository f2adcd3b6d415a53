"""Puts assets, jobs, schedule, sensor and resources together; tests and the command line bring their own parts."""

import datetime as dt
from collections.abc import Callable

import dagster as dg

from assets.compaction import COMPACT_JOB, monthly_asset, monthly_schedule
from assets.daily_snapshot import image_inventory_asset, image_responses_asset, images_assets
from assets.delivery import report_asset, warehouse_asset
from assets.derived_tables import derived_assets
from assets.partitions import partition_grid
from assets.resources import LogReporter, Reporter, run_resource
from assets.schedules import daily_schedule, failure_webhook
from pipelines.run import utc_now
from pipelines.settings import Settings

DAILY_JOB = "daily_snapshot"
REBUILD_JOB = "rebuild_images"
REPUBLISH_JOB = "republish_images"
DERIVE_JOB = "derive_days"
LOAD_JOB = "load_days"
# The schedule's day, and some hours for a slow run or one that is tried again.
_FRESH_FOR = dt.timedelta(hours=30)
# An endpoint, store or database that cannot be reached may be back in minutes, and a partition that is held may be
# free; sentences of other kinds say that trying again changes nothing, and end the run (see RunResource).
_RETRY = dg.RetryPolicy(max_retries=3, delay=60, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


def build_definitions(
    settings: Settings,
    reporter: Reporter | None = None,
    now: Callable[[], dt.datetime] = utc_now,
    *,
    is_played: bool = False,
) -> dg.Definitions:
    """Make the definitions for given settings; the command line and tests bring their own reporter and clock."""
    reporter = reporter or LogReporter()
    freshness = dg.FreshnessPolicy.time_window(fail_window=_FRESH_FOR)
    grid = partition_grid(settings)
    # Also of the jobs: a run that is tried again begins with whichever step it had not done.
    retry = None if reporter.is_attended else _RETRY
    images, derived = images_assets(grid, freshness), derived_assets(grid, settings)
    warehouse = [warehouse_asset(grid, retry)] if settings.loads_warehouse else []
    delivery = [*warehouse, report_asset(grid)]
    assets = [image_inventory_asset(grid, retry), image_responses_asset(grid, retry), images, derived, *delivery]
    daily = dg.define_asset_job(
        DAILY_JOB,
        selection=assets,
        op_retry_policy=retry,
        description="Inventory, fetch, normalise and publish a day of a project; what changed, is wrong and costs.",
    )
    rebuild = dg.define_asset_job(
        REBUILD_JOB,
        selection=[images, derived, *delivery],
        op_retry_policy=retry,
        description="Derive a published day's tables again from its stored answers, and what follows from them.",
    )
    republish = dg.define_asset_job(
        REPUBLISH_JOB,
        selection=[images],
        op_retry_policy=retry,
        description="Derive a published day's tables again from its stored answers, and not what follows.",
    )
    derive = dg.define_asset_job(
        DERIVE_JOB,
        selection=[derived, *delivery],
        op_retry_policy=retry,
        description="Derive what follows from a published day again, and deliver it; the day itself stays as it is.",
    )
    load = [
        dg.define_asset_job(
            LOAD_JOB,
            selection=[asset],
            op_retry_policy=retry,
            description="Load a published day into the warehouse again.",
        )
        for asset in warehouse
    ]
    monthly = monthly_asset(settings)
    compact = dg.define_asset_job(
        COMPACT_JOB,
        selection=[monthly],
        description="Make the monthly files of a project's month that is over; daily files stay as they are.",
    )
    webhook = failure_webhook(settings)
    return dg.Definitions(
        assets=[*assets, monthly],
        jobs=[daily, rebuild, republish, derive, *load, compact],
        schedules=[daily_schedule(DAILY_JOB, settings), monthly_schedule(settings)],
        sensors=[webhook] if webhook else [],
        resources={"runs": run_resource(settings, reporter, now, is_played=is_played)},
        # One process for each run: the steps pass paths and share the hold on their partition.
        executor=dg.in_process_executor,
    )
