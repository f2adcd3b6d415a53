"""Finds traces of missing manifests: in files of the lake, in its warehouse, and in hashes noted elsewhere.

A chain cannot show that its newest record was removed. Files made from the removed day still name it.
"""

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import duckdb

from pipelines.derive.history import known_days
from pipelines.errors import StorageError
from pipelines.lake.derived_manifests import DerivedManifest, chain_of_derived
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import chain_of_manifests
from pipelines.lake.monthly_manifests import read_monthly_manifest
from pipelines.lake.records import is_whole, parse_record
from pipelines.lake.retention_records import RetentionRecord
from pipelines.lake.witnesses import Witness
from pipelines.maintenance.verify_tables import Note, Problem
from pipelines.report.page import is_report_whole, report_marks
from pipelines.tables import IMAGE_HISTORY


@dataclass(frozen=True, slots=True)
class Claim:
    """A file that names a manifest; day and SHA-256 are None if the file does not state them."""

    source: str
    date: dt.date | None
    sha256: str | None


def lost_manifests(lake: Lake, project: str, claims: Sequence[Claim]) -> Iterator[Problem]:
    """Report each missing manifest of a project that some file still names, with all such files."""
    there = {hashlib.sha256(content).hexdigest() for content in chain_of_manifests(lake, project).values()}
    days = {partition.date for partition in lake.contents.manifests(project)}
    dates = {claim.sha256: claim.date for claim in claims if claim.date is not None}
    lost: dict[tuple[dt.date | None, str | None], list[str]] = {}
    for claim in claims:
        if claim.sha256 is not None and claim.sha256 not in there:
            date = claim.date or dates.get(claim.sha256)
            lost.setdefault((date, claim.sha256), []).append(claim.source)
    for claim in claims:
        if claim.sha256 is None and claim.date is not None and claim.date not in days:
            # Some files name only the day.
            same = [sources for (date, _), sources in lost.items() if date == claim.date]
            for sources in same or [lost.setdefault((claim.date, None), [])]:
                sources.append(claim.source)
    for (date, sha256), sources in lost.items():
        path = sources[0] if date is None else lake.key(lake.manifest(Partition(date, project)))
        which = "a manifest" if date is None else "this manifest"
        with_hash = f" by its SHA-256 {sha256}" if sha256 else ""
        state = "is not the existing one: it was changed or removed" if date in days else "is missing"
        yield Problem(
            path,
            f"{', '.join(sorted(set(sources)))} know{'s' if len(set(sources)) == 1 else ''} {which}{with_hash}, and it "
            f"{state}. Restore the day from a backup, and keep the files that name it.",
        )


def claims_of(lake: Lake, project: str) -> list[Claim]:
    """The manifests that the files of a project name; damaged files are skipped."""
    claims = []
    history = lake.project_table(IMAGE_HISTORY.name, project)
    try:
        days = [(dt.date.fromisoformat(date), sha256) for date, sha256 in known_days(history)]
    except (StorageError, ValueError, TypeError):
        # Reported where the file itself is checked.
        days = []
    claims += [Claim(lake.key(history), date, sha256) for date, sha256 in days]
    for path, content in chain_of_derived(lake, project).items():
        derived_manifest = parse_record(DerivedManifest, content, path) if is_whole(content) else None
        if derived_manifest is not None and derived_manifest.project == project:
            claims.append(Claim(lake.key(path), derived_manifest.snapshot_date, derived_manifest.manifest_sha256))
    for month, owner in lake.contents.monthly_manifests():
        monthly_manifest = read_monthly_manifest(lake, month, project) if owner == project else None
        if monthly_manifest is not None and monthly_manifest.project == project:
            source = lake.key(lake.monthly_manifest(month, project))
            claims += [Claim(source, day, None) for day in monthly_manifest.days]
    for path, content in lake.contents.retention_records(project).items():
        try:
            record = parse_record(RetentionRecord, content, path)
        except StorageError:
            continue
        if is_whole(content) and record.project == project and record.newest_manifest_sha256:
            claims.append(Claim(lake.key(path), None, record.newest_manifest_sha256))
    for partition in lake.contents.reported(project):
        report = lake.report(partition)
        content = report.read_whole()
        if is_report_whole(content):
            claims.append(Claim(lake.key(report), partition.date, report_marks(content).get("manifest")))
    return claims


def warehouse_claims(lake: Lake, on_note: Callable[[Note], None]) -> tuple[list[Problem], dict[str, list[Claim]]]:
    """The manifests that the lake's own warehouse names, by project; a problem if the warehouse is damaged."""
    path = lake.root / "warehouse.duckdb"
    if path.local is None or not path.is_there():
        return [], {}
    key = lake.key(path)
    try:
        with closing(duckdb.connect(path.local, read_only=True)) as connection:
            tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
            rows = (
                connection.execute("SELECT project, snapshot_date, manifest_sha256 FROM days").fetchall()
                if ("days",) in tables
                else []
            )
    except duckdb.Error as error:
        reason = str(error).strip().partition("\n")[0].rstrip(" .")
        if isinstance(error, duckdb.ConnectionException) or "Could not set lock" in reason:
            on_note(Note(key, "Not checked: another process has the warehouse open."))
            return [], {}
        sentence = f"The warehouse cannot be read ({reason}): remove it, and load it again with the next run."
        return [Problem(key, sentence)], {}
    on_note(Note(key, "Checked only for manifests that it names: no record proves its rows; they can be loaded again."))
    claims: dict[str, list[Claim]] = {}
    for project, date, sha256 in rows:
        claims.setdefault(project, []).append(Claim(key, date, sha256))
    return [], claims


def find_witnesses(lake: Lake, projects: set[str], witnesses: Sequence[Witness]) -> dict[Witness, str | None]:
    """The path of the record with each noted SHA-256, relative to the root; None if there is none."""
    found: dict[str, str] = {}
    for project in sorted(projects) if witnesses else ():
        records = (
            lake.contents.retention_records(project)
            | chain_of_derived(lake, project)
            | chain_of_manifests(lake, project)
        )
        found |= {hashlib.sha256(content).hexdigest(): lake.key(path) for path, content in records.items()}
    return {witness: found.get(witness.sha256) for witness in witnesses}
