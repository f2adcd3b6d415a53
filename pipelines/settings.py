"""All settings, typed, from `IMAGE_SNAPSHOTS_*` variables or `.env`.

The command line and Dagster read the same class. Cloud credentials follow the cloud's own conventions and belong to
`cloud.credentials`. Relative paths, like `.env` itself, are relative to the working directory.
"""

import datetime as dt
import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, Field, PrivateAttr, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipelines.errors import ConfigurationError
from pipelines.inputs.catalog_places import parse_catalog
from pipelines.inputs.credential_variables import stated_credentials
from pipelines.inputs.cron import check_cron
from pipelines.inputs.endpoints import SCHEME, check_endpoint
from pipelines.inputs.environment import OURS, at_home, prepare_environment
from pipelines.inputs.projects import Project, projects_of_object, read_projects, wrong_value
from pipelines.inputs.secret_files import SUFFIX, with_secret_files
from pipelines.inputs.secret_urls import looks_like_url, parse_secret_url
from pipelines.inputs.variable_names import check_json, check_names
from pipelines.tables import OWNER_FIELDS, USAGE_SOURCES

PREFIX = OURS
ROOT = Path(__file__).resolve().parent.parent
DEFAULT_PROJECT = "default"
# The value of `endpoint` that chooses the embedded sandbox explicitly.
SANDBOX = "sandbox"

# Examples for the settings that are JSON, shown in error messages.
_EXAMPLES = {
    "projects": '{"main": "0123456789abcdef"}',
    "allowed_namespaces": '["team", "base"]',
    "tag_keys": '{"owner": "team", "cost_center": "billing-code"}',
}

# Services beside ModelArts that are read or not, each with an example of an endpoint.
_SERVICES = {
    "traces": ("audit service (CTS)", "https://cts.eu-de.otc.t-systems.com"),
    "registry": ("registry (SWR)", "https://swr-api.eu-de.otc.t-systems.com"),
}

# The services that a bill can be requested from, each with an example of an endpoint.
BILL_SERVICES = {
    "otc-dashboard": "https://api-enterprise-dashboard.otc-service.com",
    "huawei": "https://bss.myhuaweicloud.com",
}

_TRUE, _FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})
# Earlier values of `USAGE`, from when only notebooks were read, and what they mean now.
_USAGE_WORDS = {"true": "all", "false": "none", "1": "all", "0": "none", "yes": "all", "no": "none"}


def _names(value: str) -> list[str]:
    """The names in a text that separates them with commas, each once."""
    return list(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))


