"""The calls of the sandbox's endpoint besides images and notebooks: workspaces, jobs, models, services, traces.

Who may call, and what goes wrong on purpose, is settled before. Each list pages in its own way, as the API documents
it: by records, by page numbers, by page indices, by multiples of the limit, by a marker.
"""

from collections.abc import Callable
from datetime import date
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import orjson
from aiohttp import web

from pipelines.sandbox.catalogue import Catalogue
from pipelines.sandbox.images import TEAMS, at
from pipelines.sandbox.options import Faults, Source
from pipelines.sandbox.responses import error_response, json_page, json_response, wrong_page
from pipelines.sandbox.traces import FILTERS, Traces, Wanted
from pipelines.sandbox.workspaces import DEFAULT_WORKSPACE

_MAX_PAGE = 1000
_SINCE = date(2012, 5, 4).toordinal()


class Call(NamedTuple):
    """What is asked for: `kind` as counted, `sources` the names that faults know it by, `id` that of a details call."""

    kind: str
    sources: tuple[Source, ...]
    project_id: str
    id: str = ""


class _Asked(NamedTuple):
    call: Call
    catalogue: Catalogue
    day: date
    query: dict[str, str]
    body: bytes
    faults: Faults


def call_of(method: str, parts: list[str]) -> Call | None:
    """The call that a method and the parts of a path stand for; None for what is none of these."""
    match method, parts:
        case "GET", ["v1", project_id, "workspaces"]:
            return Call("workspaces", ("workspaces",), project_id)
        case "POST", ["v2", project_id, "training-job-searches"]:
            return Call("training_jobs", ("training_jobs",), project_id)
        case "GET", ["v2", project_id, "algorithms"]:
            return Call("algorithms", ("algorithms",), project_id)
        case "GET", ["v1", project_id, "models"]:
            return Call("models", ("models",), project_id)
        case "GET", ["v1", project_id, "models", model_id]:
            return Call("model", ("models",), project_id, model_id)
        case "GET", ["v1", project_id, "services"]:
            return Call("services_v1", ("services", "services_v1"), project_id)
        case "GET", ["v1", project_id, "services", service_id]:
            return Call("service_v1", ("services", "services_v1"), project_id, service_id)
        case "GET", ["v2", project_id, "services"]:
            return Call("services_v2", ("services", "services_v2"), project_id)
        case "GET", ["v2", project_id, "services", service_id]:
            return Call("service_v2", ("services", "services_v2"), project_id, service_id)
        case "GET", ["v2", project_id, "workflows"]:
            return Call("workflows", ("workflows",), project_id)
        case "GET", ["v3", project_id, "traces"]:
            return Call("traces", ("traces",), project_id)
    return None


def answer_to(call: Call, catalogue: Catalogue, day: date, query: str, body: bytes, faults: Faults) -> web.Response:
    """Answer a call that may be answered."""
    return _ANSWERS[call.kind](_Asked(call, catalogue, day, dict(parse_qsl(query)), body, faults))


def page_wanted(
    wanted: dict[str, Any], faults: Faults, default_limit: int, most: int | None = None
) -> tuple[int, int] | None:
    """Offset and limit as stated; None where they are impossible or refused.

    A limit above `most` is refused; where there is no `most`, a page just has no more than 1000.
    """
    try:
        offset, limit = int(wanted.get("offset", 0)), int(wanted.get("limit", default_limit))
    except (TypeError, ValueError):
        return None
    refused_above = min((one for one in (most, faults.max_page) if one is not None), default=limit)
    if "limit" not in wanted:
        limit = min(limit, refused_above)
    return (offset, min(limit, _MAX_PAGE)) if offset >= 0 and 0 < limit <= refused_above else None


def workspace_wanted(wanted: dict[str, Any], faults: Faults) -> str | None:
    """The workspace that a list is to show; None for all of them. Both spellings of the parameter are known."""
    omitted = None if faults.lists_ignore_workspace else DEFAULT_WORKSPACE
    stated = wanted.get("workspace_id") or wanted.get("workspaceId")
    return str(stated) if stated else omitted


def _workspaces(asked: _Asked) -> web.Response:
    page = page_wanted(asked.query, asked.faults, 1000, _MAX_PAGE)
    if page is None:
        return wrong_page()
    offset, limit = page
    created = [at(_SINCE, 0), at(_SINCE + 700, 0)]
    since = asked.catalogue.second_workspace_since
    if since is not None:
        created[1] = at(since.toordinal(), 0)
    workspaces = [
        {
            "id": workspace,
            "name": name,
            "description": "",
            "status": "NORMAL",
            "status_info": "",
            "auth_type": "PUBLIC",
            "owner": TEAMS[-1][2],
            "enterprise_project_id": "0",
            "enterprise_project_name": "default",
            "create_time": time,
            "update_time": time,
        }
        for workspace, name, time in zip(
            asked.catalogue.workspace_ids(asked.day), ("default", "research"), created, strict=False
        )
    ]
    shown = workspaces[offset : offset + limit]
    return json_response({"total_count": len(workspaces), "count": len(shown), "workspaces": shown})


