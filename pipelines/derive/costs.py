"""What images weigh and what that would cost: the table of a day, and its export in the shape of FOCUS.

The computing itself is `sql/cost/*.sql`; prices are the user's, see `derive.prices`. Every cost is an estimate. What
deleting images would free follows from their layers, see `derive.storage`, or is an upper bound without the registry.
"""

import datetime as dt
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from pipelines.derive.analysis import Analysis
from pipelines.derive.prices import read_price_book
from pipelines.derive.usage import UNUSED_AFTER_DAYS
from pipelines.engine.duckdb import DuckDBEngine
from pipelines.engine.spreadsheet import inert_sql
from pipelines.engine.sql_files import read_sql
from pipelines.engine.sql_text import quoted
from pipelines.errors import ConfigurationError, StorageError
from pipelines.lake.layout import Lake
from pipelines.lake.manifests import FileFacts, holds_sandbox
from pipelines.lake.parquet_files import ROW_GROUP_ROWS
from pipelines.tables import IMAGE_COSTS, IMAGE_STORAGE, IMAGE_USAGE, RECLAIMABLE

_FORMATS = {
    ".csv": "FORMAT csv, HEADER, TIMESTAMPFORMAT '%Y-%m-%dT%H:%M:%SZ'",
    # Read by more tools than any other codec.
    ".parquet": f"FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE {ROW_GROUP_ROWS}",
}


@dataclass(frozen=True, slots=True)
class CostResult:
    """The written table and its sums.

    `total_bytes` leaves out images of unknown size. `estimated_cost` is that of the day, and leaves out these and the
    `unpriced` ones, for which the price book states no price; None when that leaves nothing.
    `growth_bytes` is against the last complete day, None when there is none. `reclaimable_bytes`: what deleting all
    unused images frees together, exact by layers, or an upper bound where the registry is not read; None when usage was
    not read as a whole, or the bytes of an image are not known. `known_reclaimable_bytes`: what deleting the others
    frees, when `unknown_reclaimable_images` are not known; both 0 where the registry is not read. `is_priced`: the
    price book states a price above zero.
    """

    file: FileFacts
    images: int
    total_bytes: int
    growth_bytes: int | None
    estimated_cost: float | None
    currency: str
    is_priced: bool
    unpriced: int
    reclaimable_bytes: int | None
    known_reclaimable_bytes: int = 0
    unknown_reclaimable_images: int = 0


def derive_image_costs(analysis: Analysis) -> CostResult:
    """Write `image_costs` of the day, by the price book of the settings; reads the day's usage, storage, reclaimable.

    Raises:
        ConfigurationError: the price book is wrong.
        StorageError: the lake cannot be written.
    """
    book = read_price_book(analysis.run.settings.price_book)
    # A last complete day whose costs were never derived is nothing to compare with: all images would seem new.
    has_previous = analysis.previous is not None and analysis.lake.table(IMAGE_COSTS.name, analysis.previous).is_there()
    analysis.engine.load("prices", book.prices)
    analysis.engine.load(
        "cost_parameters",
        pa.table({"has_previous_costs": [has_previous], "unused_after_days": [UNUSED_AFTER_DAYS]}),
    )
    analysis.load_today(IMAGE_USAGE)
    analysis.load_today(IMAGE_STORAGE)
    analysis.load_derived(IMAGE_COSTS, "previous_costs", analysis.previous)
    sources = ("current_images", IMAGE_USAGE.name, IMAGE_STORAGE.name, "previous_costs")
    file = analysis.write_by_id(IMAGE_COSTS, read_sql("cost/image_costs.sql"), sources)
    analysis.load_today(IMAGE_COSTS)
    analysis.load_today(RECLAIMABLE)
    # No row means that there is no unused image.
    analysis.engine.create_view(
        "all_unused",
        "SELECT COALESCE(MAX(known_bytes), 0) AS known_bytes, COALESCE(MAX(unknown_images), 0) AS unknown_images, "
        "CASE WHEN COALESCE(MAX(unknown_images), 0) = 0 THEN COALESCE(MAX(reclaimable_bytes), 0) END "
        "AS reclaimable_bytes FROM reclaimable WHERE dimension = 'all'",
    )
    (sums,) = analysis.engine.read(
        """
        SELECT
            COUNT(*) AS images,
            CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) AS total_bytes,
            SUM(estimated_cost) AS estimated_cost,
            COUNT(*) - COUNT(unit_price) AS unpriced,
            CASE
                WHEN NOT (SELECT registry_was_wanted FROM parameters) THEN CAST(SUM(reclaimable_bytes) AS BIGINT)
                -- Of images that are not known it is not known what they free together, nor where nothing is observed.
                WHEN (SELECT usage_is_observed FROM parameters) THEN (SELECT reclaimable_bytes FROM all_unused)
            END AS reclaimable_bytes,
            (SELECT known_bytes FROM all_unused) AS known_reclaimable_bytes,
            (SELECT unknown_images FROM all_unused) AS unknown_reclaimable_images,
            (SELECT CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) FROM previous_costs) AS previous_bytes
        FROM image_costs
        """
    ).to_pylist()
    previous_bytes = sums.pop("previous_bytes")
    return CostResult(
        file=file,
        currency=book.currency,
        is_priced=book.is_priced,
        growth_bytes=sums["total_bytes"] - previous_bytes if has_previous else None,
        **sums,
    )


