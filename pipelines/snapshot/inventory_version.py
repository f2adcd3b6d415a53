"""The version of an inventory: a hash of what is read from its source now, whatever the order of its rows."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import orjson
import pyarrow as pa

from pipelines.inventory.cleaning import LISTED, Inventory
from pipelines.snapshot.connection import Connection
from pipelines.snapshot.scope import find_scope, known_workspaces
from pipelines.snapshot.snapshot_run import SnapshotRun

_DIGITS = 2**256
# The same for all rows, and another each day.
_UNREAD = "snapshot_date"


def inventory_version(run: SnapshotRun) -> tuple[str, int]:
    """Read the inventory of a partition's project; returns a hash of its rows, in hexadecimal, and the number of ids.

    Raises:
        ConfigurationError: the source is missing, unreadable, malformed or refused, or has no usable id.
        PipelineError: the image list must be requested, and that fails.
    """
    with run.connect(run.settings, run.partition) as connection:
        return asyncio.run(_version(run, connection))


async def _version(run: SnapshotRun, connection: Connection) -> tuple[str, int]:
    inventory = Inventory(
        snapshot_date=run.partition.date,
        project_key=run.partition.project,
        project_keys=run.settings.project_keys,
        allow_empty=run.settings.allow_empty_inventory,
    )
    # A sum does not depend on the order of the rows, and needs no memory for them.
    total = 0
    if connection.inventory == LISTED:
        async with connection.client() as client:
            known = known_workspaces(run.lake, run.partition)
            scope = await find_scope(client, run.settings.stated_workspaces, known)

            async def ids() -> AsyncIterator[str]:
                async for page in client.list_images(scope.workspaces):
                    for item in page.items:
                        yield item["id"]

            async for batch in inventory.read_listed(ids()):
                total += _hash(batch)
    else:
        for batch in inventory.read(connection.inventory, run.settings.inventory_query):
            total += _hash(batch)
    return f"{total % _DIGITS:064x}", inventory.counts.ids


def _hash(batch: pa.RecordBatch) -> int:
    rows = batch.drop_columns([_UNREAD]).to_pylist()
    return sum(int.from_bytes(hashlib.sha256(orjson.dumps(row)).digest()) for row in rows)
