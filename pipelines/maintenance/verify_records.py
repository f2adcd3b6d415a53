"""Verifies a project's records: each is whole, lies in its own place, and follows the record before it.

Checking the files that they name belongs to `maintenance.verify` and `maintenance.verify_derived`.
"""

import hashlib
from collections.abc import Iterator, Mapping

from pipelines.errors import StorageError
from pipelines.lake.derived_manifests import chain_of_derived, derived_link
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import Manifest, chain_of_manifests, manifest_link, parse_manifest
from pipelines.lake.records import Link, is_whole, parse_record
from pipelines.lake.retention_records import REPORT, RetentionRecord
from pipelines.maintenance.verify_tables import Problem

_NOT_WHOLE = (
    "The record does not have the SHA-256 that it states for itself: it was changed or damaged. Restore it from a "
    "backup."
)


def is_in_place(partition: Partition, manifest: Manifest) -> bool:
    """Whether a manifest belongs to the day and project of its path."""
    return (manifest.snapshot_date, manifest.project) == (partition.date, partition.project)


def verify_manifests(lake: Lake, project: str) -> Iterator[Problem]:
    """Check all manifests of a project: each follows an earlier existing one, and exactly one is the newest."""
    links: dict[str, tuple[str, Link]] = {}
    derived = {hashlib.sha256(content).hexdigest() for content in chain_of_derived(lake, project).values()}
    places = {lake.manifest(partition): partition for partition in lake.contents.manifests(project)}
    lacking: dict[str, str] = {}
    for path, content in chain_of_manifests(lake, project).items():
        key, digest = lake.key(path), hashlib.sha256(content).hexdigest()
        kept = path not in places
        if kept and path.stem != digest:
            yield Problem(key, f"The kept manifest was changed: its SHA-256 is now {digest}.")
        elif not is_whole(content):
            yield Problem(key, _NOT_WHOLE)
        try:
            manifest = parse_manifest(content, path)
        except StorageError as error:
            yield Problem(key, str(error))
            continue
        links[digest] = (key, manifest_link(content, manifest))
        yield from _misplaced(lake, key, manifest, Partition(manifest.snapshot_date, project) if kept else places[path])
        named = manifest.derived_record_sha256
        if named is not None and named not in derived:
            lacking.setdefault(named, key)
    for named, key in lacking.items():
        yield Problem(
            key,
            f"It names a derived manifest with SHA-256 {named}, which does not exist: that one was changed or removed.",
        )
    yield from _broken_chain(links, "manifest", rises=True)


def _misplaced(lake: Lake, key: str, manifest: Manifest, place: Partition) -> Iterator[Problem]:
    own = Partition(manifest.snapshot_date, manifest.project)
    if own != place:
        yield Problem(key, f"It is the manifest of {own}: it was moved or copied to the place of {place}.")
    for name, file in manifest.files.items():
        if file.path != lake.key(lake.table(name, own)):
            yield Problem(key, f"It names {file.path} as its table {name}, which is not the place of that table.")


def _broken_chain(links: Mapping[str, tuple[str, Link]], what: str, *, rises: bool) -> Iterator[Problem]:
    followed = {link.previous for _, link in links.values()}
    for key, link in links.values():
        if link.previous is None:
            continue
        if link.previous not in links:
            yield Problem(
                key,
                f"It follows a {what} with SHA-256 {link.previous}, which does not exist: that one was changed or "
                "removed.",
            )
        elif rises and link.at <= (before := links[link.previous][1].at):
            yield Problem(
                key,
                f"It says that it was published at {link.at:%Y-%m-%d %H:%M:%S.%f} UTC, which is not after the {what} "
                f"that it follows ({before:%Y-%m-%d %H:%M:%S.%f}): a clock was wrong, or a time was changed.",
            )
    heads = sorted((link.at, key) for digest, (key, link) in links.items() if digest not in followed)
    for _, newest in heads[:-1]:
        yield Problem(newest, f"No later {what} follows this one: it was changed or added.")


def verify_derived_chain(lake: Lake, project: str) -> Iterator[Problem]:
    """Check all derived manifests of a project, old ones too: each is whole and follows an existing one."""
    links: dict[str, tuple[str, Link]] = {}
    places = {lake.derived_manifest(partition): partition for partition in lake.contents.derived_manifests(project)}
    for path, content in chain_of_derived(lake, project).items():
        key, digest = lake.key(path), hashlib.sha256(content).hexdigest()
        kept = path not in places
        again = "" if kept else f", or derive it again with `image-snapshots rebuild --date {places[path].date}`"
        if kept and path.stem != digest:
            yield Problem(key, f"The kept derived manifest was changed: its SHA-256 is now {digest}.")
        link = derived_link(content)
        if link is not None:
            links[digest] = (key, link)
        elif not (kept and path.stem != digest):
            yield Problem(
                key,
                "The derived manifest does not have the SHA-256 that it states for itself: it was changed or "
                f"damaged. Restore it from a backup{again}.",
            )
    yield from _broken_chain(links, "derived manifest", rises=False)


def verify_retention_records(lake: Lake, project: str) -> Iterator[Problem]:
    """Check that each retention record is whole, lies in its place and follows the one before it."""
    before: str | None = None
    for number, (path, content) in enumerate(lake.contents.retention_records(project).items(), start=1):
        key = lake.key(path)
        try:
            record = parse_record(RetentionRecord, content, path)
        except StorageError as error:
            yield Problem(key, str(error))
        else:
            if record.previous_record_sha256 != before:
                yield Problem(
                    key, "It does not follow the retention record before it: that one was changed or removed."
                )
            if not is_whole(content):
                yield Problem(key, _NOT_WHOLE)
            yield from _misplaced_record(lake, key, record, project, number)
        before = hashlib.sha256(content).hexdigest()


def _misplaced_record(lake: Lake, key: str, record: RetentionRecord, project: str, number: int) -> Iterator[Problem]:
    if record.project != project or key != lake.key(lake.retention_record(project, f"{number:06}")):
        yield Problem(
            key,
            f"It is a record of project {record.project}, but lies as number {number} here: it was moved or copied.",
        )
    for removed in record.files:
        day = Partition(removed.snapshot_date, project)
        place = lake.report(day) if removed.table == REPORT else lake.table(removed.table, day)
        if removed.file.path != lake.key(place):
            yield Problem(key, f"It names {removed.file.path} as {removed.table} of {day}, which is not its place.")
