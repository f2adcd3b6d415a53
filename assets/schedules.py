"""The schedule of the daily snapshot, and the notification when a run fails."""

import datetime as dt
from collections.abc import Iterator

import dagster as dg
import httpx

from assets.partitions import partition_key
from pipelines.cloud.transport import basic_login, proxy_for, tls_context
from pipelines.inputs.secret_urls import parse_secret_url
from pipelines.lake.layout import Partition
from pipelines.plain_text import visible
from pipelines.settings import Settings

_WEBHOOK_SECONDS = 10


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


def failure_webhook(settings: Settings) -> dg.SensorDefinition | None:
    """A sensor that posts a JSON object to the configured URL when a run fails; None without such a URL."""
    if settings.failure_webhook is None:
        return None
    url = settings.failure_webhook.get_secret_value()

    @dg.run_failure_sensor(
        name="run_failure_webhook",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts run id, partition and reason of a failed run to IMAGE_SNAPSHOTS_FAILURE_WEBHOOK.",
    )
    def sensor(context: dg.RunFailureSensorContext) -> None:
        reasons = [
            event.step_failure_data.user_failure_data.description
            for event in context.get_step_failure_events()
            if event.step_failure_data.user_failure_data is not None
        ]
        text = visible("; ".join(reason for reason in reasons if reason) or context.failure_event.message or "")
        partition = context.dagster_run.tags.get("dagster/partition", "")
        message = {
            "text": f"image-snapshots: the run of {partition} failed: {text}",
            "run_id": context.dagster_run.run_id,
            "partition": partition,
            "reason": text,
        }
        status = _post(url, message)
        if status >= 300:
            raise RuntimeError(f"The failure webhook answered with status {status}.")

    return sensor


def _post(url: str, message: dict[str, str]) -> int:
    """Post JSON and return the status; no error quotes the URL, which is itself a secret for most webhooks."""
    stated = parse_secret_url(url, "")
    headers = {} if stated.username is None else {"Authorization": basic_login(stated)}
    timeout = {"timeout": httpx.Timeout(_WEBHOOK_SECONDS).as_dict()}
    try:
        # Not httpx's client: it logs each URL and parses proxies by itself.
        with httpx.HTTPTransport(verify=tls_context(None), proxy=proxy_for(url)) as transport:
            request = httpx.Request("POST", url, headers=headers, json=message, extensions=timeout)
            response = transport.handle_request(request)
            response.close()
            return response.status_code
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
        raise RuntimeError(f"The failure webhook could not be reached ({type(error).__name__}).") from None
