"""The command `status`: lists the published days, and names those that are missing or incomplete.

What state a day is in belongs to `pipelines.maintenance.status`.
"""

import datetime as dt
import json
from typing import Annotated

import typer
from rich.console import Console

from assets.run_report import outcomes_text
from assets.terminal import (
    FAILED,
    JsonOption,
    count_text,
    open_lake,
    print_line,
    print_note,
    print_table,
    print_warning,
)
from pipelines.lake.layout import Lake
from pipelines.lake.manifests import known_partitions
from pipelines.maintenance.status import PartitionStatus, day_statuses
from pipelines.settings import Settings
from pipelines.tables import RESPONSE_TABLES


def print_clock_warnings(lake: Lake, projects: list[str]) -> None:
    """Warn of days that were published by a clock far ahead."""
    from pipelines.lake.clock import clock_warnings

    for project in sorted(set(projects)):
        for warning in clock_warnings(lake, project, dt.datetime.now(dt.UTC)):
            print_warning(warning)


def status(
    days: Annotated[int, typer.Option(min=1, max=3660, help="How many days back, today included.")] = 14,
    check: Annotated[
        bool, typer.Option("--check", help="Exit status 1 unless every listed day is complete; for cron and monitors.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the last days: complete, incomplete, unfinished (the next run resumes it), missing or damaged."""
    settings = Settings.load()
    today = _today()
    lake = open_lake(settings)
    statuses = day_statuses(lake, settings.project_keys, today - dt.timedelta(days=days - 1), today)
    print_clock_warnings(lake, [*settings.project_keys, *(partition.project for partition in known_partitions(lake))])
    if as_json:
        typer.echo(json.dumps([item.as_json() for item in statuses], indent=1))
    else:
        _print_statuses(statuses)
    lacking = [item for item in statuses if item.is_lacking]
    if check and lacking:
        _print_lacking(lacking, len(statuses))
        raise typer.Exit(FAILED)


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


def _print_statuses(statuses: list[PartitionStatus]) -> None:
    rows = [
        (
            str(item.date),
            item.project,
            item.state
            + (" (sandbox)" if item.is_sandbox else "")
            + (", attempt open" if item.has_open_attempt and item.state != "unfinished" else "")
            + (", inventory not whole" if item.inventory_is_whole is False else "")
            + _removed(item.removed)
            + ("" if item.is_configured else ", project no longer configured"),
            "" if item.images is None else f"{item.images:,}",
            outcomes_text(item.outcomes or {}),
            "" if item.bytes is None else f"{item.bytes:,}",
            "" if item.published_at is None else f"{item.published_at:%Y-%m-%d %H:%M:%S}",
            "" if item.failure is None else item.failure.sentence,
        )
        for item in statuses
    ]
    names = ("date", "project", "state", "images", "outcomes", "bytes", "published (UTC)")
    if not Console().is_terminal:
        print_table("Days", (*names, "last failure"), rows)
        return
    # A table column has no room for sentences.
    print_table("Days", names, [row[:-1] for row in rows])
    for item in statuses:
        if item.failure is not None:
            print_line(f"{item.date} {item.project}, {item.failure.at:%Y-%m-%d %H:%M} UTC: {item.failure.sentence}")


def _print_lacking(lacking: list[PartitionStatus], total: int) -> None:
    """Name the partitions that are missing or incomplete on standard error, so that the listing stays as it is."""
    print_note(f"Missing or incomplete: {len(lacking)} of {count_text(total, 'partition')}.")
    for item in lacking:
        failed = (item.outcomes or {}).get("failed", 0)
        why = (
            f": {item.failure.sentence}"
            if item.failure
            else f": {count_text(failed, 'image')} failed"
            if failed
            else ""
        )
        print_note(f"{item.date} {item.project}: {item.state}{why}")


def _removed(tables: list[str]) -> str:
    kinds = {"responses" if table in RESPONSE_TABLES else "tables" for table in tables}
    return f", {' and '.join(sorted(kinds))} removed" if kinds else ""
