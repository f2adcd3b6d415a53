"""The command line `image-snapshots`.

Exit status: 0 complete, 1 failed, 2 usage or configuration, 3 published but incomplete. Output is a table on a
terminal, plain lines when piped, and JSON with `--json`. The work of a command belongs to `pipelines`, running a job
through Dagster to `assets.runner`. Commands import slow modules only when they need them.
"""

import contextlib
import datetime as dt
import errno
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from assets.evidence_command import evidence
from assets.importing import lasting_imports
from assets.metrics_command import measure, metrics
from assets.notify_command import notify, tell_news
from assets.projects_command import projects
from assets.query_command import QueryCommand, query
from assets.run_report import print_reports, run_report, short_path
from assets.status_command import print_clock_warnings, status
from assets.streams import lasting_streams, output_loss
from assets.terminal import (
    COMPLETE,
    FAILED,
    INCOMPLETE,
    USAGE,
    Commands,
    DateOption,
    JsonOption,
    ProjectOption,
    check_output,
    count_text,
    note_sandbox,
    open_lake,
    parse_date,
    print_error,
    print_line,
    print_note,
    print_warning,
)
from assets.upkeep_commands import compact, retention
from assets.verify_command import verify
from pipelines.errors import ConfigurationError, PipelineError
from pipelines.fingerprint import code_version
from pipelines.lake.failures import Failure, note_failure
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import published, read_attempt
from pipelines.settings import ROOT, Settings, load_environment

if TYPE_CHECKING:
    from pipelines.lake.retention_records import RetentionRecords

_Item = TypeVar("_Item")

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


class Mode(StrEnum):
    """Which images a run fetches."""

    FULL = "full"
    CHANGED = "changed"


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print_line(f"image-snapshots {code_version()}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version, as in manifests."),
    ] = False,
) -> None:
    """Daily, provable Parquet snapshots of ModelArts images."""


