"""Tries whether a project's run would work: logs in, and requests one page of the image list. Writes nothing."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

from pipelines.cloud.paging import IMAGES
from pipelines.cloud.service import Reading
from pipelines.snapshot.connection import Connection
from pipelines.snapshot.scope import DEFAULT_WORKSPACE
from pipelines.snapshot.snapshot_run import SnapshotRun


@dataclass(frozen=True, slots=True)
class Trial:
    """What the API said: the project's id, and how many images its list counts in a workspace (None: not stated).

    `endpoint_origin`: what the endpoint follows from; None if it is stated.
    """

    endpoint: str
    endpoint_origin: str | None
    project_id: str
    workspace: str
    images: int | None


def try_project(run: SnapshotRun) -> Trial:
    """Log in as a run of the project would, and request the first page of the image list of its first workspace.

    Raises:
        PipelineError: a run would be refused, or the login or the list fails.
    """
    run.check_source()
    with run.connect(run.settings, run.partition) as connection:
        return asyncio.run(_ask(run, connection))


async def _ask(run: SnapshotRun, connection: Connection) -> Trial:
    async with connection.client(run.observed_by) as client:
        workspace = (run.settings.stated_workspaces or [DEFAULT_WORKSPACE])[0]
        images: int | None = 0
        async with aclosing(client.pages(Reading(IMAGES), workspace)) as pages:
            async for page in pages:
                images = page.total
                break
        # After the request: the id of a project that the credentials cannot use proves nothing.
        run.check_project(client.project_id, connection.host)
        return Trial(connection.endpoint, connection.origin, client.project_id, workspace, images)
