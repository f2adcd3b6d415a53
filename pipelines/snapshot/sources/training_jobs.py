"""Reads training jobs: each runs the image of its engine, or of its algorithm, or one for each of its tasks.

The list shows only the jobs of the current user, unless that user is an administrator. The API does not say which is
the case. The list counts as complete only if it shows jobs of at least two users.
"""

import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from pipelines.bodies.list_page import text_at, value_at
from pipelines.cloud.paging import Listing, Step
from pipelines.snapshot.sources.resources import (
    PAST,
    RUNNING,
    Resource,
    Session,
    described,
    is_running,
    references,
    time_at,
)

_LISTING = Listing(
    "training job",
    "/v2/{project_id}/training-job-searches",
    items="items",
    id=("metadata", "id"),
    step=Step.PAGES,
    parameters={"sort_by": "create_time", "order": "desc"},
    by_post=True,
)
_OVER = ("COMPLETED", "FAILED", "TERMINATED", "ABNORMAL", "LOST", "CREATEFAILED", "CREATE_FAILED")


async def read(session: Session) -> AsyncIterator[list[Resource]]:
    """Read the training jobs; `partial` is set if they belong to fewer than two users."""
    async for resources in session.resources_of(_LISTING, _reduce):
        yield resources
    one = "the list may show the jobs of the current user alone, because it shows those of no second user"
    session.partial = one if len(session.users) < 2 else None


def _reduce(item: dict[str, Any], observed_at: dt.datetime) -> Resource:
    phase = text_at(item, "status", "phase")
    job = replace(described("training_job", item, observed_at, ("metadata", "id")), status=phase)
    strength = PAST if is_running(phase, *_OVER) else RUNNING
    algorithm, tasks = value_at(item, "algorithm"), value_at(item, "tasks")
    engines = [value_at(algorithm, "engine")]
    engines += [value_at(task, "algorithm", "engine") for task in tasks] if isinstance(tasks, list) else []
    algorithm_id = text_at(algorithm, "id")
    # The registry address decides what runs. One of the clouds states the id of the repository beside it.
    return replace(
        job,
        strength=strength,
        images=references(*((value_at(engine, "image_url"), strength) for engine in engines)),
        via_ids=(algorithm_id.lower(),) if algorithm_id else (),
        last_active_at=_ended(item, observed_at) if strength == PAST else observed_at,
    )


def _ended(item: dict[str, Any], observed_at: dt.datetime) -> dt.datetime | None:
    started = time_at(item, "status", "start_time") or time_at(item, "metadata", "create_time")
    duration = value_at(item, "status", "duration")
    if started is None or not isinstance(duration, int) or not 0 <= duration < 10**12:
        return started
    duration = dt.timedelta(milliseconds=duration)
    return started + duration if duration < observed_at - started else observed_at
