"""The command line `image-snapshots`: settings in, a run through Dagster, a table and an exit status out.

Exit status: 0 complete, 1 failed, 2 usage or configuration, 3 published but incomplete. Tables on a terminal, plain
lines when piped, `--json` for scripts. What a command does belongs to `pipelines`, how a run passes through Dagster to
`assets.runner`. What takes long to import, the commands import that need it.
"""

import datetime as dt
import json
import os
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from assets.query_command import query
from assets.streams import lasting_streams, output_loss
from assets.terminal import (
    COMPLETE,
    FAILED,
    INCOMPLETE,
    USAGE,
    DateOption,
    JsonOption,
    ProjectOption,
    count_text,
    note_sandbox,
    open_lake,
    parse_date,
    print_error,
    print_line,
    print_table,
    print_warning,
    size_text,
)
from assets.upkeep_commands import compact, retention
from assets.verify_command import verify
from pipelines.columns import ANSWER_TABLES
from pipelines.errors import ConfigurationError, PipelineError
from pipelines.lake import Lake, Partition, exists
from pipelines.manifest import Manifest, inventory_warning, known_partitions, published, read_attempt
from pipelines.outcomes import Outcome
from pipelines.settings import ROOT, Settings, load_environment
from pipelines.status import day_statuses

if TYPE_CHECKING:
    from pipelines.derived import DaySummary

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Daily, provable Parquet snapshots of ModelArts images.",
)


class Mode(StrEnum):
    """Which images a run asks for."""

    FULL = "full"
    CHANGED = "changed"


@lasting_streams()
def main() -> None:
    """Run the command line; what a user can cause ends in one sentence and the exit status of its kind."""
    try:
        app()
    except PipelineError as error:
        print_error(str(error))
        sys.exit(error.exit_status)


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


def _projects(settings: Settings, chosen: list[str] | None) -> list[str]:
    for project in chosen or []:
        if project not in settings.project_keys:
            raise ConfigurationError(
                f"--project {project} is not configured: choose from {', '.join(settings.project_keys)}, or add it to "
                "IMAGE_SNAPSHOTS_PROJECTS."
            )
    return sorted(set(chosen)) if chosen else settings.project_keys


