"""The manifest of a project's monthly files: the daily files that they were made of and stand in for.

Making monthly files belongs to `maintenance.compaction`.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import AwareDatetime

from pipelines.lake.derived_manifests import readable_manifest_files
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import FileFacts
from pipelines.lake.records import Record, is_whole, read_record
from pipelines.lake.storage import LakePath
from pipelines.tables import SCHEMA_VERSION, SNAPSHOT_TABLES


class MonthlyManifest(Record):
    """What a project's monthly files were made from, and their facts; `days` has SHA-256 by table by day."""

    month: str
    project: str
    compacted_at: AwareDatetime
    code_version: str
    schema_version: int
    days: dict[dt.date, dict[str, str]]
    files: dict[str, FileFacts]


@dataclass(frozen=True, slots=True)
class MonthlyFile:
    """A monthly file as readers use it: it stands in for the daily files of `days`; its rows of `others` are void."""

    month: str
    project: str
    path: LakePath
    days: frozenset[dt.date]
    others: frozenset[dt.date]


def is_unchanged(path: LakePath, file: FileFacts) -> bool:
    """Whether a file is there and has the SHA-256 of these facts."""
    return path.is_there() and path.sha256() == file.sha256


def read_monthly_manifest(lake: Lake, month: str, project: str) -> MonthlyManifest | None:
    """The monthly manifest of a project; None when there is none, or none that this version can read.

    One of another month or project, or one that names other places than theirs, is as good as none, too.
    """
    manifest = read_record(MonthlyManifest, lake.monthly_manifest(month, project))
    if manifest is None:
        return None
    is_placed = all(
        name in SNAPSHOT_TABLES and file.path == lake.key(lake.monthly(name, month, project))
        for name, file in manifest.files.items()
    )
    return manifest if is_placed and (manifest.month, manifest.project) == (month, project) else None


def is_month_whole(lake: Lake, month: str, project: str) -> bool:
    """Whether the monthly manifest of a project has the SHA-256 that it states of itself."""
    return is_whole(lake.monthly_manifest(month, project).read_whole())


def monthly_files(lake: Lake, daily: Mapping[str, Mapping[Partition, LakePath]]) -> dict[str, list[MonthlyFile]]:
    """The monthly files that stand in for daily ones, by table; `daily` has the daily files that are there."""
    found: dict[str, list[MonthlyFile]] = {name: [] for name in SNAPSHOT_TABLES}
    by_project: dict[str, dict[Partition, dict[str, FileFacts]]] = {}
    for month, project in lake.contents.monthly_manifests():
        manifest = read_monthly_manifest(lake, month, project)
        if manifest is None or manifest.schema_version > SCHEMA_VERSION:
            continue
        if project not in by_project:
            by_project[project] = readable_manifest_files(lake, project)
        current = {day: by_project[project].get(Partition(day, project), {}) for day in manifest.days}
        for name in manifest.files.keys() & found.keys():
            recorded = {day: hashes[name] for day, hashes in manifest.days.items() if name in hashes}
            days = frozenset(
                day
                for day, sha256 in recorded.items()
                if name in current[day]
                and current[day][name].sha256 == sha256
                and Partition(day, project) in daily[name]
            )
            if days:
                path = lake.monthly(name, month, project)
                found[name].append(MonthlyFile(month, project, path, days, frozenset(recorded) - days))
    return found
