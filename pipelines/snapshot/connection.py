"""Finds the endpoint, credentials and inventory of a project in the settings, and makes its API clients.

What is requested with these clients belongs to `snapshot.gathering`.
"""

import datetime as dt
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipelines.cloud.credentials import Credentials, load_credentials
from pipelines.cloud.modelarts import ModelArtsClient
from pipelines.cloud.options import Limits, Timeouts
from pipelines.cloud.regions import sibling_endpoint
from pipelines.cloud.service import ServiceClient
from pipelines.errors import ConfigurationError
from pipelines.inventory.cleaning import LISTED
from pipelines.lake.layout import Partition
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.cloud.shared_rate import SharedRate


@dataclass(frozen=True, slots=True)
class Connection:
    """One project's endpoint, credentials and inventory source."""

    settings: Settings
    endpoint: str
    credentials: Credentials
    # Left out of the repr, because a database URL may hold a password.
    inventory: str = field(repr=False)

    @property
    def host(self) -> str:
        """Host (and port) of the endpoint."""
        return urlsplit(self.endpoint).netloc

    @property
    def traces_endpoint(self) -> str:
        """The endpoint of the audit service. A server on this machine plays all services of the cloud.

        Raises:
            ConfigurationError: it is not set, and cannot be derived from the ModelArts endpoint.
        """
        if self.settings.traces_endpoint is not None:
            return self.settings.traces_endpoint
        endpoint = sibling_endpoint("cts", self.endpoint)
        if endpoint is None:
            raise ConfigurationError(
                f"The endpoint of the audit service does not follow from {self.host}: set IMAGE_SNAPSHOTS_TRACES to it."
            )
        return endpoint

    def traces_client(self, now: Callable[[], dt.datetime] | None = None) -> ServiceClient:
        """Make a client of the audit service, which the caller must enter; `now` as in `client`.

        Raises:
            ConfigurationError: its endpoint is not known.
        """
        return ServiceClient(
            self.traces_endpoint,
            self.credentials,
            limits=Limits(connections=1, rate=self.settings.rate_limit),
            timeouts=Timeouts(request=self.settings.timeout_seconds),
            ca_bundle=self.settings.ca_bundle,
            now=now,
        )

    def client(self, now: Callable[[], dt.datetime] | None = None) -> ModelArtsClient:
        """Make a client of the endpoint, which the caller must enter.

        `now` is the clock that sets `observed_at`; None is the wall clock.

        Raises:
            ConfigurationError: a shared rate is set, and its Python package is not installed.
        """
        rate_limit, shared_rate = self.settings.rate_limit, None
        if rate_limit is not None and self.settings.rate_limiter is not None:
            shared_rate = _shared_rate(self.settings.rate_limiter.get_secret_value(), self.host, rate_limit)
            rate_limit = None
        return ModelArtsClient(
            self.endpoint,
            self.credentials,
            limits=Limits(connections=self.settings.concurrency, rate=rate_limit),
            timeouts=Timeouts(request=self.settings.timeout_seconds),
            shared_rate=shared_rate,
            ca_bundle=self.settings.ca_bundle,
            now=now,
        )


def _shared_rate(url: str, host: str, rate: float) -> "SharedRate":
    try:
        from pipelines.cloud.shared_rate import SharedRate  # noqa: PLC0415  (its package is an extra)
    except ImportError:
        raise ConfigurationError(
            "IMAGE_SNAPSHOTS_RATE_LIMITER needs the Python package redis: install the extra `celery`."
        ) from None
    return SharedRate(url, host, rate)


def stated_project(settings: Settings, key: str) -> tuple[str | None, str | None]:
    """The project's id in the cloud and its inventory, as the settings state them; each None if they do not.

    Raises:
        ConfigurationError: the settings do not name the project.
    """
    if key not in settings.project_keys:
        raise ConfigurationError(
            f"The project {key!r} is not configured (known: {', '.join(settings.project_keys)}): "
            "add it to IMAGE_SNAPSHOTS_PROJECTS."
        )
    return (
        settings.projects[key] if settings.projects else None,
        settings.inventory.get_secret_value() if settings.inventory else None,
    )


@contextmanager
def connect(settings: Settings, partition: Partition) -> Iterator[Connection]:
    """Find the endpoint, credentials and inventory of a project.

    Raises:
        ConfigurationError: the endpoint or the credentials are missing, or the settings do not name the project.
    """
    project_id, inventory = stated_project(settings, partition.project)
    if settings.endpoint is None or settings.uses_sandbox:
        raise ConfigurationError(
            "No endpoint is stated: set IMAGE_SNAPSHOTS_ENDPOINT to the cloud's ModelArts endpoint."
        )
    yield Connection(settings, settings.endpoint, load_credentials(project_id, os.environ), inventory or LISTED)
