"""Classifies every file of the lake; files that no record names are problems or notes.

Such a file is a problem if readers may take it for data. All others are notes: copies, leftovers, files of an open
attempt, and files that cannot be checked.
"""

import re
from collections import Counter
from collections.abc import Callable

from pipelines.lake.layout import Lake
from pipelines.lake.names import day_of, project_of
from pipelines.maintenance.verify_tables import Note, Problem
from pipelines.tables import ANALYSIS_TABLES, IMAGE_HISTORY, SNAPSHOT_TABLES, TABLES

_DAILY = "|".join((TABLES | ANALYSIS_TABLES).keys() - {IMAGE_HISTORY.name})
_MONTHLY = "|".join(SNAPSHOT_TABLES)
_DAY, _PROJECT = r"(?P<day>dt=[^/]+)", r"(?P<project>project=[^/]+?)"

# Files that the other checks look at.
_KNOWN = [
    re.compile(pattern)
    for pattern in (
        rf"(?P<table>{_DAILY})/{_DAY}/{_PROJECT}/(?P=table)\.parquet",
        rf"{IMAGE_HISTORY.name}/{_PROJECT}/{IMAGE_HISTORY.name}\.parquet",
        rf"(_manifests|_derived)/{_DAY}/{_PROJECT}\.json",
        rf"(_manifests|_derived)/superseded/{_PROJECT}/[0-9a-f]{{64}}\.json",
        rf"_monthly/(?P<table>{_MONTHLY})/month=(?P<month>[0-9]{{4}}-[0-9]{{2}})/{_PROJECT}/(?P=table)\.parquet",
        rf"_monthly/month=[0-9]{{4}}-[0-9]{{2}}/{_PROJECT}\.json",
        rf"_retention/{_PROJECT}/[0-9]{{6}}\.json",
        rf"reports/{_DAY}/{_PROJECT}/report\.html",
        r"warehouse\.duckdb(\.wal(\.foreign)?)?",
        r"\.warehouse\.duckdb\.lock",
    )
]
_LOCK = re.compile(r"_locks/.*")
_FAILURE = re.compile(rf"_staging/{_DAY}/{_PROJECT}/failure\.json")
_TOLD = re.compile(rf"_notifications/(told|findings/{_PROJECT})\.json")
_ATTEMPT = re.compile(r"_staging/[^/]+/[^/]+|_derived/coming/[^/]+")
_PART = re.compile(r"(?:.*/)?\.[^/]+\.part(\.wal)?")
# Files that a pattern such as `images/**/*.parquet` matches.
_READ = re.compile(rf"({_DAILY}|{IMAGE_HISTORY.name})/.*\.parquet")
_IN_MANIFEST = re.compile(rf"(?:{'|'.join(TABLES)})/")


def survey(lake: Lake, on_note: Callable[[Note], None]) -> tuple[list[Problem], set[str]]:
    """Return unknown files as problems, and the projects of all files; pass notes to `on_note`.

    Raises:
        ConfigurationError: a directory may not be read.
        StorageError: the storage failed.
    """
    problems, projects = [], set()
    unknown: Counter[str] = Counter()
    attempts: Counter[str] = Counter()
    locks = 0
    published = set(lake.contents.partitions())
    days = {(f"dt={partition.date}", f"project={partition.project}") for partition in published}
    months = {(month, f"project={project}") for month, project in lake.contents.monthly_manifests()}
    for key in map(lake.key, lake.root.all_files()):
        found = next(filter(None, (pattern.fullmatch(key) for pattern in _KNOWN)), None)
        if found is not None and _is_named(found):
            facts = found.groupdict()
            if facts.get("project"):
                projects.add(facts["project"].removeprefix("project="))
            if key.endswith(".parquet") and "day" in facts and (facts["day"], facts["project"]) not in days:
                problems.append(Problem(key, _no_manifest(key)))
            elif "month" in facts and (facts["month"], facts["project"]) not in months:
                on_note(Note(key, "No monthly manifest names it, so no reader uses it: remove it."))
        elif _LOCK.fullmatch(key):
            locks += 1
        elif _FAILURE.fullmatch(key) or _TOLD.fullmatch(key):
            # A noted failure, which `status` shows; or what was told, which proves nothing.
            continue
        elif attempt := _ATTEMPT.match(key):
            attempts[attempt[0]] += 1
        elif _PART.fullmatch(key):
            on_note(
                Note(key, "Left over from an interrupted write. No reader sees it: remove it when no run is active.")
            )
        elif _READ.fullmatch(key):
            problems.append(
                Problem(
                    key,
                    "The file does not belong to the published day."
                    if _is_beside(key, days)
                    else "No record names this file, and readers may take it for data: remove it.",
                )
            )
        else:
            unknown[_place(key)] += 1
    for place, count in attempts.items():
        on_note(Note(place, f"Not checked: {count:,} files of an attempt that has not ended."))
    for place, count in unknown.items():
        on_note(Note(place, f"Not part of the lake: {count:,} files that no reader uses and no record proves."))
    if locks:
        on_note(Note("", f"Not checked: {locks:,} locks, which name only their holders."))
    return problems, projects


def _is_named(found: re.Match[str]) -> bool:
    """Whether the day and project in a path have valid names; copies of directories usually do not."""
    facts = found.groupdict()
    day, project = facts.get("day"), facts.get("project")
    return (day is None or day_of(day) is not None) and (project is None or project_of(project) is not None)


def _is_beside(key: str, days: set[tuple[str, str]]) -> bool:
    parts = key.split("/")
    return len(parts) == 4 and (parts[1], parts[2]) in days


def _no_manifest(key: str) -> str:
    if _IN_MANIFEST.match(key):
        return "No manifest names this file: it was added, or its manifest was removed or never written."
    return "Nothing is published for the day of this derived file: it was added, or its manifest was removed."


def _place(key: str) -> str:
    """The directory of an unknown file, so that a copied tree gives only a few notes."""
    top, _, rest = key.partition("/")
    known = {*TABLES, *ANALYSIS_TABLES, "_manifests", "_derived", "_monthly", "_retention", "_staging", "reports"}
    if top not in known or "/" not in rest:
        return top if rest and top not in known else key
    return f"{top}/{rest.partition('/')[0]}"
