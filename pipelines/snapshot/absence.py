"""Absence from an inventory is no deletion: which known images it lacks, and whether it may be believed.

Known are the images that lived, or may have, on the last complete day: its ids with the outcome `ok` or `forbidden`. An
inventory is *whole* when it lacks no more of them than the settings allow and, where it is the API's own list, shows as
many images as it counts. What a whole inventory lacks leaves the history. What another one lacks is asked for by its
id, so that the API's answer decides; its rows are those of the last complete day, marked in `id_source`.

So the known images of a day are always among those of the next, and an inventory that stays short is short every day.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.inventory.cleaning import FROM_LAST_COMPLETE_DAY, Inventory
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import Manifest, PublishedPartition, published_days
from pipelines.lake.parquet_files import read_batches
from pipelines.lake.storage import LakePath
from pipelines.tables import INVENTORY, RESPONSES

_BATCH_ROWS = 32_768
_MAY_LIVE = pa.array(["ok", "forbidden"])
_TABLES = (INVENTORY.name, RESPONSES.name)


@dataclass(frozen=True, slots=True)
class KnownImages:
    """The known images of `day`. `damaged`: the files of a later complete day that are not as they were published."""

    lake: Lake
    day: Partition | None
    damaged: LakePath | None = None

    def batches(self) -> Iterator[list[str]]:
        """Their ids, in lists of bounded length."""
        if self.day is None:
            return
        for batch in read_batches(self.lake.table(RESPONSES.name, self.day), _BATCH_ROWS, ["id", "outcome"]):
            yield batch.filter(pc.is_in(batch["outcome"], value_set=_MAY_LIVE))["id"].to_pylist()

    def rows(self, ids: set[str], snapshot_date: dt.date) -> Iterator[pa.RecordBatch]:
        """What the inventory of their day says of some of them, as rows of another day."""
        if self.day is None:
            return
        stated = {"snapshot_date": snapshot_date, "id_source": FROM_LAST_COMPLETE_DAY}
        for batch in read_batches(self.lake.table(INVENTORY.name, self.day), _BATCH_ROWS):
            wanted = batch.filter(pa.array([id_ in ids for id_ in batch["id"].to_pylist()], pa.bool_()))
            arrays = [
                pa.repeat(pa.scalar(stated[field.name], field.type), wanted.num_rows)
                if field.name in stated
                else wanted[field.name]
                for field in INVENTORY.schema
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=INVENTORY.schema)


def known_images(lake: Lake, partition: Partition, project_id: str) -> KnownImages:
    """What an inventory of a day is compared with; no images when the project has no complete day before it.

    A day whose inventory was accepted although it had shrunk is compared with itself when it is taken again: it was
    accepted for the day. Days of another project id are not compared: somebody said that the project moved.

    Raises:
        StorageError: a manifest is damaged.
    """
    damaged = None
    for day in reversed(published_days(lake, partition.project)):
        if not _is_before(day, partition) or not day.manifest.is_complete:
            continue
        if day.manifest.fetch.project_id != project_id:
            break
        changed = next(_changed_files(lake, day.partition, day.manifest), None)
        if changed is None:
            return KnownImages(lake, day.partition, damaged)
        damaged = damaged or changed
    return KnownImages(lake, None, damaged)


def _is_before(day: PublishedPartition, partition: Partition) -> bool:
    return day.partition < partition or (day.partition == partition and day.manifest.inventory.is_accepted)


def _changed_files(lake: Lake, day: Partition, manifest: Manifest) -> Iterator[LakePath]:
    for name in _TABLES:
        path = lake.table(name, day)
        if not path.is_there() or path.sha256() != manifest.files[name].sha256:
            yield path


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an inventory lacks: `missing` of `known` images. `reason`: why it is not whole, a sentence; None when it is.

    `is_accepted`: it would not be whole, had somebody not said that it is right.
    """

    known: int
    missing: int
    reason: str | None
    is_accepted: bool


def judge(
    inventory: Inventory, source: str, images: KnownImages, *, shortfall: int, max_shrunk_ratio: float, accepted: bool
) -> Judgement:
    """Compare an inventory that was read to its end with the images that are known.

    `shortfall`: images that the API's list counts and does not show; of these nobody can say that it is right.
    """
    known = missing = 0
    for ids in images.batches():
        known += len(ids)
        missing += len(inventory.lacks(ids))
    since = images.day.date if images.day else None
    asked = f"the {missing} it lacks of the {known} known on {since} are asked for by id, and " if missing else ""
    if shortfall:
        shown = inventory.counts.ids
        reason = (
            f"The API's list shows {shown} of the {shown + shortfall} images that it counts: {asked}nothing counts as "
            "gone for not being on it."
        )
        return Judgement(known, missing, reason, is_accepted=False)
    if images.damaged is not None:
        reason = (
            f"It is not known what the inventory {source} lacks, because {images.damaged} is not the file that its "
            f"manifest names (`image-snapshots verify` says what else was changed): {asked}nothing counts as gone for "
            "not being in it."
        )
    elif missing > max_shrunk_ratio * known:
        reason = (
            f"The inventory {source} lacks {missing} of the {known} images known on {since}, more than "
            f"IMAGE_SNAPSHOTS_MAX_SHRUNK_RATIO ({max_shrunk_ratio:g}) allows: they are asked for by id, and nothing "
            "counts as gone for not being in it. Correct the inventory or, if it is right, run today with "
            "--accept-shrunk-inventory."
        )
    else:
        return Judgement(known, missing, None, is_accepted=False)
    return Judgement(known, missing, None if accepted else reason, is_accepted=accepted)


def missing_rows(inventory: Inventory, images: KnownImages, snapshot_date: dt.date) -> Iterator[pa.RecordBatch]:
    """Rows of the table `inventory` for the known images that an inventory lacks."""
    # All at once, because the inventory of a day is not in the order of its answers.
    missing = {id_ for ids in images.batches() for id_ in inventory.lacks(ids)}
    if missing:
        yield from images.rows(missing, snapshot_date)
