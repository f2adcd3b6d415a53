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
    """Whether this run is one of a backfill of `rebuild_images`, and another of its project still waits.

    Runs of other jobs derive on their own: a new price makes no day outdated, so no later run would do it for them.
    """
    tags = context.run.tags
    if _BACKFILL not in tags or IN_ORDER_TAG not in tags:
        return False
    same = {_BACKFILL: tags[_BACKFILL], _PROJECT: tags[_PROJECT]}
    waiting = context.instance.get_runs(dg.RunsFilter(tags=same, statuses=_WAITING), limit=1)
    return bool(waiting)
