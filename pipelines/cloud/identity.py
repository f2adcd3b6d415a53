"""The calls of the identity service (Keystone v3) and of a server's metadata service: requests and responses.

Sending them belongs to `cloud.issuing`, deciding when to renew what they issue to `cloud.authentication`.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from pipelines.bodies.json_text import NotJSONError, parse
from pipelines.cloud.credentials import Account, PasswordLogin
from pipelines.errors import AccessDeniedError, ConfigurationError, PipelineError
from pipelines.inputs.header_values import can_be_sent, is_id


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token, its project, its remaining life in seconds, the project's name, and the catalogue as it was sent.

    What the response does not state is None.
    """

    value: str = field(repr=False)
    project_id: str
    life: float | None
    project_name: str | None = None
    catalogue: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A temporary access key, and its remaining life in seconds (None if the response does not state it)."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    security_token: str = field(repr=False)
    life: float | None


def token_request(login: PasswordLogin) -> dict[str, Any]:
    """The body of the request for the user's token.

    It is scoped to the project, or, for a user who takes on an agency, to the user's own account.
    """
    user: dict[str, Any] = {"id" if login.user_is_id else "name": login.user, "password": login.password}
    if login.user_domain is not None:
        user["domain"] = login.user_domain
    auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": user}}}
    if login.agency is None:
        auth["scope"] = {"project": _project(login)}
    elif login.user_domain is not None:
        auth["scope"] = {"domain": login.user_domain}
    return {"auth": auth}


def agency_request(login: PasswordLogin) -> dict[str, Any]:
    """The body of the request for an agency's token, scoped to the project; the user's own token is sent beside it."""
    agency = login.agency
    assert agency is not None  # noqa: S101
    role = {f"domain_{kind}": value for kind, value in agency.domain.items()} | {"agency_name": agency.name}
    return {
        "auth": {
            "identity": {"methods": ["assume_role"], "assume_role": role},
            "scope": {"project": _project(login)},
        }
    }


def _project(login: PasswordLogin) -> dict[str, Any]:
    project: dict[str, Any] = {"id": login.project_id} if login.project_id else {"name": login.project_name}
    if login.project_id is None and login.project_domain is not None:
        project["domain"] = login.project_domain
    return project


def user_token(host: str, headers: Mapping[str, str]) -> str:
    """The token of the user who takes on an agency, which needs no project.

    Raises:
        ConfigurationError: the server is not an identity service.
    """
    value = headers.get("X-Subject-Token", "").strip()
    if not can_be_sent(value):
        raise _not_an_identity_service(host)
    return value


def read_token(login: PasswordLogin, host: str, headers: Mapping[str, str], body: bytes) -> IssuedToken:
    """Read the response to a successful call.

    Raises:
        ConfigurationError: the server is not an identity service.
        AccessDeniedError: the token is for no project, or for a project that was not requested.
    """
    value = headers.get("X-Subject-Token", "").strip()
    try:
        described = parse(body)
    except NotJSONError:
        described = None
    token = described.get("token") if isinstance(described, dict) else None
    if not can_be_sent(value) or not isinstance(token, dict):
        raise _not_an_identity_service(host)
    project = token.get("project")
    project_id = project.get("id") if isinstance(project, dict) else None
    if not isinstance(project_id, str) or not is_id(project_id):
        raise AccessDeniedError(
            f"The token of {host} belongs to no project: set OS_PROJECT_ID to a project of the user {login.user}."
        )
    if login.project_id is not None and project_id != login.project_id:
        raise AccessDeniedError(
            f"The token of {host} belongs to another project than {login.project_id}: correct OS_PROJECT_ID or "
            "IMAGE_SNAPSHOTS_PROJECTS."
        )
    # Both times are the server's, so a wrong clock on this machine does not matter.
    life = _life(token.get("expires_at"), _moment(token.get("issued_at")))
    name = project.get("name") if isinstance(project, dict) else None
    return IssuedToken(value, project_id, life, name if isinstance(name, str) else None, token.get("catalog"))


def read_key(host: str, headers: Mapping[str, str], body: bytes) -> IssuedKey:
    """Read the temporary access key that the metadata service of a server answers with.

    Raises:
        ConfigurationError: the server is not a metadata service, or this server has no agency.
    """
    try:
        described = parse(body)
    except NotJSONError:
        described = None
    key = described.get("credential") if isinstance(described, dict) else None
    parts = [key.get(name) if isinstance(key, dict) else None for name in ("access", "secret", "securitytoken")]
    access, secret, token = parts
    if not (can_be_sent(access) and can_be_sent(secret) and can_be_sent(token)):
        raise _no_key(host)
    try:
        now = parsedate_to_datetime(headers.get("Date", ""))
    except (ValueError, TypeError, OverflowError):
        now = dt.datetime.now(dt.UTC)
    assert isinstance(key, dict)  # noqa: S101
    return IssuedKey(
        access, secret, token, _life(key.get("expires_at"), now if now.tzinfo else now.replace(tzinfo=dt.UTC))
    )


def metadata_token(host: str, body: bytes) -> str:
    """Read the token that the metadata service of some servers demands.

    Raises:
        ConfigurationError: the server is not a metadata service.
    """
    token = body.decode("latin-1").strip()
    if not can_be_sent(token):
        raise _no_key(host)
    return token


