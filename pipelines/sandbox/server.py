"""The sandbox's endpoint: the token call, ModelArts' image and notebook calls, faults, and a way to steer them.

Answers are computed from `sandbox.catalogue`; who may have them is up to `sandbox.identity`, what goes wrong up to
`sandbox.faults`, what workspaces, jobs, models, services and the like answer up to `sandbox.further_calls`. Requests
are not logged, and dispatched by hand, so that the endpoint does not become the bottleneck of what is measured against
it.

    PUT, PATCH, GET /sandbox/faults   all of `Faults`, those named, what is set; `expire_tokens_now` ends every token
    PUT, GET /sandbox/day             {"day": "2026-11-23"}, null to follow the clock
    GET /sandbox/stats                counts of requests by kind, of answers by status, of tokens and temporary keys
                                     issued; most details and lists asked for within a second
    GET /sandbox/requested            image id -> how often its details were asked for
    GET /sandbox/credentials          which credentials requests brought, and how often; secrets by their SHA-256
"""

import asyncio
import csv
import hashlib
import hmac
import os
import shlex
import signal
import sys
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import orjson
from aiohttp import web
from pydantic import ValidationError

from pipelines.errors import ConfigurationError, PipelineError
from pipelines.sandbox.bill_calls import bill_lines, consumption, write_exports
from pipelines.sandbox.catalogue import Catalogue, InventoryRow
from pipelines.sandbox.faults import FaultInjection
from pipelines.sandbox.further_calls import Call, answer_to, call_of, page_wanted, workspace_wanted
from pipelines.sandbox.identity import DOMAIN, Credentials, IdentityService
from pipelines.sandbox.images import USERNAME
from pipelines.sandbox.options import Faults, SandboxOptions
from pipelines.sandbox.registry import Registry
from pipelines.sandbox.registry_calls import (
    RegistryCall,
    as_registry_error,
    is_logged_in,
    login_of,
    registry_answer,
    registry_call_of,
    registry_error,
)
from pipelines.sandbox.responses import (
    canned_response,
    error_response,
    forbidden,
    identity_error,
    json_page,
    json_response,
    no_such_api,
    wrong_page,
)
from pipelines.sandbox.seen import SeenCredentials

HOST = "127.0.0.1"
DEFAULT_PROJECT = "default"

_MAX_NOTEBOOKS = 100
_FILTERS = ("type", "namespace")


def serve(options: SandboxOptions) -> None:
    """Run a sandbox until SIGTERM, SIGINT or (if so chosen) the end of standard input.

    Prints `KEY=VALUE` lines, quoted for a shell where needed, that point a client at it, then an empty line.
    The environment variables SANDBOX_PASSWORD, SANDBOX_ACCESS_KEY, SANDBOX_SECRET_KEY and SANDBOX_BILLS_KEY set its
    credentials; by default they follow from the seed.

    Raises:
        ConfigurationError: it cannot listen on the port.
        PipelineError: it cannot write the inventory file.
    """
    asyncio.run(_serve(options))


async def _serve(options: SandboxOptions) -> None:
    sandbox = Sandbox(options, Credentials.from_environment(options.seed))
    sandbox.write_files()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.exit_with_parent:
        threading.Thread(target=_await_end_of_stdin, args=(loop, stop), daemon=True).start()
    runner = web.ServerRunner(web.Server(sandbox.handle, access_log=None), shutdown_timeout=1)
    await runner.setup()
    follower = asyncio.create_task(sandbox.follow_clock())
    try:
        try:
            await web.TCPSite(runner, HOST, options.port).start()
        except OSError as error:
            raise ConfigurationError(
                f"The sandbox cannot listen on {HOST}:{options.port} ({os.strerror(error.errno or 0)}): "
                "choose another port, or 0 for a free one."
            ) from None
        lines = [f"{name}={shlex.quote(value)}" for name, value in sandbox.env(runner.addresses[0][1]).items()]
        sys.stdout.write("\n".join(lines) + "\n\n")
        sys.stdout.flush()
        await stop.wait()
    finally:
        follower.cancel()
        await runner.cleanup()


