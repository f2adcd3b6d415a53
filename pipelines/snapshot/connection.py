"""Finds the endpoint, credentials and inventory of a project in the settings, and makes its API clients.

What is requested with these clients belongs to `snapshot.gathering`.
"""

import datetime as dt
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from pipelines.cloud.credentials import AccessKey, Account, Credentials, ServerAgency, load_credentials
from pipelines.cloud.dashboard import DashboardClient
from pipelines.cloud.discovery import find_endpoint
from pipelines.cloud.modelarts import ModelArtsClient
from pipelines.cloud.options import Limits, Timeouts
from pipelines.cloud.regions import (
    Service,
    is_of_another_cloud,
    known_region,
    region_of_host,
    sibling_endpoint,
    usual_bill_endpoint,
)
from pipelines.cloud.registry import BODY_BYTES, ManifestClient, RegistryClient, RegistryLogin
from pipelines.cloud.service import ServiceClient
from pipelines.errors import ConfigurationError
from pipelines.inputs.credential_variables import PREFIXES
from pipelines.inputs.endpoints import is_on_loopback
from pipelines.inputs.projects import Project
from pipelines.inventory.cleaning import LISTED
from pipelines.lake.layout import Partition
from pipelines.settings import BILL_SERVICES, Settings
from pipelines.snapshot.sources.bill_access import BillAccess

if TYPE_CHECKING:
    from pipelines.cloud.shared_rate import SharedRate

# Each may hold a page of a thousand manifests in memory.
REGISTRY_CONNECTIONS = 4


# Where `clouds.yaml` is.
_OF_FILES = ("OS_CLIENT_CONFIG_FILE", "OS_CLIENT_SECURE_FILE")


