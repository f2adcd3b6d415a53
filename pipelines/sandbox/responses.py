"""The answers of the sandbox's endpoint, in the shapes of ModelArts and of the identity service."""

from typing import Any

import orjson
from aiohttp import web

from pipelines.inputs.endpoints import SANDBOX_HEADER
from pipelines.sandbox.options import CannedAnswer

JSON = {"Content-Type": "application/json", SANDBOX_HEADER: "true"}


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A body as JSON."""
    return web.Response(body=orjson.dumps(body), status=status, headers=JSON if headers is None else headers | JSON)


def json_page(items: list[dict[str, Any]], offset: int, limit: int, total: int) -> web.Response:
    """A page of a list, in the shape of ModelArts."""
    pages = -(-total // limit)
    return json_response({"current": offset // limit, "data": items, "pages": pages, "size": limit, "total": total})


def error_response(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error, in the shape of ModelArts."""
    return json_response({"error_code": code, "error_msg": message}, status, headers)


def forbidden() -> web.Response:
    """The refusal of a resource."""
    return error_response(403, "ModelArts.0108", "The user has no permission for this resource.")


def no_such_api() -> web.Response:
    """The gateway's answer where no API is published."""
    return error_response(404, "APIG.0101", "The API does not exist or has not been published.")


def wrong_page() -> web.Response:
    """The refusal of an offset or a limit."""
    return error_response(400, "ModelArts.6400", "Invalid paging parameters.")


def identity_error(status: int, title: str, message: str) -> web.Response:
    """An error, in the shape of the identity service."""
    return json_response({"error": {"code": status, "message": message, "title": title}}, status)


def canned_response(answer: CannedAnswer) -> web.Response:
    """What a test put in an image's place."""
    if answer.body_base64 is not None:
        body = answer.body_base64
    else:
        body = answer.body.encode() if isinstance(answer.body, str) else orjson.dumps(answer.body)
    has_type = any(name.lower() == "content-type" for name in answer.headers)
    return web.Response(body=body, status=answer.status, headers=answer.headers if has_type else answer.headers | JSON)
