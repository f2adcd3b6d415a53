"""Finds the credentials of one project, following the cloud's own conventions, and the region that is meant.

They are an access key (permanent, or temporary with a security token), a password, also one that takes on an agency of
another account, a ready-made token, or the agency of the server. They come from the variables
(`cloud.credential_variables`) or from `clouds.yaml` with `OS_CLOUD`. This module sends nothing: what is issued for a
time, and renewed, belongs to `cloud.authentication`.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines.cloud.clouds_file import read_cloud
from pipelines.cloud.regions import region_of_project, regional_endpoint
from pipelines.errors import ConfigurationError
from pipelines.inputs.credential_variables import AGENCY, Variables, check_key, read_variables
from pipelines.inputs.endpoints import check_endpoint
from pipelines.inputs.environment import at_home
from pipelines.inputs.header_values import check_header_value, check_project_id

METADATA_URL = "http://169.254.169.254"

_PASSWORD_TYPES = {"password", "v3password"}
_TOKEN_TYPES = {"token", "v3token"}

# The OS_* variables that are read without OS_CLOUD, by openstacksdk's names.
_AUTH_KEYS = (
    "auth_url", "username", "user_id", "password", "token", "project_id", "project_name", "tenant_id", "tenant_name",
    "domain_id", "domain_name", "user_domain_id", "user_domain_name", "project_domain_id", "project_domain_name",
)  # fmt: skip
_PROJECT_VARIABLES = ("OS_PROJECT_ID", "OS_TENANT_ID", "OS_TENANT_NAME", "OS_DELEGATED_PROJECT")
_OTHER_KEYS = ("auth_type", "region_name", "cacert", "verify", "insecure")
# How tools spell an access key in `clouds.yaml`: Terraform, otcextensions, and the identity service itself.
_KEY_SPELLINGS = (("access_key", "ak", "access"), ("secret_key", "sk", "secret"))
_SECURITY_TOKEN_SPELLINGS = ("security_token", "securitytoken")


@dataclass(frozen=True, slots=True)
class Region:
    """A region, and what states it, such as the name of a variable."""

    name: str
    stated_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stated:
    """What all credentials have: `source` says in words where they are from; it never holds a secret."""

    ca_bundle: Path | None = None
    region: Region | None = field(default=None, compare=False)
    source: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Account:
    """What is stated of the account that keys sign for: its id, or the identity service that knows it.

    `auth_url` is as it was stated: it is checked where it is used. `id_in` and `url_in` say where they are stated.
    """

    id: str | None = None
    auth_url: str | None = field(default=None, repr=False)
    id_in: str = "OS_DOMAIN_ID"
    url_in: str = "OS_AUTH_URL"

    def identity_url(self) -> str:
        """The URL of the identity service.

        Raises:
            ConfigurationError: none is stated, or not as it must be.
        """
        url = _identity_url(self.auth_url, self.url_in, None)
        if url is None:
            raise ConfigurationError(
                "Bill lines need the id of the account, and no identity service is known to look it up: set "
                f"{self.id_in}, or {self.url_in}."
            )
        return url


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signing(_Stated):
    """What credentials that sign have: `account` is for services of the whole account, which know no projects."""

    account: Account = field(default=Account(), compare=False)


@dataclass(frozen=True, slots=True)
class AccessKey(_Signing):
    """Each request is signed (AK/SK); a temporary key has a `security_token`, which is sent and signed, too.

    Without a project id, the project's name is looked up at `auth_url`. `correct_in` says where the key is stated.
    """

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    project_id: str | None
    security_token: str | None = field(default=None, repr=False)
    project_name: str | None = None
    auth_url: str | None = None
    correct_in: str = field(default="OS_ACCESS_KEY, OS_SECRET_KEY", compare=False)


@dataclass(frozen=True, slots=True)
class Agency:
    """An agency of another account, which a user may take on; `domain` is that account, in Keystone's format."""

    name: str
    domain: dict[str, str]


