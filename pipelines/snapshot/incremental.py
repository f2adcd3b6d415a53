"""Incremental mode: carries forward responses of an earlier day if the image list still confirms them.

A response of the last complete day is carried forward if the list shows its image unchanged, field by field, and if it
was fetched recently enough. Absence from the list confirms nothing: such an id is requested, and so is a new one.
"""

import datetime as dt
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import StorageError
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import last_complete_day, read_manifest
from pipelines.lake.parquet_files import BATCH_BYTES, read_batches
from pipelines.lake.storage import LakePath
from pipelines.snapshot.checkpoint import Checkpoint
from pipelines.snapshot.image_list import confirms
from pipelines.tables import RESPONSES, TIMESTAMP

# Below SQLite's limit on the number of parameters.
_BATCH_ROWS = 500
_DESCRIBED = pa.array(["ok", "deleted"])


def last_complete_responses(lake: Lake, partition: Partition, project_id: str) -> LakePath | None:
    """The `responses` file of the project's last complete day before this one.

    None if there is no such day, or if that day has another project id.

    Raises:
        StorageError: the file does not match its manifest, so nothing may be carried forward from it.
    """
    day = last_complete_day(lake, partition)
    if day is None:
        return None
    manifest = read_manifest(lake.manifest(day))
    if manifest.fetch.project_id != project_id:
        return None
    path = lake.table(RESPONSES.name, day)
    if path.sha256() != manifest.files[RESPONSES.name].sha256:
        raise StorageError(
            f"{path} is not the file that the manifest of {day} names, so nothing can be carried forward from it: run "
            "with --mode full, and `image-snapshots verify` says what else was changed."
        )
    return path


def carry_forward(store: Checkpoint, responses: LakePath, fetched_after: dt.datetime) -> None:
    """Store responses of an earlier day's `responses` file that the list confirms, for ids that have none yet.

    Only responses fetched after `fetched_after` are used.
    """
    confirmed: list[tuple[dict[str, Any], int]] = []
    size = 0
    for batch in read_batches(responses, _BATCH_ROWS):
        is_described = pc.is_in(batch["outcome"], value_set=_DESCRIBED)
        is_recent = pc.greater(batch["fetched_at"], pa.scalar(fetched_after, TIMESTAMP))
        rows = {row["id"]: row for row in batch.filter(pc.and_(is_described, is_recent)).to_pylist()}
        if not rows:
            continue
        listed = store.image_list.find(sorted(store.lacks(list(rows))))
        for id_, observed_at, item in listed:
            if confirms(item, rows[id_]["body"]):
                confirmed.append((rows[id_], observed_at))
                size += len(rows[id_]["body"])
        if len(confirmed) >= store.flush_responses or size >= BATCH_BYTES:
            store.carry(confirmed)
            confirmed, size = [], 0
    store.carry(confirmed)
