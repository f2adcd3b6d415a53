"""Reads services: each runs models or images.

Clouds have two APIs for services, and an endpoint may have one or both. If one of them does not exist, the other is
enough. If neither exists, the source cannot be read. The lists do not name images, so the details of each service are
requested.
"""

import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from pipelines.bodies.image_reference import ImageReference, parse_reference
from pipelines.bodies.list_page import id_of, text_at, value_at
from pipelines.cloud.paging import Listing, Step
from pipelines.errors import ListMissingError
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

_BY_MODEL = Listing(
    "service",
    "/v1/{project_id}/services",
    items="services",
    total="total_count",
    id=("service_id",),
    step=Step.PAGES,
)
_BY_IMAGE = Listing("service", "/v2/{project_id}/services", step=Step.MULTIPLES)


async def read(session: Session) -> AsyncIterator[list[Resource]]:
    """Read the services of both APIs.

    Raises:
        ListUnreadableError: one of them cannot be read, or neither exists.
    """
    missing: ListMissingError | None = None
    try:
        async for resources in session.resources_of(_BY_MODEL, _reduce_by_model):
            yield await session.with_details(_BY_MODEL, resources, "/v1/{project_id}/services/{id}", _add_models)
    except ListMissingError as error:
        missing = error
    try:
        async for resources in session.resources_of(_BY_IMAGE, _reduce_by_image):
            yield await session.with_details(_BY_IMAGE, resources, "/v2/{project_id}/services/{id}", _add_images)
    except ListMissingError:
        if missing is not None:
            raise


def _reduce_by_model(item: dict[str, Any], observed_at: dt.datetime) -> Resource:
    service = described("service", item, observed_at, ("service_id",))
    return replace(
        service,
        name=text_at(item, "service_name"),
        user=text_at(item, "owner") or service.user,
        updated_at=service.updated_at or time_at(item, "transition_at"),
        strength=RUNNING if is_running(service.status, "RUNNING", "DEPLOYING", "CONCERNING") else REQUIRED,
    )


def _add_models(service: Resource, details: dict[str, Any]) -> Resource:
    config = details.get("config")
    models = [text_at(one, "model_id") for one in config] if isinstance(config, list) else []
    return replace(service, via_ids=tuple(dict.fromkeys(model.lower() for model in models if model)))


def _reduce_by_image(item: dict[str, Any], observed_at: dt.datetime) -> Resource:
    service = described("service", item, observed_at)
    running = is_running(service.status, "RUNNING", "DEPLOYING", "CONCERNING", "UPGRADING")
    return replace(service, strength=RUNNING if running else REQUIRED)


def _add_images(service: Resource, details: dict[str, Any]) -> Resource:
    named: list[tuple[object, str]] = []
    active = [time_at(details, "last_used_time")]
    for group in _list(value_at(details, "version", "instance_groups")):
        active.append(time_at(group, "last_used_time"))
        images = [_image_of(value_at(unit, "image")) for unit in _list(value_at(group, "unit_configs"))]
        named += [(image, service.strength) for image in images]
    last = max((one for one in active if one), default=None)
    return replace(service, images=references(*named), last_active_at=last)


def _image_of(image: Any) -> ImageReference | None:
    named = parse_reference(value_at(image, "swr_path"))
    reference = (named or ImageReference())._replace(image_id=id_of(image))
    return reference if any(reference) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