@dataclass(frozen=True, slots=True)
class PasswordLogin(_Stated):
    """Tokens are fetched from `auth_url` (ends in `/v3`), scoped to the project's id, or to its name without an id.

    With an `agency`, the user's own token is used only to fetch the agency's, whose project this is.
    """

    auth_url: str
    user: str
    user_is_id: bool
    password: str = field(repr=False)
    # In Keystone's format, such as {"name": "…"}; a user id needs no domain.
    user_domain: dict[str, str] | None
    project_id: str | None
    project_name: str | None
    project_domain: dict[str, str] | None
    agency: Agency | None = None
    # Where the user and the password are stated.
    correct_in: str = field(default="OS_USERNAME, OS_PASSWORD, OS_USER_DOMAIN_NAME", compare=False)


@dataclass(frozen=True, slots=True)
class ReadyToken(_Stated):
    """A token fetched elsewhere; it cannot be renewed."""

    token: str = field(repr=False)
    project_id: str


@dataclass(frozen=True, slots=True)
class ServerAgency(_Signing):
    """Temporary access keys come from the metadata service of the server that this process runs on."""

    project_id: str | None
    project_name: str | None = None
    auth_url: str | None = None
    metadata_url: str = METADATA_URL


Credentials = AccessKey | PasswordLogin | ReadyToken | ServerAgency


def load_credentials(
    project_id: str | None,
    environ: Mapping[str, str],
    project_name: str | None = None,
    names: Mapping[str, str] | None = None,
) -> Credentials:
    """Find one project's credentials. `project_id` or `project_name`, when given, wins over the project stated there.

    `names`: what messages call a variable whose value is stated elsewhere.

    In this order: the agency of the server, an access key, `OS_CLOUD`, and a password or token. `OS_*` variables win
    over `HUAWEICLOUD_SDK_*`, and these over `HW_*`.

    Raises:
        ConfigurationError: something is missing, contradictory or cannot be sent; names the variable, never a secret.
    """
    found = _find_credentials(project_id, environ, project_name, names or {})
    check_project_id(found.project_id, f"The project id stated with the {found.source}")
    if isinstance(found, ReadyToken):
        check_header_value(found.token, f"The {found.source}")
    elif isinstance(found, AccessKey):
        check_header_value(found.access_key, f"The {found.source}")
        if found.security_token is not None:
            check_header_value(found.security_token, f"The security token of the {found.source}")
    return found


def _find_credentials(
    project_id: str | None, environ: Mapping[str, str], project_name: str | None, names: Mapping[str, str]
) -> Credentials:
    if project_name is not None:
        environ = {name: value for name, value in environ.items() if name not in _PROJECT_VARIABLES}
        environ["OS_PROJECT_NAME"] = project_name
    variables = read_variables(environ)
    variables = replace(variables, names={**variables.names, **names})
    env = variables.values
    if env.get("OS_AUTH_TYPE", "").lower() == AGENCY:
        return _server_agency(project_id, variables)
    if (key := check_key(variables)) is not None:
        return _access_key(project_id, variables, *key)
    if "OS_CLOUD" in env:
        source = f"the cloud {env['OS_CLOUD']!r} in clouds.yaml"
        config = _read(lambda: read_cloud(env, variables.name))
        if project_name is not None:
            config |= {"project_id": None, "tenant_id": None, "delegated_project": None, "project_name": project_name}
        return _from_config(project_id, config, source, variables)
    if env.keys() & {"OS_AUTH_URL", "OS_TOKEN", "OS_PASSWORD"}:
        is_other = not variables.name("OS_PASSWORD").startswith("OS_")
        source = "the HW_* variables" if is_other else "the OS_* variables"
        return _from_config(project_id, _from_variables(variables), source, variables)
    raise ConfigurationError(
        "No credentials found: set OS_ACCESS_KEY and OS_SECRET_KEY, or OS_CLOUD (with a clouds.yaml), "
        "or OS_AUTH_URL with OS_USERNAME and OS_PASSWORD, or OS_TOKEN, or, on a server of the cloud that has an "
        "agency, OS_AUTH_TYPE=agency."
    )