class Settings(BaseSettings):
    """All settings. Read them with `Settings.load`, which reports an error as one sentence."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    endpoint: str | None = Field(
        None,
        description="ModelArts endpoint, or `sandbox` for the embedded sandbox; unset: the endpoint of the region that "
        "the credentials name; without credentials, the embedded sandbox",
    )
    projects: dict[str, Project] | None = Field(
        None,
        description="TOML file with a table for each project, or JSON object, project key -> project id; unset: one "
        "project, from the credentials",
    )
    inventory: SecretStr | None = Field(
        None, description="file, database URL or `modelarts:` (the API's image list); unset: `modelarts:`"
    )
    inventory_query: Path = Field(ROOT / "sql" / "inventory.sql", description="query for an inventory in a database")
    inventory_max_age_hours: Annotated[float, Field(gt=0, le=87_600)] = Field(
        48, description="an inventory file older than this fails the freshness check (the run continues)"
    )
    allow_empty_inventory: bool = Field(False, description="publish an empty day instead of failing")
    max_invalid_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="largest share of the inventory's ids that may be invalid; beyond it, nothing is published"
    )
    max_shrunk_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1,
        description="largest share of the images known on the last complete day that the inventory may lack; beyond "
        "it, images missing from the inventory do not count as gone",
    )
    lake: str = Field("lake", description="root of the lake, a local path or s3://bucket/directory")
    concurrency: Annotated[int, Field(ge=1, le=1024)] = Field(32, description="requests in flight")
    rate_limit: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="largest number of requests per second; unset: only the API's own limit"
    )
    rate_limiter: SecretStr | None = Field(
        None, description="URL of a Redis server, so that all processes share `RATE_LIMIT`; unset: one limit for each"
    )
    mode: Literal["full", "changed"] = Field(
        "full", description="fetch every image, or only those that the image list shows as changed"
    )
    full_refresh_days: Annotated[int, Field(ge=1, le=366)] = Field(
        7, description="in mode `changed`, details older than this many days are fetched anyway"
    )
    reconcile: bool = Field(True, description="read the image list on full days, too")
    workspaces: str = Field(
        "all", description="workspaces whose lists are read: `all`, or ids with commas between them"
    )
    usage: str | None = Field(
        None,
        description="who uses images: `all`, `none`, or names with commas between them ("
        + ", ".join(USAGE_SOURCES)
        + "); unset: all of the sandbox, none of a cloud",
    )
    tag_keys: dict[str, str] | None = Field(
        None,
        description="JSON object, " + ", ".join(OWNER_FIELDS) + " -> key of the cloud tag that says so where the "
        "inventory does not (in any letter case; one that is left out falls back to no tag); unset: each its own name",
    )
    traces: str | None = Field(
        None,
        description="who changed images, by the cloud's audit service (CTS): `true`, `false`, or its endpoint where "
        "that is not the ModelArts endpoint with `cts` for `modelarts`; unset: only of the sandbox",
    )
    registry: str | None = Field(
        None,
        description="what the registry (SWR) stores: `true`, `false`, or its endpoint where that is not the ModelArts "
        "endpoint with `swr-api` for `modelarts`; unset: only of the sandbox",
    )
    registry_namespaces: str = Field(
        "images",
        description="namespaces of the registry that are read: `images` (those that images name, preset ones aside), "
        "`all` that the user may see, or names with commas between them",
    )
    bills: str | None = Field(
        None,
        description="what is billed: a directory or s3://bucket/directory of FOCUS exports, `otc-dashboard:` or "
        "`huawei:` (with an endpoint after the colon if it is not the usual one), `none`; unset: only of the sandbox",
    )
    bills_key: SecretStr | None = Field(None, description="API key of `otc-dashboard:`")
    engine: Literal["duckdb", "spark"] = Field(
        "duckdb", description="engine for the SQL of the derived tables; spark needs the extra `spark`"
    )
    spark_master: str = Field(
        "local[*]", description="Spark's master, such as spark://host:7077, yarn or k8s://host; local: this machine"
    )
    audit_rules: Path | None = Field(None, description="directory of audit rules in addition to sql/audit")
    audit_rule_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        60, description="processor time that one audit rule may take; by the clock, ten times as much"
    )
    suppressions: Path | None = Field(None, description="TOML file of audit findings that are accepted for a time")
    allowed_namespaces: Annotated[frozenset[str], Field(min_length=1)] | None = Field(
        None, description="JSON list of the registry organisations that images may belong to; unset: any"
    )
    max_failed_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01, description="largest share of ids that may fail; beyond it, nothing is published"
    )
    parquet_compression: Literal["zstd", "snappy", "gzip", "none"] = Field(
        "zstd", description="codec of the tables (some warehouses read only snappy)"
    )
    warehouse: SecretStr | None = Field(
        None,
        description="path of a DuckDB file or URL of a PostgreSQL database; unset: `warehouse.duckdb` in a local lake, "
        "none with a lake in an object store",
    )
    catalog: str | None = Field(
        None,
        description="Iceberg catalog that gets a copy of each day: a directory, such as ./catalog, or the name of a "
        "catalog in PyIceberg's configuration; needs the extra `iceberg`; unset: none",
    )
    price_book: Path = Field(ROOT / "sql" / "cost" / "price-book.toml", description="prices of image storage")
    ca_bundle: Path | None = Field(None, description="PEM file of certificate authorities to trust instead")
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = Field(30, description="time-out of one request")
    late_fetch_hours: Annotated[float, Field(ge=0, le=24)] = Field(
        6, description="how long after midnight UTC a run that began on its day may continue"
    )
    retention_responses_days: Annotated[int, Field(ge=1, le=36_500)] | None = Field(
        None, description="`retention` removes responses older than this many days; unset: they are kept for ever"
    )
    retention_snapshots_days: Annotated[int, Field(ge=1, le=36_500)] | None = Field(
        None, description="`retention` removes other tables of days older than this; unset: they are kept for ever"
    )
    witness: Path | None = Field(
        None, description="file outside the lake to which each run adds the SHA-256 of its manifest, for `verify`"
    )
    metrics: Path | None = Field(
        None, description="file of metrics for Prometheus, written after each run; its name must end in .prom"
    )
    first_day: dt.date = Field(dt.date(2026, 1, 1), description="first day of the partitions")
    schedule: str = Field("17 2 * * *", description="cron line (UTC) of the daily run")
    owners: str = Field(
        "team:platform",
        description="owners of the assets in Dagster: e-mail addresses or team:NAME, with commas between",
    )
    due_hour: Annotated[int, Field(ge=0, le=23)] = Field(
        6, description="hour (UTC) from which on a project without a published day for today is late"
    )
    notify: SecretStr | None = Field(
        None, description="URLs of webhooks, with blanks between them, that are told of failed, missing and new things"
    )
    notify_severity: Literal["critical", "high", "medium", "low", "info"] = Field(
        "high", description="least grave severity of the new audit findings that `NOTIFY` is told of"
    )

    # The project that these settings hold for; None: they are the general ones.
    _project: str | None = PrivateAttr(None)
    # The environment states credentials of a cloud.
    _has_credentials: bool = PrivateAttr(False)

    def model_post_init(self, context: Any) -> None:
        """Note whether the environment, from which the settings come, states credentials."""
        super().model_post_init(context)
        self._has_credentials = bool(stated_credentials(os.environ))

    @field_validator("endpoint")
    @classmethod
    def _endpoint_is_safe(cls, value: str | None) -> str | None:
        if value is None or value.lower() == SANDBOX:
            return value and SANDBOX
        url = check_endpoint(value, "https://modelarts.eu-de.otc.t-systems.com, or be `sandbox`")
        if re.search(r"/v[0-9.]+(/|$)", url):
            raise ValueError("must end before the API's version, such as /v1")
        return url

    @field_validator("traces", "registry")
    @classmethod
    def _service_is_read_or_not(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None or value.lower() in _TRUE | _FALSE:
            return value and value.lower()
        service, example = _SERVICES[str(info.field_name)]
        if looks_like_url(value):
            return check_endpoint(value, example)
        raise ValueError(f"must be `true`, `false`, or the endpoint of the cloud's {service}")

    @field_validator("registry_namespaces")
    @classmethod
    def _namespaces_are_names(cls, value: str) -> str:
        names = _names(value)
        for name in names:
            if not re.fullmatch(r"[0-9a-z][0-9a-z._-]{0,63}", name):
                raise ValueError(f"the namespace {name!r} must be lower-case letters, digits, dots, hyphens and _ only")
        if not names or (len(names) > 1 and {"all", "images"} & set(names)):
            raise ValueError("must be `images`, `all`, or names of namespaces with commas between them")
        return ",".join(names)

    @field_validator("bills")
    @classmethod
    def _bills_are_somewhere(cls, value: str | None) -> str | None:
        if value is None or value.lower() in ("none", *_FALSE):
            return value and "none"
        kind, colon, endpoint = value.partition(":")
        if colon and kind in BILL_SERVICES:
            return f"{kind}:{check_endpoint(endpoint, BILL_SERVICES[kind])}" if endpoint else value
        if looks_like_url(value) and not value.startswith(SCHEME):
            raise ValueError(f"must be a directory, {SCHEME}bucket/directory, otc-dashboard:, huawei: or `none`")
        return at_home(value)

    @field_validator("catalog")
    @classmethod
    def _catalog_is_a_place(cls, value: str | None) -> str | None:
        if value is not None:
            parse_catalog(value)
        return value

    @field_validator("workspaces")
    @classmethod
    def _workspaces_are_ids(cls, value: str) -> str:
        names = _names(value)
        for name in names:
            if not re.fullmatch(r"[0-9A-Za-z-]{1,64}", name):
                raise ValueError(f"the workspace {name!r} must be letters, digits and hyphens only")
        if not names or ("all" in names and len(names) > 1):
            raise ValueError("must be `all`, or ids of workspaces with commas between them")
        return ",".join(names)

    @field_validator("usage")
    @classmethod
    def _usage_names_sources(cls, value: str | None) -> str | None:
        if value is None:
            return None
        names = [_USAGE_WORDS.get(name.lower(), name.lower()) for name in _names(value)]
        known = ["all", "none", *USAGE_SOURCES]
        for name in names:
            if name not in known:
                near = get_close_matches(name, known, 1)
                raise ValueError(f"there is no source {name!r}; use {near[0] if near else ', '.join(known)}")
        if not names or (len(names) > 1 and not set(names) <= set(USAGE_SOURCES)):
            raise ValueError("must be `all`, `none`, or names of sources with commas between them")
        return ",".join(names)

    @field_validator("owners")
    @classmethod
    def _owners_are_people_or_teams(cls, value: str) -> str:
        for name in (names := _names(value)):
            said = "" if looks_like_url(name) else f"{name!r} "
            if not said or not re.fullmatch(r"team:[A-Za-z0-9_]+|[^@\s]+@[^@\s]+\.[^@\s]+", name):
                raise ValueError(f"the owner {said}must be an e-mail address, or team: with letters, digits and _")
        return ",".join(names)

    @field_validator("rate_limiter")
    @classmethod
    def _limiter_has_a_limit(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None:
            return None
        example = "redis://user:password@host:6379/0, or rediss:// for TLS"
        url = parse_secret_url(value.get_secret_value(), example, ("redis", "rediss", "unix"))
        if "," in url.hosts or (url.scheme != "unix" and not url.hosts):
            raise ValueError(f"must look like {example}")
        projects = (info.data.get("projects") or {}).values()
        if info.data.get("rate_limit") is None and not any("rate_limit" in project.settings for project in projects):
            raise ValueError(f"it shares {PREFIX}RATE_LIMIT among all processes, so set that, too")
        return value

    @field_validator("notify")
    @classmethod
    def _webhooks_are_urls(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            example = "https://chat.example/hooks/..., several with blanks between them"
            for text in value.get_secret_value().split():
                url = parse_secret_url(text, example, ("https", "http"))
                # A comma between two URLs makes one with a strange path of them.
                if not url.hosts or "," in url.hosts or "://" in url.path:
                    raise ValueError(f"must look like {example}")
        return value

    @field_validator("projects", mode="before")
    @classmethod
    def _projects_are_of_a_file_or_an_object(cls, value: object) -> object:
        if isinstance(value, dict):
            return projects_of_object(value)
        # JSON that cannot be parsed, and a path, arrive as text.
        if isinstance(value, str) and value.strip().lower().endswith(".toml") and not looks_like_url(value):
            return read_projects(value.strip())
        if value is not None:
            raise ValueError(f"must be the path of a .toml file, or JSON, such as {_EXAMPLES['projects']}")
        return None

    @field_validator("tag_keys")
    @classmethod
    def _tag_keys_are_of_owners(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        if value is None:
            return None
        for name, key in value.items():
            if name not in OWNER_FIELDS:
                raise ValueError(f"tags cannot state {name!r}, only {', '.join(OWNER_FIELDS)}")
            if not key.strip():
                raise ValueError(f"the key of {name!r} is empty: leave {name!r} out for no tag")
        return {name: value[name].strip() for name in OWNER_FIELDS if name in value}

    @field_validator("allowed_namespaces", "tag_keys", mode="before")
    @classmethod
    def _is_json(cls, value: object, info: ValidationInfo) -> object:
        # A value that is not JSON arrives as text.
        if isinstance(value, str):
            example = _EXAMPLES[str(info.field_name)]
            raise ValueError(f"must be JSON, such as {example}")  # noqa: TRY004  (pydantic's own kind)
        return value

    @field_validator("inventory_query", "audit_rules", "suppressions", "price_book", "ca_bundle", "witness", "metrics")
    @classmethod
    def _paths_may_begin_at_home(cls, value: Path | None) -> Path | None:
        if value is not None and looks_like_url(str(value)):
            raise ValueError("must be a path, not a URL")  # whose password a message about the file would quote
        return None if value is None else Path(at_home(str(value)))

    @field_validator("metrics")
    @classmethod
    def _collector_reads_the_name(cls, value: Path | None) -> Path | None:
        if value is not None and value.suffix != ".prom":
            raise ValueError("must end in .prom, because the collector reads no other files")
        return value

    @field_validator("lake")
    @classmethod
    def _lake_may_be_at_home(cls, value: str) -> str:
        return at_home(value)

    @field_validator("inventory", "warehouse")
    @classmethod
    def _files_may_be_at_home(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or looks_like_url(value.get_secret_value()):
            return value
        return SecretStr(at_home(value.get_secret_value()))

    @field_validator("schedule")
    @classmethod
    def _schedule_comes(cls, value: str) -> str:
        return check_cron(value)

    @field_validator("first_day", mode="before")
    @classmethod
    def _day_is_written_as_one(cls, value: object) -> object:
        # Without this check, pydantic reads any number as a time since 1970.
        if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
            raise ValueError("must be a day, written as YYYY-MM-DD")
        return value

    @property
    def project_keys(self) -> list[str]:
        """The keys of the projects; one by default."""
        return sorted(self.projects) if self.projects else [DEFAULT_PROJECT]

    def for_project(self, key: str) -> Self:
        """The settings of one project: its own where it states any, else the general ones.

        A project that is not configured, such as one that was taken out, has the general ones.

        Raises:
            ConfigurationError: a value of the project is wrong; names project and key, never the value.
            ValueError: these are already the settings of another project.
        """
        if self._project == key:
            return self
        if self._project is not None:
            raise ValueError(f"the settings of project {self._project!r} are not those of {key!r}")
        project = (self.projects or {}).get(key)
        if project is None or not (project.settings or project.cloud or project.region):
            return self
        general = {name: getattr(self, name) for name in type(self).model_fields}
        if project.region is not None and self.endpoint != SANDBOX:
            # The endpoint follows from the region: credentials for it must not reach the general endpoint.
            general["endpoint"] = None
        settings = type(self).__new__(type(self))
        try:
            # The class' own initialiser would read the environment again.
            BaseModel.__init__(settings, **general | dict(project.settings))
        except ValidationError as error:
            field, reason = _first_problem(error)
            raise wrong_value(project.file, key, field, f"is wrong: {reason}") from None
        settings._project = key  # noqa: SLF001  (of this class)
        return settings

    def own(self, name: str) -> str | None:
        """The key of the project that states this setting for itself; None if the value is the general one."""
        project = (self.projects or {}).get(self._project or "")
        return self._project if project is not None and name in project.settings else None

    @property
    def of_each_project(self) -> list[Self]:
        """The settings of each project, in the order of `project_keys`; raises as `for_project`."""
        return [self.for_project(key) for key in self.project_keys]

    @property
    def uses_sandbox(self) -> bool:
        """Whether the embedded sandbox is used instead of a cloud."""
        return self.endpoint == SANDBOX or (self.endpoint is None and not self.derives_endpoint)

    @property
    def derives_endpoint(self) -> bool:
        """Whether the endpoint follows from the region: none is stated, but a region or a cloud's credentials are."""
        project = (self.projects or {}).get(self._project or "", Project())
        has_cloud = (project.cloud or project.region) is not None
        return self.endpoint is None and (self._has_credentials or has_cloud)

    @property
    def loads_warehouse(self) -> bool:
        """Whether a warehouse is loaded. A lake in an object store has none by default: DuckDB cannot write there."""
        return self.warehouse is not None or not self.lake.startswith(SCHEME)

    @property
    def stated_workspaces(self) -> list[str] | None:
        """The workspaces whose lists are read; None for all workspaces."""
        return None if self.workspaces == "all" else self.workspaces.split(",")

    @property
    def owner_names(self) -> list[str]:
        """The owners of the assets in Dagster."""
        return _names(self.owners)

    @property
    def owner_tags(self) -> dict[str, str]:
        """For each of `OWNER_FIELDS` that a cloud tag may state, the key of that tag, in their order."""
        return {name: name for name in OWNER_FIELDS} if self.tag_keys is None else self.tag_keys

    @property
    def usage_sources(self) -> list[str]:
        """The sources of usage to read, in the order of `USAGE_SOURCES`."""
        stated = self.usage or ("all" if self.uses_sandbox else "none")
        names = stated.split(",")
        return [name for name in USAGE_SOURCES if name in names or stated == "all"]

    @property
    def reads_traces(self) -> bool:
        """Whether traces are read, which say who changed images."""
        return self._is_read(self.traces)

    @property
    def traces_endpoint(self) -> str | None:
        """The endpoint that is set for the audit service; None if it is derived from the ModelArts endpoint."""
        return _endpoint_in(self.traces)

    @property
    def reads_registry(self) -> bool:
        """Whether the registry is read, which says what is stored."""
        return self._is_read(self.registry)

    @property
    def registry_endpoint(self) -> str | None:
        """The endpoint that is set for the registry; None if it is derived from the ModelArts endpoint."""
        return _endpoint_in(self.registry)

    def _is_read(self, service: str | None) -> bool:
        return self.uses_sandbox if service is None else service not in _FALSE

    @property
    def stated_namespaces(self) -> tuple[str, ...] | None:
        """The namespaces of the registry that are read; None for all, empty for those that images name."""
        if self.registry_namespaces == "all":
            return None
        return () if self.registry_namespaces == "images" else tuple(self.registry_namespaces.split(","))

    @property
    def bill_source(self) -> tuple[str, str] | None:
        """The kind of the bill (focus, otc-dashboard, huawei) and its directory or endpoint, empty if it is the usual
        one; None if no bill is read.
        """
        stated = self.bills or ("otc-dashboard:" if self.uses_sandbox else "none")
        if stated == "none":
            return None
        kind, colon, endpoint = stated.partition(":")
        return (kind, endpoint) if colon and kind in BILL_SERVICES else ("focus", stated)

    @property
    def reads_usage(self) -> bool:
        """Whether any source of usage is read."""
        return bool(self.usage_sources)

    @classmethod
    def load(cls) -> Self:
        """Read `.env` of the working directory, the environment, which wins, and the files that hold secrets.

        Raises:
            ConfigurationError: a value is wrong; names the variable, never the value.
        """
        load_environment()
        for name in (f"{PREFIX}{field.upper()}" for field in _EXAMPLES):
            check_json(name, os.environ.get(name, ""))
        try:
            # A value from a file is passed in: it must not stay in the environment, where it would outlive the file.
            settings = cls(**_secrets_of_files(cls))
        except ValidationError as error:
            field, reason = _first_problem(error)
            raise ConfigurationError(f"The setting {PREFIX}{field.upper()} is wrong: {reason}.") from None
        # Not only when a project's run begins.
        _ = settings.of_each_project
        return settings


