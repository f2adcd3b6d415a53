"""The record of what was told, so that each event is told once, also by several processes and after a restart.

It is state and proves nothing: a damaged record counts as none, and then everything of the last days is told again. It
holds no URL: a receiver is known by scheme and host.
"""

import datetime as dt
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime, Field

from pipelines.lake.layout import Lake
from pipelines.lake.records import Facts, Record, read_record, write_record

# What was found is forgotten after that; `events.FIRST_DAYS` looks less far back.
_KEPT = dt.timedelta(days=40)
# A receiver that is away for longer misses messages, and one that was never there must not fill the record.
_WAITS = dt.timedelta(days=7)
_MOST_WAITING = 2_000


class Event(StrEnum):
    """What is told."""

    FAILED = "failed"
    INCOMPLETE = "incomplete"
    MISSING = "missing"
    RECOVERED = "recovered"
    NEW_FINDINGS = "new_findings"
    VERIFY_FAILED = "verify_failed"
    PUBLISHED = "published"


class Item(Facts):
    """One thing to tell: `key` is told once, `line` is a line for people, `facts` are JSON values for machines."""

    event: Event
    key: str
    at: AwareDatetime
    line: str
    facts: dict[str, Any]


class Trouble(Facts):
    """What was told of a project and is not over.

    `event` and `date` are those of the last day of it; `since`: the first one; None: `date`, too. `is_quick` of a
    verification that left out the content of rows, `is_witnessed` of one that looked for noted hashes, too.
    """

    event: Event
    date: dt.date
    since: dt.date | None = None
    is_quick: bool = False
    is_witnessed: bool = False

    @property
    def began(self) -> dt.date:
        """The first day of it."""
        return self.since or self.date


class Told(Record):
    """What was found and told. `looked_at`: when the lake was last looked at. `found`: each key, and when it was found.

    `began`: the day on which each project was first looked at; what was missing before is not news.
    `waiting`: for each receiver the items that it did not take yet. `receivers`: the names of all. `troubles`: by
    project; that of verification under an empty key. `findings_of`: SHA-256 of the derived manifest whose findings were
    told, by project.
    """

    looked_at: AwareDatetime
    began: dict[str, dt.date] = Field(default_factory=dict)
    found: dict[str, AwareDatetime] = Field(default_factory=dict)
    waiting: dict[str, list[Item]] = Field(default_factory=dict)
    receivers: list[str] = Field(default_factory=list)
    troubles: dict[str, Trouble] = Field(default_factory=dict)
    findings_of: dict[str, str] = Field(default_factory=dict)


class ToldFindings(Record):
    """The ids of a project's findings that were told."""

    ids: list[str]


def read_told(lake: Lake) -> Told | None:
    """The record of a lake; None when nothing was told yet."""
    return read_record(Told, lake.told())


def write_told(lake: Lake, told: Told, now: dt.datetime) -> Told:
    """Write the record without what is too old; returns it as written."""
    kept = told.model_copy(
        update={
            "found": {key: at for key, at in told.found.items() if now - at < _KEPT},
            "waiting": {
                receiver: waiting
                for receiver, items in told.waiting.items()
                if (waiting := [item for item in items if now - item.at < _WAITS][-_MOST_WAITING:])
            },
        }
    )
    write_record(lake.told(), kept)
    return kept


def read_told_findings(lake: Lake, project: str) -> set[str]:
    """The ids of a project's findings that were told."""
    found = read_record(ToldFindings, lake.told_findings(project))
    return set(found.ids) if found else set()


def write_told_findings(lake: Lake, project: str, ids: Iterable[str]) -> None:
    """Write the ids of a project's findings that were told."""
    write_record(lake.told_findings(project), ToldFindings(ids=sorted(ids)))