def _access_key(
    project_id: str | None, variables: Variables, key: str, secret: str, security_token: str | None
) -> AccessKey:
    env, name = variables.values, variables.name
    if "OS_AGENCY_NAME" in env:
        raise _agency_needs_a_password(name("OS_AGENCY_NAME"), name("OS_ACCESS_KEY"))
    region = _region(env.get("OS_REGION_NAME"), name("OS_REGION_NAME"), env.get("OS_PROJECT_NAME"))
    project_id = project_id or env.get("OS_PROJECT_ID")
    auth_url = None if project_id else _identity_url(env.get("OS_AUTH_URL"), name("OS_AUTH_URL"), region)
    names = [name("OS_ACCESS_KEY"), name("OS_SECRET_KEY")]
    if security_token is not None:
        names.append(name("OS_SECURITY_TOKEN" if "OS_SECURITY_TOKEN" in env else "OS_SESSION_TOKEN"))
    _check_project("An access key", project_id, env.get("OS_PROJECT_NAME"), auth_url)
    return AccessKey(
        key,
        secret,
        project_id,
        security_token,
        None if project_id else env.get("OS_PROJECT_NAME"),
        auth_url,
        ", ".join(names),
        account=_account(variables, auth_url),
        ca_bundle=_ca_bundle(env.get("OS_CACERT")),
        region=region,
        source=f"{'temporary ' if security_token else ''}access key from {names[0]}",
    )


def _server_agency(project_id: str | None, variables: Variables) -> ServerAgency:
    env, name = variables.values, variables.name
    for other in ("OS_ACCESS_KEY", "OS_SECRET_KEY", "OS_SECURITY_TOKEN", "OS_SESSION_TOKEN", "OS_CLOUD", "OS_TOKEN",
                  "OS_PASSWORD", "OS_AGENCY_NAME"):  # fmt: skip
        if other in env:
            raise ConfigurationError(
                f"OS_AUTH_TYPE asks for the agency of this server, and {name(other)} states other credentials: unset "
                "one of them."
            )
    region = _region(env.get("OS_REGION_NAME"), name("OS_REGION_NAME"), env.get("OS_PROJECT_NAME"))
    project_id = project_id or env.get("OS_PROJECT_ID")
    auth_url = None if project_id else _identity_url(env.get("OS_AUTH_URL"), name("OS_AUTH_URL"), region)
    _check_project("The agency of a server", project_id, env.get("OS_PROJECT_NAME"), auth_url)
    return ServerAgency(
        project_id,
        None if project_id else env.get("OS_PROJECT_NAME"),
        auth_url,
        _metadata_url(env.get("OS_METADATA_URL"), "OS_METADATA_URL"),
        account=_account(variables, auth_url),
        ca_bundle=_ca_bundle(env.get("OS_CACERT")),
        region=region,
        source="agency of this server",
    )


def _account(variables: Variables, auth_url: str | None) -> Account:
    env, name = variables.values, variables.name
    return Account(
        env.get("OS_DOMAIN_ID") or env.get("OS_USER_DOMAIN_ID"),
        auth_url or env.get("OS_AUTH_URL"),
        name("OS_DOMAIN_ID"),
        name("OS_AUTH_URL"),
    )


def _from_variables(variables: Variables) -> dict[str, Any]:
    from openstack.config import loader  # noqa: PLC0415

    env = variables.values
    auth = {key: env[f"OS_{key.upper()}"] for key in _AUTH_KEYS if f"OS_{key.upper()}" in env}
    other = {key: env[f"OS_{key.upper()}"] for key in _OTHER_KEYS if f"OS_{key.upper()}" in env}
    agency = {key: env[f"OS_{key.upper()}"] for key in _AGENCY_KEYS if f"OS_{key.upper()}" in env}
    if "auth_type" not in other and "token" in auth:
        if "password" in auth:
            raise ConfigurationError(
                "Both OS_TOKEN and OS_PASSWORD are set: unset one, or set OS_AUTH_TYPE to v3token or password."
            )
        other["auth_type"] = "v3token"
    try:
        config = _read(
            lambda: loader.OpenStackConfig(load_yaml_config=False, load_envvars=False).get_one(
                validate=False, auth=auth, **other
            )
        )
    except (IndexError, KeyError, ValueError):
        # The library fills in {placeholders}; its message may quote values.
        raise ConfigurationError("OS_AUTH_URL holds an unknown {placeholder}: write the full URL.") from None
    return config | agency


