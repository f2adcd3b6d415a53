"""Models (AI applications): each was made from an image, and needs it, or has a copy of it.

The list does not name the image, so the details of each model are asked for.
"""

import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from pipelines.bodies.list_page import text_at
from pipelines.cloud.paging import Listing, Step
from pipelines.snapshot.sources.resources import COPIED, REQUIRED, Resource, Session, described, references, time_at

_LISTING = Listing(
    "model",
    "/v1/{project_id}/models",
    items="models",
    total="total_count",
    id=("model_id",),
    step=Step.PAGES,
    parameters={"model_type": "Image"},
)


async def read(session: Session) -> AsyncIterator[list[Resource]]:
    """Read the models that were made from images."""
    async for resources in session.resources_of(_LISTING, _reduce):
        yield await session.with_details(_LISTING, resources, "/v1/{project_id}/models/{id}", _add_images)


def _reduce(item: dict[str, Any], observed_at: dt.datetime) -> Resource:
    return replace(
        described("model", item, observed_at, ("model_id",)),
        name=text_at(item, "model_name"),
        status=text_at(item, "model_status"),
        updated_at=time_at(item, "update_at") or time_at(item, "update_time"),
    )


def _add_images(model: Resource, details: dict[str, Any]) -> Resource:
    # A model without a copy breaks with its source. The documented default is a copy.
    source = REQUIRED if str(details.get("source_copy")).strip().lower() == "false" else COPIED
    return replace(
        model,
        images=references((details.get("source_location"), source), (details.get("image_address"), REQUIRED)),
    )
