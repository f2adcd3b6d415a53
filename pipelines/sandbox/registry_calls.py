"""The calls of the registry's management API, in both versions, and of the registry's own API for manifests.

Version 2 pages by offset, with the total in a header; version 3 by marker. Errors are arrays.
"""

import base64
import hashlib
import hmac
from datetime import date
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from pipelines.sandbox.options import Faults, Source
from pipelines.sandbox.registry import FORBIDDEN, Registry, StoredTag, time_text
from pipelines.sandbox.responses import JSON, json_response

_MAX_PAGE = 1000


class RegistryCall(NamedTuple):
    """What is asked for; `name` is that of a repository or, of a manifest, its digest."""

    kind: str
    sources: tuple[Source, ...]
    version: int = 2
    namespace: str = ""
    repository: str = ""
    digest: str = ""

    @property
    def place(self) -> tuple[str, str]:
        """Namespace and name of the repository."""
        return self.namespace, self.repository


def registry_call_of(method: str, parts: list[str]) -> RegistryCall | None:
    """The call that a method and the parts of a path stand for; None for what is none of the registry."""
    match method, parts:
        case "GET", ["v2" | "v3" as version, "manage", "repos"]:
            return _managed("registry_repositories", version)
        case "GET", ["v2" | "v3" as version, "manage", "namespaces", namespace, "repos", repository, "tags"]:
            named = unquote(repository).replace("$", "/")
            return _managed("registry_tags", version)._replace(namespace=unquote(namespace), repository=named)
        case "POST", ["v2", "manage", "utils", "secret"]:
            return RegistryCall("registry_login", ("registry", "registry_manifests"))
        case "GET", ["v2", namespace, *repository, "manifests", digest] if repository:
            sources: tuple[Source, ...] = ("registry_manifests",)
            return RegistryCall("registry_manifest", sources, 2, namespace, "/".join(repository), unquote(digest))
    return None


def _managed(kind: str, version: str) -> RegistryCall:
    sources: tuple[Source, ...] = ("registry", "registry_v3") if version == "v3" else ("registry", "registry_v2")
    return RegistryCall(kind, sources, int(version[1]))


def registry_answer(
    call: RegistryCall, registry: Registry, day: date, query: str, faults: Faults, host: str, basic: str
) -> web.Response:
    """Answer a call that may be answered; `basic` is the login of the registry at `host`."""
    wanted = dict(parse_qsl(query))
    match call.kind:
        case "registry_repositories":
            return _repositories(call, registry, day, wanted, faults)
        case "registry_tags":
            return _tags(call, registry, day, wanted, faults)
        case "registry_login":
            response = json_response({"auths": {host: {"auth": basic}}})
            response.headers["X-Swr-Dockerlogin"] = f"docker login -u sandbox -p {basic} {host}"
            return response
    found = registry.manifest(day, call.namespace, call.repository, call.digest)
    if found is None:
        return registry_error(404, "MANIFEST_UNKNOWN", "manifest unknown", is_array=False)
    return web.Response(body=found.text.encode(), headers=JSON | {"Docker-Content-Digest": found.digest})


def login_of(seed: str) -> str:
    """The login of the registry, as the value of a Basic authorization."""
    password = hashlib.sha256(f"registry login of {seed}".encode()).hexdigest()
    return base64.b64encode(f"sandbox:{password}".encode()).decode()


def is_logged_in(request: web.BaseRequest, basic: str) -> bool:
    """Whether a request carries the login."""
    return hmac.compare_digest(request.headers.get("Authorization", "").encode(), f"Basic {basic}".encode())


def registry_error(status: int, code: str, message: str, *, is_array: bool = True) -> web.Response:
    """An error, in one of the shapes of the registry."""
    if not is_array:
        return json_response({"errors": [{"code": code, "message": message, "detail": {}}]}, status)
    return json_response([{"errorCode": code, "errorMessage": message, "detail": ""}], status)