_AGENCY_KEYS = ("agency_name", "agency_domain_name", "agency_domain_id", "delegated_project")


def _read(region: Callable[[], Any]) -> dict[str, Any]:
    with warnings.catch_warnings():
        # The library warns about its own defaults, which our users cannot change.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        config: dict[str, Any] = region().config
    return {**config, **(config.get("auth") or {})}


class _Config:
    """What `clouds.yaml`, or the variables in its terms, state."""

    def __init__(self, config: Mapping[str, Any], source: str, variables: Variables) -> None:
        self._config = config
        self._variables = variables
        self.source = source

    def text(self, *keys: str) -> str | None:
        """The first of these keys that has a value."""
        for key in keys:
            value = self._config.get(key)
            if value is None or isinstance(value, dict | list) or not str(value).strip():
                continue
            return str(value) if key == "password" else str(value).strip()
        return None

    def spelt(self, *keys: str) -> str | None:
        """A value that may be stated by any of several keys.

        Raises:
            ConfigurationError: two of them differ.
        """
        stated = {key: value for key in keys if (value := self.text(key))}
        if len(set(stated.values())) > 1:
            raise ConfigurationError(f"{' and '.join(stated)} of {self.source} differ: remove one of them.")
        return next(iter(stated.values()), None)

    def domain(self, who: str) -> dict[str, str] | None:
        """A domain in Keystone's format."""
        for kind in ("id", "name"):
            value = self.text(f"{who}_domain_{kind}", f"domain_{kind}")
            if value:
                return {kind: value}
        return None

    @property
    def region(self) -> Region | None:
        """The region of the variable, of the entry, or of the project's name."""
        is_variable = "OS_REGION_NAME" in self._variables.values
        stated_by = self.name("OS_REGION_NAME") if is_variable else f"region_name of {self.source}"
        return _region(self.text("region_name"), stated_by, self.text("project_name", "tenant_name"))

    def name(self, variable: str) -> str:
        """What a user would call a variable of ours."""
        return self._variables.name(variable)

    def auth_url(self, region: Region | None) -> str | None:
        """The identity service's URL."""
        return _identity_url(self.text("auth_url"), self.name("OS_AUTH_URL"), region)

    def account(self, auth_url: str | None) -> Account:
        """The account of keys, and its identity service: `auth_url`, or else as it is stated."""
        return Account(
            self.text("domain_id", "user_domain_id"),
            auth_url or self.text("auth_url"),
            f"domain_id of {self.source}",
            f"auth_url of {self.source}",
        )


