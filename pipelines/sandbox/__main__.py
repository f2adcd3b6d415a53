"""The command line of a sandbox: `python -m pipelines.sandbox`. It only turns arguments into `SandboxOptions`."""

import argparse
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from pipelines.errors import PipelineError
from pipelines.sandbox.options import Faults, SandboxOptions
from pipelines.sandbox.server import serve


def main(words: Sequence[str] | None = None, program: str = "python -m pipelines.sandbox") -> int:
    """Run a sandbox; returns the exit status."""
    try:
        serve(_options(words, program))
    except PipelineError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


def _options(words: Sequence[str] | None, program: str) -> SandboxOptions:
    default = SandboxOptions()
    parser = argparse.ArgumentParser(prog=program, description="A ModelArts-compatible endpoint on loopback.")
    parser.add_argument("--port", type=int, default=default.port, help="on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--seed", default=default.seed, help="equal seeds give equal catalogues")
    parser.add_argument("--size", type=int, default=default.size, help="images of each project")
    parser.add_argument("--day", type=date.fromisoformat, help="YYYY-MM-DD; default: today (UTC), over midnight")
    parser.add_argument("--workspaces", type=int, default=default.workspaces, help="1 or 2")
    parser.add_argument(
        "--second-workspace-since", type=date.fromisoformat, help="YYYY-MM-DD, with two; default: it always exists"
    )
    parser.add_argument("--projects", action="append", type=_project, metavar="NAME=ID", help="may be repeated")
    parser.add_argument("--inventory-file", type=Path, metavar="CSV", help="write the registered images to it")
    parser.add_argument("--bills-directory", type=Path, metavar="DIRECTORY", help="write the bill there (FOCUS, CSV)")
    parser.add_argument("--exit-with-parent", action="store_true", help="end when standard input closes")
    faults = parser.add_argument_group("faults")
    faults.add_argument("--faults", type=_json_object, default={}, metavar="JSON", help="all of them as one object")
    for name, field in Faults.model_fields.items():
        if field.annotation is bool:
            faults.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=field.description)
        elif name != "answers":
            faults.add_argument(f"--{name.replace('_', '-')}", help=field.description)
    given = vars(parser.parse_args(words))
    chosen = {name: given[name] for name in Faults.model_fields if given.get(name)}
    try:
        wanted = Faults.model_validate(given["faults"] | chosen)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        parser.error(f"{'.'.join(map(str, first['loc'])) or 'faults'}: {first['msg']}")
    return SandboxOptions(
        port=given["port"],
        seed=given["seed"],
        size=given["size"],
        day=given["day"],
        workspaces=given["workspaces"],
        second_workspace_since=given["second_workspace_since"],
        projects=dict(given["projects"]) if given["projects"] else None,
        faults=wanted,
        inventory_file=given["inventory_file"],
        bills_directory=given["bills_directory"],
        exit_with_parent=given["exit_with_parent"],
    )


def _project(text: str) -> tuple[str, str]:
    name, separator, project_id = text.partition("=")
    if not (name and separator and project_id):
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=ID")
    return name, project_id


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return value


if __name__ == "__main__":
    sys.exit(main())
