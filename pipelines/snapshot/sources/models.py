"""Reads models (AI applications): each was made from an image, and either needs that image or has a copy of it.

The list does not name the image, so the details of each model made from an image are requested. The other models are
read too, because a service that runs one of them uses no image through it.
"""

import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from pipelines.bodies.list_page import text_at
from pipelines.cloud.paging import Listing, Step
from pipelines.snapshot.sources.resources import COPIED, REQUIRED, Resource, Session, described, references

_LISTING = Listing(
    "model",
    "/v1/{project_id}/models",
    items="models",
    total="total_count",
    id=("model_id",),
    step=Step.PAGES,
)


async def read(session: Session) -> AsyncIterator[list[Resource]]:
    """Read the models, and the images of those that were made from one."""
    async for resources in session.resources_of(_LISTING, _reduce):
        yield [model for model in resources if not model.has_image]
        of_images = [model for model in resources if model.has_image]
        yield await session.with_details(_LISTING, of_images, "/v1/{project_id}/models/{id}", _add_images)


def _reduce(item: dict[str, Any], observed_at: dt.datetime) -> Resource:
    return replace(
        described("model", item, observed_at, ("model_id",)),
        name=text_at(item, "model_name"),
        status=text_at(item, "model_status"),
        has_image=(text_at(item, "model_type") or "IMAGE").strip().upper() == "IMAGE",
    )


def _add_images(model: Resource, details: dict[str, Any]) -> Resource:
    # A model without a copy breaks if its image is deleted. By the API's documentation, a copy is the default.
    source = REQUIRED if str(details.get("source_copy")).strip().lower() == "false" else COPIED
    return replace(
        model,
        images=references((details.get("source_location"), source), (details.get("image_address"), REQUIRED)),
    )
