"""Finds what is to be told: by the records of the lake's last days, and by what a run or a verification says of itself.

Nothing is sent or written here. What was found before is left out by its key.
"""

import datetime as dt
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import StorageError
from pipelines.lake.derived_manifests import placed_derived_manifest
from pipelines.lake.failures import last_failures
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import Manifest, parse_manifest
from pipelines.lake.parquet_files import read_batches
from pipelines.maintenance.status import PartitionStatus
from pipelines.notify.told import Event, Item, Told, Trouble, read_told_findings
from pipelines.plain_text import visible
from pipelines.tables import AUDIT_FINDINGS, SEVERITIES

# How many days are looked at, today included: the first time, and after a long pause.
FIRST_DAYS, MOST_DAYS = 2, 14
# The trouble of a verification has no project.
OF_THE_LAKE = ""
_BATCH_ROWS = 8_192
_NOTHING = {
    "missing": "no run has published this day, and none said why",
    "unfinished": "an attempt is open, and nothing is published",
    "damaged": "its manifest cannot be read",
}
# Findings and problems that a message names; it counts the others.
_NAMED = 20
_FINDING_COLUMNS = ("finding_id", "rule", "severity", "title", "id", "name", "owner", "state", "suppressed_until")


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run that failed; `sentence` says why, without secrets. `job` names one that is of no partition of the lake."""

    partition: Partition | None
    run_id: str | None
    step: str | None
    sentence: str
    job: str | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a verification; `problems` are paths with sentences. `is_whole_lake`: nothing was left out.

    `is_witnessed`: it looked for noted hashes, too.
    """

    problems: Sequence[tuple[str, str]]
    is_whole_lake: bool
    is_quick: bool
    is_witnessed: bool = False


@dataclass(slots=True)
class Found:
    """What is new, and the record that says so. `findings`: all ids told now or before, by project, where some are new.

    `is_sandbox`: the images of these days are invented.
    """

    told: Told
    items: list[Item] = field(default_factory=list)
    findings: dict[str, set[str]] = field(default_factory=dict)
    is_sandbox: bool = False

    def add(self, item: Item) -> bool:
        """Add an item unless it was found before; returns whether it is new."""
        if item.key in self.told.found:
            return False
        self.told.found[item.key] = item.at
        self.items.append(item)
        return True


@dataclass(frozen=True, slots=True)
class _Published:
    partition: Partition
    sha256: str
    manifest: Manifest


def find_events(
    lake: Lake,
    before: Told | None,
    now: dt.datetime,
    *,
    projects: Iterable[str],
    severity: str,
    lacking: Iterable[PartitionStatus] = (),
    failures: Sequence[FailedRun] = (),
    verification: Verification | None = None,
) -> Found:
    """Find what is new since the record `before`; `projects` are those of which days are due.

    `severity`: the least grave severity of findings that are told. `lacking`: partitions that should
    be complete by now and are not. `failures` are those that the caller knows of; the lake's notes are read besides.

    Raises:
        StorageError, StorageUnreachableError: the lake cannot be read.
    """
    told = before.model_copy(deep=True, update={"looked_at": now}) if before else Told(looked_at=now)
    for project in projects:
        told.began.setdefault(project, now.date())
    found = Found(told)
    days = days_to_look_at(before, now)
    published = _published(lake, days)
    found.is_sandbox = any(day.manifest.fetch.is_sandbox for day in published.values())
    complete = _last_complete(published.values())
    noted = _noted_failures(lake, days, complete)
    _failed(found, [*noted, *failures], complete, now)
    _incomplete(found, published.values(), complete, now)
    _missing(found, lacking, now)
    _recovered(found, complete, {run.partition for run in (*noted, *failures)}, now)
    _new_findings(found, lake, published.values(), severity, now)
    for day in published.values():
        found.add(_publication(day, now))
    if verification is not None:
        _verified(found, verification, now)
    return found


def known_events(now: dt.datetime, failures: Sequence[FailedRun], verification: Verification | None) -> Found:
    """What the caller knows, for when the lake can be neither read nor written."""
    found = Found(Told(looked_at=now))
    _failed(found, failures, {}, now)
    if verification is not None:
        _verified(found, verification, now)
    return found


def days_to_look_at(before: Told | None, now: dt.datetime) -> list[dt.date]:
    """The days in order, today last: those since the last look, and at least yesterday, whose runs may end today."""
    back = FIRST_DAYS - 1
    if before is not None:
        back = min(max(back, (now.date() - before.looked_at.date()).days), MOST_DAYS - 1)
    return [now.date() - dt.timedelta(days=days) for days in range(back, -1, -1)]


def _published(lake: Lake, days: Iterable[dt.date]) -> dict[Partition, _Published]:
    found = {}
    for date in days:
        for partition, content in sorted(lake.contents.manifests_of(date).items()):
            try:
                manifest = parse_manifest(content, lake.manifest(partition))
            except StorageError:
                # `verify` reports it; the other projects are told of.
                continue
            if manifest.project == partition.project:
                found[partition] = _Published(partition, hashlib.sha256(content).hexdigest(), manifest)
    return found


