"""In which workspaces a day looks: those that the user states, those that the API lists, or those that are known.

Lists of the API show one workspace each, the default one unless told otherwise. So how far a day looked is a fact of
the day, and what lies outside is unknown.
"""

import datetime as dt
from collections.abc import Iterable
from typing import Any

from pipelines.bodies.list_page import text_at
from pipelines.cloud.modelarts import ModelArtsClient
from pipelines.cloud.paging import Listing
from pipelines.cloud.service import Reading
from pipelines.errors import ListDeniedError, ListMissingError
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import ScopeFacts, last_complete_day
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
    """The `workspaces` of a day, in the order in which they became known, and those `outside` that answers name."""

    def __init__(self, workspaces: Iterable[str], origin: str, error: str | None = None) -> None:
        self.workspaces = list(dict.fromkeys(workspaces))
        self.outside: set[str] = set()
        self._origin, self._error = origin, error

    def note(self, workspace: str | None) -> None:
        """Take a workspace that an answer names: where the API does not list the workspaces, it is read too."""
        if workspace is None or workspace in self.workspaces:
            return
        if self._origin == ASSUMED:
            self.workspaces.append(workspace)
        else:
            self.outside.add(workspace)

    @property
    def facts(self) -> ScopeFacts:
        """The scope as the manifest has it."""
        return ScopeFacts(
            workspaces=list(self.workspaces), origin=self._origin, error=self._error, outside=sorted(self.outside)
        )


async def find_scope(client: ModelArtsClient, stated: Iterable[str] | None, known: Iterable[str]) -> Scope:
    """The workspaces to read: those `stated`, or those that the API lists; where it lists none, those `known` so far.

    Raises:
        ListUnreadableError: the API has such a list, and it cannot be read.
        PipelineError: no request can succeed.
    """
    if stated is not None:
        return Scope(stated, STATED)
    found: list[str] = []
    try:
        async for some in client.rows(Reading(_WORKSPACES), None, _id):
            found += [id_ for id_ in some if id_]
    except (ListMissingError, ListDeniedError) as error:
        return Scope([DEFAULT_WORKSPACE, *known], ASSUMED, str(error))
    return Scope([DEFAULT_WORKSPACE, *found], ASKED)


def known_workspaces(lake: Lake, partition: Partition) -> list[str]:
    """The workspaces that the images of the last complete day are in."""
    day = last_complete_day(lake, partition)
    images = None if day is None else lake.table(IMAGES.name, day)
    # Retention keeps the last complete day, unless somebody removed it otherwise.
    return sorted(image_workspaces(images)) if images is not None and images.is_there() else []


def image_workspaces(images: LakePath) -> set[str]:
    """The workspaces that the rows of an `images` file state."""
    found: set[str | None] = set()
    for batch in read_batches(images, _BATCH_ROWS, ["workspace_id"]):
        found |= set(batch["workspace_id"].unique().to_pylist())
    return {workspace for workspace in found if workspace is not None}


def _id(item: dict[str, Any], _: dt.datetime) -> str | None:
    return text_at(item, "id")
