"""Starts the embedded sandbox if no endpoint is configured: each run gets its own sandbox as endpoint."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from pipelines.cloud.credentials import load_credentials
from pipelines.lake.layout import Partition
from pipelines.sandbox import SandboxOptions, running_sandbox
from pipelines.settings import Settings
from pipelines.snapshot import connection
from pipelines.snapshot.connection import Connection, stated_project


@contextmanager
def connect(settings: Settings, partition: Partition) -> Iterator[Connection]:
    """Find endpoint, credentials and inventory of a project; a sandbox runs as long as the block.

    Raises:
        ConfigurationError: credentials are missing or the project is not among the settings.
    """
    if not settings.uses_sandbox:
        with connection.connect(settings, partition) as stated:
            yield stated
        return
    project_id, inventory = stated_project(settings, partition.project)
    with tempfile.TemporaryDirectory(prefix="image-snapshots-") as directory:
        options = SandboxOptions(
            day=partition.date,
            workspaces=2,
            projects=settings.projects,
            inventory_file=Path(directory) / "sandbox-inventory.csv",
        )
        with running_sandbox(options) as sandbox:
            yield Connection(
                settings,
                sandbox.endpoint,
                load_credentials(project_id, sandbox.env),
                inventory or str(options.inventory_file),
                SecretStr(sandbox.env["IMAGE_SNAPSHOTS_BILLS_KEY"]),
            )
