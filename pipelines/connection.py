"""Where a run gets its answers: the stated endpoint and credentials, or the embedded sandbox in their place."""

import datetime as dt
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipelines.api import ModelArtsClient
from pipelines.credentials import Credentials, load_credentials
from pipelines.errors import ConfigurationError
from pipelines.inventory import LISTED
from pipelines.lake import Partition
from pipelines.sandbox import SandboxOptions, running_sandbox
from pipelines.settings import Settings

if TYPE_CHECKING:
    from pipelines.shared_rate import SharedRate


@dataclass(frozen=True, slots=True)
class Connection:
    """One project's endpoint, credentials and inventory source."""

    settings: Settings
    endpoint: str
    credentials: Credentials
    # A database URL may hold a password.
    inventory: str = field(repr=False)

    @property
    def host(self) -> str:
        """Host (and port) of the endpoint."""
        return urlsplit(self.endpoint).netloc

    def client(self, now: Callable[[], dt.datetime] | None = None) -> ModelArtsClient:
        """A client of the endpoint, to be entered; `now` says when an answer came, by the wall clock if it is None.

        Raises:
            ConfigurationError: a shared rate is wanted, and its Python package is not installed.
        """
        rate_limit, shared_rate = self.settings.rate_limit, None
        if rate_limit is not None and self.settings.rate_limiter is not None:
            shared_rate = _shared_rate(self.settings.rate_limiter.get_secret_value(), self.host, rate_limit)
            rate_limit = None
        return ModelArtsClient(
            self.endpoint,
            self.credentials,
            concurrency=self.settings.concurrency,
            timeout_seconds=self.settings.timeout_seconds,
            rate_limit=rate_limit,
            shared_rate=shared_rate,
            ca_bundle=self.settings.ca_bundle,
            now=now,
        )


def _shared_rate(url: str, host: str, rate: float) -> "SharedRate":
    try:
        from pipelines.shared_rate import SharedRate  # noqa: PLC0415  (its package is an extra)
    except ImportError:
        raise ConfigurationError(
            "IMAGE_SNAPSHOTS_RATE_LIMITER needs the Python package redis: install the extra `celery`."
        ) from None
    return SharedRate(url, host, rate)


@contextmanager
def connect(settings: Settings, partition: Partition) -> Iterator[Connection]:
    """Find endpoint, credentials and inventory of a project; an embedded sandbox lives as long as the block.

    Raises:
        ConfigurationError: credentials are missing or the project is not among the settings.
    """
    if partition.project not in settings.project_keys:
        raise ConfigurationError(
            f"The project {partition.project!r} is not configured (known: {', '.join(settings.project_keys)}): "
            "add it to IMAGE_SNAPSHOTS_PROJECTS."
        )
    project_id = settings.projects[partition.project] if settings.projects else None
    inventory = settings.inventory.get_secret_value() if settings.inventory else None
    if settings.endpoint is not None and not settings.uses_sandbox:
        yield Connection(settings, settings.endpoint, load_credentials(project_id, os.environ), inventory or LISTED)
        return
    with tempfile.TemporaryDirectory(prefix="image-snapshots-") as directory:
        options = SandboxOptions(
            day=partition.date,
            projects=settings.projects,
            inventory_file=Path(directory) / "sandbox-inventory.csv",
        )
        with running_sandbox(options) as sandbox:
            yield Connection(
                settings,
                sandbox.endpoint,
                load_credentials(project_id, sandbox.env),
                inventory or str(options.inventory_file),
            )
