"""What images were and what changed: the history of a project (slowly changing dimension, type 2), and a day's changes.

The history is made from complete days, one after the other, by sql/derive/image_history_step.sql. The file names the
days that went into it and their manifests: when one of them was published again since, the history goes back to the day
before it and takes the steps from there again.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.derive.analysis import Analysis, id_ranges
from pipelines.engine.interface import Engine
from pipelines.engine.opening import open_engine
from pipelines.engine.sql_files import read_sql
from pipelines.errors import StorageError
from pipelines.lake.derived_manifests import coming_history_sha256, newest_history_sha256
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import FileFacts, PublishedPartition, complete_days, published_days
from pipelines.lake.parquet_files import SANDBOX_MARK, open_parquet
from pipelines.lake.retention_records import RetentionRecords
from pipelines.lake.storage import LakePath
from pipelines.run import Run
from pipelines.tables import IMAGE_CHANGES, IMAGE_HISTORY, IMAGE_STORAGE, IMAGES, RESPONSES

# File metadata: the days that a history consists of, each with the SHA-256 of its manifest.
DAYS_KEY = "image_snapshots.days"
_COLUMNS = ", ".join(column.name for column in IMAGE_HISTORY.columns)


@dataclass(frozen=True, slots=True)
class HistoryResult:
    """A project's history after a run: `steps` are the complete days that went into it just now."""

    path: LakePath
    versions: int
    current: int
    deleted: int
    days: int
    steps: int


def derive_image_history(
    day: Run,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    staging: LakePath | None = None,
    engine: Engine | None = None,
) -> HistoryResult:
    """Bring `image_history` of the day's project up to its newest complete day, whatever day it is.

    The file that is there is continued if the newest derived manifest names it. Any other file is damaged, was changed,
    or was written by a run that was killed, so the history is made anew. After retention removed files of its days, it
    cannot be made anew: then a file that a killed run left, or that somebody accepts, is continued, and no other.
    `on_step` is told how many of the days to take are taken. With `staging` it is written to that directory, and
    without to its place. The engine is opened for it unless one is given.

    Raises:
        ConfigurationError: retention removed files of a day that is to be taken.
        StorageError: the history is not the one that its manifest names, and cannot be made anew; or the lake cannot
            be read or written.
    """
    lake, project = day.lake, day.partition.project
    place = lake.project_table(IMAGE_HISTORY.name, project)
    stored = place if _is_to_be_gone_on_with(day, place) else None
    path = place if staging is None else staging / place.name
    with engine or open_engine(day.settings) as opened:
        return _write_history(opened, lake, project, path, day.run_id, stored, None, on_step)


def _is_to_be_gone_on_with(day: Run, place: LakePath) -> bool:
    """Whether the stored history counts; False when it is made anew.

    Raises:
        StorageError: it does not, and cannot be made anew.
    """
    lake, project = day.lake, day.partition.project
    recorded = newest_history_sha256(lake, project)
    has_removed = bool(RetentionRecords(lake, project))
    if not place.is_there() or (recorded is None and not has_removed):
        return True
    digest = place.sha256()
    if digest == recorded:
        return True
    if not has_removed:
        return False
    if digest in (day.accepted_history, coming_history_sha256(lake, project)):
        return True
    named = f"the newest derived manifest names {recorded}" if recorded else "no derived manifest names one"
    raise StorageError(
        f"{place} is not the file that its manifest names: its SHA-256 is {digest}, and {named}. Retention "
        "removed what it would be made anew from, so nothing was derived: restore the file from a backup, or, if you "
        f"know it to be right, say so once with `image-snapshots rebuild --date "
        f"{day.partition.date} --accept-history {digest}`."
    )


def write_history_again(engine: Engine, lake: Lake, project: str, path: LakePath) -> None:
    """Write a project's history to `path` from its days alone, as far as retention has left them.

    Up to the last day whose files are gone, only the stored history is known, and it is continued from there.

    Raises:
        StorageError: the lake cannot be read or written.
    """
    removed = RetentionRecords(lake, project)
    gone = [day.date for day in complete_days(lake, project) if _lacks(removed, day)]
    stored = lake.project_table(IMAGE_HISTORY.name, project) if gone else path
    _write_history(engine, lake, project, path, "verify", stored, max(gone, default=None))


def _lacks(removed: RetentionRecords, day: Partition) -> bool:
    return not {IMAGES.name, RESPONSES.name}.isdisjoint(removed.missing(day))


