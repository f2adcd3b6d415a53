"""The maintenance commands `compact` and `retention`.

Their work belongs to `pipelines.maintenance.compaction` and `pipelines.maintenance.retention`.
"""

import dataclasses
import datetime as dt
import json
import re
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID

from assets.terminal import (
    COMPLETE,
    FAILED,
    JsonOption,
    ProjectOption,
    count_text,
    open_lake,
    print_error,
    print_line,
    print_table,
    size_text,
)
from pipelines.errors import ConfigurationError, PipelineError
from pipelines.lake.layout import Lake
from pipelines.lake.manifests import known_partitions
from pipelines.plain_text import visible
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.maintenance.retention import Plan

_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


def _projects_of(lake: Lake, chosen: list[str] | None) -> list[str]:
    """The chosen projects of the lake, or all, including those that are no longer configured."""
    there = sorted({partition.project for partition in known_partitions(lake)})
    if not there:
        raise ConfigurationError(f"Nothing is published in the lake {lake.root}: see IMAGE_SNAPSHOTS_LAKE.")
    for project in chosen or []:
        if project not in there:
            raise ConfigurationError(f"--project {project} has no days in {lake.root}: choose from {', '.join(there)}.")
    return sorted(set(chosen)) if chosen else there


def compact(
    month: Annotated[
        str | None, typer.Option("--month", metavar="YYYY-MM", help="Only this month. Default: all past months.")
    ] = None,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one file per table for each past month, for faster queries; daily files stay unchanged."""
    from pipelines.maintenance.compaction import compact as compact_month
    from pipelines.maintenance.compaction import months_over

    lake = open_lake(Settings.load())
    if month is not None and not _MONTH.fullmatch(month):
        raise ConfigurationError(f"{month} is not a month: write it as YYYY-MM.")
    now = dt.datetime.now(dt.UTC)
    projects = _projects_of(lake, project)
    wanted = [(key, each) for key in projects for each in months_over(lake, key, now.date()) if month in (None, each)]
    if month is not None and not wanted:
        # Each project reports why.
        wanted = [(key, month) for key in projects]
    reports: list[dict[str, Any]] = []
    status = COMPLETE
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("Compacting", total=len(wanted))
        for key, each in wanted:
            bar.update(task, description=f"Compacting {each} of {escape(visible(key))}")
            report: dict[str, Any] = {"month": each, "project": key}
            try:
                done = compact_month(lake, key, each, now)
            except PipelineError as error:
                # A failing month must not stop the others.
                print_error(str(error))
                report |= {"state": "failed", "error": str(error)}
                status = FAILED if status == FAILED else error.exit_status
            else:
                report |= {"state": "current" if done.was_current else "compacted", **dataclasses.asdict(done)}
                del report["was_current"]
            reports.append(report)
            bar.advance(task)
    if as_json:
        typer.echo(json.dumps(reports, indent=1))
    else:
        figures = ("days", "rows", "daily_files", "daily_bytes", "bytes")
        rows = [
            (
                report["month"],
                report["project"],
                report["state"],
                *(f"{report[name]:,}" if name in report else "" for name in figures),
            )
            for report in reports
        ]
        print_table(
            "Months", ("month", "project", "state", "days", "rows", "daily files", "daily bytes", "bytes"), rows
        )
    raise typer.Exit(status)


def retention(
    responses_days: Annotated[
        int | None,
        typer.Option(min=1, max=36_500, help="Keep evidence (responses, list pages, references) for this many days."),
    ] = None,
    snapshots_days: Annotated[
        int | None,
        typer.Option(min=1, max=36_500, help="Keep all other tables of a day, and its report, for this many days."),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Remove the files. Default: change nothing.")] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the old files that the rules would remove, or remove them with --apply.

    Manifests, the history and all days from the last complete one on are always kept. A record names the removed files.
    """
    from pipelines.lake.retention_records import Rules
    from pipelines.maintenance.retention import apply_retention, plan_retention

    settings = Settings.load()
    lake = open_lake(settings)
    rules = Rules(
        responses_days=responses_days or settings.retention_responses_days,
        snapshots_days=snapshots_days or settings.retention_snapshots_days,
    )
    now = dt.datetime.now(dt.UTC)
    plans = []
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        for key in _projects_of(lake, project):
            if apply:
                tell = partial(_advance, bar, bar.add_task(f"Removing old files of {escape(visible(key))}", total=None))
                plans.append(apply_retention(lake, key, rules, now, tell))
            else:
                plans.append(plan_retention(lake, key, rules, now.date()))
    if as_json:
        typer.echo(json.dumps([_as_json(plan, was_applied=apply) for plan in plans], indent=1))
    else:
        _print_plans(plans, was_applied=apply)


def _advance(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _as_json(plan: "Plan", *, was_applied: bool) -> dict[str, Any]:
    return {
        "project": plan.project,
        "applied": was_applied,
        "rules": plan.rules.model_dump(),
        "files": [removed.model_dump(mode="json") for removed in plan.files],
        "unfinished": plan.recorded,
    }


def _print_plans(plans: "list[Plan]", *, was_applied: bool) -> None:
    rows = []
    for plan in plans:
        for name, files in plan.by_table().items():
            days = [removed.snapshot_date for removed in files]
            size = sum(removed.file.bytes for removed in files)
            rows.append((plan.project, name, str(min(days)), str(max(days)), f"{len(files):,}", f"{size:,}"))
    if rows:
        print_table(
            "Removed" if was_applied else "To remove", ("project", "table", "from", "to", "files", "bytes"), rows
        )
    count = sum(len(plan.files) for plan in plans)
    total = size_text(sum(removed.file.bytes for plan in plans for removed in plan.files))
    if was_applied:
        print_line(f"{count_text(count, 'file')} removed, {total}; _retention in the lake names them.")
    elif count:
        print_line(f"{count_text(count, 'file')}, {total}, would be removed with --apply. Nothing was changed.")
    else:
        print_line("No file is older than the rules allow.")
