"""Reads the credentials of one project, following the cloud's own conventions.

These are an access key (`OS_ACCESS_KEY`, `OS_SECRET_KEY`), a password, or a ready-made token; the last two come from
`clouds.yaml` with `OS_CLOUD`, or from `OS_*` variables. This module sends nothing: fetching and renewing tokens belongs
to `cloud.authentication`.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.cloud.clouds_file import read_cloud
from pipelines.errors import ConfigurationError
from pipelines.inputs.endpoints import check_endpoint
from pipelines.inputs.environment import at_home

_PASSWORD_TYPES = {"password", "v3password"}
_TOKEN_TYPES = {"token", "v3token"}

# The OS_* variables that are read without OS_CLOUD, by openstacksdk's names.
_AUTH_KEYS = (
    "auth_url",
    "username",
    "user_id",
    "password",
    "token",
    "project_id",
    "project_name",
    "tenant_id",
    "tenant_name",
    "domain_id",
    "domain_name",
    "user_domain_id",
    "user_domain_name",
    "project_domain_id",
    "project_domain_name",
)
_OTHER_KEYS = ("auth_type", "region_name", "cacert", "verify", "insecure")


@dataclass(frozen=True, slots=True)
class AccessKey:
    """Each request is signed (AK/SK)."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    project_id: str
    ca_bundle: Path | None = None


@dataclass(frozen=True, slots=True)
class PasswordLogin:
    """Tokens are fetched from `auth_url` (ends in `/v3`), scoped to the project's id, or to its name without an id."""

    auth_url: str
    user: str
    user_is_id: bool
    password: str = field(repr=False)
    # In Keystone's format, such as {"name": "…"}; a user id needs no domain.
    user_domain: dict[str, str] | None
    project_id: str | None
    project_name: str | None
    project_domain: dict[str, str] | None
    ca_bundle: Path | None = None


@dataclass(frozen=True, slots=True)
class ReadyToken:
    """A token fetched elsewhere; it cannot be renewed."""

    token: str = field(repr=False)
    project_id: str
    ca_bundle: Path | None = None


Credentials = AccessKey | PasswordLogin | ReadyToken


def stated_credentials(environ: Mapping[str, str]) -> list[str]:
    """Names of the set variables that choose the cloud, the user or the project."""
    names = ("OS_CLOUD", "OS_ACCESS_KEY", "OS_SECRET_KEY", *(f"OS_{key.upper()}" for key in _AUTH_KEYS))
    return [name for name in names if environ.get(name, "").strip()]


def load_credentials(project_id: str | None, environ: Mapping[str, str]) -> Credentials:
    """Read one project's credentials. `project_id`, when given, wins over the project that the environment states.

    An access key wins over a password and a token.

    Raises:
        ConfigurationError: something is missing or contradictory; names the variable, never a secret.
    """
    env = {
        # Blanks may belong to a password.
        name: value if name == "OS_PASSWORD" else value.strip()
        for name, value in environ.items()
        if name.startswith("OS_") and value.strip()
    }
    access_key, secret_key = env.get("OS_ACCESS_KEY"), env.get("OS_SECRET_KEY")
    if access_key and secret_key:
        project_id = project_id or env.get("OS_PROJECT_ID")
        if not project_id:
            raise ConfigurationError(
                "An access key needs a project id: set OS_PROJECT_ID, or IMAGE_SNAPSHOTS_PROJECTS for several projects."
            )
        return AccessKey(access_key, secret_key, project_id, _ca_bundle(env.get("OS_CACERT")))
    if access_key or secret_key:
        present, missing = ("ACCESS", "SECRET") if access_key else ("SECRET", "ACCESS")
        raise ConfigurationError(f"OS_{present}_KEY is set but OS_{missing}_KEY is not: set both, or neither.")
    if "OS_CLOUD" in env:
        config, source = _read(lambda: read_cloud(env)), f"the cloud {env['OS_CLOUD']!r} in clouds.yaml"
    elif "OS_AUTH_URL" in env or "OS_TOKEN" in env:
        config, source = _from_variables(env), "the OS_* variables"
    else:
        raise ConfigurationError(
            "No credentials found: set OS_ACCESS_KEY and OS_SECRET_KEY, or OS_CLOUD (with a clouds.yaml), "
            "or OS_AUTH_URL with OS_USERNAME and OS_PASSWORD, or OS_TOKEN."
        )
    return _from_config(project_id, config, source)


