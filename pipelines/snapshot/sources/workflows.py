"""Reads workflows. The properties of their steps have no fixed form, so images are found by the form of an address."""

import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from pipelines.bodies.image_reference import find_addresses
from pipelines.bodies.list_page import text_at, value_at
from pipelines.cloud.paging import Listing
from pipelines.snapshot.sources.resources import (
    REQUIRED,
    RUNNING,
    Resource,
    Session,
    described,
    is_running,
    references,
    time_at,
)

# The list covers the whole project and takes no workspace.
_LISTING = Listing("workflow", "/v2/{project_id}/workflows", items="items", id=("workflow_id",), workspace=())


async def read(session: Session) -> AsyncIterator[list[Resource]]:
    """Read the workflows."""
    async for resources in session.resources_of(_LISTING, _reduce):
        yield resources


def _reduce(item: dict[str, Any], observed_at: dt.datetime) -> Resource:
    steps = item.get("steps")
    properties = [value_at(step, "properties") for step in steps] if isinstance(steps, list) else []
    status = text_at(item, "latest_execution", "status")
    strength = RUNNING if is_running(status, "RUNNING") else REQUIRED
    return replace(
        described("workflow", item, observed_at, ("workflow_id",)),
        status=status,
        strength=strength,
        images=references(*((address, strength) for address in find_addresses(properties))),
        last_active_at=time_at(item, "latest_execution", "created_at"),
        updated_at=time_at(item, "last_modified_at"),
    )
