"""Reads notebooks: each runs one image. The list shows free instances only if a request names their feature."""

import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from pipelines.bodies.image_reference import ImageReference, parse_reference
from pipelines.bodies.list_page import id_of, value_at
from pipelines.cloud.paging import Listing
from pipelines.snapshot.sources.resources import (
    REQUIRED,
    RUNNING,
    Resource,
    Session,
    described,
    is_running,
    time_at,
)

# One cloud calls the workspace `workspaceId`, the other `workspace_id`.
_LISTINGS = tuple(
    Listing(
        "notebook",
        "/v1/{project_id}/notebooks/all",
        page_sizes=(100, 50, 20, 10),
        parameters={"feature": feature},
        workspace=("workspace_id", "workspaceId"),
    )
    for feature in ("NOTEBOOK", "DEFAULT")
)


async def read(session: Session) -> AsyncIterator[list[Resource]]:
    """Read the notebooks of both features."""
    for listing in _LISTINGS:
        async for resources in session.resources_of(listing, _reduce):
            yield resources


def _reduce(item: dict[str, Any], observed_at: dt.datetime) -> Resource:
    notebook = described("notebook", item, observed_at)
    strength = RUNNING if is_running(notebook.status, "RUNNING") else REQUIRED
    image = value_at(item, "image")
    named = parse_reference(value_at(image, "swr_path"))
    reference = (named or ImageReference())._replace(image_id=id_of(image))
    active = [time_at(item, "lease", "update_at"), time_at(item, "lease", "create_at"), notebook.updated_at]
    return replace(
        notebook,
        strength=strength,
        images=((reference, strength),) if any(reference) else (),
        last_active_at=max((one for one in active if one), default=None),
    )