@dataclass(frozen=True, slots=True)
class Connection:
    """One project's endpoint, credentials and inventory source."""

    settings: Settings
    endpoint: str
    credentials: Credentials
    # Left out of the repr, because a database URL may hold a password.
    inventory: str = field(repr=False)
    # What the endpoint follows from; None if it is stated.
    origin: str | None = None
    # The API key of the bill that a sandbox was started with; None: the setting's.
    bills_key: SecretStr | None = None

    @property
    def host(self) -> str:
        """Host (and port) of the endpoint."""
        return urlsplit(self.endpoint).netloc

    @property
    def derived(self) -> str:
        """What the endpoint is and follows from, where it is not stated."""
        return f"{self.endpoint} follows from {self.origin}."

    @property
    def traces_endpoint(self) -> str:
        """The endpoint of the audit service. A server on this machine plays all services of the cloud.

        Raises:
            ConfigurationError: it is not set, and cannot be derived from the ModelArts endpoint.
        """
        return self._sibling("cts", "the audit service", "TRACES", self.settings.traces_endpoint)

    def traces_client(self, now: Callable[[], dt.datetime] | None = None) -> ServiceClient:
        """Make a client of the audit service, which the caller must enter; `now` as in `client`.

        Raises:
            ConfigurationError: its endpoint is not known, or as in `client`.
        """
        endpoint = self.traces_endpoint
        rate_limit, shared_rate = self._rates(endpoint)
        return ServiceClient(
            endpoint,
            self.credentials,
            limits=Limits(connections=1, rate=rate_limit),
            timeouts=Timeouts(request=self.settings.timeout_seconds),
            shared_rate=shared_rate,
            ca_bundle=self.settings.ca_bundle,
            now=now,
        )

    @property
    def registry_endpoint(self) -> str:
        """The endpoint of the registry's management API. A server on this machine plays all services of the cloud.

        Raises:
            ConfigurationError: it is not set, and cannot be derived from the ModelArts endpoint.
        """
        return self._sibling("swr", "the registry", "REGISTRY", self.settings.registry_endpoint)

    def _sibling(self, service: Service, name: str, setting: str, stated: str | None) -> str:
        """A service's endpoint as stated for all projects, or else the one beside the ModelArts endpoint."""
        if stated is not None:
            region, other = known_region(self.host), known_region(urlsplit(stated).netloc)
            if len(self.settings.projects or ()) > 1 and region and other and region != other:
                raise ConfigurationError(
                    f"IMAGE_SNAPSHOTS_{setting} is an endpoint of the region {other}, and this project is in {region}, "
                    "so its credentials were not sent there: set it to `true`, and each project's own is used."
                )
            return stated
        endpoint = sibling_endpoint(service, self.endpoint)
        if endpoint is None:
            raise ConfigurationError(
                f"The endpoint of {name} does not follow from {self.host}: set IMAGE_SNAPSHOTS_{setting} to it."
            )
        return endpoint

    def registry_client(self, now: Callable[[], dt.datetime] | None = None) -> RegistryClient:
        """Make a client of the registry's management API, which the caller must enter; `now` as in `client`.

        Raises:
            ConfigurationError: its endpoint is not known, or as in `client`.
        """
        endpoint = self.registry_endpoint
        limits, shared_rate = self._registry_limits(endpoint)
        return RegistryClient(
            endpoint,
            self.credentials,
            limits=limits,
            timeouts=Timeouts(request=self.settings.timeout_seconds),
            shared_rate=shared_rate,
            ca_bundle=self.settings.ca_bundle,
            now=now,
        )

    def manifest_client(self, login: RegistryLogin, now: Callable[[], dt.datetime] | None = None) -> ManifestClient:
        """Make a client of the registry that a login is for, which the caller must enter; `now` as in `client`."""
        limits, shared_rate = self._registry_limits(login.endpoint)
        return ManifestClient(
            login,
            limits,
            Timeouts(request=self.settings.timeout_seconds),
            shared_rate,
            self.settings.ca_bundle or self.credentials.ca_bundle,
            now,
        )

    def _registry_limits(self, endpoint: str) -> "tuple[Limits, SharedRate | None]":
        rate_limit, shared_rate = self._rates(endpoint)
        connections = min(REGISTRY_CONNECTIONS, self.settings.concurrency)
        return Limits(connections=connections, rate=rate_limit, body_bytes=BODY_BYTES), shared_rate

    def bill_access(self, now: Callable[[], dt.datetime] | None = None) -> BillAccess | None:
        """How to read the bill; None if it is not wanted. `now` as in `client`.

        A server on this machine plays all services of the cloud.
        """
        if (source := self.settings.bill_source) is None:
            return None
        kind, place = source
        if kind in BILL_SERVICES:
            place = place or (self.endpoint if is_on_loopback(self.endpoint) else usual_bill_endpoint(kind, self.host))
        timeouts = Timeouts(request=self.settings.timeout_seconds)

        def open_bill_lines() -> ServiceClient:
            if is_of_another_cloud(place, self.host):
                raise ConfigurationError(
                    f"Bill lines of Huawei Cloud (IMAGE_SNAPSHOTS_BILLS) are not those of {self.host}, which is an "
                    "endpoint of another cloud, so its credentials were not sent there."
                )
            rate_limit, shared_rate = self._rates(place)
            return ServiceClient(
                place,
                self.credentials,
                limits=Limits(connections=1, rate=rate_limit),
                timeouts=timeouts,
                shared_rate=shared_rate,
                ca_bundle=self.settings.ca_bundle,
                account=self.account,
                now=now,
            )

        return BillAccess(
            kind,
            place,
            key=self.bills_key or self.settings.bills_key,
            region=region_of_host(self.host),
            open_dashboard=lambda key: DashboardClient(
                place, key, timeouts=timeouts, ca_bundle=self.settings.ca_bundle
            ),
            open_bill_lines=open_bill_lines,
        )

    @property
    def account(self) -> Account | None:
        """The account that bill lines are asked for, whose service knows no projects; None where a token says it.

        If no identity service is stated that could look up its id, that is the one beside the ModelArts endpoint.
        """
        if not isinstance(self.credentials, AccessKey | ServerAgency):
            return None
        account = self.credentials.account
        return replace(account, auth_url=account.auth_url or sibling_endpoint("iam", self.endpoint))

    def client(self, now: Callable[[], dt.datetime] | None = None) -> ModelArtsClient:
        """Make a client of the endpoint, which the caller must enter.

        `now` is the clock that sets `observed_at`; None is the wall clock.

        Raises:
            ConfigurationError: a shared rate is set, and its Python package is not installed.
        """
        rate_limit, shared_rate = self._rates(self.endpoint)
        return ModelArtsClient(
            self.endpoint,
            self.credentials,
            limits=Limits(connections=self.settings.concurrency, rate=rate_limit),
            timeouts=Timeouts(request=self.settings.timeout_seconds),
            shared_rate=shared_rate,
            ca_bundle=self.settings.ca_bundle,
            now=now,
        )

    def _rates(self, endpoint: str) -> "tuple[float | None, SharedRate | None]":
        """The limit of requests per second at an endpoint: of one client, or of all processes; None for no limit.

        Without a limit of its own, a project shares the general one with the other projects at that host.
        """
        rate_limit = self.settings.rate_limit
        if rate_limit is None or self.settings.rate_limiter is None:
            return rate_limit, None
        host, key = urlsplit(endpoint).netloc, self.settings.own("rate_limit")
        place = host if key is None else f"{host}:{key}"
        return None, _shared_rate(self.settings.rate_limiter.get_secret_value(), place, rate_limit)


