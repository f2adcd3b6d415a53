"""The sandbox's endpoint: the token call, ModelArts' image and notebook calls, faults, and a way to steer them.

Answers are computed from `pipelines.sandbox.catalogue`; tokens and signatures are verified for real. Requests are not
logged, and dispatched by hand, so that the endpoint does not become the bottleneck of what is measured against it.

    PUT, PATCH, GET /sandbox/faults   all of `Faults`, those named, what is set; `expire_tokens_now` ends every token
    PUT, GET /sandbox/day             {"day": "2026-11-23"}, null to follow the clock
    GET /sandbox/stats                counts of requests by kind, of answers by status, of tokens issued; most
                                     details and lists asked for within a second
    GET /sandbox/requested            image id -> how often its details were asked for
"""

import asyncio
import csv
import hashlib
import hmac
import os
import secrets
import shlex
import signal
import socket
import struct
import sys
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import orjson
from aiohttp import web
from pydantic import BaseModel, SecretStr, ValidationError

from pipelines.errors import PipelineError
from pipelines.sandbox.catalogue import Catalogue, InventoryRow
from pipelines.sandbox.options import CannedAnswer, Faults, SandboxOptions
from pipelines.signing import DATE_FORMAT, Authorization, signature

HOST = "127.0.0.1"
DEFAULT_PROJECT = "default"
USERNAME = "sandbox-user"
DOMAIN = "sandbox-domain"

_JSON = {"Content-Type": "application/json"}
_HTML = {"Content-Type": "text/html"}
_MAX_SKEW = timedelta(minutes=15)
_MAX_TOKENS = 10_000
_MAX_PAGE = 1000
_FILTERS = ("type", "namespace", "workspace_id")
_HTML_PAGE = b"<html><head><title>Please wait</title></head><body>The service is being updated.</body></html>"


def serve(options: SandboxOptions) -> None:
    """Run a sandbox until SIGTERM, SIGINT or (if so chosen) the end of standard input.

    Prints `KEY=VALUE` lines, quoted for a shell where needed, that point a client at it, then an empty line.
    The environment variables SANDBOX_PASSWORD, SANDBOX_ACCESS_KEY and SANDBOX_SECRET_KEY set its credentials; by
    default they are random.

    Raises:
        PipelineError: it cannot listen on the port or write the inventory file.
    """
    asyncio.run(_serve(options))