def _write_history(
    engine: Engine,
    lake: Lake,
    project: str,
    path: LakePath,
    run_id: str,
    stored: LakePath | None,
    until: dt.date | None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> HistoryResult:
    """Write a history to `path`, going on from what is `stored`, or from that as it was after the day `until`.

    Without a stored one it is made anew.
    """
    days = [day for day in published_days(lake, project) if day.manifest.is_complete]
    known = [
        entry for entry in (known_days(stored) if stored else []) if until is None or entry[0] <= until.isoformat()
    ]
    agreeing = list(takewhile(lambda pair: pair[0] == pair[1], zip(known, map(_entry, days), strict=False)))
    missing = days[len(agreeing) :]
    removed = RetentionRecords(lake, project)
    for day in missing:
        removed.check_has(
            day.partition,
            (IMAGES.name, RESPONSES.name),
            "the history cannot be made anew from that day on: restore "
            f"{lake.project_table(IMAGE_HISTORY.name, project)} from a backup",
        )
    last = days[len(agreeing) - 1].partition.date if agreeing else None
    # What becomes of an image depends on nothing but its own past.
    newest = lake.table(RESPONSES.name, days[-1].partition) if days else None
    at_a_time = engine.ids_at_a_time
    if at_a_time is not None and len(missing) > 1:
        # Each step keeps the versions of a range, beside those that it makes of them.
        at_a_time //= 2
    ranges = id_ranges(newest, at_a_time) if newest is not None and newest.is_there() else [None]
    metadata = days_metadata(days)
    every_version = (
        f"SELECT {_COLUMNS} FROM ended UNION ALL "  # noqa: S608  (names of ours)
        f"SELECT {_COLUMNS} FROM {'stepped' if missing else 'versions'} ORDER BY id, valid_from"
    )
    current = deleted = 0
    with lake.writer(path, IMAGE_HISTORY, run_id, metadata=metadata) as writer:
        for done, ids in enumerate(ranges):
            # Read where they are used, unless several steps divide them again.
            make = engine.create if len(missing) > 1 else engine.create_view
            _load_until(engine, stored or path, last, ids, make)
            for number, day in enumerate(missing):
                on_step(done * len(missing) + number, len(ranges) * len(missing))
                _take_step(engine, lake, day, ids, is_last=day is missing[-1])
            for batch in engine.stream(every_version, IMAGE_HISTORY.schema):
                writer.write(batch)
                current += batch["is_current"].true_count
                deleted += pc.and_(batch["is_current"], batch["is_deleted"]).true_count
        if any(day.manifest.fetch.is_sandbox for day in days):
            writer.note(SANDBOX_MARK)
    on_step(len(ranges) * len(missing), len(ranges) * len(missing))
    return HistoryResult(path, writer.rows, current, deleted, len(days), len(missing))


def derive_image_changes(analysis: Analysis) -> tuple[FileFacts, dict[str, int]]:
    """Write `image_changes` of the day; also returns how many images each kind of change concerns.

    Reads the day's `image_storage`.
    """
    analysis.load_today(IMAGE_STORAGE)
    sources = [IMAGE_HISTORY.name, "image_owners", IMAGE_STORAGE.name, "current_images"]
    facts = analysis.write_by_id(IMAGE_CHANGES, read_sql("derive/image_changes.sql"), sources)
    analysis.load_today(IMAGE_CHANGES)
    counts = analysis.engine.read(
        "SELECT change, COUNT(DISTINCT id) AS images FROM image_changes GROUP BY change ORDER BY change"
    )
    return facts, {row["change"]: row["images"] for row in counts.to_pylist()}


def days_metadata(days: Sequence[PublishedPartition]) -> dict[str, str]:
    """What the file of a history says of the complete days that it was made from."""
    return {DAYS_KEY: orjson.dumps([_entry(day) for day in days]).decode()}


def _entry(day: PublishedPartition) -> list[str]:
    return [day.partition.date.isoformat(), day.sha256]


def known_days(path: LakePath) -> list[list[str]]:
    """The days that a history consists of, each with the SHA-256 of its manifest; none of a file that is damaged."""
    if not path.is_there():
        return []
    try:
        with open_parquet(path) as file:
            schema = file.schema_arrow
    except pa.ArrowInvalid:
        # Damaged; all of it can be had again.
        return []
    if schema.names != IMAGE_HISTORY.schema.names or DAYS_KEY.encode() not in (schema.metadata or {}):
        # Of another version of this software: begin anew.
        return []
    days: list[list[str]] = orjson.loads(schema.metadata[DAYS_KEY.encode()])
    return days


def _load_until(
    engine: Engine, path: LakePath, last: dt.date | None, ids: str | None, make: Callable[[str, str], None]
) -> None:
    """Open a history, of a range of ids, as it was after a day: `versions` are current then, `ended` are over.

    `make` makes either a relation of a name and a SELECT.
    """
    if last is None:
        for name in ("versions", "ended"):
            engine.load(name, IMAGE_HISTORY.schema.empty_table())
        return
    engine.load_file("stored", path)
    if ids is not None:
        engine.narrow("stored", ids)
    reopened = {"valid_to": "CAST(NULL AS DATE) AS valid_to", "is_current": "TRUE AS is_current"}
    columns = ", ".join(reopened.get(column.name, column.name) for column in IMAGE_HISTORY.columns)
    make(
        "versions",
        f"SELECT {columns} FROM stored WHERE valid_from <= DATE '{last}' "  # noqa: S608  (a date and names of ours)
        f"AND (valid_to IS NULL OR valid_to > DATE '{last}')",
    )
    make("ended", f"SELECT {_COLUMNS} FROM stored WHERE valid_to <= DATE '{last}'")  # noqa: S608


def _take_step(engine: Engine, lake: Lake, day: PublishedPartition, ids: str | None, *, is_last: bool) -> None:
    """Let `stepped` be all versions after a day but those of `ended`; before another day they are divided again."""
    engine.load(
        "day",
        pa.table(
            {
                "snapshot_date": pa.array([day.partition.date], pa.date32()),
                "project_id": pa.array([day.manifest.fetch.project_id]),
                "inventory_is_whole": pa.array([day.manifest.inventory.is_whole]),
            },
        ),
    )
    engine.load_file("day_responses", lake.table(RESPONSES.name, day.partition), "id, outcome")
    engine.load_file("day_images", lake.table(IMAGES.name, day.partition))
    if ids is not None:
        engine.narrow("day_responses", ids)
        engine.narrow("day_images", ids)
    step = read_sql("derive/image_history_step.sql")
    if is_last:
        engine.create_view("stepped", step)
        return
    engine.create("stepped", step)
    engine.append("ended", f"SELECT {_COLUMNS} FROM stepped WHERE NOT is_current")  # noqa: S608
    engine.create("versions", f"SELECT {_COLUMNS} FROM stepped WHERE is_current")  # noqa: S608
