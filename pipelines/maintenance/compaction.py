"""Compacts a month's daily files into one file per table, for analysis.

The daily files and their manifests stay: they are the evidence. The monthly manifest names the SHA-256 of each daily
file in its monthly files. A monthly file replaces a daily one for readers only while the daily file still has that
SHA-256. The monthly manifest is removed before the files are replaced and written after them. So readers always see the
same rows, from daily or monthly files, even if the process is killed.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from pipelines.engine.duckdb import DuckDBEngine
from pipelines.errors import ConfigurationError, StorageError
from pipelines.fingerprint import code_version
from pipelines.lake.derived_manifests import manifest_files
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import FileFacts
from pipelines.lake.monthly_manifests import (
    MonthlyFile,
    MonthlyManifest,
    is_month_whole,
    is_unchanged,
    monthly_files,
    read_monthly_manifest,
)
from pipelines.lake.parquet_files import SANDBOX_MARK, is_marked_sandbox, open_parquet
from pipelines.lake.records import write_record
from pipelines.lake.retention_records import RetentionRecords
from pipelines.lake.storage import LakePath
from pipelines.tables import SCHEMA_VERSION, SNAPSHOT_TABLES, Table


@dataclass(frozen=True, slots=True)
class CompactedMonth:
    """The result for one month of a project: rows and bytes of the monthly files, files and bytes of the daily ones.

    `was_current`: the monthly manifest still agreed with the daily files, so nothing was done.
    """

    month: str
    project: str
    was_current: bool
    days: int
    rows: int
    bytes: int
    daily_files: int
    daily_bytes: int


def months_over(lake: Lake, project: str, today: dt.date) -> list[str]:
    """The past months with published days of a project, such as `2026-11`, in order."""
    days = [partition.date for partition in lake.contents.partitions() if partition.project == project]
    return sorted({_month(day) for day in days if _month(day) < _month(today)})


def compact(
    lake: Lake,
    project: str,
    month: str,
    now: dt.datetime,
    on_table: Callable[[str], None] = lambda _: None,
) -> CompactedMonth:
    """Write the monthly files of a project, unless the existing ones agree with the daily files.

    `on_table` is called with the name of each table before it is written.

    Raises:
        ConfigurationError: the month is not over, or has no published days.
        StorageError: a daily file is not the one that its manifest names, or the lake cannot be read or written.
    """
    if month not in months_over(lake, project, now.date()):
        over = "is not over" if month >= _month(now.date()) else "has no published days"
        raise ConfigurationError(
            f"{month} {over} in project {project}, so there is nothing to compact: choose a past month, "
            "written as YYYY-MM; `image-snapshots status` lists the published days."
        )
    with lake.locks.derived(project, f"compaction of {month}"):
        days = _daily_files(lake, project, month)
        monthly = read_monthly_manifest(lake, month, project)
        was_current = monthly is not None and _is_current(lake, monthly, days) and is_month_whole(lake, month, project)
        if monthly is None or not was_current:
            monthly = _compact(lake, project, month, days, now, on_table)
    return CompactedMonth(
        month,
        project,
        was_current,
        days=len(days),
        rows=sum(file.rows for file in monthly.files.values()),
        bytes=sum(file.bytes for file in monthly.files.values()),
        daily_files=sum(map(len, days.values())),
        daily_bytes=sum(file.bytes for files in days.values() for file in files.values()),
    )


def _month(day: dt.date) -> str:
    return f"{day:%Y-%m}"


def _daily_files(lake: Lake, project: str, month: str) -> dict[dt.date, dict[str, FileFacts]]:
    """The existing daily files of a month that manifests name, by day and table; without those removed by retention."""
    removed = RetentionRecords(lake, project)
    found = {}
    for day in lake.contents.partitions():
        if day.project == project and _month(day.date) == month:
            files = {
                name: file
                for name, file in manifest_files(lake, day).items()
                if name in SNAPSHOT_TABLES and not removed.names(file)
            }
            if files:
                found[day.date] = files
    return found


def _hashes(days: Mapping[dt.date, Mapping[str, FileFacts]]) -> dict[dt.date, dict[str, str]]:
    return {day: {name: file.sha256 for name, file in files.items()} for day, files in days.items()}


def _is_current(lake: Lake, monthly: MonthlyManifest, days: Mapping[dt.date, Mapping[str, FileFacts]]) -> bool:
    if monthly.days != _hashes(days) or monthly.schema_version != SCHEMA_VERSION:
        return False
    return all(
        is_unchanged(lake.monthly(name, monthly.month, monthly.project), file) for name, file in monthly.files.items()
    )


def _compact(
    lake: Lake,
    project: str,
    month: str,
    days: Mapping[dt.date, Mapping[str, FileFacts]],
    now: dt.datetime,
    on_table: Callable[[str], None],
) -> MonthlyManifest:
    decompact(lake, month, project)
    written = {}
    for name, table in SNAPSHOT_TABLES.items():
        daily = {day: files[name] for day, files in days.items() if name in files}
        if daily:
            on_table(name)
            written[name] = _compact_table(lake, table, project, month, daily)
    monthly = MonthlyManifest(
        month=month,
        project=project,
        compacted_at=now,
        code_version=code_version(),
        schema_version=SCHEMA_VERSION,
        days=_hashes(days),
        files=written,
    )
    path = lake.monthly_manifest(month, project)
    write_record(path, monthly)
    return monthly


def decompact(lake: Lake, month: str, project: str, *, with_files: bool = False) -> None:
    """Remove the monthly manifest, so that readers use the daily files; with `with_files`, then the monthly files."""
    lake.remove(lake.monthly_manifest(month, project))
    if with_files:
        for name in SNAPSHOT_TABLES:
            lake.remove(lake.monthly(name, month, project))


def _compact_table(lake: Lake, table: Table, project: str, month: str, daily: Mapping[dt.date, FileFacts]) -> FileFacts:
    # Check before and after: a rerun or a rebuild, which uses other locks, may replace a day meanwhile.
    _check_daily(lake, table, daily, project)
    target = lake.monthly(table.name, month, project)
    # Older files lack newer columns, so any column may be null here.
    lenient = replace(table, columns=tuple(replace(column, required=False) for column in table.columns))
    with DuckDBEngine() as engine, lake.writer(target, lenient, f"compact {month}") as writer:
        engine.load_files("daily", [lake.table(table.name, Partition(day, project)) for day in daily], table)
        columns = ", ".join(table.schema.names)
        rows = engine.stream(
            f"SELECT {columns} FROM daily ORDER BY {', '.join(_order(table))}",  # noqa: S608  (names of ours)
            lenient.schema,
        )
        for batch in rows:
            writer.write(batch)
        if any(is_marked_sandbox(lake.table(table.name, Partition(day, project))) for day in daily):
            writer.note(SANDBOX_MARK)
    _check_daily(lake, table, daily, project)
    with open_parquet(target) as file:
        return FileFacts(
            path=lake.key(target),
            rows=file.metadata.num_rows,
            bytes=target.size(),
            sha256=target.sha256(),
        )


def _order(table: Table) -> list[str]:
    """Columns to sort by, so that rows of one image are together: this compresses best and reads fastest."""
    rest = [name for name in table.key if name not in ("snapshot_date", "project_id", "project_key", "id")]
    return [*(["id"] if "id" in table.schema.names else []), *rest, "snapshot_date"]


def _check_daily(lake: Lake, table: Table, daily: Mapping[dt.date, FileFacts], project: str) -> None:
    for day, file in daily.items():
        path = lake.table(table.name, Partition(day, project))
        if not is_unchanged(path, file):
            raise StorageError(
                f"{path} is not the file that the manifest names for {Partition(day, project)}, so its month was "
                "not compacted: run again when no run replaces the day; `image-snapshots verify` shows whether the "
                "file was changed."
            )


# For readers


def check_months(lake: Lake, project: str, months: set[str], *, compares: bool = True) -> Iterator[tuple[str, str]]:
    """Yield path and sentence for each monthly file or monthly manifest of a project that was changed.

    With `compares`, their rows are compared with the daily files, which must be those that the manifests name.
    """
    daily = {name: lake.contents.files_of(name) for name in SNAPSHOT_TABLES}
    standing = {
        (name, file.month): file
        for name, files in monthly_files(lake, daily).items()
        for file in files
        if file.project == project
    }
    for month in sorted(
        month for month, owner in lake.contents.monthly_manifests() if owner == project and month in months
    ):
        key = lake.key(lake.monthly_manifest(month, project))
        again = f"write it again with `image-snapshots compact --month {month} --project {project}`"
        monthly = read_monthly_manifest(lake, month, project)
        if (
            monthly is None
            or not is_month_whole(lake, month, project)
            or any(_month(day) != month for day in monthly.days)
        ):
            yield key, f"The monthly manifest was changed, damaged, or moved here: {again}."
        if monthly is None:
            continue
        for name, facts in monthly.files.items():
            file = standing.get((name, month))
            if not is_unchanged(lake.monthly(name, monthly.month, monthly.project), facts):
                yield facts.path, f"The monthly file is missing or was changed: {again}."
            elif compares and file is not None and _differs(SNAPSHOT_TABLES[name], file, daily[name]):
                yield facts.path, f"The monthly file does not have the rows of the daily files: {again}."


def _differs(table: Table, file: MonthlyFile, daily: Mapping[Partition, LakePath]) -> bool:
    days = ", ".join(f"DATE '{day}'" for day in sorted(file.days))
    with DuckDBEngine() as engine:
        engine.load_files("daily", [daily[Partition(day, file.project)] for day in sorted(file.days)], table)
        engine.load_files("monthly_file", [file.path], table)
        columns = ", ".join(table.schema.names)
        (found,) = engine.read(
            f"""
            WITH monthly AS (SELECT {columns} FROM monthly_file WHERE snapshot_date IN ({days}))
            SELECT
                (SELECT COUNT(*) FROM monthly) = (SELECT COUNT(*) FROM daily) AS same_count,
                (SELECT COUNT(*) FROM (SELECT {columns} FROM daily EXCEPT ALL SELECT * FROM monthly)) AS missing
            """  # noqa: S608  (names and dates of ours)
        ).to_pylist()
    return not found["same_count"] or found["missing"] > 0
