"""Verifies reports: each is whole, lies in its own place, and follows from its day."""

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator

from pipelines.errors import ConfigurationError
from pipelines.lake.derived_manifests import chain_of_derived
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import chain_of_manifests
from pipelines.maintenance.verify_tables import Note, Problem, named
from pipelines.report.page import is_report_whole, render_report, report_marks


def verify_reports(
    lake: Lake, project: str, days: set[dt.date] | None, *, renders: bool, on_note: Callable[[Note], None]
) -> Iterator[Problem]:
    """Check the reports of a project for `days` (None: all); with `renders`, also render each again and compare."""
    current = {
        partition: hashlib.sha256(content).hexdigest()
        for partition, content in lake.contents.manifests(project).items()
    }
    records = chain_of_manifests(lake, project) | chain_of_derived(lake, project)
    known = {hashlib.sha256(content).hexdigest() for content in records.values()}
    for partition in sorted(lake.contents.reported(project)):
        if days is None or partition.date in days:
            key = lake.key(lake.report(partition))
            checked = _verify_report(lake, partition, current, known, renders=renders, on_note=on_note)
            yield from named(key, checked)


def _verify_report(
    lake: Lake,
    partition: Partition,
    current: dict[Partition, str],
    known: set[str],
    *,
    renders: bool,
    on_note: Callable[[Note], None],
) -> Iterator[Problem]:
    path = lake.report(partition)
    key = lake.key(path)
    again = f"write it again with `image-snapshots report --date {partition.date} --project {partition.project}`"
    content = path.read_whole()
    if not is_report_whole(content):
        yield Problem(key, f"The report was changed or damaged: {again}.")
        return
    marks = report_marks(content)
    if marks.get("manifest") != current.get(partition):
        if marks.get("manifest") in current.values():
            yield Problem(key, f"It is the report of another day, moved or copied here: {again}.")
        elif marks.get("manifest") in known:
            on_note(Note(key, f"Older than the published day: {again}."))
        # An unknown manifest was lost; it is reported as such elsewhere.
        return
    if marks.get("derived_record") not in known:
        yield Problem(
            key,
            f"It names a derived manifest with SHA-256 {marks.get('derived_record')}, which does not exist: that "
            f"one was changed or removed. Restore it from a backup, or {again}.",
        )
        return
    if not renders:
        return
    try:
        now = render_report(lake, partition).encode()
    except ConfigurationError as error:
        on_note(Note(key, f"Not rendered again: {error}"))
        return
    if now == content:
        return
    if {**report_marks(now), "content": ""} == {**marks, "content": ""}:
        yield Problem(key, f"The report does not follow from its day: {again}.")
    else:
        on_note(Note(key, f"Older than the derived tables of its day, or made by other code: {again}."))
