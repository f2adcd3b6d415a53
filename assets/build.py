"""Builds the definitions from assets, jobs, schedule, sensor and resources; callers may pass parts of their own."""

import datetime as dt
from collections.abc import Callable

import dagster as dg

from assets.after_runs import after_runs_sensor
from assets.backfills import days_in_order
from assets.common import with_shared_facts
from assets.compaction import COMPACT_JOB, monthly_asset, monthly_schedule
from assets.daily_snapshot import image_inventory_asset, image_responses_asset, images_assets
from assets.delivery import catalog_asset, report_asset, warehouse_asset
from assets.derived_tables import derived_assets
from assets.freshness import freshness_sensor, project_checks, project_days_asset
from assets.partitions import partition_grid
from assets.resources import LogReporter, Reporter, run_resource
from assets.schedules import daily_schedule
from assets.upstream import OBSERVE_JOB, inventory_source_asset, upstream_specs
from assets.verification import VERIFY_JOB, verification_asset, verify_schedule
from pipelines.run import utc_now
from pipelines.settings import Settings

DAILY_JOB = "daily_snapshot"
REBUILD_JOB = "rebuild_images"
REPUBLISH_JOB = "republish_images"
DERIVE_JOB = "derive_days"
LOAD_JOB = "load_days"
# One day, plus some hours for a slow or retried run.
_FRESH_FOR = dt.timedelta(hours=30)
# For an unreachable endpoint, store or database, and for a locked partition: they may be available in minutes. Other
# errors end the run at once, because a retry does not help (see RunResource).
_RETRY = dg.RetryPolicy(max_retries=3, delay=60, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


def build_definitions(
    settings: Settings,
    reporter: Reporter | None = None,
    now: Callable[[], dt.datetime] = utc_now,
    *,
    is_played: bool = False,
) -> dg.Definitions:
    """Build the definitions for the settings; the command line and tests pass their own reporter and clock."""
    reporter = reporter or LogReporter()
    freshness = dg.FreshnessPolicy.time_window(fail_window=_FRESH_FOR)
    grid = partition_grid(settings)
    # The jobs have it, too: a retried run starts with the first step that is not done.
    retry = None if reporter.is_attended else _RETRY
    images, derived = images_assets(grid, freshness), derived_assets(grid, settings)
    loaded = [
        *([warehouse_asset(grid, retry)] if settings.loads_warehouse else []),
        *([catalog_asset(grid, retry)] if settings.catalog is not None else []),
    ]
    delivery = [*loaded, report_asset(grid)]
    assets = [image_inventory_asset(grid, retry), image_responses_asset(grid, retry), images, derived, *delivery]
    daily = dg.define_asset_job(
        DAILY_JOB,
        selection=assets,
        op_retry_policy=retry,
        description="Inventory, fetch, normalise and publish a day of a project; derive changes, findings and costs.",
    )
    rebuild = dg.define_asset_job(
        REBUILD_JOB,
        selection=[images, derived, *delivery],
        config=days_in_order(grid),
        op_retry_policy=retry,
        description="Derive a published day's tables again from its stored responses, then its derived tables.",
    )
    republish = dg.define_asset_job(
        REPUBLISH_JOB,
        selection=[images],
        op_retry_policy=retry,
        description="Derive a published day's tables again from its stored responses, without its derived tables.",
    )
    derive = dg.define_asset_job(
        DERIVE_JOB,
        selection=[derived, *delivery],
        op_retry_policy=retry,
        description="Derive a published day's changes, findings and costs again and deliver them; the day stays as is.",
    )
    load = [
        dg.define_asset_job(
            LOAD_JOB,
            selection=loaded,
            op_retry_policy=retry,
            description="Load a published day into the warehouse and the catalog again.",
        )
        for _ in loaded[:1]
    ]
    inventory = inventory_source_asset(grid, settings, now)
    observe = dg.define_asset_job(
        OBSERVE_JOB,
        selection=[inventory],
        description="Read today's inventory of a project, and note its data version.",
    )
    monthly = monthly_asset(settings)
    compact = dg.define_asset_job(
        COMPACT_JOB,
        selection=[monthly],
        description="Write the monthly files of a project's past month; daily files stay unchanged.",
    )
    verification = verification_asset(settings)
    verifying = dg.define_asset_job(
        VERIFY_JOB,
        selection=[verification],
        description="Prove that the whole lake is as published, or name what was changed.",
    )
    after_runs = after_runs_sensor(settings)
    return dg.Definitions(
        assets=[
            *with_shared_facts([*assets, monthly, verification], settings),
            *upstream_specs(),
            inventory,
            project_days_asset(settings),
        ],
        asset_checks=[project_checks(settings, now)],
        jobs=[daily, rebuild, republish, derive, *load, compact, observe, verifying],
        schedules=[daily_schedule(DAILY_JOB, settings), monthly_schedule(settings), verify_schedule(settings)],
        sensors=[freshness_sensor(settings, now), *([after_runs] if after_runs else [])],
        resources={"runs": run_resource(settings, reporter, now, is_played=is_played)},
        # One process per run: the steps pass paths and share the lock on their partition.
        executor=dg.in_process_executor,
    )
