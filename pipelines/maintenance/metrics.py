"""The lake's last days as metrics in Prometheus' text format, for the textfile collector of the node exporter.

All are gauges, so the text is valid for a parser of OpenMetrics, too. Values come from manifests and derived manifests
alone. When something happens is a time in seconds since 1970, because this file may be older than its reader thinks.
"""

import datetime as dt
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.errors import ConfigurationError, StorageError
from pipelines.lake.derived_manifests import DerivedManifest, read_derived_manifest
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import Manifest, known_partitions, published
from pipelines.lake.witnesses import is_in_lake
from pipelines.tables import SEVERITIES, Outcome

_PREFIX = "image_snapshots_"
_READABLE = 0o644


@dataclass(slots=True)
class _Gauge:
    """A metric: its meaning, and a value for each set of labels."""

    meaning: str
    values: list[tuple[Mapping[str, str], float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _LastDays:
    """The last published and the last complete day of a project, each None where there is none."""

    published: Manifest | None
    complete: Manifest | None
    derived: DerivedManifest | None


def metrics_text(lake: Lake, projects: Iterable[str], now: dt.datetime) -> str:
    """The metrics of these projects as text; those that are no longer configured would only call for alarm.

    Raises:
        StorageError: the lake cannot be read.
    """
    days: dict[str, list[Partition]] = {project: [] for project in projects}
    for partition in known_partitions(lake):
        if partition.project in days:
            days[partition.project].append(partition)
    gauges = {name: _Gauge(meaning) for name, meaning in _MEANINGS.items()}
    for project in sorted(days):
        for name, labels, value in _values(_last_days(lake, days[project]), now):
            gauges[name].values.append(({"project": project} | labels, value))
    return "".join(_lines(name, gauge) for name, gauge in gauges.items() if gauge.values) + "# EOF\n"


def _last_days(lake: Lake, days: list[Partition]) -> _LastDays:
    newest: Manifest | None = None
    derived: DerivedManifest | None = None
    for partition in reversed(days):
        try:
            manifest = published(lake, partition)
        except StorageError:
            # `verify` reports it.
            continue
        if manifest is None:
            continue
        if newest is None:
            newest, derived = manifest, read_derived_manifest(lake, partition)
        if manifest.is_complete:
            return _LastDays(newest, manifest, derived)
    return _LastDays(newest, None, derived)


_MEANINGS = {
    "has_complete_day": "Whether the project has any complete day, 1 or 0.",
    "last_complete_day_timestamp_seconds": "When the last complete day was published, in seconds since 1970.",
    "last_complete_day_age_seconds": "Age of that publication when this file was written.",
    "last_day_timestamp_seconds": "When the last day was published, complete or not, in seconds since 1970.",
    "last_day_is_complete": "Whether every id of that day has a response, 1 or 0; what follows is of that day, too.",
    "images": "Images that the API described.",
    "ids": "Ids of the inventory, by outcome.",
    "requests": "Requests to the API.",
    "retries": "Requests that were repeated.",
    "throttled": "Responses by which the API asked to slow down.",
    "received_bytes": "Bytes of the responses.",
    "step_seconds": "Seconds of each step, from the end of the one before it: inventory, fetch, publish, derive.",
    "table_bytes": "Bytes of the day's published files.",
    "image_bytes": "Bytes of all known images, as the API states them.",
    "open_findings": "Open audit findings that are not suppressed, by severity.",
    "new_findings": "Findings that were not open on the published day before.",
}


def _values(last: _LastDays, now: dt.datetime) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name, labels besides the project, and value of each metric of a project."""
    yield "has_complete_day", {}, float(last.complete is not None)
    if last.complete is not None:
        at = last.complete.published_at
        yield "last_complete_day_timestamp_seconds", {}, at.timestamp()
        yield "last_complete_day_age_seconds", {}, (now - at).total_seconds()
    if last.published is not None:
        yield from _day_values(last.published, last.derived)


def _day_values(manifest: Manifest, derived: DerivedManifest | None) -> Iterator[tuple[str, dict[str, str], float]]:
    fetch = manifest.fetch
    yield "last_day_timestamp_seconds", {}, manifest.published_at.timestamp()
    yield "last_day_is_complete", {}, float(manifest.is_complete)
    yield "images", {}, manifest.files["images"].rows
    for outcome in Outcome:
        yield "ids", {"outcome": outcome}, fetch.outcomes.get(outcome, 0)
    yield "requests", {}, fetch.requests
    yield "retries", {}, fetch.retries
    yield "throttled", {}, fetch.throttled
    yield "received_bytes", {}, fetch.bytes_received
    for step, seconds in _steps(manifest, derived):
        yield "step_seconds", {"step": step}, seconds
    yield "table_bytes", {}, sum(file.bytes for file in manifest.files.values())
    if derived is not None:
        yield "image_bytes", {}, derived.summary.total_bytes
        for severity in SEVERITIES:
            yield "open_findings", {"severity": severity}, derived.summary.findings.get(severity, 0)
        yield "new_findings", {}, derived.summary.new_findings


def _steps(manifest: Manifest, derived: DerivedManifest | None) -> Iterator[tuple[str, float]]:
    """The seconds of each step of the run that published the day; not of steps that were done again later."""
    fetch = manifest.fetch
    yield "inventory", (fetch.started_at - manifest.started_at).total_seconds()
    yield "fetch", (fetch.finished_at - fetch.started_at).total_seconds()
    if not manifest.rebuilt:
        yield "publish", (manifest.published_at - fetch.finished_at).total_seconds()
    if derived is not None and derived.run_id == manifest.run_id:
        yield "derive", (derived.derived_at - manifest.published_at).total_seconds()


# The text


def _lines(name: str, gauge: _Gauge) -> str:
    lines = [f"# HELP {_PREFIX}{name} {gauge.meaning}", f"# TYPE {_PREFIX}{name} gauge"]
    for labels, value in gauge.values:
        stated = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        # The shortest text that gives the same number.
        lines.append(f"{_PREFIX}{name}{{{stated}}} {int(value) if value == int(value) else repr(value)}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def write_metrics(lake: Lake, projects: Iterable[str], now: dt.datetime, path: Path, stated: str) -> None:
    """Write the metrics to a file that all may read, whole or not at all: a collector never reads half of it.

    `stated` is the setting or option that names the file.

    Raises:
        ConfigurationError: the file cannot be written, or it is inside the lake.
        StorageError: the lake cannot be read.
    """
    if is_in_lake(lake, path):
        raise ConfigurationError(f"The file of metrics {path} is inside the lake: set {stated} to a file elsewhere.")
    text = metrics_text(lake, projects, now)
    part = None
    try:
        # The collector reads names that end in .prom, so the part's does not.
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", prefix=f".{path.name}.", suffix=".part", dir=path.parent, delete=False
        ) as file:
            part = Path(file.name)
            file.write(text)
        part.chmod(_READABLE)
        part.replace(path)
    except OSError as error:
        if part is not None:
            part.unlink(missing_ok=True)
        raise ConfigurationError(
            f"The file of metrics {path} cannot be written ({error.strerror}): correct {stated}, or let this user "
            "write in its directory."
        ) from None