def write_focus(
    lake: Lake, first: dt.date, last: dt.date, projects: Collection[str], target: Path, *, exact: bool = False
) -> int:
    """Export the estimated costs of the days from `first` to `last` (both included) in the shape of FOCUS.

    The columns are those of `sql/cost/focus.sql`, the format is that of the ending of `target`, `.csv` or `.parquet`;
    a file that is there is replaced. Days without costs have no rows. In CSV, text that a spreadsheet would run as a
    formula is made harmless, unless `exact`.

    Returns:
        The number of rows.

    Raises:
        ConfigurationError: another ending, no costs in these days, or `target` cannot be written.
        StorageError: a file of the lake cannot be read, or there is no space left.
    """
    copy_options = _FORMATS.get(target.suffix.lower())
    if copy_options is None:
        raise ConfigurationError(f"{target} ends with neither .csv nor .parquet: the ending says which is written.")
    if first > last:
        raise ConfigurationError(f"The first day, {first}, is after the last one, {last}: change them round.")
    paths = [
        lake.table(IMAGE_COSTS.name, partition)
        for partition in lake.contents.partitions_of(IMAGE_COSTS.name)
        if first <= partition.date <= last and partition.project in projects
    ]
    if not paths:
        raise ConfigurationError(
            f"There are no costs from {first} to {last} of {', '.join(sorted(projects))} in {lake.root}: "
            "`image-snapshots status` lists the days that are there."
        )
    with _appearing_whole(target) as part, DuckDBEngine() as engine:
        # Several threads that must keep the order of the rows would hold what is written in memory.
        engine.connection.execute("SET threads = 1")
        try:
            engine.load_files("image_costs", paths, IMAGE_COSTS)
            engine.load("focus_parameters", pa.table({"is_sandbox": [holds_sandbox(lake)]}))
            rows = read_sql("cost/focus.sql")
            if target.suffix.lower() == ".csv" and not exact:
                found = engine.connection.sql(rows)
                texts = [name for name, type_ in zip(found.columns, found.types, strict=True) if type_.id == "varchar"]
                inert = ", ".join(f"{inert_sql(name)} AS {name}" for name in texts)
                rows = f"SELECT * REPLACE ({inert}) FROM ({rows})"  # noqa: S608
            written = engine.connection.execute(f"COPY ({rows}) TO {quoted(str(part))} ({copy_options})").fetchone()
        except duckdb.Error as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise StorageError(f"The costs could not be exported to {target}: {reason}.") from error
    return int(written[0]) if written else 0


@contextmanager
def _appearing_whole(target: Path) -> Iterator[Path]:
    """Yield a name beside `target` to write to; the file takes its place when the block ends without an error."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        try:
            part.touch()
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{target} cannot be written: {error.strerror}. Name another file.") from error
