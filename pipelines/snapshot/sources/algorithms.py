"""Reads algorithms: each names the image that its training jobs run."""

import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from pipelines.bodies.list_page import text_at, value_at
from pipelines.cloud.paging import Listing
from pipelines.snapshot.sources.resources import REQUIRED, Resource, Session, described, references

_LISTING = Listing("algorithm", "/v2/{project_id}/algorithms", items="items", id=("metadata", "id"))


async def read(session: Session) -> AsyncIterator[list[Resource]]:
    """Read the algorithms."""
    async for resources in session.resources_of(_LISTING, _reduce):
        yield resources


def _reduce(item: dict[str, Any], observed_at: dt.datetime) -> Resource:
    algorithm = described("algorithm", item, observed_at, ("metadata", "id"))
    image = value_at(item, "job_config", "engine", "image_url")
    return replace(algorithm, status=text_at(item, "metadata", "state"), images=references((image, REQUIRED)))