def _from_config(project_id: str | None, stated: Mapping[str, Any], source: str, variables: Variables) -> Credentials:
    config = _Config(stated, source, variables)
    if stated.get("insecure") in (True, "true", "True", "1") or str(stated.get("verify")).lower() in (
        "false",
        "0",
        "no",
    ):
        raise ConfigurationError(
            f"Certificates must be verified, but {source} turn this off (verify or insecure): remove that, and name "
            "the authority to trust in IMAGE_SNAPSHOTS_CA_BUNDLE or cacert."
        )
    ca_bundle = _ca_bundle(config.text("cacert"))
    stated_id = project_id or config.text("project_id")
    auth_type = config.text("auth_type") or "password"

    if auth_type in _TOKEN_TYPES:
        token = config.text("token")
        if not token:
            raise ConfigurationError(f"The auth_type needs a token, but {source} hold none: set OS_TOKEN.")
        if not stated_id:
            raise ConfigurationError("A token needs a project id: set OS_PROJECT_ID to the id the token is scoped to.")
        return ReadyToken(
            token,
            stated_id,
            ca_bundle=ca_bundle,
            region=config.region,
            source=f"token from {_place(source, 'OS_TOKEN')}",
        )
    if "applicationcredential" in auth_type or "application_credential" in auth_type:
        raise ConfigurationError(
            f"The auth_type {auth_type!r} of {source} cannot be used: the identity service of these clouds takes no "
            "application credentials. Use an access key, a password, or the agency of a server."
        )
    if auth_type not in _PASSWORD_TYPES and auth_type != AGENCY:
        raise ConfigurationError(
            f"The auth_type {auth_type!r} of {source} is not supported (OS_AUTH_TYPE): use password, v3token or agency."
        )
    key, secret = (config.spelt(*keys) for keys in _KEY_SPELLINGS)
    security_token = config.spelt(*_SECURITY_TOKEN_SPELLINGS)
    if auth_type == AGENCY:
        for other, value in (("an access key", key or secret), ("a password", config.text("password"))):
            if value:
                raise ConfigurationError(
                    f"The auth_type of {source} asks for the agency of this server, and {other} is stated there, too: "
                    "remove one of them."
                )
        return _agency_of_config(stated_id, config, ca_bundle)
    if key or secret or security_token:
        return _key_of_config(stated_id, config, key, secret, security_token, ca_bundle)
    return _password_of_config(stated_id, config, ca_bundle)


def _agency_of_config(project_id: str | None, config: _Config, ca_bundle: Path | None) -> ServerAgency:
    auth_url = None if project_id else config.auth_url(config.region)
    project_name = config.text("project_name", "tenant_name")
    _check_project("The agency of a server", project_id, project_name, auth_url)
    return ServerAgency(
        project_id,
        None if project_id else project_name,
        auth_url,
        _metadata_url(config.text("metadata_url"), f"metadata_url of {config.source}"),
        account=config.account(auth_url),
        ca_bundle=ca_bundle,
        region=config.region,
        source=f"agency of this server, by {config.source}",
    )


def _key_of_config(
    project_id: str | None,
    config: _Config,
    key: str | None,
    secret: str | None,
    security_token: str | None,
    ca_bundle: Path | None,
) -> AccessKey:
    if not key or not secret:
        missing = " and ".join(name for name, value in (("access_key", key), ("secret_key", secret)) if not value)
        raise ConfigurationError(f"The access key of {config.source} is incomplete: state {missing}, too.")
    if config.text("agency_name"):
        raise _agency_needs_a_password("agency_name", "access_key")
    auth_url = None if project_id else config.auth_url(config.region)
    project_name = config.text("project_name", "tenant_name")
    _check_project("An access key", project_id, project_name, auth_url)
    return AccessKey(
        key,
        secret,
        project_id,
        security_token,
        None if project_id else project_name,
        auth_url,
        config.source,
        account=config.account(auth_url),
        ca_bundle=ca_bundle,
        region=config.region,
        source=f"{'temporary ' if security_token else ''}access key of {config.source}",
    )


def _password_of_config(stated_id: str | None, config: _Config, ca_bundle: Path | None) -> PasswordLogin:
    source = config.source
    auth_url, password = config.auth_url(config.region), config.text("password")
    user_id, user_name = config.text("user_id"), config.text("username")
    for name, value in (("OS_AUTH_URL", auth_url), ("OS_USERNAME", user_id or user_name), ("OS_PASSWORD", password)):
        if not value:
            key = name.removeprefix("OS_").lower()
            raise ConfigurationError(
                f"The password login in {source} is incomplete: set {config.name(name)} ({key} in clouds.yaml)."
            )
    assert auth_url is not None  # noqa: S101  (the loop above)
    assert password is not None  # noqa: S101
    user_domain = None if user_id else config.domain("user")
    if not user_id and user_domain is None:
        raise ConfigurationError(
            f"The password login in {source} names no domain: set {config.name('OS_USER_DOMAIN_NAME')} "
            "(user_domain_name in clouds.yaml)."
        )
    agency = _agency(config)
    project_name = None if stated_id else (agency and config.text("delegated_project")) or config.text("project_name")
    if not stated_id and not project_name:
        raise ConfigurationError(
            f"The password login in {source} names no project: set {config.name('OS_PROJECT_ID')} or "
            f"{config.name('OS_PROJECT_NAME')} (project_id or project_name in clouds.yaml)."
        )
    project_domain = agency.domain if agency else config.domain("project") or user_domain
    words = f"password from {_place(source, config.name('OS_PASSWORD'))}"
    stated_in = ", ".join(map(config.name, ("OS_USERNAME", "OS_PASSWORD", "OS_USER_DOMAIN_NAME")))
    return PasswordLogin(
        auth_url=auth_url,
        user=user_id or user_name or "",
        user_is_id=user_id is not None,
        password=password,
        user_domain=user_domain,
        project_id=stated_id,
        project_name=project_name,
        project_domain=project_domain if project_name else None,
        agency=agency,
        correct_in=_place(source, stated_in),
        ca_bundle=ca_bundle,
        region=config.region,
        source=words if agency is None else f"agency {agency.name!r} of another account, by the {words}",
    )


