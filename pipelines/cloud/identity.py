"""The identity service's token call (Keystone v3): builds the request and reads the response.

Sending the request and deciding when to renew a token belong to `cloud.authentication`.
"""

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.bodies.json_text import NotJSONError, parse
from pipelines.cloud.credentials import PasswordLogin
from pipelines.errors import AccessDeniedError, ConfigurationError, PipelineError


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token, its project, and its remaining life in seconds (None if the response does not state it)."""

    value: str = field(repr=False)
    project_id: str
    life: float | None


def token_request(login: PasswordLogin) -> dict[str, Any]:
    """The request's body: the user, and the project that the token is scoped to."""
    user: dict[str, Any] = {"id" if login.user_is_id else "name": login.user, "password": login.password}
    if login.user_domain is not None:
        user["domain"] = login.user_domain
    project: dict[str, Any] = {"id": login.project_id} if login.project_id else {"name": login.project_name}
    if login.project_id is None and login.project_domain is not None:
        project["domain"] = login.project_domain
    return {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": {"project": project}}}


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
    if not value or not isinstance(token, dict):
        raise ConfigurationError(f"The server at {host} is not an identity service: correct OS_AUTH_URL.")
    project = token.get("project")
    project_id = project.get("id") if isinstance(project, dict) else None
    if not isinstance(project_id, str) or not re.fullmatch(r"[0-9A-Za-z_-]{1,64}", project_id):
        raise AccessDeniedError(
            f"The token of {host} belongs to no project: set OS_PROJECT_ID to a project of the user {login.user}."
        )
    if login.project_id is not None and project_id != login.project_id:
        raise AccessDeniedError(
            f"The token of {host} belongs to another project than {login.project_id}: correct OS_PROJECT_ID or "
            "IMAGE_SNAPSHOTS_PROJECTS."
        )
    ends, begins = _moment(token.get("expires_at")), _moment(token.get("issued_at"))
    if ends is None:
        return IssuedToken(value, project_id, None)
    # Both times are the server's, so a wrong clock on this machine does not matter.
    life = (ends - (begins or dt.datetime.now(dt.UTC))).total_seconds()
    return IssuedToken(value, project_id, life if life > 0 else None)


def refused_login(login: PasswordLogin, host: str, status: int) -> PipelineError:
    """The error to raise for a final status of the token call."""
    if status == 401:
        return AccessDeniedError(
            f"Wrong user name or password for {login.user} at {host} (HTTP 401): check OS_USERNAME, OS_PASSWORD, "
            "OS_USER_DOMAIN_NAME and the project."
        )
    if status == 403:
        return AccessDeniedError(f"The user {login.user} may not log in at {host} (HTTP 403): ask the account's owner.")
    return ConfigurationError(
        f"The identity service at {host} refuses the login (HTTP {status}): correct OS_AUTH_URL, the domain or "
        "the project."
    )


def _moment(value: Any) -> dt.datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = dt.datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