async def _serve(options: SandboxOptions) -> None:
    sandbox = Sandbox(options, Credentials.from_environment())
    sandbox.write_inventory()
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
            raise PipelineError(
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


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client must prove to know."""

    password: str = field(repr=False)
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)

    @classmethod
    def from_environment(cls) -> "Credentials":
        """Those that the environment sets, random ones otherwise."""
        return cls(
            os.environ.get("SANDBOX_PASSWORD") or secrets.token_urlsafe(24),
            os.environ.get("SANDBOX_ACCESS_KEY") or secrets.token_hex(10).upper(),
            os.environ.get("SANDBOX_SECRET_KEY") or secrets.token_hex(20),
        )


class _Token(NamedTuple):
    project_id: str | None
    expires: float


class _Domain(BaseModel):
    name: str


class _User(BaseModel):
    name: str
    password: SecretStr
    domain: _Domain


class _Password(BaseModel):
    user: _User


class _Identity(BaseModel):
    methods: list[str]
    password: _Password


class _ProjectScope(BaseModel):
    id: str | None = None
    name: str | None = None


class _Scope(BaseModel):
    project: _ProjectScope | None = None


class _Auth(BaseModel):
    identity: _Identity
    scope: _Scope | None = None


class _TokenRequest(BaseModel):
    auth: _Auth


class Sandbox:
    """The state of a running sandbox, and its answers."""

    def __init__(self, options: SandboxOptions, credentials: Credentials) -> None:
        self._seed = options.seed
        self._credentials = credentials
        self._named_projects = options.projects
        self._projects = options.projects or {
            DEFAULT_PROJECT: hashlib.blake2b(options.seed.encode(), digest_size=16).hexdigest()
        }
        self._catalogues = {
            project_id: Catalogue(options.seed, options.size, name) for name, project_id in self._projects.items()
        }
        self._inventory_file = options.inventory_file
        self._fixed_day = options.day
        self._tokens: dict[str, _Token] = {}
        self._bucket, self._bucket_filled = 0.0, time.monotonic()
        self._asked: Counter[str] = Counter()
        self._requested: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._tokens_issued = 0
        # When the details and lists of the last second were asked for, and the most that ever were within one.
        self._last_second: deque[float] = deque()
        self._busiest_second = 0
        self._set_faults(options.faults)

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
        }

    # -- the inventory file

    def write_inventory(self) -> None:
        """Write the registered images of all projects, if a file was asked for.

        Raises:
            PipelineError: the file cannot be written.
        """
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
        """Write the inventory anew after each midnight (UTC), unless the day is fixed."""
        while True:
            now = datetime.now(UTC)
            midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
            await asyncio.sleep((midnight - now).total_seconds())
            if self._fixed_day is None:
                await asyncio.to_thread(self.write_inventory)

    # -- dispatch

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path, _, query = request.raw_path.partition("?")
        parts = path.split("/")[1:]
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
                return self._counted("token", self._issue_token(await request.read()))
            case ("GET", ["v3", "projects"]):
                refusal = await self._unauthenticated(request)
                return self._counted("projects", refusal or self._list_projects(query))
            case ("GET", ["v3"] | ["v3", ""]):
                return self._counted("other", self._identity_version(request))
            case _:
                error = _error(404, "APIG.0101", "The API does not exist or has not been published.")
                return self._counted("other", error)
        refusal = await self._refusal(request, project_id)
        return self._counted(kind, refusal or answer(self._catalogues[project_id], query))

    def _counted(self, kind: str, response: web.StreamResponse) -> web.StreamResponse:
        self._requests[kind] += 1
        outcome = response.get("outcome") if len(response) else None
        self._answers[outcome or str(response.status)] += 1
        return response

    # -- identity

    def _issue_token(self, body: bytes) -> web.Response:
        if self._faults.iam_down:
            return _identity_error(503, "Service Unavailable", "The identity service is not available.")
        try:
            auth = _TokenRequest.model_validate_json(body).auth
        except ValidationError:
            return _identity_error(400, "Bad Request", "The request body is not a valid token request.")
        user = auth.identity.password.user
        password = user.password.get_secret_value().encode()
        if (
            auth.identity.methods != ["password"]
            or not hmac.compare_digest(password, self._credentials.password.encode())
            or (user.name, user.domain.name) != (USERNAME, DOMAIN)
        ):
            return _identity_error(401, "Unauthorized", "The username or password is wrong.")
        project: dict[str, str] | None = None
        if auth.scope and auth.scope.project:
            wanted = auth.scope.project
            found = [
                {"id": project_id, "name": name}
                for name, project_id in self._projects.items()
                if (project_id == wanted.id if wanted.id else name == wanted.name)
            ]
            if not found:
                return _identity_error(401, "Unauthorized", "The project of the scope does not exist.")
            project = found[0]
        token = "MII" + secrets.token_urlsafe(96)
        now = datetime.now(UTC)
        ends = now + timedelta(seconds=self._faults.token_seconds)
        if len(self._tokens) >= _MAX_TOKENS:
            self._tokens = {key: one for key, one in self._tokens.items() if one.expires > now.timestamp()}
        self._tokens[token] = _Token(project["id"] if project else None, ends.timestamp())
        self._tokens_issued += 1
        described: dict[str, Any] = {
            "methods": ["password"],
            "expires_at": ends.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "issued_at": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "catalog": [],
            "roles": [],
            "user": {"id": USERNAME, "name": USERNAME, "domain": {"id": DOMAIN, "name": DOMAIN}},
        }
        if project:
            described["project"] = project | {"domain": {"id": DOMAIN, "name": DOMAIN}}
        return _json({"token": described}, 201, {"X-Subject-Token": token})

    def _list_projects(self, query: str) -> web.Response:
        wanted = dict(parse_qsl(query)).get("name")
        projects = [
            {"id": project_id, "name": name, "domain_id": DOMAIN, "is_domain": False, "enabled": True}
            for name, project_id in self._projects.items()
            if wanted in (None, name)
        ]
        return _json({"links": {}, "projects": projects})

    def _identity_version(self, request: web.BaseRequest) -> web.Response:
        link = {"rel": "self", "href": f"http://{request.host}/v3/"}
        return _json({"version": {"id": "v3.6", "status": "stable", "links": [link], "media-types": []}})

    async def _refusal(self, request: web.BaseRequest, project_id: str) -> web.Response | None:
        # Why this request to ModelArts may not have what it asks of this project; None when it may.
        refusal = await self._unauthenticated(request)
        if refusal:
            return refusal
        token = request.headers.get("X-Auth-Token")
        scope = self._tokens[token].project_id if token else request.headers.get("X-Project-Id", project_id)
        if scope is None:
            return _error(400, "ModelArts.0204", "The token does not contain a project.")
        if scope != project_id:
            return _error(404, "ModelArts.2786", "The project of the URL is not the project of the credentials.")
        if project_id not in self._catalogues:
            return _error(400, "ModelArts.0210", "The project id is invalid.")
        if self._faults.suspended:
            return _error(401, "ModelArts.6201", "The account is suspended.")
        return None

    async def _unauthenticated(self, request: web.BaseRequest) -> web.Response | None:
        token = request.headers.get("X-Auth-Token")
        if token:
            known = self._tokens.get(token)
            if known is None:
                return _error(401, "ModelArts.0203", "Invalid token.")
            if known.expires <= time.time():
                return _error(401, "APIG.0301", "Incorrect IAM authentication information: the token has expired.")
            return None
        header = request.headers.get("Authorization")
        if not header:
            return _error(401, "ModelArts.0201", "The request carries no token.")
        authorization = Authorization.parse(header)
        sent_at = request.headers.get("X-Sdk-Date", "")
        if authorization is None or not _is_recent(sent_at):
            return _error(401, "APIG.0301", "Incorrect IAM authentication information: malformed or out of date.")
        body = await request.read() if request.can_read_body else b""
        expected = signature(
            request.method,
            request.raw_path,
            [(name, request.headers.get(name, "")) for name in authorization.signed_headers],
            body,
            sent_at,
            self._credentials.secret_key,
        )
        if (
            not {"host", "x-sdk-date"}.issubset(authorization.signed_headers)
            or not hmac.compare_digest(authorization.access_key.encode(), self._credentials.access_key.encode())
            or not hmac.compare_digest(authorization.signature, expected)
        ):
            return _error(403, "ModelArts.0206", "The AK/SK is wrong.")
        return None

    # -- ModelArts

    async def _image_call(self, request: web.BaseRequest, project_id: str, image_id: str) -> web.StreamResponse:
        self._requested[image_id] += 1
        refusal = await self._throttled(request, project_id)
        if refusal:
            return refusal
        canned = self._faults.answers.get(image_id)
        if canned is not None:
            return _canned(canned)
        status, body = self._catalogues[project_id].answer(image_id, self.day)
        response = web.Response(status=status) if body is None else _json(body, status)
        return await self._with_faults(request, image_id, self._requested[image_id], response)

    async def _list_call(self, request: web.BaseRequest, project_id: str, query: str) -> web.StreamResponse:
        self._asked[request.raw_path] += 1
        refusal = await self._throttled(request, project_id)
        if refusal:
            return refusal
        response = _forbidden() if self._faults.lists_forbidden else self._images(self._catalogues[project_id], query)
        return await self._with_faults(request, request.raw_path, self._asked[request.raw_path], response)

    def _images(self, catalogue: Catalogue, query: str) -> web.Response:
        wanted = dict(parse_qsl(query))
        page = _page_wanted(wanted, 200)
        if page is None:
            return _error(400, "ModelArts.6400", "Invalid paging parameters.")
        offset, limit = page
        filters = [(name, wanted[name]) for name in _FILTERS if name in wanted]
        if filters:
            items = [
                item
                for item in catalogue.page(self.day, 0, catalogue.size)
                if all(item.get(name) == value for name, value in filters)
            ]
            total, items = len(items), items[offset : offset + limit]
        else:
            total = catalogue.count(self.day)
            items = catalogue.page(self.day, offset, limit)
        if offset and offset >= total:
            return _error(400, "ModelArts.6400", "The offset lies beyond the last record.")
        return _json_page(items, offset, limit, total)

    def _groups(self, catalogue: Catalogue, query: str) -> web.Response:
        page = _page_wanted(dict(parse_qsl(query)), 200)
        if page is None:
            return _error(400, "ModelArts.6400", "Invalid paging parameters.")
        versions: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for item in catalogue.page(self.day, 0, catalogue.size):
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
        return _json_page(groups[offset : offset + limit], offset, limit, len(groups))

    def _notebooks(self, catalogue: Catalogue, query: str) -> web.Response:
        if self._faults.lists_forbidden:
            return _forbidden()
        page = _page_wanted(dict(parse_qsl(query)), 10)
        if page is None:
            return _error(400, "ModelArts.6400", "Invalid paging parameters.")
        offset, limit = page
        return _json_page(list(catalogue.notebooks(self.day, offset, limit)), offset, limit, catalogue.notebook_count())

    # -- faults

    def _set_faults(self, faults: Faults) -> None:
        self._faults = faults
        self._ratios = [
            (name, ratio)
            for name, ratio in (
                ("429", faults.ratio_429),
                ("500", faults.ratio_500),
                ("reset", faults.ratio_reset),
                ("truncated", faults.ratio_truncated),
                ("html", faults.ratio_html),
            )
            if ratio
        ]

    async def _throttled(self, request: web.BaseRequest, project_id: str) -> web.Response | None:
        arrived = time.monotonic()
        self._last_second.append(arrived)
        while self._last_second[0] < arrived - 1:
            self._last_second.popleft()
        self._busiest_second = max(self._busiest_second, len(self._last_second))
        if self._faults.latency_ms:
            await asyncio.sleep(self._faults.latency_ms / 1000)
        refusal = await self._refusal(request, project_id)
        if refusal:
            return refusal
        rate = self._faults.rate_limit
        if rate is None:
            return None
        # A bucket that holds one second's worth, so that short bursts pass.
        now = time.monotonic()
        self._bucket = min(max(rate, 1.0), self._bucket + (now - self._bucket_filled) * rate)
        self._bucket_filled = now
        if self._bucket < 1:
            return self._too_many()
        self._bucket -= 1
        return None

    def _too_many(self) -> web.Response:
        wait = self._faults.retry_after
        headers = {} if wait is None else {"Retry-After": wait}
        return _error(429, "APIG.0308", "The throttling threshold has been reached.", headers)

    async def _with_faults(
        self, request: web.BaseRequest, asked_for: str, nth: int, response: web.Response
    ) -> web.StreamResponse:
        if not self._ratios:
            return response
        digest = hashlib.blake2b(f"{self._seed}/{asked_for}/{nth}".encode(), digest_size=8).digest()
        point = int.from_bytes(digest) / 2**64
        for name, ratio in self._ratios:
            point -= ratio
            if point < 0:
                return await self._fault(name, request, response)
        return response

    async def _fault(self, name: str, request: web.BaseRequest, response: web.Response) -> web.StreamResponse:
        match name:
            case "429":
                return self._too_many()
            case "500":
                return _error(500, "ModelArts.0010", "Internal service error.")
            case "html":
                response = web.Response(body=_HTML_PAGE, headers=_HTML)
                response["outcome"] = "html"
                return response
            case "reset":
                return _reset(request)
            case _:
                return await _truncated(request, response)

    # -- control

    async def _control(self, request: web.BaseRequest, what: str) -> web.Response:
        try:
            match (request.method, what):
                case ("PUT" | "PATCH", "faults"):
                    wanted = orjson.loads(await request.read())
                    if wanted.pop("expire_tokens_now", False):
                        self._tokens = {key: token._replace(expires=0) for key, token in self._tokens.items()}
                    kept = self._faults.model_dump(mode="json") if request.method == "PATCH" else {}
                    self._set_faults(Faults.model_validate(kept | wanted))
                case ("PUT", "day"):
                    day = orjson.loads(await request.read())["day"]
                    self._fixed_day = None if day is None else date.fromisoformat(day)
                    await asyncio.to_thread(self.write_inventory)
                case ("GET", "faults" | "day" | "stats" | "requested"):
                    pass
                case _:
                    return _json({"error": "there is no such control"}, 404)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            return _json({"error": f"{'.'.join(map(str, first['loc'])) or 'faults'}: {first['msg']}"}, 400)
        except (ValueError, KeyError, TypeError, AttributeError):
            return _json({"error": f"the body must be the JSON object that GET /sandbox/{what} shows"}, 400)
        shown: dict[str, Any] = {
            "faults": lambda: self._faults.model_dump(mode="json"),
            "day": lambda: {"day": self.day.isoformat(), "follows_clock": self._fixed_day is None},
            "stats": lambda: {
                "requests": dict(self._requests),
                "answers": dict(self._answers),
                "tokens_issued": self._tokens_issued,
                "busiest_second": self._busiest_second,
            },
            "requested": lambda: dict(self._requested),
        }
        return _json(shown[what]())


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, headers=_JSON if headers is None else headers | _JSON)


def _json_page(items: list[dict[str, Any]], offset: int, limit: int, total: int) -> web.Response:
    pages = -(-total // limit)
    return _json({"current": offset // limit, "data": items, "pages": pages, "size": limit, "total": total})


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return _json({"error_code": code, "error_msg": message}, status, headers)


def _forbidden() -> web.Response:
    return _error(403, "ModelArts.0108", "The user has no permission for this resource.")


def _identity_error(status: int, title: str, message: str) -> web.Response:
    return _json({"error": {"code": status, "message": message, "title": title}}, status)


def _canned(answer: CannedAnswer) -> web.Response:
    if answer.body_base64 is not None:
        body = answer.body_base64
    else:
        body = answer.body.encode() if isinstance(answer.body, str) else orjson.dumps(answer.body)
    has_type = any(name.lower() == "content-type" for name in answer.headers)
    return web.Response(body=body, status=answer.status, headers=answer.headers if has_type else answer.headers | _JSON)


def _reset(request: web.BaseRequest) -> web.Response:
    transport = request.transport
    if transport is not None:
        # Closing with a linger time of zero sends RST instead of FIN.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    response = web.Response()
    response["outcome"] = "reset"
    return response


async def _truncated(request: web.BaseRequest, whole: web.Response) -> web.StreamResponse:
    body = whole.body if isinstance(whole.body, bytes) and whole.body else b"{}"
    response = web.StreamResponse(status=whole.status, headers=_JSON)
    response["outcome"] = "truncated"
    response.content_length = len(body)
    response.force_close()
    # The client may have gone: then there is nobody to deceive.
    with suppress(ConnectionError):
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


def _page_wanted(query: dict[str, str], default_limit: int) -> tuple[int, int] | None:
    try:
        offset, limit = int(query.get("offset", 0)), int(query.get("limit", default_limit))
    except ValueError:
        return None
    return (offset, min(limit, _MAX_PAGE)) if offset >= 0 and limit > 0 else None


def _is_recent(sent_at: str) -> bool:
    try:
        then = datetime.strptime(sent_at, DATE_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return False
    return abs(datetime.now(UTC) - then) <= _MAX_SKEW
