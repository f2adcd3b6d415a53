"""Where a run gets its answers: the stated endpoint and credentials, or the embedded sandbox in their place."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.api import ModelArtsClient
from pipelines.credentials import Credentials, load_credentials
from pipelines.errors import ConfigurationError
from pipelines.inventory import LISTED
from pipelines.lake import Partition
from pipelines.sandbox import SandboxOptions, running_sandbox
from pipelines.settings import Settings


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

    def client(self) -> ModelArtsClient:
        """A client of the endpoint, to be entered."""
        return ModelArtsClient(
            self.endpoint,
            self.credentials,
            concurrency=self.settings.concurrency,
            timeout_seconds=self.settings.timeout_seconds,
            rate_limit=self.settings.rate_limit,
            ca_bundle=self.settings.ca_bundle,
        )


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
    if settings.endpoint is not None:
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