def _no_key(host: str) -> ConfigurationError:
    return ConfigurationError(
        f"The metadata service at {host} answers with no access key: give this server an agency, or state other "
        "credentials than `agency` in OS_AUTH_TYPE or auth_type."
    )


def refused_key(host: str, status: int) -> PipelineError:
    """The error to raise for a final status of the metadata service."""
    return ConfigurationError(
        f"The metadata service at {host} gives no access key (HTTP {status}): give this server an agency, or state "
        "other credentials than `agency` in OS_AUTH_TYPE or auth_type."
    )


def read_project_id(host: str, name: str, body: bytes) -> str:
    """Read the id of the project with this name from the response to the call for projects.

    Raises:
        AccessDeniedError: there is not exactly one such project.
    """
    projects = _listed(host, "projects", body)
    ids = {str(project.get("id")) for project in projects if project.get("name") == name and is_id(project.get("id"))}
    if len(ids) != 1:
        raise AccessDeniedError(
            f"The identity service at {host} shows these credentials {len(ids) or 'no'} project{'s' * (len(ids) > 1)} "
            f"named {name!r}: correct the project's name, or state its id (OS_PROJECT_ID)."
        )
    return ids.pop()


def refused_projects(host: str, status: int, correct_in: str) -> PipelineError:
    """The error to raise for a final status of the call for projects."""
    if status in (401, 403):
        return AccessDeniedError(
            f"{host} refuses the access key (HTTP {status}): check {correct_in} and this machine's clock."
        )
    return ConfigurationError(
        f"The identity service at {host} does not list the projects (HTTP {status}): correct OS_AUTH_URL, or state the "
        "project's id (OS_PROJECT_ID)."
    )


def stated_account_id(stated: str, id_in: str) -> str:
    """The account's id as it is stated.

    Raises:
        ConfigurationError: it is no id.
    """
    if not is_id(stated):
        raise ConfigurationError(f"The account's id is malformed: correct {id_in}.")
    return stated


def read_account_id(host: str, account: Account, body: bytes) -> str:
    """Read the account's id from the response to the call for accounts, which the API calls domains.

    Raises:
        AccessDeniedError: there is not exactly one account.
    """
    domains = _listed(host, "domains", body)
    ids = {str(domain.get("id")) for domain in domains if is_id(domain.get("id"))}
    if len(ids) != 1:
        raise AccessDeniedError(
            f"The identity service at {host} shows these credentials {len(ids) or 'no'} account{'s' * (len(ids) > 1)}: "
            f"set {account.id_in} to the account's id."
        )
    return ids.pop()


def refused_account(host: str, status: int, correct_in: str, account: Account) -> PipelineError:
    """The error to raise for a final status of the call for accounts."""
    if status in (401, 403):
        return AccessDeniedError(
            f"{host} refuses the access key (HTTP {status}): check {correct_in} and this machine's clock, or set "
            f"{account.id_in} to the account's id."
        )
    return ConfigurationError(
        f"The identity service at {host} does not show the account (HTTP {status}): correct {account.url_in}, or set "
        f"{account.id_in} to the account's id."
    )


def refused_agency(login: PasswordLogin, host: str, status: int) -> PipelineError:
    """The error to raise for a final status of the call for an agency's token."""
    agency = login.agency
    assert agency is not None  # noqa: S101
    domain = next(iter(agency.domain.values()))
    if status in (401, 403, 404):
        return AccessDeniedError(
            f"The user {login.user} may not take on the agency {agency.name!r} of {domain} at {host} (HTTP {status}): "
            "check the agency's name and account, the project, and that the agency trusts the user's account."
        )
    return ConfigurationError(
        f"The identity service at {host} refuses the agency {agency.name!r} (HTTP {status}): correct OS_AGENCY_NAME, "
        "OS_AGENCY_DOMAIN_NAME or the project."
    )


def refused_login(login: PasswordLogin, host: str, status: int) -> PipelineError:
    """The error to raise for a final status of the token call."""
    if status == 401:
        return AccessDeniedError(
            f"Wrong user name or password for {login.user} at {host} (HTTP 401): check {login.correct_in} and the "
            "project."
        )
    if status == 403:
        return AccessDeniedError(f"The user {login.user} may not log in at {host} (HTTP 403): ask the account's owner.")
    return ConfigurationError(
        f"The identity service at {host} refuses the login (HTTP {status}): correct OS_AUTH_URL, the domain or "
        "the project."
    )


def _not_an_identity_service(host: str) -> ConfigurationError:
    return ConfigurationError(f"The server at {host} is not an identity service: correct OS_AUTH_URL.")


def _listed(host: str, name: str, body: bytes) -> list[dict[str, Any]]:
    """The objects in the list under a name."""
    try:
        described = parse(body)
    except NotJSONError:
        described = None
    listed = described.get(name) if isinstance(described, dict) else None
    if not isinstance(listed, list):
        raise _not_an_identity_service(host)
    return [item for item in listed if isinstance(item, dict)]


def _life(ends: Any, begins: dt.datetime | None) -> float | None:
    end = _moment(ends)
    if end is None:
        return None
    life = (end - (begins or dt.datetime.now(dt.UTC))).total_seconds()
    return life if life > 0 else None


def _moment(value: Any) -> dt.datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = dt.datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
