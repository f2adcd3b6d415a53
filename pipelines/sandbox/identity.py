"""The sandbox's identity service: its token call, its projects, and whether a request proves who sends it.

Tokens and signatures are verified for real.
"""

import hashlib
import hmac
import os
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from aiohttp import web
from pydantic import BaseModel, SecretStr, ValidationError

from pipelines.cloud.signing import DATE_FORMAT, Authorization, signature
from pipelines.sandbox.images import USERNAME
from pipelines.sandbox.responses import error_response, identity_error, json_response
from pipelines.sandbox.seen import SeenCredentials

DOMAIN = "sandbox-domain"

_MAX_SKEW = timedelta(minutes=15)
_MAX_TOKENS = 10_000


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client must prove to know."""

    password: str = field(repr=False)
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)

    @classmethod
    def from_environment(cls, seed: str) -> "Credentials":
        """Those that the environment sets; others follow from the seed, so that a client's settings outlive a restart.

        They guard invented images on loopback, and prove that a client signs and logs in as it must.
        """

        def derived(name: str) -> str:
            return hashlib.sha256(f"{name} of sandbox {seed}".encode()).hexdigest()

        return cls(
            os.environ.get("SANDBOX_PASSWORD") or derived("password")[:32],
            os.environ.get("SANDBOX_ACCESS_KEY") or derived("access key")[:20].upper(),
            os.environ.get("SANDBOX_SECRET_KEY") or derived("secret key")[:40],
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


class IdentityService:
    """The tokens of one sandbox; `projects` are ids by name, `seen` remembers every login."""

    def __init__(self, credentials: Credentials, projects: dict[str, str], seen: SeenCredentials) -> None:
        self._seen = seen
        self._credentials = credentials
        self._projects = projects
        self._tokens: dict[str, _Token] = {}
        self.tokens_issued = 0

    def issue_token(self, body: bytes, life_seconds: float) -> web.Response:
        """Answer the token call."""
        try:
            auth = _TokenRequest.model_validate_json(body).auth
        except ValidationError:
            return identity_error(400, "Bad Request", "The request body is not a valid token request.")
        user = auth.identity.password.user
        password = user.password.get_secret_value().encode()
        self._seen.note_login(user.name, password)
        if (
            auth.identity.methods != ["password"]
            or not hmac.compare_digest(password, self._credentials.password.encode())
            or (user.name, user.domain.name) != (USERNAME, DOMAIN)
        ):
            return identity_error(401, "Unauthorized", "The username or password is wrong.")
        project: dict[str, str] | None = None
        if auth.scope and auth.scope.project:
            wanted = auth.scope.project
            found = [
                {"id": project_id, "name": name}
                for name, project_id in self._projects.items()
                if (project_id == wanted.id if wanted.id else name == wanted.name)
            ]
            if not found:
                return identity_error(401, "Unauthorized", "The project of the scope does not exist.")
            project = found[0]
        token = "MII" + secrets.token_urlsafe(96)
        now = datetime.now(UTC)
        ends = now + timedelta(seconds=life_seconds)
        if len(self._tokens) >= _MAX_TOKENS:
            self._tokens = {key: one for key, one in self._tokens.items() if one.expires > now.timestamp()}
        self._tokens[token] = _Token(project["id"] if project else None, ends.timestamp())
        self.tokens_issued += 1
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
        return json_response({"token": described}, 201, {"X-Subject-Token": token})

    def list_projects(self, query: str) -> web.Response:
        """Answer the call for the projects, by name if the query says one."""
        wanted = dict(parse_qsl(query)).get("name")
        projects = [
            {"id": project_id, "name": name, "domain_id": DOMAIN, "is_domain": False, "enabled": True}
            for name, project_id in self._projects.items()
            if wanted in (None, name)
        ]
        return json_response({"links": {}, "projects": projects})

    def version(self, request: web.BaseRequest) -> web.Response:
        """Answer the call for the service's version."""
        link = {"rel": "self", "href": f"http://{request.host}/v3/"}
        return json_response({"version": {"id": "v3.6", "status": "stable", "links": [link], "media-types": []}})

    async def unauthenticated(self, request: web.BaseRequest) -> web.Response | None:
        """The refusal of a request that does not prove who sends it; None when it does."""
        token = request.headers.get("X-Auth-Token")
        if token:
            known = self._tokens.get(token)
            if known is None:
                return error_response(401, "ModelArts.0203", "Invalid token.")
            if known.expires <= time.time():
                return error_response(
                    401, "APIG.0301", "Incorrect IAM authentication information: the token has expired."
                )
            return None
        header = request.headers.get("Authorization")
        if not header:
            return error_response(401, "ModelArts.0201", "The request carries no token.")
        authorization = Authorization.parse(header)
        sent_at = request.headers.get("X-Sdk-Date", "")
        if authorization is None or not _is_recent(sent_at):
            return error_response(
                401, "APIG.0301", "Incorrect IAM authentication information: malformed or out of date."
            )
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
            return error_response(403, "ModelArts.0206", "The AK/SK is wrong.")
        return None

    def knows(self, token: str) -> bool:
        """Whether a token was issued here."""
        return token in self._tokens

    def scope_of(self, token: str) -> str | None:
        """The project of a token that is known."""
        return self._tokens[token].project_id

    def expire_tokens(self) -> None:
        """End every token now."""
        self._tokens = {key: token._replace(expires=0) for key, token in self._tokens.items()}


def _is_recent(sent_at: str) -> bool:
    try:
        then = datetime.strptime(sent_at, DATE_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return False
    return abs(datetime.now(UTC) - then) <= _MAX_SKEW
