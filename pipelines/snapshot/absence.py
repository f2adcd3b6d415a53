"""Decides what it means that an inventory lacks a known image. Absence alone does not prove deletion.

An image is known if it existed on the last complete day, or may have existed: its outcome was `ok` or `forbidden`. An
inventory is *whole* if it lacks no more known images than the settings allow. If it is the API's image list, it must
also show as many images as it counts. Images that a whole inventory lacks leave the history. Images that any other
inventory lacks are requested by id, so that the API's response decides. Their rows are copied from the last complete
day and marked in `id_source`.

Because of these rows, the next day's inventory is compared with the same images again. An inventory that stays short is
therefore found short every day.
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
    """The known images of `day`; none if `day` is None.

    `damaged`: a file of a later complete day that no longer matches its manifest, so that day was passed over.
    """

    lake: Lake
    day: Partition | None
    damaged: LakePath | None = None

    def batches(self) -> Iterator[list[str]]:
        """The ids of the images, in lists of bounded length."""
        if self.day is None:
            return
        for batch in read_batches(self.lake.table(RESPONSES.name, self.day), _BATCH_ROWS, ["id", "outcome"]):
            yield batch.filter(pc.is_in(batch["outcome"], value_set=_MAY_LIVE))["id"].to_pylist()

    def rows(self, ids: set[str], snapshot_date: dt.date) -> Iterator[pa.RecordBatch]:
        """The inventory rows of some ids on `day`, with `snapshot_date` and `id_source` set for another day."""
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
    """The images that the inventory of `partition` is compared with; none if no earlier day is complete.

    A day whose shrunk inventory was accepted is compared with itself when it is taken again, because the acceptance
    holds for that day. Days of another project id are not compared, because an operator stated that the project moved.

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
    """The result of a comparison: the inventory lacks `missing` of the `known` images.

    `reason` is a sentence that says why the inventory is not whole; None if it is whole. `is_accepted`: the inventory
    counts as whole only because an operator accepted it.
    """

    known: int
    missing: int
    reason: str | None
    is_accepted: bool


def judge(
    inventory: Inventory, source: str, images: KnownImages, *, shortfall: int, max_shrunk_ratio: float, accepted: bool
) -> Judgement:
    """Compare an inventory that was read to its end with the known images.

    `shortfall`: how many images the API's list counts but does not show. An operator cannot accept such a list.
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
    # Collect all ids first, because the rows of an inventory are not in the order of its responses.
    missing = {id_ for ids in images.batches() for id_ in inventory.lacks(ids)}
    if missing:
        yield from images.rows(missing, snapshot_date)