def _endpoint_in(service: str | None) -> str | None:
    """The endpoint in a setting that may also say whether a service is read."""
    return None if service is None or service in _TRUE | _FALSE else service


def _first_problem(error: ValidationError) -> tuple[str, str]:
    """The first setting that is wrong, and the reason, without the value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return str(first["loc"][0]) if first["loc"] else "", first["msg"].removeprefix("Value error, ")


def _secret_names(settings: type[Settings]) -> dict[str, str]:
    """The variables of the settings that are secret, and their fields."""
    return {
        f"{PREFIX}{name.upper()}": name
        for name, field in settings.model_fields.items()
        if SecretStr in (field.annotation, *get_args(field.annotation))
    }


def _secrets_of_files(settings: type[Settings]) -> dict[str, Any]:
    """The secret settings whose values are in files, by field."""
    names = _secret_names(settings)
    in_files = [name for name in names if os.environ.get(f"{name}{SUFFIX}", "").strip()]
    env = with_secret_files(os.environ, in_files)
    return {names[name]: SecretStr(env[name].strip()) for name in in_files}


def known_variables() -> set[str]:
    """The variables of all settings, and those that name the file of a secret one."""
    return {f"{PREFIX}{field.upper()}" for field in Settings.model_fields} | {
        f"{name}{SUFFIX}" for name in _secret_names(Settings)
    }


def load_environment() -> None:
    """Add the variables of `.env` in the working directory to the environment, which wins, and check our names.

    `.env` may hold OS_* variables, too; the cloud's library reads them from the environment.

    Raises:
        ConfigurationError: `.env` cannot be read, a variable's value is ambiguous, or a name is not a setting, so that
            its value would be ignored.
    """
    prepare_environment(Path.cwd() / ".env", os.environ)
    check_names(os.environ, known_variables())
