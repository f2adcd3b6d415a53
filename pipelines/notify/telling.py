"""Tells what is new to all receivers: finds events, keeps them in the record as waiting, sends them, strikes them out.

The record is written before anything is sent. So what was found is not lost when the process is killed or a receiver is
away: the next look at the lake sends it. It is held meanwhile, so that two processes do not send the same. If it cannot
be kept, because the disk is full or the lake is away, what the caller knows is told all the same.
"""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from pipelines.errors import PipelineError
from pipelines.lake.layout import Lake
from pipelines.maintenance.status import due_day, lacking_partitions
from pipelines.notify.delivery import DeliveryError, Receiver, deliver, receivers
from pipelines.notify.events import FailedRun, Found, Verification, days_to_look_at, find_events, known_events
from pipelines.notify.messages import encoded, message_body, one_message
from pipelines.notify.told import Event, Item, Told, read_told, write_told, write_told_findings
from pipelines.settings import Settings

# For all messages to one receiver: less than Dagster gives a sensor. What is left waits for the next look at the lake.
_MOST_SECONDS = 45.0


def tell(
    settings: Settings,
    now: dt.datetime,
    *,
    failures: Sequence[FailedRun] = (),
    verification: Verification | None = None,
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    most_seconds: float = _MOST_SECONDS,
) -> list[str]:
    """Tell what is new in the lake, and what the caller knows; does nothing without receivers.

    Returns what went wrong, as sentences without secrets: a notification never raises for the outside world.
    """
    if settings.notify is None:
        return []
    hooks = receivers(settings.notify.get_secret_value().split())
    with ExitStack() as stack:
        try:
            lake = Lake(settings.lake, settings.parquet_compression)
            stack.enter_context(lake.locks.notifications())
            teller = _look(settings, lake, now, hooks, failures, verification)
        except PipelineError as error:
            found = known_events(now, failures, verification)
            if not found.items:
                return [f"Nothing was told: {error}"]
            waiting = {hook.name: list(found.items) for hook in hooks}
            told = found.told.model_copy(update={"waiting": waiting})
            teller = _Teller(settings, now, settings.lake, told, None, _is_sandbox(settings, found))
            teller.errors.append(f"Only what this process did was told: {error}")
        asyncio.run(teller.send(hooks, pause, most_seconds))
    return teller.errors


def _look(
    settings: Settings,
    lake: Lake,
    now: dt.datetime,
    hooks: Sequence[Receiver],
    failures: Sequence[FailedRun],
    verification: Verification | None,
) -> "_Teller":
    """Find what is new, and write it down as waiting."""
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
    names = [hook.name for hook in hooks]
    # Whose URL was corrected has another name now: what waited for the old one waits for the new one.
    left = {item.key: item for name, items in told.waiting.items() if name not in names for item in items}
    waiting = {name: list(told.waiting.get(name, () if name in told.receivers else left.values())) for name in names}
    waiting = {name: [*items, *found.items] for name, items in waiting.items() if items or found.items}
    told = told.model_copy(update={"waiting": waiting, "receivers": names})
    if before is None or found.items or told.model_copy(update={"looked_at": before.looked_at}) != before:
        told = write_told(lake, told, now)
    for project, ids in found.findings.items():
        write_told_findings(lake, project, ids)
    return _Teller(settings, now, str(lake.root), told, lake, _is_sandbox(settings, found))


def _is_sandbox(settings: Settings, found: Found) -> bool:
    return found.is_sandbox or all(own.uses_sandbox for own in settings.of_each_project)


@dataclass(slots=True)
class _Teller:
    """What waits, and where that is kept: in the record of `lake`, or nowhere if that is None."""

    settings: Settings
    now: dt.datetime
    place: str
    told: Told
    lake: Lake | None
    is_sandbox: bool
    errors: list[str] = field(default_factory=list)

    async def send(
        self, hooks: Sequence[Receiver], pause: Callable[[float], Awaitable[object]], most_seconds: float
    ) -> None:
        """Send to all receivers at once, so that none waits for another."""
        await asyncio.gather(*(self._send_to(hook, pause, most_seconds) for hook in hooks))

    async def _send_to(self, hook: Receiver, pause: Callable[[float], Awaitable[object]], most_seconds: float) -> None:
        # What waits is sent with the next look at the lake.
        try:
            async with asyncio.timeout(most_seconds):
                for event in Event:
                    while items := [item for item in self.told.waiting.get(hook.name, ()) if item.event == event]:
                        await self._send(hook, event, one_message(event, items, as_card=hook.takes_cards), pause)
        except DeliveryError as error:
            self.errors.append(str(error))
        except TimeoutError:
            self.errors.append(f"{hook.name} did not take all notifications within {most_seconds:g} seconds.")

    async def _send(
        self,
        hook: Receiver,
        event: Event,
        items: Sequence[Item],
        pause: Callable[[float], Awaitable[object]],
    ) -> None:
        """Send a message, and strike out what it says."""
        body = message_body(event, items, self.place, self.now, is_sandbox=self.is_sandbox, as_card=hook.takes_cards)
        await deliver(hook, encoded(body), self.settings.ca_bundle, pause)
        sent = {item.key for item in items}
        rest = [item for item in self.told.waiting[hook.name] if item.key not in sent]
        self.told = self.told.model_copy(update={"waiting": self.told.waiting | {hook.name: rest}})
        if self.lake is not None:
            try:
                self.told = write_told(self.lake, self.told, self.now)
            except PipelineError as error:
                self.lake = None
                self.errors.append(f"What was told will be told again: {error}")