def _last_complete(published: Iterable[_Published]) -> dict[str, dt.date]:
    """The last complete day of each project among the published ones, which are in order."""
    return {day.partition.project: day.partition.date for day in published if day.manifest.is_complete}


def _noted_failures(lake: Lake, days: Sequence[dt.date], complete: dict[str, dt.date]) -> list[FailedRun]:
    """The noted failures of these days, without those that a later complete day made pointless.

    Nor is a step that its own run tries again a failed run.
    """
    return [
        FailedRun(partition, failure.run_id, failure.step, failure.sentence)
        for partition, failure in last_failures(lake).items()
        if partition.date in days
        and partition.date >= complete.get(partition.project, partition.date)
        and not failure.is_tried_again
    ]


def _key(event: Event, partition: Partition) -> str:
    return f"{event} {partition.project} {partition.date}"


def _of(partition: Partition, **facts: object) -> dict[str, Any]:
    return {"project": partition.project, "date": str(partition.date), **facts}


def _failed(found: Found, failures: Iterable[FailedRun], complete: dict[str, dt.date], now: dt.datetime) -> None:
    for run in failures:
        sentence = visible(run.sentence)
        reason = hashlib.sha256(sentence.encode()).hexdigest()[:16]
        facts = {"job": run.job, "run_id": run.run_id, "step": run.step, "reason": sentence}
        if run.partition is None:
            # Nobody sees such a job recover, so it is told each day.
            key, name = f"{Event.FAILED} * {now.date()} {run.job} {reason}", run.job
        else:
            key, name = (
                f"{_key(Event.FAILED, run.partition)} {reason}",
                f"{run.partition.project}, {run.partition.date}",
            )
            facts = _of(run.partition, **facts)
            # So it is known why the day is missing, if it will be.
            found.told.found.setdefault(_key(Event.MISSING, run.partition), now)
            # A past day that was tried in vain is no trouble of a project that is well.
            if run.partition.date >= complete.get(run.partition.project, run.partition.date):
                _trouble(found, run.partition, Event.FAILED)
        found.add(Item(event=Event.FAILED, key=key, at=now, line=f"{name}: {sentence}", facts=facts))


def _trouble(found: Found, partition: Partition, event: Event) -> None:
    before = found.told.troubles.get(partition.project)
    if before is None or before.date < partition.date:
        since = before.began if before else partition.date
        found.told.troubles[partition.project] = Trouble(event=event, date=partition.date, since=since)


def _incomplete(found: Found, published: Iterable[_Published], complete: dict[str, dt.date], now: dt.datetime) -> None:
    for day in published:
        partition, manifest = day.partition, day.manifest
        if manifest.is_complete or partition.date < complete.get(partition.project, dt.date.min):
            continue
        ids = sum(manifest.fetch.outcomes.values())
        found.add(
            Item(
                event=Event.INCOMPLETE,
                key=_key(Event.INCOMPLETE, partition),
                at=now,
                line=f"{partition.project}, {partition.date}: {manifest.fetch.failed} of {ids} images without a "
                "response; a run today fetches the day again.",
                facts=_of(partition, run_id=manifest.run_id, images=ids, failed=manifest.fetch.failed),
            )
        )
        _trouble(found, partition, Event.INCOMPLETE)


def _missing(found: Found, lacking: Iterable[PartitionStatus], now: dt.datetime) -> None:
    for status in lacking:
        partition = status.partition
        # Incomplete days are told by their manifests.
        if status.state not in _NOTHING or status.date < found.told.began.get(status.project, status.date):
            continue
        found.add(
            Item(
                event=Event.MISSING,
                key=_key(Event.MISSING, partition),
                at=now,
                line=f"{partition.project}, {partition.date}: {_NOTHING[status.state]}.",
                facts=_of(partition, state=status.state),
            )
        )
        _trouble(found, partition, Event.MISSING)


def _recovered(found: Found, complete: dict[str, dt.date], failing: set[Partition | None], now: dt.datetime) -> None:
    for project, trouble in list(found.told.troubles.items()):
        date = complete.get(project)
        if date is None or date < trouble.date or Partition(date, project) in failing:
            continue
        del found.told.troubles[project]
        for event in (Event.FAILED, Event.INCOMPLETE):
            for key in [key for key in found.told.found if key.startswith(f"{event} {project} ")]:
                # Should it come again, that is told again.
                del found.told.found[key]
        partition = Partition(date, project)
        found.add(
            Item(
                event=Event.RECOVERED,
                key=f"{_key(Event.RECOVERED, partition)} {now.isoformat()}",
                at=now,
                line=f"{project}, {date}: complete again ({trouble.event} since {trouble.began}).",
                facts=_of(partition, was=trouble.event, since=str(trouble.began)),
            )
        )


