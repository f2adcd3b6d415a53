"""Tells what is new to all receivers: finds events, keeps them in the record as waiting, sends them, strikes them out.

The record is written before anything is sent. So what was found is not lost when the process is killed or a receiver is
away: the next look at the lake sends it. It is held meanwhile, so that two processes do not send the same.
"""

import datetime as dt
import time
from collections.abc import Callable, Sequence

from pipelines.errors import PipelineError
from pipelines.lake.layout import Lake
from pipelines.maintenance.status import due_day, lacking_partitions
from pipelines.notify.delivery import DeliveryError, Receiver, deliver, receivers
from pipelines.notify.events import FailedRun, Verification, days_to_look_at, find_events
from pipelines.notify.messages import encoded, message_body
from pipelines.notify.told import Event, Told, read_told, write_told, write_told_findings
from pipelines.settings import Settings


def tell(
    settings: Settings,
    lake: Lake,
    now: dt.datetime,
    *,
    failures: Sequence[FailedRun] = (),
    verification: Verification | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Tell what is new in the lake, and what the caller knows; does nothing without receivers.

    Returns what went wrong, as sentences without secrets: a notification never raises for the outside world.
    """
    if settings.notify is None:
        return []
    hooks = receivers(settings.notify.get_secret_value().split())
    try:
        with lake.locks.notifications():
            return _tell(settings, lake, now, hooks, failures, verification, pause)
    except PipelineError as error:
        return [f"Nothing was told: {error}"]


def _tell(
    settings: Settings,
    lake: Lake,
    now: dt.datetime,
    hooks: Sequence[Receiver],
    failures: Sequence[FailedRun],
    verification: Verification | None,
    pause: Callable[[float], None],
) -> list[str]:
    before = read_told(lake)
    first, due = days_to_look_at(before, now)[0], due_day(now, settings.due_hour)
    found = find_events(
        lake,
        before,
        now,
        projects=settings.project_keys,
        severity=settings.notify_severity,
        lacking=lacking_partitions(lake, settings.project_keys, first, due) if first <= due else (),
        failures=failures,
        verification=verification,
    )
    told = found.told
    waiting = {hook.name: [*told.waiting.get(hook.name, ()), *found.items] for hook in hooks}
    waiting = {name: items for name, items in waiting.items() if items}
    told = told.model_copy(update={"waiting": waiting})
    if before is None or found.items or told.model_copy(update={"looked_at": before.looked_at}) != before:
        told = write_told(lake, told, now)
    for project, ids in found.findings.items():
        write_told_findings(lake, project, ids)
    sandbox = found.is_sandbox or all(own.uses_sandbox for own in settings.of_each_project)
    errors = []
    for hook in hooks:
        try:
            for event in Event:
                told = _send(settings, lake, now, hook, event, told, pause, is_sandbox=sandbox)
        except DeliveryError as error:
            # What waits is sent with the next look at the lake.
            errors.append(str(error))
    return errors


def _send(
    settings: Settings,
    lake: Lake,
    now: dt.datetime,
    hook: Receiver,
    event: Event,
    told: Told,
    pause: Callable[[float], None],
    *,
    is_sandbox: bool,
) -> Told:
    """Send what waits of one event, and return the record without it."""
    items = [item for item in told.waiting.get(hook.name, ()) if item.event == event]
    if not items:
        return told
    body = message_body(event, items, str(lake.root), now, is_sandbox=is_sandbox, as_card=hook.takes_cards)
    deliver(hook, encoded(body), settings.ca_bundle, pause)
    rest = [item for item in told.waiting[hook.name] if item.event != event]
    return write_told(lake, told.model_copy(update={"waiting": told.waiting | {hook.name: rest}}), now)
