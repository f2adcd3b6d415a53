"""Backfills of rebuilt days: a run for each day, and a project's days one after the other, the oldest first."""

import dagster as dg

from assets.partitions import PROJECT, parsed_key

# The instance lets one run of each value run at a time (deploy/dagster.yaml).
IN_ORDER_TAG = "image_snapshots/in_order"
_BACKFILL, _PROJECT = "dagster/backfill", f"dagster/partition/{PROJECT}"
_WAITING = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED]


def days_in_order(grid: dg.MultiPartitionsDefinition) -> dg.PartitionedConfig:
    """The policy of a job that is backfilled: tags by which the run queue takes a project's days in order.

    The oldest day has the highest priority, and all of them come after the daily runs.
    """

    def tags(key: str) -> dict[str, str]:
        partition = parsed_key(key)
        return {IN_ORDER_TAG: partition.project, "dagster/priority": str(-partition.date.toordinal())}

    return dg.PartitionedConfig(
        run_config_for_partition_key_fn=lambda _: {}, partitions_def=grid, tags_for_partition_key_fn=tags
    )


def is_followed(context: dg.AssetExecutionContext) -> bool:
    """Whether another run of this run's backfill waits for the same project."""
    backfill = context.run.tags.get(_BACKFILL)
    if backfill is None:
        return False
    tags = {_BACKFILL: backfill, _PROJECT: context.run.tags[_PROJECT]}
    waiting = context.instance.get_runs(dg.RunsFilter(tags=tags, statuses=_WAITING), limit=1)
    return bool(waiting)