def _publication(day: _Published, now: dt.datetime) -> Item:
    manifest = day.manifest
    state = "complete" if manifest.is_complete else "incomplete"
    return Item(
        event=Event.PUBLISHED,
        key=f"{_key(Event.PUBLISHED, day.partition)} {day.sha256}",
        at=now,
        line=f"{day.partition.project}, {day.partition.date}: {state}, manifest {day.sha256}",
        facts=_of(
            day.partition,
            is_complete=manifest.is_complete,
            outcomes=manifest.fetch.outcomes,
            published_at=manifest.published_at.isoformat(),
            manifest_sha256=day.sha256,
        ),
    )


# Findings


def _new_findings(found: Found, lake: Lake, published: Iterable[_Published], severity: str, now: dt.datetime) -> None:
    newest = {day.partition.project: day.partition for day in published}
    contents: dict[Partition, bytes] = {}
    for date in {partition.date for partition in newest.values()}:
        contents |= lake.contents.derived_manifests_of(date)
    for project, partition in newest.items():
        content = contents.get(partition)
        derived = None if content is None else placed_derived_manifest(lake, partition, content)
        if content is None or derived is None:
            continue
        digest = hashlib.sha256(content).hexdigest()
        path = lake.table(AUDIT_FINDINGS.name, partition)
        # Without the table the day is being derived again at this moment, or retention removed it.
        if found.told.findings_of.get(project) == digest or not path.is_there():
            continue
        grave = [name for name in SEVERITIES if SEVERITIES.index(name) <= SEVERITIES.index(severity)]
        known = read_told_findings(lake, project)
        counts = dict.fromkeys(grave, 0)
        named: list[dict[str, Any]] = []
        fresh = set()
        for batch in read_batches(path, _BATCH_ROWS, columns=list(_FINDING_COLUMNS)):
            for row in _open(batch, grave).to_pylist():
                if row["finding_id"] not in known:
                    fresh.add(row["finding_id"])
                    counts[row["severity"]] += 1
                    named.append(row)
            # The gravest ones are named; memory stays small on the first day of a large lake.
            named = sorted(named, key=lambda row: (grave.index(row["severity"]), row["rule"], row["id"]))[:_NAMED]
        found.told.findings_of[project] = digest
        if fresh:
            found.findings[project] = known | fresh
            found.add(_findings(partition, digest, counts, named, now))


def _open(batch: pa.RecordBatch, severities: Sequence[str]) -> pa.RecordBatch:
    is_open = pc.and_(pc.not_equal(batch["state"], "resolved"), pc.is_null(batch["suppressed_until"]))
    return batch.filter(pc.and_(is_open, pc.is_in(batch["severity"], pa.array(severities))))


def _findings(
    partition: Partition, digest: str, counts: dict[str, int], named: list[dict[str, Any]], now: dt.datetime
) -> Item:
    columns = [name for name in _FINDING_COLUMNS if name not in ("state", "suppressed_until")]
    total = sum(counts.values())
    by_severity = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    lines = [f"{row['title']}: {row['name'] or row['id']}" for row in named[:3]]
    more = f"; and {total - len(lines)} more" if total > len(lines) else ""
    return Item(
        event=Event.NEW_FINDINGS,
        key=f"{_key(Event.NEW_FINDINGS, partition)} {digest}",
        at=now,
        line=f"{partition.project}, {partition.date}: {by_severity}: {'; '.join(lines)}{more}",
        facts=_of(
            partition,
            findings=total,
            by_severity=counts,
            first=[{name: row[name] for name in columns} for row in named],
        ),
    )


# Verification


def _verified(found: Found, verification: Verification, now: dt.datetime) -> None:
    problems = [{"path": visible(path), "problem": visible(sentence)} for path, sentence in verification.problems]
    trouble = found.told.troubles.get(OF_THE_LAKE)
    if problems:
        digest = hashlib.sha256(repr(problems).encode()).hexdigest()[:16]
        first = problems[0]
        more = f"; and {len(problems) - 1} more" if len(problems) > 1 else ""
        found.add(
            Item(
                event=Event.VERIFY_FAILED,
                key=f"verify_failed {digest}",
                at=now,
                line=f"{first['path']}: {first['problem']}{more}",
                facts={"problems": len(problems), "first": problems[:_NAMED]},
            )
        )
        found.told.troubles[OF_THE_LAKE] = Trouble(
            event=Event.VERIFY_FAILED,
            date=now.date(),
            since=trouble.began if trouble else now.date(),
            is_quick=verification.is_quick,
            is_witnessed=verification.is_witnessed,
        )
    elif trouble is not None and _looked_at_as_much(verification, trouble):
        del found.told.troubles[OF_THE_LAKE]
        for key in [key for key in found.told.found if key.startswith("verify_failed ")]:
            del found.told.found[key]
        found.add(
            Item(
                event=Event.RECOVERED,
                key=f"recovered verification {now.isoformat()}",
                at=now,
                line=f"verification: no problem any more (problems since {trouble.began}).",
                facts={"was": trouble.event, "since": str(trouble.began)},
            )
        )


def _looked_at_as_much(verification: Verification, trouble: Trouble) -> bool:
    """Whether a verification could have found again what was found."""
    return (
        verification.is_whole_lake
        and (trouble.is_quick or not verification.is_quick)
        and (verification.is_witnessed or not trouble.is_witnessed)
    )