def as_registry_error(refusal: web.Response) -> web.Response:
    """The refusal of a request in the shape of the registry."""
    if refusal.status == 404:
        # A gateway answers for an API that is not there.
        return refusal
    headers = {name: value for name, value in refusal.headers.items() if name == "Retry-After"}
    error = registry_error(refusal.status, f"SVCSTG.SWR.{refusal.status}0000", "The request is refused.")
    error.headers.update(headers)
    return error


def _repositories(
    call: RegistryCall, registry: Registry, day: date, wanted: dict[str, str], faults: Faults
) -> web.Response:
    namespace = wanted.get("namespace")
    names = [one for one in registry.repositories(day) if namespace in (None, one[0])]
    items: list[dict[str, Any]] = []
    for space, name in names:
        tags = registry.tags(day, space, name)
        item = {
            "name": name,
            "category": "linux",
            "description": "",
            "size": sum(tag.size for tag in tags),
            "is_public": False,
            "num_images": len(tags),
            "num_download": registry.downloads(day, space, name),
            "created_at": time_text(min(tag.created for tag in tags)),
            "updated_at": time_text(max(tag.updated for tag in tags)),
            "domain_name": "sandbox-domain",
            "status": False,
        }
        if call.version == 3:
            items.append(item | {"id": len(items) + 1, "namespace_name": space})
        else:
            items.append(item | {"namespace": space, "tags": [tag.tag for tag in tags if tag.tag]})
    return _page(call, "repos", items, wanted, faults)


def _tags(call: RegistryCall, registry: Registry, day: date, wanted: dict[str, str], faults: Faults) -> web.Response:
    place = call.place
    if place not in registry.repositories(day):
        return registry_error(404, "SVCSTG.SWR.4040002", "The repository does not exist.")
    if place == FORBIDDEN:
        return registry_error(403, "SVCSTG.SWR.4030001", "You have no permission for this repository.")
    with_manifest = call.version == 2 or wanted.get("with_manifest") == "true"
    tags = registry.tags(day, *place)
    items = [_tag_item(tag, number, call.version, with_manifest=with_manifest) for number, tag in enumerate(tags, 1)]
    return _page(call, "tags", items, wanted, faults)


def _tag_item(tag: StoredTag, number: int, version: int, *, with_manifest: bool) -> dict[str, Any]:
    path = f"registry.invalid/{tag.namespace}/{tag.repository}:{tag.tag}"
    item: dict[str, Any] = {
        "id": number,
        "repo_id": 1,
        "image_id": tag.manifest.digest.partition(":")[2],
        "manifest": tag.manifest.text if with_manifest else "",
        "digest": tag.manifest.digest,
        "schema": 2,
        "path": path,
        "internal_path": f"100.125.0.198:20202/{path.partition('/')[2]}",
        "size": tag.size,
        "is_trusted": False,
        "created": time_text(tag.created),
        "updated": time_text(tag.updated),
        "domain_id": "sandbox-domain",
        "tag_type": tag.tag_type,
    }
    return item | ({"tag": tag.tag} if version == 3 else {"Tag": tag.tag, "deleted": "", "scanned": False})


def _page(
    call: RegistryCall, name: str, items: list[dict[str, Any]], wanted: dict[str, str], faults: Faults
) -> web.Response:
    most = min(_MAX_PAGE, faults.max_page or _MAX_PAGE)
    try:
        limit = int(wanted.get("limit", min(100, most)))
        offset = int(wanted.get("marker" if call.version == 3 else "offset", 0))
    except ValueError:
        limit = offset = -1
    if not 0 < limit <= most or offset < 0:
        return registry_error(400, "SVCSTG.SWR.4000010", "The paging parameters are invalid.")
    shown = items[offset : offset + limit]
    if call.version == 2:
        response = json_response(shown)
        response.headers["Content-Range"] = f"{offset}-{len(shown)}/{len(items)}"
        return response
    end = offset + len(shown)
    page: dict[str, Any] = {name: shown, "nextMarker": end if name == "repos" else str(end)}
    if name == "tags":
        page["has_more"] = end < len(items)
    elif end >= len(items):
        del page["nextMarker"]
    return json_response(page)