@app.command()
def run(
    date: DateOption = None,
    project: ProjectOption = None,
    days: Annotated[
        int | None,
        typer.Option("--days", min=1, max=366, help="Play the sandbox's last days, today included (sandbox only)."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Throw away what an attempt that did not end has gathered.")
    ] = False,
    mode: Annotated[
        Mode | None, typer.Option(help="Ask for every image, or only for those that the API's list shows as changed.")
    ] = None,
    accept_shrunk: Annotated[
        bool,
        typer.Option(
            "--accept-shrunk-inventory",
            help="The inventory is right although it lacks many known images: what is not in it leaves the history.",
        ),
    ] = False,
    project_moved: Annotated[
        bool,
        typer.Option("--project-moved", help="The project has another id or endpoint from today on, and is the same."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Take today's snapshot: inventory, fetch, normalise, publish.

    An attempt of today that did not end is gone on with; a day that ended is fetched anew and replaced.
    """
    from assets.resources import ACCEPT_SHRUNK_TAG, PROJECT_MOVED_TAG
    from pipelines.day import Day, start_over
    from pipelines.preflight import check_inputs

    settings = Settings.load()
    if mode is not None:
        settings = settings.model_copy(update={"mode": mode.value})
    if days is not None and not settings.uses_sandbox:
        raise ConfigurationError(
            "--days plays days of the embedded sandbox; a real endpoint (IMAGE_SNAPSHOTS_ENDPOINT) cannot say what was."
        )
    if days is not None and date is not None:
        raise ConfigurationError("--days and --date exclude each other: --days ends with today.")
    projects = _projects(settings, project)
    check_inputs(settings)
    last = parse_date(date) or _today()
    played = [last - dt.timedelta(days=back) for back in range((days or 1) - 1, -1, -1)]
    partitions = [Partition(day, key) for day in played for key in projects]
    for partition in partitions:
        day = Day(partition, "", settings, _clock(partition, days), is_played=days is not None)
        day.check_date(None if fresh else read_attempt(day.lake, partition))
        day.check_source()
        day.check_clock()
        if fresh:
            with day.hold():
                start_over(day)
    if settings.uses_sandbox:
        Console(stderr=True).print(
            "No endpoint is configured (IMAGE_SNAPSHOTS_ENDPOINT): the embedded sandbox stands in for the cloud."
            if settings.endpoint is None
            else "The embedded sandbox stands in for the cloud, as IMAGE_SNAPSHOTS_ENDPOINT asks for.",
            soft_wrap=True,
        )
    said = {ACCEPT_SHRUNK_TAG: accept_shrunk, PROJECT_MOVED_TAG: project_moved}
    tags = {tag: "true" for tag, is_said in said.items() if is_said}
    _run_jobs(settings, partitions, ["daily_snapshot"] * len(partitions), as_json=as_json, days=days, tags=tags)


def _clock(partition: Partition, days: int | None) -> Callable[[], dt.datetime]:
    """The clock of a run: the sandbox shows any day, so a day that is played is the current one."""
    from pipelines.day import utc_now

    if days is None:
        return utc_now
    return lambda: dt.datetime.combine(partition.date, utc_now().timetz())


@app.command()
def rebuild(
    date: DateOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every published day that retention has left whole.")] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Derive published days again from the answers stored on those days; asks the API nothing."""
    from pipelines.preflight import check_inputs
    from pipelines.removed import RemovedFiles, is_derivable

    settings = Settings.load()
    day = parse_date(date)
    if (day is None) == (not every):
        raise ConfigurationError("Say which day to rebuild: --date YYYY-MM-DD, or --all.")
    projects = _projects(settings, project)
    check_inputs(settings)
    if day is not None:
        partitions = [Partition(day, key) for key in projects]
    else:
        lake = open_lake(settings)
        removed = {key: RemovedFiles(lake, key) for key in projects}
        partitions = [
            partition
            for partition in lake.partitions()
            if partition.project in projects and is_derivable(lake, partition, removed[partition.project])
        ]
    last = {partition.project: partition for partition in partitions}
    # What follows from several days is derived once for all of them, with the last day of each project.
    jobs = ["rebuild_images" if partition in last.values() else "republish_images" for partition in partitions]
    _run_jobs(settings, partitions, jobs, as_json=as_json)


def _run_jobs(
    settings: Settings,
    partitions: list[Partition],
    jobs: list[str],
    *,
    as_json: bool,
    days: int | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Run its job for each partition, one failing partition leaving the others alone, then say what became of them."""
    from assets.runner import Runner

    lake = open_lake(settings)
    reports: list[dict[str, Any]] = []
    with Runner(settings) as runner:
        failures = []
        for partition, job in zip(partitions, jobs, strict=True):
            failure = runner.run(job, partition, _clock(partition, days), tags, is_played=days is not None)
            if failure is not None:
                print_error(failure.sentence)
            failures.append(failure)
    for partition, failure in zip(partitions, failures, strict=True):
        is_published = failure is None or failure.came_after_publication
        manifest = published(lake, partition) if is_published else None
        if failure is not None and manifest is not None:
            status = INCOMPLETE
        elif failure is not None:
            status = failure.exit_status
        else:
            status = COMPLETE if manifest and manifest.is_complete else INCOMPLETE
        reports.append(_report(lake, partition, status, failure.sentence if failure else None, manifest))
    if as_json:
        print(json.dumps(reports, indent=1))
    else:
        _print_reports(reports)
    _print_clock_warnings(lake, [partition.project for partition in partitions])
    statuses = {report["exit_status"] for report in reports}
    if output_loss() is not None:
        statuses.add(INCOMPLETE)
    raise typer.Exit(next((code for code in (FAILED, USAGE, INCOMPLETE) if code in statuses), COMPLETE))


def _print_clock_warnings(lake: Lake, projects: list[str]) -> None:
    from pipelines.clock import clock_warnings

    for project in sorted(set(projects)):
        for warning in clock_warnings(lake, project, dt.datetime.now(dt.UTC)):
            print_warning(warning)


def _report(
    lake: Lake, partition: Partition, status: int, error: str | None, manifest: Manifest | None
) -> dict[str, Any]:
    from pipelines.derived import read_seal

    report: dict[str, Any] = {"date": str(partition.date), "project": partition.project, "exit_status": status}
    if manifest is None:
        return report | {"state": "failed", "error": error}
    seal = read_seal(lake, partition)
    return report | {
        "state": "complete" if manifest.is_complete else "incomplete",
        # Why what follows from the published day is lacking; None when nothing is.
        "error": error,
        "run_id": manifest.run_id,
        "outcomes": manifest.fetch.outcomes,
        "failed": [failed.model_dump() for failed in manifest.failed],
        "inventory_is_whole": manifest.inventory.is_whole,
        "inventory_warning": inventory_warning(manifest.inventory),
        "list_error": manifest.fetch.list_error,
        "notebooks_error": manifest.fetch.notebooks_error,
        "is_sandbox": manifest.fetch.is_sandbox,
        "manifest": str(lake.manifest(partition)),
        "tables": {
            name: {"path": str(lake.root / file.path), "rows": file.rows, "bytes": file.bytes, "sha256": file.sha256}
            for name, file in [*manifest.files.items(), *(seal.files.items() if seal else ())]
        },
        "summary": seal.summary.model_dump(mode="json") if seal else None,
        "report": str(lake.report(partition)) if exists(lake.report(partition)) else None,
    }


def _print_reports(reports: list[dict[str, Any]]) -> None:
    from pipelines.derived import DaySummary

    rows = [
        (report["date"], report["project"], name, f"{file['rows']:,}", f"{file['bytes']:,}", _short(file["path"]))
        for report in reports
        if "tables" in report and report["date"] == reports[-1]["date"]
        for name, file in report["tables"].items()
    ]
    if rows:
        print_table("Published", ("date", "project", "table", "rows", "bytes", "file"), rows)
    for report in reports:
        outcomes = _outcomes(report.get("outcomes", {}))
        print_line(f"{report['date']} {report['project']}: {report['state']}" + (f" ({outcomes})" if outcomes else ""))
        if report.get("is_sandbox"):
            print_line("  sample data: the images are invented ones of the sandbox")
        invalid = report.get("outcomes", {}).get(Outcome.INVALID_ID, 0)
        if invalid:
            where = _short(report["tables"]["responses"]["path"])
            print_line(f"  no UUID, never sent: {count_text(invalid, 'id')} (outcome invalid_id in {where})")
        failed = report.get("failed", [])
        if failed:
            shown = ", ".join(f"{item['id']} ({item['error_code']})" for item in failed[:5])
            print_line(f"  without an answer: {shown}" + (f" and {len(failed) - 5} more" if len(failed) > 5 else ""))
        for error in ("inventory_warning", "list_error", "notebooks_error"):
            if report.get(error):
                print_line(f"  {report[error]}")
        if report["state"] != "failed" and report.get("error"):
            print_line("  published; what follows from it is not all there, see the error above")
        if report.get("summary") and not report.get("error"):
            for line in summary_lines(DaySummary.model_validate(report["summary"])):
                print_line(f"  {line}")
    if reports and reports[-1].get("report"):
        print_line(f"Report: {_short(reports[-1]['report'])}")


def summary_lines(summary: "DaySummary") -> list[str]:
    """A day in five lines: images, changes, findings, bytes, estimated cost; a sixth where a rule is broken."""
    if not summary.is_complete:
        changes = "not compared, because the day is incomplete; they show on the next complete day"
    elif summary.compared_with is None:
        changes = "none known, because there is no complete day before this one"
    else:
        counts = [f"{count:,} {change}" for change, count in summary.changes.items()]
        changes = (", ".join(counts) or "none") + f" since {summary.compared_with}"
    findings = ", ".join(f"{count:,} {severity}" for severity, count in summary.findings.items() if count) or "none"
    resolved, suppressed = summary.resolved_findings, summary.suppressed_findings
    life = f"{summary.new_findings:,} new, {resolved:,} resolved, {suppressed:,} suppressed"
    growth = (
        ""
        if summary.growth_bytes is None
        else f", {size_text(summary.growth_bytes, signed=True)} since the last complete day"
    )
    free = ""
    if summary.reclaimable_bytes:
        free = f"; deleting unused images would free at most {size_text(summary.reclaimable_bytes)}"
    cost = (
        "unknown" if summary.estimated_cost is None else f"{summary.estimated_cost:,.2f} {summary.currency} for the day"
    )
    if not summary.is_priced:
        cost += " (the price book states no price above zero: see docs/costs.md)"
    elif summary.unpriced:
        cost += f" ({count_text(summary.unpriced, 'image')} without a price)"
    lines = [
        f"images    {summary.images:,}",
        f"changes   {changes}",
        f"findings  {findings} ({life})",
        f"bytes     {size_text(summary.total_bytes)}{growth}{free}",
        f"cost      {cost}, an estimate",
    ]
    lines += [f"rule {rule} failed: {reason}" for rule, reason in summary.rule_errors.items()]
    return lines


def _short(path: str) -> str:
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def _outcomes(counts: dict[str, int]) -> str:
    """Outcomes with their counts, in the order in which `Outcome` defines them."""
    return ", ".join(f"{counts[outcome]:,} {outcome}" for outcome in Outcome if outcome in counts)


@app.command()
def status(
    days: Annotated[int, typer.Option(min=1, max=3660, help="How many days back, today included.")] = 14,
    as_json: JsonOption = False,
) -> None:
    """List the last days: complete, incomplete, unfinished (the next run goes on), missing or damaged."""
    settings = Settings.load()
    today = _today()
    lake = open_lake(settings)
    statuses = day_statuses(lake, settings.project_keys, today - dt.timedelta(days=days - 1), today)
    _print_clock_warnings(lake, [*settings.project_keys, *(partition.project for partition in known_partitions(lake))])
    if as_json:
        print(json.dumps([item.as_json() for item in statuses], indent=1))
        return
    rows = [
        (
            str(item.date),
            item.project,
            item.state
            + (" (sandbox)" if item.is_sandbox else "")
            + (", attempt open" if item.has_open_attempt and item.state != "unfinished" else "")
            + _removed(item.removed),
            "" if item.images is None else f"{item.images:,}",
            _outcomes(item.outcomes or {}),
            "" if item.bytes is None else f"{item.bytes:,}",
            "" if item.published_at is None else f"{item.published_at:%Y-%m-%d %H:%M:%S}",
        )
        for item in statuses
    ]
    print_table("Days", ("date", "project", "state", "images", "outcomes", "bytes", "published (UTC)"), rows)


def _removed(tables: list[str]) -> str:
    kinds = {"answers" if table in ANSWER_TABLES else "tables" for table in tables}
    return f", {' and '.join(sorted(kinds))} removed" if kinds else ""


app.command()(verify)
app.command()(query)
app.command()(compact)
app.command()(retention)


@app.command()
def report(
    date: DateOption = None,
    project: ProjectOption = None,
    output: Annotated[Path | None, typer.Option("--output", help="File to write instead of the lake's.")] = None,
) -> None:
    """Write the report of a published day: one HTML file per project that needs nothing else."""
    from pipelines.report import write_report

    settings = Settings.load()
    lake = open_lake(settings)
    projects = _projects(settings, project)
    if output is not None and len(projects) > 1:
        raise ConfigurationError("--output takes one report, and there are several projects: choose with --project.")
    note_sandbox(lake)
    days = {key: [day for day in lake.partitions() if day.project == key] for key in projects}
    for key in projects:
        day = parse_date(date) or (days[key][-1].date if days[key] else _today())
        print_line(_short(str(write_report(lake, Partition(day, key), output))))


@app.command()
def focus(
    output: Annotated[Path, typer.Option("--output", help="File to write: .csv or .parquet.")],
    first: Annotated[
        str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="First day; default: the 1st.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="Last day; default: today.")] = None,
    project: ProjectOption = None,
) -> None:
    """Export the estimated costs under the column names of FOCUS, the FinOps cost and usage specification."""
    from pipelines.costs import write_focus

    settings = Settings.load()
    note_sandbox(open_lake(settings))
    until = parse_date(last) or _today()
    rows = write_focus(
        open_lake(settings), parse_date(first) or until.replace(day=1), until, _projects(settings, project), output
    )
    print_line(f"{output}: {count_text(rows, 'row')}, estimates and no bill")


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def sandbox(context: typer.Context) -> None:
    """Serve a ModelArts-compatible endpoint on loopback; prints the settings that point a client at it."""
    from pipelines.sandbox.__main__ import main as sandbox_main

    load_environment()
    raise typer.Exit(sandbox_main(context.args, "image-snapshots sandbox"))


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 3000,
) -> None:
    """Open Dagster's UI on the runs, assets and schedule; Ctrl-C ends it."""
    from assets.runner import use_instance_home

    Settings.load()
    use_instance_home()
    workspace = str(ROOT / "workspace.yaml")
    # The newer `dg dev` needs a package that only developers have.
    quiet = ["-W", "ignore:Function `dev_command` is superseded"]
    command = [sys.executable, *quiet, "-m", "dagster", "dev", "--workspace", workspace, "--host", "127.0.0.1"]
    # In place of this process, so that signals reach it.
    os.execv(sys.executable, [*command, "--port", str(port)])  # noqa: S606
