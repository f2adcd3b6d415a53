"""The sensor that looks at the lake after runs: it tells webhooks what is new, and writes the file of metrics.

It runs in the daemon beside the runs, so it sees those that were killed, and neither delays nor fails one.
"""

import datetime as dt
import json

import dagster as dg
from dagster import DagsterEventType, DagsterRun, DagsterRunStatus

from assets.metrics_command import measure
from assets.partitions import DATE, PROJECT
from assets.resources import INTERRUPTS
from pipelines.errors import ConfigurationError
from pipelines.lake.layout import Lake, Partition
from pipelines.notify.events import FailedRun
from pipelines.notify.telling import tell
from pipelines.plain_text import visible
from pipelines.run import utc_now
from pipelines.settings import Settings

# How often it looks for ended runs, and how often at the lake when none has ended, for days that become due.
_SECONDS = 60
_PAUSE = dt.timedelta(minutes=15)
_ENDED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
_MOST_RUNS = 1_000
_WILL_RETRY, _PARTITION = "dagster/will_retry", "dagster/partition"


def after_runs_sensor(settings: Settings) -> dg.SensorDefinition | None:
    """The sensor; None when nobody is to be told and no metrics are written."""
    if settings.notify is None and settings.metrics is None:
        return None

    @dg.sensor(
        name="after_runs",
        minimum_interval_seconds=_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells the webhooks of IMAGE_SNAPSHOTS_NOTIFY of failed runs and of what is new in the lake, and "
        "writes the file IMAGE_SNAPSHOTS_METRICS.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        now = utc_now()
        # The first time, runs that ended long ago are not news.
        last = json.loads(context.cursor) if context.cursor else {"looked": "", "ended": now.isoformat()}
        since = dt.datetime.fromisoformat(str(last["ended"]))
        records = context.instance.get_run_records(
            dg.RunsFilter(statuses=_ENDED, updated_after=since), limit=_MOST_RUNS, order_by="update_timestamp"
        )
        if not records and last["looked"] and now - dt.datetime.fromisoformat(str(last["looked"])) < _PAUSE:
            return dg.SkipReason("No run has ended, and the lake was looked at some minutes ago.")
        failures = [
            _failure(context.instance, record.dagster_run)
            for record in records
            if record.dagster_run.status == DagsterRunStatus.FAILURE
            and record.dagster_run.tags.get(_WILL_RETRY) != "true"
        ]
        errors = tell(settings, now, failures=failures)
        try:
            errors += measure(settings, Lake(settings.lake, settings.parquet_compression))
        except ConfigurationError as refusal:
            # The lake cannot be opened; runs say so, too.
            errors.append(str(refusal))
        for error in errors:
            context.log.warning(error)
        ended = max((record.update_timestamp.astimezone(dt.UTC) for record in records), default=since)
        context.update_cursor(json.dumps({"looked": now.isoformat(), "ended": ended.isoformat()}))
        return dg.SkipReason("; ".join(errors) or "What is new was told and measured.")

    return sensor


def _failure(instance: dg.DagsterInstance, run: DagsterRun) -> FailedRun:
    """A failed run and why; an unexpected error is named by its step alone, because its message may hold anything."""
    step, sentence = None, "The process of the run ended without saying why."
    events = instance.all_logs(run.run_id, of_type=DagsterEventType.STEP_FAILURE)
    for event in (entry.dagster_event for entry in events):
        if event is not None:
            told, error = event.step_failure_data.user_failure_data, event.step_failure_data.error
            step = event.step_key
            sentence = f"{step} ended with an unexpected error: its traceback is with the run."
            if error is not None and INTERRUPTS & {error.cls_name, error.cause and error.cause.cls_name}:
                sentence = f"The process of the run was told to stop during {step}."
            if told is not None and told.description:
                sentence = told.description
                break
    tags, partition = run.tags, None
    if {f"{_PARTITION}/{DATE}", f"{_PARTITION}/{PROJECT}"} <= tags.keys():
        partition = Partition(dt.date.fromisoformat(tags[f"{_PARTITION}/{DATE}"]), tags[f"{_PARTITION}/{PROJECT}"])
    job = f"{run.job_name} {tags.get(_PARTITION, '')}".strip() if partition is None else None
    return FailedRun(partition, run.run_id, step, visible(sentence), job)
