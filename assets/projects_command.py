"""The command `projects`: lists what each project resolves to; `--check` tries each against its endpoint.

The trial itself belongs to `pipelines.snapshot.trial`.
"""

import contextlib
import dataclasses
import datetime as dt
import json
import os
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console

from assets.terminal import (
    COMPLETE,
    FAILED,
    USAGE,
    JsonOption,
    ProjectOption,
    count_text,
    print_line,
    print_note,
    print_table,
)
from pipelines.errors import ConfigurationError, PipelineError
from pipelines.lake.layout import Partition
from pipelines.settings import Settings


@dataclass(slots=True)
class Resolved:
    """What one project resolves to, without secrets. `error`: why it does not, or would not work.

    `cloud_project`: its id in the cloud, or its name until the login tells the id. `endpoint_origin`: what the endpoint
    follows from; None if it is stated. `credentials`: where they are from.
    `works` and `images` (which the image list counts in the first workspace) are None unless it was tried.
    """

    project: str
    cloud_project: str | None = None
    endpoint: str | None = None
    endpoint_origin: str | None = None
    credentials: str | None = None
    inventory: str | None = None
    workspaces: str = ""
    usage: str = ""
    concurrency: int = 0
    rate_limit: float | None = None
    price_book: str = ""
    works: bool | None = None
    images: int | None = None
    error: str | None = None


def projects(
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Log in to each, request one page of its image list, and say whether a run would work."
        ),
    ] = False,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what each project resolves to: endpoint, source of the credentials, inventory, workspaces; no secret."""
    settings = Settings.load()
    for key in project or []:
        if key not in settings.project_keys:
            raise ConfigurationError(f"--project {key} is not configured: choose from {_listed(settings)}.")
    found = [_resolve(settings, key) for key in settings.project_keys if key in (project or settings.project_keys)]
    for each in found if check else []:
        print_note(f"Trying {each.project}.")
        _try(settings, each)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(each) for each in found], indent=1))
    else:
        _print(found)
    if any(each.error is not None for each in found):
        raise typer.Exit(FAILED if check else USAGE)
    raise typer.Exit(COMPLETE)


def _listed(settings: Settings) -> str:
    return ", ".join(settings.project_keys)


def _resolve(settings: Settings, key: str) -> Resolved:
    from pipelines.cloud.credentials import PasswordLogin
    from pipelines.cloud.discovery import find_endpoint, regional
    from pipelines.cloud.options import Timeouts
    from pipelines.inventory.sources import LISTED, describe_source
    from pipelines.preflight import in_own_words
    from pipelines.snapshot.connection import check_region, project_credentials, stated_inventory, stated_project

    own = settings.for_project(key)
    found = Resolved(
        key,
        workspaces=own.workspaces,
        usage=",".join(own.usage_sources) or "none",
        concurrency=own.concurrency,
        rate_limit=own.rate_limit,
        price_book=str(own.price_book),
    )
    try:
        if own.uses_sandbox:
            # Listing it does not start it.
            found.endpoint, found.credentials = "the embedded sandbox", "those of the sandbox"
            stated = stated_inventory(own)
            found.inventory = describe_source(stated).name if stated else "that of the sandbox"
            return found
        project = stated_project(settings, key)
        credentials = project_credentials(key, project, os.environ)
        check_region(own, key, project, credentials)
        found.credentials = credentials.source
        found.cloud_project = credentials.project_id or getattr(credentials, "project_name", None)
        found.endpoint = own.endpoint
        likely = None
        if own.derives_endpoint and isinstance(credentials, PasswordLogin):
            # The catalogue of its token may name another one, also for a region that is not known here. Listing it does
            # not log in.
            with contextlib.suppress(ConfigurationError):
                likely = regional(credentials)
            found.endpoint = None if likely is None else likely.url
            found.endpoint_origin = (
                "the login" if likely is None else f"{likely.origin}, unless the login names another"
            )
        elif own.derives_endpoint:
            derived = find_endpoint(credentials, Timeouts(), own.ca_bundle)
            found.endpoint, found.endpoint_origin = derived.url, derived.origin
        found.inventory = describe_source(stated_inventory(own) or LISTED).name
    except PipelineError as error:
        found.error = in_own_words(str(error), own)
    return found


def _try(settings: Settings, found: Resolved) -> None:
    """Try a project, and note the result."""
    from assets.embedded_sandbox import connect
    from pipelines.preflight import check_inputs, in_own_words
    from pipelines.snapshot.snapshot_run import SnapshotRun
    from pipelines.snapshot.trial import try_project

    if found.error is None:
        try:
            check_inputs(settings.for_project(found.project))
            run = SnapshotRun(Partition(_today(), found.project), "", settings, connect=connect)
            trial = try_project(run)
        except PipelineError as error:
            found.error = in_own_words(str(error), settings.for_project(found.project))
        else:
            found.cloud_project, found.images = trial.project_id, trial.images
            if not settings.for_project(found.project).uses_sandbox:
                found.endpoint, found.endpoint_origin = trial.endpoint, trial.endpoint_origin
    found.works = found.error is None


def _print(found: list[Resolved]) -> None:
    rows = [
        {
            "project": each.project,
            "project id": each.cloud_project or "",
            "endpoint": _endpoint(each),
            "credentials": each.credentials or "",
            "inventory": each.inventory or "",
            "workspaces": each.workspaces,
            "requests per second": "" if each.rate_limit is None else f"{each.rate_limit:g}",
            "result": _result(each),
        }
        for each in found
    ]
    if not Console().is_terminal:
        print_table("Projects", tuple(rows[0]), [tuple(row.values()) for row in rows])
        return
    # Paths, addresses and sentences do not fit side by side.
    for row in rows:
        print_line(row.pop("project"))
        result = row.pop("result")
        for name, value in row.items():
            print_line(f"  {name:<19}  {value or '-'}")
        if result:
            print_line(f"  {result}")


def _endpoint(each: Resolved) -> str:
    if each.endpoint_origin is None:
        return each.endpoint or ""
    return f"{each.endpoint or 'known'} from {each.endpoint_origin}"


def _result(each: Resolved) -> str:
    """Whether a run of the project would work, in one sentence; empty if it is not known."""
    if each.error is not None:
        return f"would not work: {each.error}"
    if each.works is None:
        return ""
    counted = "" if each.images is None else f", and its image list counts {count_text(each.images, 'image')}"
    return f"would work: the API accepts the credentials{counted}."


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()