def _shared_rate(url: str, place: str, rate: float) -> "SharedRate":
    try:
        from pipelines.cloud.shared_rate import SharedRate  # noqa: PLC0415  (its package is an extra)
    except ImportError:
        raise ConfigurationError(
            "IMAGE_SNAPSHOTS_RATE_LIMITER needs the Python package redis: install the extra `celery`."
        ) from None
    return SharedRate(url, place, rate)


def stated_project(settings: Settings, key: str) -> Project:
    """The project as the settings state it; without the setting, the one of the credentials.

    Raises:
        ConfigurationError: the settings do not name the project.
    """
    if key not in settings.project_keys:
        raise ConfigurationError(
            f"The project {key!r} is not configured (known: {', '.join(settings.project_keys)}): "
            "add it to IMAGE_SNAPSHOTS_PROJECTS."
        )
    return settings.projects[key] if settings.projects else Project()


def stated_inventory(settings: Settings) -> str | None:
    """The inventory that the settings of a project state; None if they do not."""
    return settings.inventory.get_secret_value() if settings.inventory else None


@contextmanager
def connect(settings: Settings, partition: Partition) -> Iterator[Connection]:
    """Find the endpoint, credentials and inventory of a project.

    Raises:
        ConfigurationError: the endpoint or the credentials are missing, or the settings do not name the project.
        PipelineError: the endpoint is not stated, and the identity service, which may know it, refuses or fails.
    """
    project = stated_project(settings, partition.project)
    settings = settings.for_project(partition.project)
    if settings.uses_sandbox:
        raise ConfigurationError(
            "No endpoint is stated: set IMAGE_SNAPSHOTS_ENDPOINT to the cloud's ModelArts endpoint."
        )
    credentials = project_credentials(partition.project, project, os.environ)
    check_region(settings, partition.project, project, credentials)
    endpoint, origin = settings.endpoint, None
    if endpoint is None:
        found = find_endpoint(credentials, Timeouts(request=settings.timeout_seconds), settings.ca_bundle)
        endpoint, origin = found.url, found.origin
    yield Connection(settings, endpoint, credentials, stated_inventory(settings) or LISTED, origin)


def project_credentials(key: str, project: Project, environ: Mapping[str, str]) -> Credentials:
    """The credentials of the project with this key.

    Raises:
        ConfigurationError: they are missing or contradictory.
    """
    # A message must not send the user to a variable that is not set.
    stated = {"OS_CLOUD": ("cloud", project.cloud), "OS_REGION_NAME": ("region", project.region)}
    names = {
        variable: f"`{name}` of project {key!r} in the projects file"
        for variable, (name, value) in stated.items()
        if value is not None
    }
    return load_credentials(
        project.project_id, project_environment(project, environ), project.project_name, names=names
    )


def check_region(settings: Settings, key: str, project: Project, credentials: Credentials) -> None:
    """Refuse to send a project's own credentials to the general endpoint of another region.

    Raises:
        ConfigurationError: the regions are known, and differ.
    """
    region = credentials.region
    if project.cloud is None or region is None or settings.endpoint is None or settings.own("endpoint") is not None:
        return
    other = known_region(urlsplit(settings.endpoint).netloc)
    if other is not None and other != region.name:
        raise ConfigurationError(
            f"Project {key!r} has credentials for the region {region.name} ({region.stated_by}), and "
            f"IMAGE_SNAPSHOTS_ENDPOINT is an endpoint of the region {other}: state `region` or `endpoint` of the "
            "project in the projects file."
        )


def project_environment(project: Project, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that a project's credentials are read from.

    A project with a cloud of its own has nothing of the environment's credentials.
    """
    env = dict(environ)
    if project.cloud is not None:
        env = {name: value for name, value in env.items() if not name.startswith(PREFIXES) or name in _OF_FILES}
        env["OS_CLOUD"] = project.cloud
    if project.region is not None:
        env["OS_REGION_NAME"] = project.region
    return env