def _await_end_of_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while os.read(0, 4096):
        pass
    # The loop is closed when the sandbox has been ended in another way meanwhile.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(stop.set)


class Sandbox:
    """The state of a running sandbox, and its answers."""

    def __init__(self, options: SandboxOptions, credentials: Credentials) -> None:
        self._credentials = credentials
        self._named_projects = options.projects
        self._projects = options.projects or {
            DEFAULT_PROJECT: hashlib.blake2b(options.seed.encode(), digest_size=16).hexdigest()
        }
        self._catalogues = {
            project_id: Catalogue(options.seed, options.size, name, options.workspaces, options.second_workspace_since)
            for name, project_id in self._projects.items()
        }
        self._registries = {project_id: Registry(catalogue) for project_id, catalogue in self._catalogues.items()}
        self._registry_login = login_of(options.seed)
        self._inventory_file = options.inventory_file
        self._bills_directory = options.bills_directory
        self._fixed_day = options.day
        self._asked: Counter[str] = Counter()
        self._requested: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._faults = FaultInjection(options.seed, options.faults)
        self._seen = SeenCredentials()
        self._identity = IdentityService(credentials, self._projects, self._seen)
        # When the details and lists of the last second were asked for, and the most that ever were within one.
        self._last_second: deque[float] = deque()
        self._busiest_second = 0

    @property
    def day(self) -> date:
        """The day that is shown."""
        return self._fixed_day or datetime.now(UTC).date()

    def env(self, port: int) -> dict[str, str]:
        """The settings and credentials that point a client at the sandbox."""
        name, project_id = next(iter(self._projects.items()))
        env = {"IMAGE_SNAPSHOTS_ENDPOINT": f"http://{HOST}:{port}"}
        if self._inventory_file:
            env["IMAGE_SNAPSHOTS_INVENTORY"] = str(self._inventory_file.absolute())
        if self._named_projects:
            env["IMAGE_SNAPSHOTS_PROJECTS"] = orjson.dumps(self._named_projects).decode()
        return env | {
            "OS_AUTH_URL": f"http://{HOST}:{port}/v3",
            "OS_USERNAME": USERNAME,
            "OS_PASSWORD": self._credentials.password,
            "OS_USER_DOMAIN_NAME": DOMAIN,
            "OS_PROJECT_NAME": name,
            "OS_PROJECT_ID": project_id,
            "OS_ACCESS_KEY": self._credentials.access_key,
            "OS_SECRET_KEY": self._credentials.secret_key,
            "IMAGE_SNAPSHOTS_BILLS_KEY": self._credentials.bills_key,
        }

    # -- the inventory file

    def write_files(self) -> None:
        """Write the registered images of all projects and their bill, where files of these were asked for.

        Raises:
            PipelineError: a file cannot be written.
        """
        self._write_inventory()
        if self._bills_directory is not None:
            write_exports(self._bills_directory, self._catalogues, self.day)

    def _write_inventory(self) -> None:
        if self._inventory_file is None:
            return
        partial = self._inventory_file.with_name(f".{self._inventory_file.name}.{os.getpid()}")
        day = self.day
        try:
            with partial.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.writer(stream)
                writer.writerow(InventoryRow._fields)
                for catalogue in self._catalogues.values():
                    writer.writerows(catalogue.inventory(day))
            partial.replace(self._inventory_file)
        except OSError as error:
            raise PipelineError(
                f"The sandbox cannot write its inventory to {self._inventory_file}: {error.strerror}."
            ) from None

    async def follow_clock(self) -> None:
        """Write the files anew after each midnight (UTC), unless the day is fixed."""
        while True:
            now = datetime.now(UTC)
            midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
            await asyncio.sleep((midnight - now).total_seconds())
            if self._fixed_day is None:
                await asyncio.to_thread(self.write_files)

    # -- dispatch

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path, _, query = request.raw_path.partition("?")
        parts = path.split("/")[1:]
        self._seen.note(request)
        match (request.method, parts):
            case (_, ["sandbox", what]):
                return await self._control(request, what)
            case ("GET", ["v1", project_id, "images", "group"]):
                kind, answer = "group", self._groups
            case ("GET", ["v1", project_id, "images", image_id]) if image_id:
                return self._counted("image", await self._image_call(request, project_id, image_id))
            case ("GET", ["v1", project_id, "images"]):
                return self._counted("list", await self._list_call(request, project_id, query))
            case ("GET", ["v1", project_id, "notebooks", "all"]):
                kind, answer = "notebooks", self._notebooks
            case ("POST", ["v3", "auth", "tokens"]):
                return self._counted("token", self._issue_token(request, await request.read()))
            case ("POST", ["v3.0", "OS-CREDENTIAL", "securitytokens"]):
                return self._counted("key", self._identity.issue_key(request, self._faults.options))
            case ("PUT", ["meta-data", "latest", "api", "token"]):
                return self._counted("metadata_token", self._identity.metadata_token())
            case ("GET", ["openstack", "latest", "securitykey"]):
                return self._counted("key", self._identity.metadata_key(request, self._faults.options))
            case ("GET", ["v3", "projects"]):
                refusal = await self._identity.unauthenticated(request)
                return self._counted("projects", refusal or self._identity.list_projects(query))
            case ("GET", ["v3", "auth", "domains"]):
                refusal = await self._identity.unauthenticated(request)
                return self._counted("domains", refusal or self._identity.list_domains())
            case ("GET", ["v3"] | ["v3", ""]):
                return self._counted("other", self._identity.version(request))
            case ("GET", ["v2", "daily", "consumption"]):
                return self._counted("bills", await self._dashboard(request, query))
            case ("POST", ["v2", "bills", "customer-bills", "res-records", "query"]):
                return self._counted("bills", await self._bill_lines(request))
            case _:
                registry_call = registry_call_of(request.method, parts)
                if registry_call is not None:
                    return self._counted(registry_call.kind, await self._registry_call(request, registry_call, query))
                call = call_of(request.method, parts)
                if call is None:
                    return self._counted("other", no_such_api())
                return self._counted(call.kind, await self._further_call(request, call, query))
        refusal = await self._refusal(request, project_id)
        return self._counted(kind, refusal or answer(self._catalogues[project_id], query))

    def _counted(self, kind: str, response: web.StreamResponse) -> web.StreamResponse:
        self._requests[kind] += 1
        outcome = response.get("outcome") if len(response) else None
        self._answers[outcome or str(response.status)] += 1
        return response

    def _issue_token(self, request: web.BaseRequest, body: bytes) -> web.Response:
        faults = self._faults.options
        if faults.iam_down:
            return identity_error(503, "Service Unavailable", "The identity service is not available.")
        return self._identity.issue_token(request, body, faults)

    async def _refusal(self, request: web.BaseRequest, project_id: str | None) -> web.Response | None:
        # Why this request may not have what it asks of a project, or (None) of the whole account; None when it may.
        refusal = await self._identity.unauthenticated(request)
        if refusal:
            return refusal
        if project_id is None:
            refusal = self._identity.not_for_account(request)
        else:
            refusal = self._wrong_project(request, project_id)
        if refusal is None and self._faults.options.suspended:
            return error_response(401, "ModelArts.6201", "The account is suspended.")
        return refusal

    def _wrong_project(self, request: web.BaseRequest, project_id: str) -> web.Response | None:
        token = request.headers.get("X-Auth-Token")
        # Who signs for the account has no project.
        signed_for = request.headers.get("X-Project-Id", None if "X-Domain-Id" in request.headers else project_id)
        scope = self._identity.scope_of(token) if token else signed_for
        if scope is None:
            return error_response(400, "ModelArts.0204", "The token does not contain a project.")
        if scope != project_id:
            return error_response(
                404, "ModelArts.2786", "The project of the URL is not the project of the credentials."
            )
        if project_id not in self._catalogues:
            return error_response(400, "ModelArts.0210", "The project id is invalid.")
        return None

    # -- ModelArts

    async def _image_call(self, request: web.BaseRequest, project_id: str, image_id: str) -> web.StreamResponse:
        self._requested[image_id] += 1
        refusal = await self._throttled(request, project_id)
        if refusal:
            return refusal
        canned = self._faults.options.answers.get(image_id)
        if canned is not None:
            return canned_response(canned)
        status, body = self._catalogues[project_id].answer(image_id, self.day)
        response = web.Response(status=status) if body is None else json_response(body, status)
        return await self._faults.apply(request, image_id, self._requested[image_id], response)

    async def _list_call(self, request: web.BaseRequest, project_id: str, query: str) -> web.StreamResponse:
        self._asked[request.raw_path] += 1
        refusal = await self._throttled(request, project_id)
        if refusal:
            return refusal
        response = (
            forbidden() if self._faults.options.lists_forbidden else self._images(self._catalogues[project_id], query)
        )
        return await self._faults.apply(request, request.raw_path, self._asked[request.raw_path], response)

    async def _further_call(self, request: web.BaseRequest, call: Call, query: str) -> web.StreamResponse:
        self._asked[request.raw_path] += 1
        refusal = await self._throttled(request, call.project_id) or self._faults.refused(*call.sources)
        if refusal:
            return refusal
        body = await request.read()
        catalogue = self._catalogues[call.project_id]
        response = answer_to(call, catalogue, self.day, query, body, self._faults.options)
        return await self._faults.apply(request, request.raw_path, self._asked[request.raw_path], response)

    async def _registry_call(self, request: web.BaseRequest, call: RegistryCall, query: str) -> web.StreamResponse:
        self._asked[request.raw_path] += 1
        if call.kind == "registry_manifest":
            if not is_logged_in(request, self._registry_login):
                return registry_error(401, "UNAUTHORIZED", "authentication required", is_array=False)
            # The login is that of the account: the manifest may be of any of its projects.
            project_id = next(
                (one for one, registry in self._registries.items() if call.place in registry.repositories(self.day)),
                next(iter(self._registries)),
            )
            refusal = self._faults.throttled()
        else:
            token = request.headers.get("X-Auth-Token")
            scope = self._identity.scope_of(token) if token and self._identity.knows(token) else None
            project_id = scope or request.headers.get("X-Project-Id") or next(iter(self._registries))
            refusal = await self._throttled(request, project_id)
        refusal = refusal or self._faults.refused(*call.sources)
        if refusal:
            return as_registry_error(refusal)
        registry = self._registries[project_id]
        answer = registry_answer(
            call, registry, self.day, query, self._faults.options, request.host, self._registry_login
        )
        return await self._faults.apply(request, request.raw_path, self._asked[request.raw_path], answer)

    def _images(self, catalogue: Catalogue, query: str) -> web.Response:
        refusal = self._faults.refused("images")
        if refusal:
            return refusal
        wanted = dict(parse_qsl(query))
        page = page_wanted(wanted, self._faults.options, 200)
        if page is None:
            return wrong_page()
        offset, limit = page
        workspace = workspace_wanted(wanted, self._faults.options)
        filters = [(name, wanted[name]) for name in _FILTERS if name in wanted]
        if filters:
            items = [
                item
                for item in catalogue.page(self.day, 0, catalogue.size, workspace)
                if all(item.get(name) == value for name, value in filters)
            ]
            total, items = len(items), items[offset : offset + limit]
        else:
            total = catalogue.count(self.day, workspace)
            items = catalogue.page(self.day, offset, limit, workspace)
        shown = self._faults.options.list_shows
        if shown is not None:
            items = items[: max(0, shown - offset)]
        if offset and offset >= total:
            return error_response(400, "ModelArts.6400", "The offset lies beyond the last record.")
        return json_page(items, offset, limit, total)

    def _groups(self, catalogue: Catalogue, query: str) -> web.Response:
        wanted = dict(parse_qsl(query))
        page = page_wanted(wanted, self._faults.options, 200)
        if page is None:
            return wrong_page()
        versions: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for item in catalogue.page(self.day, 0, catalogue.size, workspace_wanted(wanted, self._faults.options)):
            versions.setdefault((item.get("namespace", ""), item["name"]), []).append(item)
        groups = [
            {
                "name": name,
                "namespace": namespace,
                "version_count": len(items),
                "create_at": min(item["create_at"] for item in items),
                "update_at": max(item["update_at"] for item in items),
            }
            for (namespace, name), items in versions.items()
        ]
        offset, limit = page
        return json_page(groups[offset : offset + limit], offset, limit, len(groups))

    def _notebooks(self, catalogue: Catalogue, query: str) -> web.Response:
        faults = self._faults.options
        refusal = forbidden() if faults.lists_forbidden else self._faults.refused("notebooks")
        if refusal:
            return refusal
        wanted = dict(parse_qsl(query))
        page = page_wanted(wanted, faults, 10, _MAX_NOTEBOOKS)
        source = {"NOTEBOOK": "notebooks", "DEFAULT": "codelab"}.get(wanted.get("feature", "NOTEBOOK"))
        if page is None or source is None:
            return wrong_page()
        offset, limit = page
        workspace = workspace_wanted(wanted, faults)
        items = list(catalogue.resources.items(source, self.day, offset, limit, workspace))
        return json_page(items, offset, limit, catalogue.resources.count(source, self.day, workspace))

    async def _throttled(self, request: web.BaseRequest, project_id: str) -> web.Response | None:
        arrived = time.monotonic()
        self._last_second.append(arrived)
        while self._last_second[0] < arrived - 1:
            self._last_second.popleft()
        self._busiest_second = max(self._busiest_second, len(self._last_second))
        latency_ms = self._faults.options.latency_ms
        if latency_ms:
            await asyncio.sleep(latency_ms / 1000)
        return await self._refusal(request, project_id) or self._faults.throttled()

    # -- bills

    async def _dashboard(self, request: web.BaseRequest, query: str) -> web.StreamResponse:
        self._asked[request.raw_path] += 1
        refusal = self._faults.refused("bills")
        if not hmac.compare_digest(
            request.headers.get("Authorization", "").encode(), f"Bearer {self._credentials.bills_key}".encode()
        ):
            refusal = error_response(401, "APIG.0301", "Incorrect authentication information.")
        response = refusal or consumption(self._catalogues, self.day, dict(parse_qsl(query)))
        return await self._faults.apply(request, request.raw_path, self._asked[request.raw_path], response)

    async def _bill_lines(self, request: web.BaseRequest) -> web.StreamResponse:
        refusal = await self._refusal(request, None) or self._faults.refused("bills")
        body = await request.read()
        key = f"{request.raw_path} {hashlib.sha256(body).hexdigest()}"
        self._asked[key] += 1
        response = refusal or bill_lines(self._catalogues, self.day, body)
        return await self._faults.apply(request, key, self._asked[key], response)

    # -- control

    async def _control(self, request: web.BaseRequest, what: str) -> web.Response:
        try:
            match (request.method, what):
                case ("PUT" | "PATCH", "faults"):
                    wanted = orjson.loads(await request.read())
                    if wanted.pop("expire_tokens_now", False):
                        self._identity.expire_tokens()
                    kept = self._faults.options.model_dump(mode="json") if request.method == "PATCH" else {}
                    self._faults.set(Faults.model_validate(kept | wanted))
                case ("PUT", "day"):
                    day = orjson.loads(await request.read())["day"]
                    self._fixed_day = None if day is None else date.fromisoformat(day)
                    await asyncio.to_thread(self.write_files)
                case ("GET", "faults" | "day" | "stats" | "requested" | "credentials"):
                    pass
                case _:
                    return json_response({"error": "there is no such control"}, 404)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            return json_response({"error": f"{'.'.join(map(str, first['loc'])) or 'faults'}: {first['msg']}"}, 400)
        except (ValueError, KeyError, TypeError, AttributeError):
            return json_response({"error": f"the body must be the JSON object that GET /sandbox/{what} shows"}, 400)
        shown: dict[str, Any] = {
            "faults": lambda: self._faults.options.model_dump(mode="json"),
            "day": lambda: {"day": self.day.isoformat(), "follows_clock": self._fixed_day is None},
            "stats": lambda: {
                "requests": dict(self._requests),
                "answers": dict(self._answers),
                "tokens_issued": self._identity.tokens_issued,
                "keys_issued": self._identity.keys_issued,
                "busiest_second": self._busiest_second,
            },
            "requested": lambda: dict(self._requested),
            "credentials": self._seen.counts,
        }
        return json_response(shown[what]())
