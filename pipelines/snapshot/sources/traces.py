"""Reads traces: who changed an image, as recorded by the cloud's audit service. The service keeps seven days.

A trace may quote requests and responses, which may hold secrets, so these are dropped.
"""

import datetime as dt
from collections.abc import Callable
from typing import Any

from pipelines.bodies.json_text import NotJSONError, parse, text_or_none
from pipelines.bodies.list_page import text_at, value_at
from pipelines.cloud.paging import Listing, Step
from pipelines.cloud.service import Reading, ServiceClient
from pipelines.errors import PipelineError, StorageError
from pipelines.lake.manifests import SourceFacts
from pipelines.snapshot.checkpoint import Checkpoint
from pipelines.snapshot.sources.resources import as_time
from pipelines.snapshot.sources.store import Trace

KEPT = dt.timedelta(days=7)
# Traces may arrive late, and clocks differ.
_OVERLAP = dt.timedelta(hours=1)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND = dt.timedelta(milliseconds=1)
_UNDATED = "undated"


async def read_traces(
    open_client: Callable[[], ServiceClient], store: Checkpoint, now: dt.datetime, since: dt.datetime | None
) -> SourceFacts:
    """Store the traces of images from `since` to `now`, at most seven days; returns the facts for the manifest.

    Raises:
        StorageError: the storage failed. Errors of the audit service are in the facts and do not end the run.
    """
    reading = Reading(_listing(now, since))
    oldest = now - KEPT
    partial, undated = None, 0
    if since is not None and since < oldest:
        days = (now - since).days
        partial = f"the last complete day was taken {days} days ago, and the audit service keeps seven days"
    try:
        async with open_client() as client:
            async for traces in client.rows(reading, None, _reduce):
                undated += traces.count(_UNDATED)
                with store.transaction():
                    store.traces.add([one for one in traces if isinstance(one, Trace)])
    except StorageError:
        raise
    except PipelineError as error:
        # A day may be published without traces.
        with store.transaction():
            store.traces.clear()
        return SourceFacts(wanted=True, error=str(error), requests=reading.requests)
    # Such traces may be second ones of an image, so an actor would be named in error.
    if reading.skipped:
        partial = f"{reading.skipped} of its items have no id"
    if undated:
        partial = f"{undated} traces of images have no time that can be read"
    return SourceFacts(
        wanted=True,
        was_read=True,
        partial=partial,
        items=reading.items,
        requests=reading.requests,
        skipped=reading.skipped,
    )


def _listing(now: dt.datetime, since: dt.datetime | None) -> Listing:
    first = max(now - KEPT, since - _OVERLAP) if since is not None else now - KEPT
    return Listing(
        "trace",
        "/v3/{project_id}/traces",
        items="traces",
        id=("trace_id",),
        step=Step.MARKER,
        page_sizes=(200, 50, 10),
        parameters={"trace_type": "system", "from": _milliseconds(first), "to": _milliseconds(now)},
        workspace=(),
        may_be_missing=True,
    )


def _milliseconds(moment: dt.datetime) -> str:
    return str((moment - _EPOCH) // _MILLISECOND)


def _reduce(item: dict[str, Any], observed_at: dt.datetime) -> Trace | str | None:
    """A trace of an image, `_UNDATED` if its time cannot be read; None for other resources. Clouds differ in names."""
    time, resource_id = as_time(item.get("time")), text_at(item, "resource_id")
    is_of_modelarts = (text_at(item, "service_type") or "ModelArts").strip().lower() == "modelarts"
    is_of_image = is_of_modelarts and "image" in (text_at(item, "resource_type") or "").lower()
    if resource_id is None or not is_of_image:
        return None
    if time is None:
        return _UNDATED
    # One cloud sends the user as an object, the other as that object in JSON text, or as a name.
    user = value_at(item, "user")
    return Trace(
        id=text_at(item, "trace_id") or "",
        time=time,
        name=text_at(item, "trace_name"),
        resource_id=resource_id.strip().lower(),
        resource_name=text_at(item, "resource_name"),
        user=_user_name(user),
        source_ip=text_at(item, "source_ip"),
        rating=text_at(item, "trace_rating"),
        observed_at=observed_at,
    )


def _user_name(user: Any) -> str | None:
    if isinstance(user, str) and user.lstrip().startswith("{"):
        try:
            user = parse(user.encode("utf-8", "surrogatepass"))
        except NotJSONError:
            return text_or_none(user)
    if isinstance(user, dict):
        return text_at(user, "name") or text_at(user, "user_name") or text_at(user, "id")
    return text_or_none(user)