def _agency(config: _Config) -> Agency | None:
    name = config.text("agency_name")
    domain = {kind: value for kind in ("id", "name") if (value := config.text(f"agency_domain_{kind}"))}
    if name and domain:
        return Agency(name, {"id": domain["id"]} if "id" in domain else domain)
    if name or domain:
        there, missing = (
            ("OS_AGENCY_NAME", "OS_AGENCY_DOMAIN_NAME") if name else ("OS_AGENCY_DOMAIN_NAME", "OS_AGENCY_NAME")
        )
        key = missing.removeprefix("OS_").lower()
        raise ConfigurationError(
            f"The agency of another account in {config.source} is incomplete: {config.name(there)} is stated, so state "
            f"{config.name(missing)} ({key} in clouds.yaml), too."
        )
    return None


def _agency_needs_a_password(agency: str, key: str) -> ConfigurationError:
    return ConfigurationError(
        f"{agency} names an agency of another account, which only a user with a password can take on, and {key} is "
        "stated: unset one of them."
    )


def _place(source: str, variable: str) -> str:
    return source if source.endswith("clouds.yaml") else variable


def _check_project(whose: str, project_id: str | None, project_name: str | None, auth_url: str | None) -> None:
    if project_id:
        return
    if not project_name:
        raise ConfigurationError(
            f"{whose} needs a project id: set OS_PROJECT_ID, or IMAGE_SNAPSHOTS_PROJECTS for several projects."
        )
    if auth_url is None:
        raise ConfigurationError(
            f"{whose} needs a project id, and the id of {project_name!r} cannot be looked up without the identity "
            "service: set OS_PROJECT_ID, or OS_AUTH_URL or OS_REGION_NAME."
        )


def _region(stated: str | None, stated_by: str, project_name: str | None) -> Region | None:
    if stated:
        return Region(stated, stated_by)
    region = region_of_project(project_name)
    return None if region is None else Region(region, f"the project's name {project_name}")


def _identity_url(stated: str | None, variable: str, region: Region | None) -> str | None:
    """The URL of the identity service as stated, or else that of a region."""
    if not stated:
        return None if region is None else f"{regional_endpoint('iam', region.name, region.stated_by)}/v3"
    try:
        url = check_endpoint(stated, "https://iam.eu-de.otc.t-systems.com/v3")
    except ValueError as reason:
        raise ConfigurationError(f"{variable} {reason}.") from None
    return url if url.endswith("/v3") else f"{url}/v3"


def _metadata_url(stated: str | None, stated_by: str) -> str:
    if not stated or stated.rstrip("/") == METADATA_URL:
        return METADATA_URL
    try:
        return check_endpoint(stated, METADATA_URL)
    except ValueError as reason:
        raise ConfigurationError(f"{stated_by} {reason}.") from None


def _ca_bundle(cacert: str | None) -> Path | None:
    try:
        return Path(at_home(cacert)) if cacert else None
    except ValueError as reason:
        raise ConfigurationError(f"OS_CACERT (or cacert) {reason}.") from None
