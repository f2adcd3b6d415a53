"""Decides which workspaces a day reads: those that the user states, those that the API lists, or those known so far.

A list of the API shows one workspace, the default one unless a request names another. The manifest therefore records
which workspaces were read. What lies outside of them is unknown.
"""

import datetime as dt
from collections.abc import Iterable
from typing import Any

from pipelines.bodies.list_page import text_at
from pipelines.cloud.modelarts import ModelArtsClient
from pipelines.cloud.paging import Listing
from pipelines.cloud.service import Reading
from pipelines.errors import ListDeniedError, ListMissingError, ListUnreadableError
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import UNREAD, ScopeFacts, last_complete_day
from pipelines.lake.parquet_files import read_batches
from pipelines.lake.storage import LakePath
from pipelines.tables import IMAGES

DEFAULT_WORKSPACE = "0"
STATED, ASKED, ASSUMED = "stated", "asked", "assumed"

_BATCH_ROWS = 10_000

_WORKSPACES = Listing(
    "workspace",
    "/v1/{project_id}/workspaces",
    items="workspaces",
    total="total_count",
    workspace=(),
    may_be_missing=True,
)


class Scope:
    """The `workspaces` of a day, in the order in which they became known.

    `outside`: workspaces that responses name but that are not read.
    """

    def __init__(self, workspaces: Iterable[str], origin: str, error: str | None = None) -> None:
        self.workspaces = list(dict.fromkeys(workspaces))
        self.outside: set[str] = set()
        self._origin, self._error = origin, error

    def note(self, workspace: str | None) -> None:
        """Note a workspace that a response names. It is read too, unless the user or the API stated all workspaces."""
        if workspace is None or workspace in self.workspaces:
            return
        if self._origin in (ASSUMED, UNREAD):
            self.workspaces.append(workspace)
        else:
            self.outside.add(workspace)

    @property
    def facts(self) -> ScopeFacts:
        """The scope in the form that the manifest stores."""
        return ScopeFacts(
            workspaces=list(self.workspaces), origin=self._origin, error=self._error, outside=sorted(self.outside)
        )


async def find_scope(client: ModelArtsClient, stated: Iterable[str] | None, known: Iterable[str]) -> Scope:
    """Find the workspaces to read: `stated`, or those that the API lists.

    If the API has no such list or denies it, the workspaces `known` so far are read. If the list fails or is
    incomplete, they are read as well, but there may be others, so usage is not observed on that day.

    Raises:
        PipelineError: no request can succeed.
    """
    if stated is not None:
        return Scope(stated, STATED)
    reading = Reading(_WORKSPACES)
    found: list[str] = []
    try:
        async for some in client.rows(reading, None, _id):
            found += [id_ for id_ in some if id_]
    except (ListMissingError, ListDeniedError) as error:
        return Scope([DEFAULT_WORKSPACE, *known], ASSUMED, str(error))
    except ListUnreadableError as error:
        return Scope([DEFAULT_WORKSPACE, *known], UNREAD, str(error))
    if reading.shortfall:
        missing = f"The workspace list of {client.host} counts {reading.shortfall} workspaces that it does not show."
        return Scope([DEFAULT_WORKSPACE, *found, *known], UNREAD, missing)
    return Scope([DEFAULT_WORKSPACE, *found], ASKED)


def known_workspaces(lake: Lake, partition: Partition) -> list[str]:
    """The workspaces of the images of the last complete day."""
    day = last_complete_day(lake, partition)
    images = None if day is None else lake.table(IMAGES.name, day)
    # Retention keeps the last complete day, but somebody may have removed the file.
    return sorted(image_workspaces(images)) if images is not None and images.is_there() else []


def image_workspaces(images: LakePath) -> set[str]:
    """The workspaces that the rows of an `images` file name."""
    found: set[str | None] = set()
    for batch in read_batches(images, _BATCH_ROWS, ["workspace_id"]):
        found |= set(batch["workspace_id"].unique().to_pylist())
    return {workspace for workspace in found if workspace is not None}


def _id(item: dict[str, Any], _: dt.datetime) -> str | None:
    return text_at(item, "id")
