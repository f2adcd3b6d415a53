"""Whether each project has a published day for today: one check for each project, evaluated by a sensor.

Dagster's own freshness looks at an asset, so a project that works would hide one that does not. The sensor reads the
manifests of the last days; it starts no runs. The checks have no partitions: Dagster stores only one result of a
partition that comes without a run.
"""

import datetime as dt
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

import dagster as dg

from assets.metadata import rows_metadata
from pipelines.errors import PipelineError
from pipelines.lake.layout import Lake
from pipelines.maintenance.status import PartitionStatus, State, due_day, lacking_partitions
from pipelines.settings import Settings
from pipelines.tables import IMAGES

PROJECT_DAYS = "project_days"
_DAYS = 14
_SECONDS = 15 * 60
_MOST_SHOWN = 30
_STATES: tuple[str, ...] = get_args(State)
_UNPUBLISHED = ("missing", "unfinished", "damaged")


def project_days_asset(settings: Settings) -> dg.AssetSpec:
    """The published days of all projects, as an external asset that carries the checks."""
    return dg.AssetSpec(
        PROJECT_DAYS,
        description="The published days of all projects, as their manifests say. It has one check for each project, "
        f"which turns red if that has no published day for today by {settings.due_hour:02}:00 UTC "
        "(IMAGE_SNAPSHOTS_DUE_HOUR).",
        group_name="snapshot",
        kinds={"json"},
        owners=settings.owner_names,
        deps=[dg.AssetDep(IMAGES.name, partition_mapping=dg.AllPartitionMapping())],
    )


def project_checks(settings: Settings, now: Callable[[], dt.datetime]) -> dg.AssetChecksDefinition:
    """The checks of all projects, to be run by hand; the sensor evaluates them, too."""
    specs = [
        dg.AssetCheckSpec(
            name,
            asset=PROJECT_DAYS,
            description=f"Project {project} has a published day for today, or before the hour for yesterday. The "
            "metadata lists its missing and incomplete days.",
        )
        for project, name in check_names(settings.project_keys).items()
    ]

    @dg.multi_asset_check(name="project_checks", specs=specs, can_subset=True)
    def checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        for result in _evaluate(settings, now()):
            if dg.AssetCheckKey(dg.AssetKey(PROJECT_DAYS), result.check) in context.selected_asset_check_keys:
                yield dg.AssetCheckResult(asset_key=PROJECT_DAYS, check_name=result.check, **result.facts())

    return checks


def check_names(projects: list[str]) -> dict[str, str]:
    """The name of each project's check: its key, with `_` for what a check's name cannot have."""
    names = {project: re.sub(r"[^A-Za-z0-9_]", "_", project) for project in projects}
    often = Counter(names.values())
    return {
        project: name if often[name] == 1 else f"{name}_{hashlib.sha256(project.encode()).hexdigest()[:8]}"
        for project, name in names.items()
    }


def freshness_sensor(settings: Settings, now: Callable[[], dt.datetime]) -> dg.SensorDefinition:
    """Write the result of each project whose state has changed; switched on by default like the daily schedule."""
    is_sandbox = all(own.uses_sandbox for own in settings.of_each_project)
    default = dg.DefaultSensorStatus.STOPPED if is_sandbox else dg.DefaultSensorStatus.RUNNING

    @dg.sensor(
        name="project_freshness_sensor",
        minimum_interval_seconds=_SECONDS,
        default_status=default,
        description="Shows for each project whether its day is published, as check results; starts no runs.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        known: dict[str, str] = json.loads(context.cursor or "{}")
        found = _evaluate(settings, now())
        events = [result.evaluation() for result in found if known.get(result.project) != result.digest]
        return dg.SensorResult(
            asset_events=events, cursor=json.dumps({result.project: result.digest for result in found})
        )

    return sensor


@dataclass(frozen=True, slots=True)
class _Result:
    """What the check says of one project. `error`: why the lake could not be read, if so."""

    project: str
    check: str
    due: dt.date
    lacking: list[PartitionStatus]
    error: str | None = None

    @property
    def passed(self) -> bool:
        """Whether a day is published that is due, complete or not."""
        if self.error is not None:
            return False
        return not any(status.date == self.due and status.state in _UNPUBLISHED for status in self.lacking)

    @property
    def digest(self) -> str:
        """The same as long as the result is."""
        states = [(str(status.date), status.state, _why(status)) for status in self.lacking]
        # Without the day itself, so that a project without gaps has one result for all days.
        return hashlib.sha256(json.dumps([self.passed, self.error, states]).encode()).hexdigest()[:16]

    def facts(self) -> dict[str, Any]:
        """What a check result and an evaluation have in common."""
        states = Counter[str](status.state for status in self.lacking)
        rows = [
            {"day": status.date, "state": status.state, "why": _why(status)}
            for status in reversed(self.lacking[-_MOST_SHOWN:])
        ]
        return {
            "passed": self.passed,
            "severity": dg.AssetCheckSeverity.ERROR,
            "description": self.error or f"{self.due} is {'' if self.passed else 'not '}published.",
            "metadata": {
                **{state: states[state] for state in _STATES if states[state]},
                **({"missing_or_incomplete": rows_metadata(rows)} if rows else {}),
            },
        }

    def evaluation(self) -> dg.AssetCheckEvaluation:
        """The result as an event."""
        return dg.AssetCheckEvaluation(asset_key=dg.AssetKey(PROJECT_DAYS), check_name=self.check, **self.facts())


def _why(status: PartitionStatus) -> str:
    if status.failure is not None:
        return status.failure.sentence
    failed = (status.outcomes or {}).get("failed", 0)
    return f"{failed} images without a response" if failed else ""


def _evaluate(settings: Settings, now: dt.datetime) -> list[_Result]:
    """The result of each project."""
    due, projects = due_day(now, settings.due_hour), settings.project_keys
    found: dict[str, list[PartitionStatus]] = {project: [] for project in projects}
    error = None
    try:
        for status in lacking_partitions(Lake(settings.lake), projects, due - dt.timedelta(days=_DAYS - 1), due):
            found[status.project].append(status)
    except PipelineError as refusal:
        # A lake that cannot be read must not leave everything green.
        error = str(refusal)
    names = check_names(projects)
    return [_Result(project, names[project], due, lacking, error) for project, lacking in found.items()]
