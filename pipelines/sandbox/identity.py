"""The sandbox's identity service: tokens, temporary keys, projects, and whether a request proves who sends it.

Tokens and signatures are verified for real. The metadata service of a server, which gives keys to anyone who asks, is
here, too.
"""

import hashlib
import hmac
import os
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl

from aiohttp import web
from pydantic import BaseModel, SecretStr, ValidationError, model_validator

from pipelines.cloud.signing import DATE_FORMAT, Authorization, signature
from pipelines.sandbox.images import USERNAME
from pipelines.sandbox.options import Faults
from pipelines.sandbox.responses import error_response, identity_error, json_response
from pipelines.sandbox.seen import SeenCredentials
from pipelines.sandbox.temporary_keys import TemporaryKeys

DOMAIN = "sandbox-domain"
# An agency of another account, which the user may take on.
AGENCY, AGENCY_DOMAIN = "sandbox-agency", "sandbox-other-domain"
# The region that the catalogue of a token names.
REGION = "eu-de"

_MAX_SKEW = timedelta(minutes=15)
_MAX_TOKENS = 10_000


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client must prove to know."""

    password: str = field(repr=False)
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    bills_key: str = field(repr=False)

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
            os.environ.get("SANDBOX_BILLS_KEY") or derived("bills key")[:40],
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


class _AssumedRole(BaseModel):
    agency_name: str
    domain_name: str


class _Identity(BaseModel):
    methods: list[str]
    password: _Password | None = None
    assume_role: _AssumedRole | None = None

    @model_validator(mode="after")
    def _has_a_method(self) -> Self:
        if self.password is None and self.assume_role is None:
            raise ValueError("there is neither a password nor an agency")
        return self


class _ProjectScope(BaseModel):
    id: str | None = None
    name: str | None = None


class _DomainScope(BaseModel):
    id: str | None = None
    name: str | None = None


class _Scope(BaseModel):
    project: _ProjectScope | None = None
    domain: _DomainScope | None = None


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
        self._keys = TemporaryKeys()
        self._metadata_tokens: set[str] = set()

    def issue_token(self, request: web.BaseRequest, body: bytes, faults: Faults) -> web.Response:
        """Answer the token call: of a user, or of an agency that a user takes on."""
        try:
            auth = _TokenRequest.model_validate_json(body).auth
        except ValidationError:
            return identity_error(400, "Bad Request", "The request body is not a valid token request.")
        refusal = self._refused_role(request, auth.identity) or self._refused_user(auth.identity)
        if refusal is not None:
            return refusal
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
        ends = now + timedelta(seconds=faults.token_seconds)
        if len(self._tokens) >= _MAX_TOKENS:
            self._tokens = {key: one for key, one in self._tokens.items() if one.expires > now.timestamp()}
        self._tokens[token] = _Token(project["id"] if project else None, ends.timestamp())
        self.tokens_issued += 1
        described: dict[str, Any] = {
            "methods": auth.identity.methods,
            "expires_at": ends.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "issued_at": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "catalog": [] if faults.no_catalogue else _catalogue(request.host, project["id"] if project else ""),
            "roles": [],
            "user": {"id": USERNAME, "name": USERNAME, "domain": {"id": DOMAIN, "name": DOMAIN}},
        }
        if project:
            described["project"] = project | {"domain": {"id": DOMAIN, "name": DOMAIN}}
        return json_response({"token": described}, 201, {"X-Subject-Token": token})

    def _refused_user(self, identity: _Identity) -> web.Response | None:
        if identity.password is None:
            return None
        user = identity.password.user
        password = user.password.get_secret_value().encode()
        self._seen.note_login(user.name, password)
        if (
            identity.methods != ["password"]
            or not hmac.compare_digest(password, self._credentials.password.encode())
            or (user.name, user.domain.name) != (USERNAME, DOMAIN)
        ):
            return identity_error(401, "Unauthorized", "The username or password is wrong.")
        return None

    def _refused_role(self, request: web.BaseRequest, identity: _Identity) -> web.Response | None:
        role = identity.assume_role
        if role is None:
            return None
        own = self._tokens.get(request.headers.get("X-Auth-Token", ""))
        if own is None or own.expires <= time.time() or identity.methods != ["assume_role"]:
            return identity_error(401, "Unauthorized", "The request you have made requires authentication.")
        if (role.agency_name, role.domain_name) != (AGENCY, AGENCY_DOMAIN):
            return identity_error(403, "Forbidden", "You are not authorized to perform the requested action.")
        return None

    def issue_key(self, request: web.BaseRequest, faults: Faults) -> web.Response:
        """Answer the call for a temporary key by a token."""
        token = self._tokens.get(request.headers.get("X-Auth-Token", ""))
        if token is None or token.expires <= time.time():
            return identity_error(401, "Unauthorized", "The request you have made requires authentication.")
        return json_response(self._keys.issue(faults.key_seconds), 201)

    def metadata_token(self) -> web.Response:
        """Answer a server's call for a token of the metadata service."""
        token = secrets.token_urlsafe(32)
        self._metadata_tokens.add(token)
        return web.Response(text=token)

    def metadata_key(self, request: web.BaseRequest, faults: Faults) -> web.Response:
        """Answer a server's call for a temporary key of its agency."""
        if faults.metadata_token_required and request.headers.get("X-Metadata-Token") not in self._metadata_tokens:
            return web.Response(status=401, text="A token of the metadata service is required.")
        if faults.no_agency:
            return web.Response(status=404, text="This server has no agency.")
        return json_response(self._keys.issue(faults.key_seconds))

    def list_projects(self, query: str) -> web.Response:
        """Answer the call for the projects, by name if the query says one."""
        wanted = dict(parse_qsl(query)).get("name")
        projects = [
            {"id": project_id, "name": name, "domain_id": DOMAIN, "is_domain": False, "enabled": True}
            for name, project_id in self._projects.items()
            if wanted in (None, name)
        ]
        return json_response({"links": {}, "projects": projects})

    def list_domains(self) -> web.Response:
        """Answer the call for the accounts that the caller may use."""
        domain = {"id": DOMAIN, "name": DOMAIN, "description": "", "enabled": True, "links": {}}
        return json_response({"links": {}, "domains": [domain]})

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
        secret_key, security_token = self._credentials.secret_key, None
        signed = {"host", "x-sdk-date"}
        is_known = hmac.compare_digest(authorization.access_key.encode(), self._credentials.access_key.encode())
        temporary = self._keys.get(authorization.access_key)
        if temporary is not None:
            if temporary.expires <= time.time():
                return error_response(
                    401, "APIG.0301", "Incorrect IAM authentication information: the security token has expired."
                )
            is_known, secret_key, security_token = True, temporary.secret_key, temporary.security_token
            signed.add("x-security-token")
        body = await request.read() if request.can_read_body else b""
        expected = signature(
            request.method,
            request.raw_path,
            [(name, request.headers.get(name, "")) for name in authorization.signed_headers],
            body,
            sent_at,
            secret_key,
        )
        if (
            not is_known
            or not signed.issubset(authorization.signed_headers)
            or (request.headers.get("X-Security-Token") or None) != security_token
            or not hmac.compare_digest(authorization.signature, expected)
        ):
            return error_response(403, "ModelArts.0206", "The AK/SK is wrong.")
        return None

    def not_for_account(self, request: web.BaseRequest) -> web.Response | None:
        """The refusal of an authentic request to a service of the whole account; None when it is for the account.

        A signed request must name the account, signed along, and no project. A token is of the account anyway.
        """
        authorization = Authorization.parse(request.headers.get("Authorization", ""))
        if request.headers.get("X-Auth-Token") or (
            authorization is not None
            and "x-domain-id" in authorization.signed_headers
            and request.headers.get("X-Domain-Id") == DOMAIN
            and "X-Project-Id" not in request.headers
        ):
            return None
        return error_response(401, "APIG.0301", "Incorrect IAM authentication information: the account is wrong.")

    def knows(self, token: str) -> bool:
        """Whether a token was issued here."""
        return token in self._tokens

    @property
    def keys_issued(self) -> int:
        """How many temporary keys were issued."""
        return self._keys.issued

    def scope_of(self, token: str) -> str | None:
        """The project of a token that is known."""
        return self._tokens[token].project_id

    def expire_tokens(self) -> None:
        """End every token and every temporary key now."""
        self._keys.expire()
        self._tokens = {key: token._replace(expires=0) for key, token in self._tokens.items()}


def _catalogue(host: str, project_id: str) -> list[dict[str, Any]]:
    """The services in a token, in which this server plays all; ModelArts is there once for each version of its API."""

    def service(kind: str, path: str) -> dict[str, Any]:
        endpoint = {"interface": "public", "region": REGION, "region_id": REGION, "url": f"http://{host}{path}"}
        return {"id": kind, "type": kind, "name": kind, "endpoints": [endpoint | {"id": kind}]}

    return [
        service("identity", "/v3"),
        service("modelarts", f"/v1/{project_id}"),
        service("modelartsv2", f"/v2/{project_id}"),
        service("cts", f"/v3/{project_id}"),
    ]


def _is_recent(sent_at: str) -> bool:
    try:
        then = datetime.strptime(sent_at, DATE_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return False
    return abs(datetime.now(UTC) - then) <= _MAX_SKEW
