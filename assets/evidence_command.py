"""The command `evidence`: exports what is known of one image, with proofs that a third party can check."""

import json
from pathlib import Path
from typing import Annotated

import typer

from assets.terminal import JsonOption, check_output, count_text, note_sandbox, open_lake, parse_date, print_line
from pipelines.errors import ConfigurationError
from pipelines.lake.manifests import known_partitions
from pipelines.settings import Settings


def evidence(
    image: Annotated[str, typer.Option("--image", metavar="ID", help="Id of the image.")],
    output: Annotated[Path, typer.Option("--output", metavar="FILE.zip", help="The file to write; outside the lake.")],
    first: Annotated[
        str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="First day. Default: the project's first.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="Last day. Default: the project's last.")
    ] = None,
    project: Annotated[
        str | None, typer.Option("--project", help="Key of the project; needed if the lake has several.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Export the evidence on one image, with its proofs, as a ZIP file that anyone can check without this software."""
    from pipelines.query.evidence_export import export_evidence

    lake = open_lake(Settings.load())
    check_output(lake, output)
    since, until = parse_date(first), parse_date(last)
    if since and until and until < since:
        raise ConfigurationError(f"--to {until} is before --from {since}: exchange them.")
    projects = sorted({partition.project for partition in known_partitions(lake)})
    if not projects:
        raise ConfigurationError(f"Nothing is published in the lake {lake.root}: see IMAGE_SNAPSHOTS_LAKE.")
    if project is None and len(projects) > 1:
        raise ConfigurationError(f"The lake has several projects: name one with --project: {', '.join(projects)}.")
    if project is not None and project not in projects:
        raise ConfigurationError(f"--project {project} has no days in {lake.root}: choose from {', '.join(projects)}.")
    note_sandbox(lake)
    done = export_evidence(lake, project or projects[0], image.strip().lower(), since, until, output)
    if as_json:
        facts = {"days": done.days, "proved": done.proved, "newest_manifest_sha256": done.newest_manifest_sha256}
        typer.echo(json.dumps({"output": str(output), "project": done.project} | facts, indent=1))
        return
    print_line(f"{output}: {count_text(done.proved, 'response')} of {count_text(done.days, 'published day')}, proved.")
    print_line(f"Newest manifest: SHA-256 {done.newest_manifest_sha256}")
    print_line(f"Check it anywhere: unpack it, then `python3 check.py`; or `python3 check.py {output.name}`.")