def _from_variables(env: Mapping[str, str]) -> dict[str, Any]:
    from openstack.config import loader  # noqa: PLC0415

    auth = {key: env[f"OS_{key.upper()}"] for key in _AUTH_KEYS if f"OS_{key.upper()}" in env}
    other = {key: env[f"OS_{key.upper()}"] for key in _OTHER_KEYS if f"OS_{key.upper()}" in env}
    if "auth_type" not in other and "token" in auth:
        if "password" in auth:
            raise ConfigurationError(
                "Both OS_TOKEN and OS_PASSWORD are set: unset one, or set OS_AUTH_TYPE to v3token or password."
            )
        other["auth_type"] = "v3token"
    try:
        return _read(
            lambda: loader.OpenStackConfig(load_yaml_config=False, load_envvars=False).get_one(
                validate=False, auth=auth, **other
            )
        )
    except (IndexError, KeyError, ValueError):
        # The library fills in {placeholders}; its message may quote values.
        raise ConfigurationError("OS_AUTH_URL holds an unknown {placeholder}: write the full URL.") from None


def _read(region: Callable[[], Any]) -> dict[str, Any]:
    with warnings.catch_warnings():
        # The library warns about its own defaults, which our users cannot change.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        config: dict[str, Any] = region().config
    return {**config, **(config.get("auth") or {})}


def _from_config(project_id: str | None, config: Mapping[str, Any], source: str) -> Credentials:
    def text(key: str) -> str | None:
        value = config.get(key)
        if value is None or isinstance(value, dict | list) or not str(value).strip():
            return None
        return str(value) if key == "password" else str(value).strip()

    def domain(who: str) -> dict[str, str] | None:
        for kind in ("id", "name"):
            value = text(f"{who}_domain_{kind}") or text(f"domain_{kind}")
            if value:
                return {kind: value}
        return None

    if config.get("insecure") in (True, "true", "True", "1") or str(config.get("verify")).lower() in (
        "false",
        "0",
        "no",
    ):
        raise ConfigurationError(
            f"Certificates must be verified, but {source} turn this off (verify or insecure): remove that, and name "
            "the authority to trust in IMAGE_SNAPSHOTS_CA_BUNDLE or cacert."
        )
    ca_bundle = _ca_bundle(text("cacert"))
    stated_id = project_id or text("project_id")
    auth_type = text("auth_type") or "password"

    if auth_type in _TOKEN_TYPES:
        token = text("token")
        if not token:
            raise ConfigurationError(f"The auth_type needs a token, but {source} hold none: set OS_TOKEN.")
        if not stated_id:
            raise ConfigurationError("A token needs a project id: set OS_PROJECT_ID to the id the token is scoped to.")
        return ReadyToken(token, stated_id, ca_bundle)
    if auth_type not in _PASSWORD_TYPES:
        raise ConfigurationError(
            f"The auth_type {auth_type!r} of {source} is not supported (OS_AUTH_TYPE): use password or v3token."
        )

    auth_url, password = text("auth_url"), text("password")
    user_id, user_name = text("user_id"), text("username")
    for name, value in (("OS_AUTH_URL", auth_url), ("OS_USERNAME", user_id or user_name), ("OS_PASSWORD", password)):
        if not value:
            key = name.removeprefix("OS_").lower()
            raise ConfigurationError(
                f"The password login in {source} is incomplete: set {name} ({key} in clouds.yaml)."
            )
    assert auth_url is not None  # noqa: S101  (the loop above)
    assert password is not None  # noqa: S101
    user_domain = None if user_id else domain("user")
    if not user_id and user_domain is None:
        raise ConfigurationError(
            f"The password login in {source} names no domain: set OS_USER_DOMAIN_NAME "
            "(user_domain_name in clouds.yaml)."
        )
    project_name = None if stated_id else text("project_name")
    if not stated_id and not project_name:
        raise ConfigurationError(
            f"The password login in {source} names no project: set OS_PROJECT_ID or OS_PROJECT_NAME "
            "(project_id or project_name in clouds.yaml)."
        )
    return PasswordLogin(
        auth_url=_checked_auth_url(auth_url),
        user=user_id or user_name or "",
        user_is_id=user_id is not None,
        password=password,
        user_domain=user_domain,
        project_id=stated_id,
        project_name=project_name,
        project_domain=(domain("project") or user_domain) if project_name else None,
        ca_bundle=ca_bundle,
    )


def _ca_bundle(cacert: str | None) -> Path | None:
    try:
        return Path(at_home(cacert)) if cacert else None
    except ValueError as reason:
        raise ConfigurationError(f"OS_CACERT (or cacert) {reason}.") from None


def _checked_auth_url(value: str) -> str:
    try:
        url = check_endpoint(value, "https://iam.eu-de.otc.t-systems.com/v3")
    except ValueError as reason:
        raise ConfigurationError(f"OS_AUTH_URL {reason}.") from None
    return url if url.endswith("/v3") else f"{url}/v3"
