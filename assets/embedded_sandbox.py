"""Starts the embedded sandbox if no endpoint is configured: each run gets its own sandbox as endpoint."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from pipelines.cloud.credentials import load_credentials
from pipelines.inputs.projects import Project
from pipelines.lake.layout import Partition
from pipelines.sandbox import SandboxOptions, running_sandbox
from pipelines.settings import Settings
from pipelines.snapshot import connection
from pipelines.snapshot.connection import Connection, stated_inventory, stated_project


@contextmanager
def connect(settings: Settings, partition: Partition) -> Iterator[Connection]:
    """Find endpoint, credentials and inventory of a project; a sandbox runs as long as the block.

    Raises:
        ConfigurationError: credentials are missing or the project is not among the settings.
    """
    settings = settings.for_project(partition.project)
    if not settings.uses_sandbox:
        with connection.connect(settings, partition) as stated:
            yield stated
        return
    stated_project(settings, partition.project)
    ids = {key: _project_id(key, project) for key, project in (settings.projects or {}).items()}
    with tempfile.TemporaryDirectory(prefix="image-snapshots-") as directory:
        options = SandboxOptions(
            day=partition.date,
            workspaces=2,
            projects=ids or None,
            inventory_file=Path(directory) / "sandbox-inventory.csv",
        )
        with running_sandbox(options) as sandbox:
            yield Connection(
                settings,
                sandbox.endpoint,
                load_credentials(ids.get(partition.project), sandbox.env),
                stated_inventory(settings) or str(options.inventory_file),
                bills_key=SecretStr(sandbox.env["IMAGE_SNAPSHOTS_BILLS_KEY"]),
            )


def _project_id(key: str, project: Project) -> str:
    """The project's id in the sandbox: the one that is stated, or else one that follows from the key."""
    return project.project_id or hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