def _training_jobs(asked: _Asked) -> web.Response:
    wanted = _object(asked.body)
    page = None if wanted is None else page_wanted(wanted, asked.faults, 10, 50)
    if wanted is None or page is None:
        return wrong_page()
    # The offset counts pages. Whatever is to be sorted by, jobs come in the order of their numbers.
    number, limit = page
    offset = number * limit
    workspace, filters = workspace_wanted(wanted, asked.faults), wanted.get("filters") or []
    resources = asked.catalogue.resources
    if asked.faults.jobs_of_user_only or filters:
        jobs = (
            resources.items_of_user("training_jobs", asked.day, workspace)
            if asked.faults.jobs_of_user_only
            else resources.items("training_jobs", asked.day, 0, asked.catalogue.size, workspace)
        )
        try:
            items = [job for job in jobs if all(_passes(job, one) for one in filters)]
        except (AttributeError, KeyError, TypeError, ValueError):
            return error_response(400, "ModelArts.2702", "Invalid filters.")
        total, items = len(items), items[offset : offset + limit]
    else:
        total = resources.count("training_jobs", asked.day, workspace)
        items = list(resources.items("training_jobs", asked.day, offset, limit, workspace))
    return json_response(
        {
            "total": total,
            "count": len(items),
            "limit": limit,
            "offset": number,
            "sort_by": wanted.get("sort_by", "create_time"),
            "order": wanted.get("order", "desc"),
            "group_by": wanted.get("group_by", ""),
            "workspace_id": workspace or DEFAULT_WORKSPACE,
            "ai_project": "default-ai-project",
            "items": items,
        }
    )


def _passes(job: dict[str, Any], condition: dict[str, Any]) -> bool:
    # Whether a job meets one of the `filters` of a search.
    key, operator, values = condition["key"], condition["operator"], condition["value"]
    value = job["metadata"] | job["status"]
    found = value[key]
    match operator:
        case "between":
            first, last = map(int, values)
            return bool(first <= found <= last)
        case "like":
            return any(str(one) in str(found) for one in values)
        case "in":
            return str(found) in values
        case "not":
            return str(found) not in values
    raise ValueError(operator)


def _algorithms(asked: _Asked) -> web.Response:
    page = page_wanted(asked.query, asked.faults, 10, 50)
    if page is None:
        return wrong_page()
    offset, limit = page
    items, total = _listed(asked, "algorithms", offset, limit)
    return json_response(
        {
            "total": total,
            "count": len(items),
            "limit": limit,
            "offset": offset,
            "sort_by": asked.query.get("sort_by", "create_time"),
            "order": asked.query.get("order", "desc"),
            "group_by": "",
            "items": items,
        }
    )


def _models(asked: _Asked) -> web.Response:
    return _by_page_index(asked, "models", "models")


def _services_v1(asked: _Asked) -> web.Response:
    return _by_page_index(asked, "services_v1", "services")


def _by_page_index(asked: _Asked, source: str, name: str) -> web.Response:
    page = page_wanted(asked.query, asked.faults, 1000, _MAX_PAGE)
    if page is None:
        return wrong_page()
    index, limit = page
    offset = index * limit
    model_type = asked.query.get("model_type") if source == "models" else None
    if model_type:
        items, _ = _listed(asked, source, 0, asked.catalogue.size)
        items = [item for item in items if item["model_type"] == model_type]
        total, items = len(items), items[offset : offset + limit]
    else:
        items, total = _listed(asked, source, offset, limit)
    return json_response({name: items, "count": len(items), "total_count": total})


def _services_v2(asked: _Asked) -> web.Response:
    page = page_wanted(asked.query, asked.faults, 10, 500)
    if page is None or page[0] % page[1]:
        return wrong_page()
    offset, limit = page
    items, total = _listed(asked, "services_v2", offset, limit)
    return json_page(items, offset, limit, total)


def _workflows(asked: _Asked) -> web.Response:
    # The list knows no workspace: it shows those of all.
    page = page_wanted(asked.query, asked.faults, 10, 100)
    if page is None:
        return wrong_page()
    items = list(asked.catalogue.resources.items("workflows", asked.day, *page))
    return json_response(
        {"total": asked.catalogue.resources.count("workflows", asked.day), "count": len(items), "items": items}
    )


def _listed(asked: _Asked, source: str, offset: int, limit: int) -> tuple[list[dict[str, Any]], int]:
    # Items of the wanted workspace, and how many there are.
    workspace, resources = workspace_wanted(asked.query, asked.faults), asked.catalogue.resources
    items = list(resources.items(source, asked.day, offset, limit, workspace))
    return items, resources.count(source, asked.day, workspace)


def _details(source: str, code: str) -> Callable[[_Asked], web.Response]:
    def answer(asked: _Asked) -> web.Response:
        found = asked.catalogue.resources.details(source, asked.call.id, asked.day)
        return json_response(found) if found else error_response(404, code, "The resource does not exist.")

    return answer


def _traces(asked: _Asked) -> web.Response:
    query = asked.query
    try:
        limit = int(query.get("limit", 10))
        first, last = int(query.get("from", 0)), int(query.get("to", 1 << 62))
    except ValueError:
        limit = first = last = 0
    if query.get("trace_type") != "system" or not 0 < limit <= 200 or first > last:
        return error_response(400, "CTS.0003", "The request parameters are invalid.")
    filters = tuple((name, query[name]) for name in FILTERS if name in query)
    traces = Traces(asked.catalogue)
    page, marker = traces.page(asked.day, Wanted(first, last, filters), limit, query.get("next"))
    return json_response({"traces": page, "meta_data": {"count": len(page), "marker": marker}})


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


_ANSWERS: dict[str, Callable[[_Asked], web.Response]] = {
    "workspaces": _workspaces,
    "training_jobs": _training_jobs,
    "algorithms": _algorithms,
    "models": _models,
    "model": _details("models", "ModelArts.3302"),
    "services_v1": _services_v1,
    "service_v1": _details("services_v1", "ModelArts.3504"),
    "services_v2": _services_v2,
    "service_v2": _details("services_v2", "ModelArts.3504"),
    "workflows": _workflows,
    "traces": _traces,
}