@lasting_streams()
def main() -> None:
    """Run the command line; a PipelineError ends it with one sentence and the error's exit status."""
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
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard the responses of an unfinished attempt.")] = False,
    mode: Annotated[
        Mode | None, typer.Option(help="Fetch every image, or only those that the image list shows as changed.")
    ] = None,
    accept_shrunk: Annotated[
        bool,
        typer.Option(
            "--accept-shrunk-inventory",
            help="The inventory is right although it lacks many known images: those count as gone.",
        ),
    ] = False,
    project_moved: Annotated[
        bool,
        typer.Option("--project-moved", help="The project has a new id or endpoint from today on, but is the same."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Take today's snapshot: inventory, fetch, normalise, publish.

    An unfinished attempt of today is resumed; a published day is fetched again and replaced.
    """
    with lasting_imports():
        from assets.derived_endpoints import note_derived_endpoints
        from assets.resources import ACCEPT_SHRUNK_TAG, FRESH_TAG, PROJECT_MOVED_TAG
        from pipelines.preflight import check_inputs
        from pipelines.snapshot.snapshot_run import SnapshotRun

    settings = Settings.load()
    if mode is not None:
        settings = settings.model_copy(update={"mode": mode.value})
    projects = _projects(settings, project)
    own = {key: settings.for_project(key) for key in projects}
    if days is not None and not all(each.uses_sandbox for each in own.values()):
        raise ConfigurationError(
            "--days plays days of the embedded sandbox; a real endpoint (IMAGE_SNAPSHOTS_ENDPOINT) has no past days."
        )
    if days is not None and date is not None:
        raise ConfigurationError("--days and --date exclude each other: --days ends with today.")
    last = parse_date(date) or _today()
    played = [last - dt.timedelta(days=back) for back in range((days or 1) - 1, -1, -1)]
    partitions = [Partition(day, key) for day in played for key in projects]

    def check_run(partition: Partition) -> None:
        run = SnapshotRun(partition, "", settings, _clock(partition, days), is_played=days is not None)
        run.check_date(None if fresh else read_attempt(run.lake, partition))
        run.check_source()
        run.check_clock()

    try:
        _check_each(projects, lambda key: check_inputs(own[key]))
        _check_each(partitions, check_run)
    except PipelineError as error:
        # A wrong day on the command line is nobody's failed run.
        if last == _today():
            _note_failure(settings, projects, str(error))
        raise
    sandboxed = [key for key in projects if own[key].uses_sandbox]
    if sandboxed:
        whose = "" if len(sandboxed) == len(projects) else f" for {', '.join(sandboxed)}"
        print_note(
            f"No endpoint is configured (IMAGE_SNAPSHOTS_ENDPOINT){whose}: the embedded sandbox is used instead of the "
            "cloud."
            if any(own[key].endpoint is None for key in sandboxed)
            else f"The embedded sandbox is used instead of the cloud{whose}, as IMAGE_SNAPSHOTS_ENDPOINT says."
        )
    note_derived_endpoints(settings, projects)
    said = {FRESH_TAG: fresh, ACCEPT_SHRUNK_TAG: accept_shrunk, PROJECT_MOVED_TAG: project_moved}
    tags = {tag: "true" for tag, is_said in said.items() if is_said}
    _run_jobs(settings, partitions, ["daily_snapshot"] * len(partitions), as_json=as_json, days=days, tags=tags)


def _check_each(items: Iterable[_Item], check: Callable[[_Item], None]) -> None:
    """Check each project or partition before the first run begins. One that is refused does not stop the others.

    Its own run reports why. If all are refused for the same reason, that is raised, and no run begins.
    """
    refusals: list[PipelineError | None] = []
    for item in items:
        try:
            check(item)
        except PipelineError as error:
            refusals.append(error)
        else:
            refusals.append(None)
    if refusals and refusals[0] is not None and len(set(map(str, refusals))) == 1:
        raise refusals[0]


def _note_failure(settings: Settings, projects: list[str], sentence: str) -> None:
    """Note why today's run did not begin, for `status`, and tell it."""
    for project in projects:
        partition = Partition(_today(), project)
        # Skip a partition that another run holds: that run reports it. The error itself is printed in any case.
        with contextlib.suppress(PipelineError), (lake := open_lake(settings)).locks.partition(partition, "none"):
            note_failure(
                lake, partition, Failure(at=dt.datetime.now(dt.UTC), run_id="none", step=None, sentence=sentence)
            )
    tell_news(settings, [(Partition(_today(), key), None, sentence) for key in projects])


def _clock(partition: Partition, days: int | None) -> Callable[[], dt.datetime]:
    """The clock of a run; for a day that the sandbox plays, it shows that day."""
    from pipelines.run import utc_now

    if days is None:
        return utc_now
    return lambda: dt.datetime.combine(partition.date, utc_now().timetz())


@app.command()
def rebuild(
    date: DateOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every published day whose files retention has kept.")] = False,
    project: ProjectOption = None,
    accept_history: Annotated[
        str | None,
        typer.Option(
            "--accept-history", metavar="SHA256", help="Accept the history with this SHA-256, which no record names."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Derive published days again from their stored responses, without any request to the API."""
    from assets.resources import ACCEPT_HISTORY_TAG
    from pipelines.lake.retention_records import RetentionRecords, is_derivable
    from pipelines.preflight import check_inputs

    settings = Settings.load()
    day = parse_date(date)
    if (day is None) == (not every):
        raise ConfigurationError("State the day to rebuild: --date YYYY-MM-DD, or --all.")
    projects = _projects(settings, project)
    _check_each(projects, lambda key: check_inputs(settings.for_project(key)))
    if day is not None:
        partitions = [Partition(day, key) for key in projects]
    else:
        lake = open_lake(settings)
        removed = {key: RetentionRecords(lake, key) for key in projects}
        partitions = [
            partition
            for partition in lake.contents.partitions()
            if partition.project in projects and is_derivable(lake, partition, removed[partition.project])
        ]
    last = {partition.project: partition for partition in partitions}
    # The derived tables are updated once for all days, with the last day of each project.
    jobs = ["rebuild_images" if partition in last.values() else "republish_images" for partition in partitions]
    tags = {ACCEPT_HISTORY_TAG: accept_history} if accept_history else {}
    _run_jobs(settings, partitions, jobs, as_json=as_json, tags=tags)


FromOption = Annotated[str, typer.Option("--from", metavar="YYYY-MM-DD", help="First day.")]
ToOption = Annotated[
    str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="Last day; default: the last published day.")
]


@app.command()
def derive(
    first: FromOption, last: ToOption = None, project: ProjectOption = None, as_json: JsonOption = False
) -> None:
    """Derive changes, findings and costs of published days again, such as after a new price or rule, and load them.

    The days themselves, with their evidence and manifests, stay unchanged.
    """
    from assets.build import DERIVE_JOB
    from pipelines.lake.retention_records import is_derivable
    from pipelines.preflight import check_inputs

    settings = Settings.load()
    _check_each(_projects(settings, project), lambda key: check_inputs(settings.for_project(key)))
    partitions = _published_between(settings, first, last, project, is_derivable)
    _run_jobs(settings, partitions, [DERIVE_JOB] * len(partitions), as_json=as_json)


@app.command()
def load(first: FromOption, last: ToOption = None, project: ProjectOption = None, as_json: JsonOption = False) -> None:
    """Load published days into the warehouse and the Iceberg catalog again; changes nothing else."""
    from assets.build import LOAD_JOB
    from pipelines.preflight import check_inputs
    from pipelines.warehouse.sources import is_loadable

    settings = Settings.load()
    _check_each(_projects(settings, project), lambda key: check_inputs(settings.for_project(key)))
    if not settings.loads_warehouse and settings.catalog is None:
        raise ConfigurationError(
            "There is nothing to load into: set IMAGE_SNAPSHOTS_WAREHOUSE or IMAGE_SNAPSHOTS_CATALOG."
        )
    partitions = _published_between(settings, first, last, project, is_loadable)
    _run_jobs(settings, partitions, [LOAD_JOB] * len(partitions), as_json=as_json)


def _published_between(
    settings: Settings,
    first: str,
    last: str | None,
    project: list[str] | None,
    is_whole: Callable[[Lake, Partition, "RetentionRecords"], bool],
) -> list[Partition]:
    """The published days in a range whose files retention has kept, in order.

    Raises:
        ConfigurationError: there are none.
    """
    from pipelines.lake.retention_records import RetentionRecords

    lake = open_lake(settings)
    projects = _projects(settings, project)
    begin, end = parse_date(first), parse_date(last)
    removed = {key: RetentionRecords(lake, key) for key in projects}
    found = [
        day
        for day in lake.contents.partitions()
        if day.project in projects and (begin is None or begin <= day.date) and (end is None or day.date <= end)
    ]
    whole = [day for day in found if is_whole(lake, day, removed[day.project])]
    if not whole:
        reason = "retention removed their files" if found else "`image-snapshots status` lists the published days"
        raise ConfigurationError(
            f"No day from {first} to {last or 'the last'} can be used for {', '.join(projects)} in {lake.root}: "
            f"{reason}."
        )
    return whole


def _run_jobs(
    settings: Settings,
    partitions: list[Partition],
    jobs: list[str],
    *,
    as_json: bool,
    days: int | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Run a job for each partition and print the results; a failing partition does not stop the others."""
    # These imports take seconds.
    print_note(f"Starting {count_text(len(partitions), 'run')}.")
    with lasting_imports():
        from assets.runner import Runner
        from pipelines.derive.suppression_targets import suppression_warnings

    lake = open_lake(settings)
    reports: list[dict[str, Any]] = []
    with Runner(settings) as runner:
        failures = []
        for partition, job in zip(partitions, jobs, strict=True):
            failure = runner.run(job, partition, _clock(partition, days), tags, is_played=days is not None)
            failures.append(failure)
            if failure is not None:
                print_error(failure.sentence)
                if failure.is_interrupt:
                    break
    # After an interruption there are fewer failures than partitions; the rest is not reported.
    for partition, failure in zip(partitions, failures, strict=False):
        is_published = failure is None or failure.came_after_publication
        manifest = published(lake, partition) if is_published else None
        if failure is not None and manifest is not None:
            status = INCOMPLETE
        elif failure is not None:
            status = failure.exit_status
        else:
            status = COMPLETE if manifest and manifest.is_complete else INCOMPLETE
        reports.append(run_report(lake, partition, status, failure.sentence if failure else None, manifest))
    if as_json:
        print(json.dumps(reports, indent=1))
    else:
        print_reports(reports)
    print_clock_warnings(lake, [partition.project for partition in partitions])
    # A failed run has already reported its error, perhaps about these files.
    if all(failure is None for failure in failures):
        for warning in suppression_warnings(lake, settings, _today()):
            print_warning(warning)
    ended = zip(partitions, failures, strict=False)
    tell_news(settings, [(partition, ended_by.step, ended_by.told) for partition, ended_by in ended if ended_by])
    for warning in measure(settings, lake):
        print_warning(warning)
    statuses = {report["exit_status"] for report in reports}
    if output_loss() is not None:
        statuses.add(INCOMPLETE)
    raise typer.Exit(next((code for code in (FAILED, USAGE, INCOMPLETE) if code in statuses), COMPLETE))


app.command()(status)
app.command()(notify)
app.command()(metrics)
app.command()(projects)
app.command()(verify)
app.command(cls=QueryCommand)(query)
app.command()(evidence)
app.command()(compact)
app.command()(retention)


@app.command()
def report(
    date: DateOption = None,
    project: ProjectOption = None,
    output: Annotated[Path | None, typer.Option("--output", help="File to write instead of the lake's.")] = None,
) -> None:
    """Write the report of a published day: one self-contained HTML file per project."""
    from pipelines.report.page import write_report

    settings = Settings.load()
    lake = open_lake(settings)
    projects = _projects(settings, project)
    if output is not None and len(projects) > 1:
        raise ConfigurationError("--output takes one report, but there are several projects: choose with --project.")
    check_output(lake, output)
    note_sandbox(lake)
    days = {key: [day for day in lake.contents.partitions() if day.project == key] for key in projects}
    for key in projects:
        day = parse_date(date) or (days[key][-1].date if days[key] else _today())
        print_line(short_path(str(write_report(lake, Partition(day, key), output))))


@app.command()
def focus(
    output: Annotated[Path, typer.Option("--output", help="File to write: .csv or .parquet.")],
    first: Annotated[
        str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="First day; default: the 1st.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="Last day; default: today.")] = None,
    project: ProjectOption = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="CSV: keep text that a spreadsheet would run as a formula as it is.")
    ] = False,
) -> None:
    """Export the estimated costs under the column names of FOCUS, the FinOps cost and usage specification."""
    from pipelines.derive.costs import write_focus

    settings = Settings.load()
    lake = open_lake(settings)
    check_output(lake, output)
    note_sandbox(lake)
    until = parse_date(last) or _today()
    since, keys = parse_date(first) or until.replace(day=1), _projects(settings, project)
    rows = write_focus(lake, since, until, keys, output, exact=exact)
    print_line(f"{output}: {count_text(rows, 'row')}: estimates, and the bill where it is known")


@app.command()
def ddl(
    warehouse: Annotated[str, typer.Argument(metavar="WAREHOUSE", help="Such as snowflake; any other lists all.")],
) -> None:
    """Print the statements that give a warehouse the tables: by the Iceberg catalog, or by the lake's files."""
    from pipelines.inputs.catalog_places import parse_catalog
    from pipelines.warehouse.attaching import ATTACHING
    from pipelines.warehouse.ddl import SCRIPTS

    if warehouse not in SCRIPTS:
        raise ConfigurationError(f"There is no script for {warehouse!r}: choose one of {', '.join(SCRIPTS)}.")
    catalog = Settings.load().catalog
    if catalog is not None and warehouse in ATTACHING:
        typer.echo(ATTACHING[warehouse](parse_catalog(catalog)), nl=False)
    else:
        typer.echo(SCRIPTS[warehouse](), nl=False)


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def sandbox(context: typer.Context) -> None:
    """Serve a ModelArts-compatible endpoint on loopback, and print the settings for clients."""
    from pipelines.sandbox.__main__ import main as sandbox_main

    load_environment()
    raise typer.Exit(sandbox_main(context.args, "image-snapshots sandbox"))


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 3000,
) -> None:
    """Start Dagster's UI with runs, assets and schedule; Ctrl-C ends it."""
    from assets.run_history import use_instance_home

    Settings.load()
    _check_free(port)
    use_instance_home()
    workspace = str(ROOT / "workspace.yaml")
    # The newer `dg dev` needs a package that only developers have.
    quiet = ["-W", "ignore:Function `dev_command` is superseded"]
    command = [sys.executable, *quiet, "-m", "dagster", "dev", "--workspace", workspace, "--host", "127.0.0.1"]
    # Replace this process, so that signals reach Dagster.
    os.execv(sys.executable, [*command, "--port", str(port)])  # noqa: S606


def _check_free(port: int) -> None:
    """Check that the UI's port is free. Dagster itself would continue without its page, and so would its scheduler.

    Raises:
        ConfigurationError: the port is in use, or this user may not serve there.
    """
    with socket.socket() as probe:
        # As the server does: old connections of a past server do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError as error:
            raise ConfigurationError(
                f"The UI cannot be served at 127.0.0.1:{port} ({error.strerror}): choose another port with --port, or "
                f"end the program that uses it. It may be an `image-snapshots ui` that shows the same at "
                f"http://127.0.0.1:{port}."
                if error.errno == errno.EADDRINUSE
                else f"The UI cannot be served at 127.0.0.1:{port} ({error.strerror}): choose another port with --port."
            ) from None
