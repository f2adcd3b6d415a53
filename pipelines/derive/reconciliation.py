"""The inventory of a day against the API's own list: what nobody registered, and what is registered and gone.

The comparison itself is `sql/derive/unmatched_images.sql`, and what is said of what it finds
`sql/derive/image_reconciliation.sql`; reading the list belongs to the fetch.
"""

from dataclasses import dataclass

from pipelines.derive.analysis import Analysis
from pipelines.engine.sql_files import read_sql
from pipelines.lake.manifests import FileFacts
from pipelines.tables import IMAGE_HISTORY, IMAGE_RECONCILIATION, IMAGES, INVENTORY, RESPONSES


@dataclass(frozen=True, slots=True)
class ReconciliationResult:
    """The written table and its rows by kind.

    `not_registered` is no key unless the day `was_compared`: the list was read, and the inventory is whole.
    """

    file: FileFacts
    counts: dict[str, int]
    was_compared: bool


def derive_image_reconciliation(analysis: Analysis) -> ReconciliationResult:
    """Write `image_reconciliation` of the day.

    Raises:
        StorageError: the lake cannot be written.
    """
    # The list lies in an order of its own, so each range looks through all that it is given of it.
    analysis.load_unregistered_rows()
    sources = ("unregistered_rows", "image_owners", INVENTORY.name, RESPONSES.name, IMAGES.name, IMAGE_HISTORY.name)
    analysis.hold_by_id("unmatched_images", read_sql("derive/unmatched_images.sql"), sources)
    file = analysis.write(IMAGE_RECONCILIATION, read_sql("derive/image_reconciliation.sql"))
    analysis.load_today(IMAGE_RECONCILIATION)
    (facts,) = analysis.engine.read(
        """
        SELECT
            (SELECT list_was_read AND inventory_is_whole FROM parameters) AS was_compared,
            COUNT(CASE WHEN kind = 'not_registered' THEN 1 END) AS not_registered,
            COUNT(CASE WHEN kind = 'registered_but_gone' THEN 1 END) AS registered_but_gone
        FROM image_reconciliation
        """
    ).to_pylist()
    was_compared = facts.pop("was_compared")
    if not was_compared:
        # The list was not compared, so their number is unknown, not zero.
        del facts["not_registered"]
    return ReconciliationResult(file, facts, was_compared)
