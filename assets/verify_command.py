"""The command `verify`: prints the findings of `pipelines.maintenance.verify`.

Exit status: 0 no problem, 1 problems, 2 usage or configuration.
"""

import datetime as dt
import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from assets.notify_command import tell_news
from assets.terminal import (
    COMPLETE,
    FAILED,
    DateOption,
    JsonOption,
    ProjectOption,
    count_text,
    open_lake,
    parse_date,
    print_error,
    print_line,
)
from pipelines.errors import ConfigurationError, PipelineError
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import chain_head
from pipelines.settings import Settings


def verify(
    date: DateOption = None,
    project: ProjectOption = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Check only hashes, places and chains; derive nothing again.")
    ] = False,
    witness: Annotated[
        list[str] | None,
        typer.Option(
            "--witness",
            metavar="SHA256|FILE",
            help="A SHA-256 that was noted elsewhere, or a file with one per line; may be repeated.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Recompute hashes, chains and derived tables of published days, and name every change."""
    report: dict[str, Any] = {"partitions": 0, "quick": quick, "problems": [], "notes": [], "witnesses": []}
    try:
        settings = Settings.load()
        _verify(settings, parse_date(date), project, witness or [], report)
    except PipelineError as error:
        # Scripts get JSON even then.
        if as_json:
            typer.echo(json.dumps(report | {"error": str(error)}, indent=1))
        print_error(str(error))
        raise typer.Exit(error.exit_status) from None
    if as_json:
        typer.echo(json.dumps(report, indent=1))
    else:
        _print(report)
    raise typer.Exit(FAILED if report["problems"] else COMPLETE)


def _verify(
    settings: Settings,
    day: dt.date | None,
    chosen: list[str] | None,
    stated: list[str],
    report: dict[str, Any],
) -> None:
    """Verify, and add each finding to the report at once."""
    # Imported here, because it takes long.
    from pipelines.lake.derived_manifests import newest_derived_record
    from pipelines.lake.retention_records import last_record_sha256
    from pipelines.lake.witnesses import Witness, read_witnesses
    from pipelines.maintenance.verify import Note
    from pipelines.maintenance.verify import verify as verify_lake
    from pipelines.notify.events import Verification

    def on_note(note: Note) -> None:
        report["notes"].append({"path": note.path, "note": note.sentence})

    def on_witness(found: Witness, path: str) -> None:
        report["witnesses"].append({"sha256": found.sha256, "path": path})

    lake = open_lake(settings)
    is_whole_lake = day is None and not chosen
    witnesses = read_witnesses(stated)
    partitions = _partitions(lake, day, chosen)
    report["partitions"] = len(partitions)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("Verifying days", total=len(partitions))
        problems = verify_lake(
            lake,
            partitions,
            lambda _: bar.advance(task),
            settings=settings,
            quick=report["quick"],
            is_whole_lake=is_whole_lake,
            witnesses=witnesses,
            on_note=on_note,
            on_witness=on_witness,
        )
    if report["quick"]:
        on_note(Note("", "Left out by --quick: the content of rows, and deriving tables again."))
    elif problems:
        on_note(Note("", "Tables that depend on days with problems were not derived again."))
    if settings.warehouse is not None:
        on_note(Note("", "Not checked: the warehouse that IMAGE_SNAPSHOTS_WAREHOUSE names."))
    report["problems"] = [{"path": problem.path, "problem": problem.sentence} for problem in problems]
    found = [(problem.path, problem.sentence) for problem in problems]
    tell_news(settings, verification=Verification(found, is_whole_lake, report["quick"], bool(witnesses)))
    # Print the newest hashes only if the lake has no problems: otherwise they are not worth noting.
    projects = [] if problems else sorted({partition.project for partition in partitions})
    report["newest_manifest_sha256"] = {key: chain_head(lake, key) for key in projects}
    for name, newest in (
        ("newest_derived_record_sha256", newest_derived_record),
        ("newest_retention_record_sha256", last_record_sha256),
    ):
        report[name] = {key: digest for key in projects if (digest := newest(lake, key)) is not None}


def _partitions(lake: Lake, day: dt.date | None, chosen: list[str] | None) -> list[Partition]:
    """The chosen published days; none if the lake has only files made from days that are gone."""
    partitions = [
        partition
        for partition in lake.contents.partitions()
        if (day is None or partition.date == day) and (not chosen or partition.project in chosen)
    ]
    if not partitions and (day is not None or chosen or next(iter(lake.root.all_files()), None) is None):
        raise ConfigurationError(
            f"Nothing is published under {lake.root} for that choice: "
            "`image-snapshots status` lists the published days."
        )
    return partitions


def _print(report: dict[str, Any]) -> None:
    for note in report["notes"]:
        print_line(f"note: {note['path'] + ': ' if note['path'] else ''}{note['note']}")
    for found in report["witnesses"]:
        print_line(f"witness {found['sha256']}: {found['path']}")
    for problem in report["problems"]:
        print_line(f"{problem['path']}: {problem['problem']}")
    for name in ("manifest", "derived_record", "retention_record"):
        for key, digest in report[f"newest_{name}_sha256"].items():
            what = name.replace("derived_record", "derived manifest").replace("_", " ")
            print_line(f"newest {what} of {key}: SHA-256 {digest}")
    problems = count_text(len(report["problems"]), "problem")
    print_line(f"verified {count_text(report['partitions'], 'partition')}: {problems}")
