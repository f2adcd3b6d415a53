"""The derived manifest of a day: what its derived tables were made from, their files, and the day in a few figures.

A derived manifest names the SHA-256 of the one that the project wrote before it. Making the tables, and writing the
derived manifest, belongs to `derive.days`.
"""

import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping
from decimal import Decimal

import orjson
from pydantic import AwareDatetime

from pipelines.errors import StorageError
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import FileFacts, check_places, misplaced, parse_manifest, read_manifest
from pipelines.lake.records import Facts, Link, Record, is_whole, newest, parse_record, read_record
from pipelines.lake.storage import LakePath


class RegistrySummary(Facts):
    """What the registry stores on a day, in a few figures; None where it was not read.

    `stored_bytes` counts each layer once. `only_tags`: tags that no known image registers, with at least `only_bytes`
    of their own. `unread`: repositories that were not read, or not as a whole. Of unused images, deleting those whose
    bytes are known frees `known_reclaimable_bytes`; those of `unknown_images` are not known.
    """

    tags: int | None
    stored_bytes: int | None
    only_tags: int | None
    only_bytes: int | None
    unread: int
    known_reclaimable_bytes: int
    unknown_images: int


class DerivedSummary(Facts):
    """A day in a few figures.

    `changes`: images by kind of change since `compared_with`; `findings`: open ones that are not suppressed, by
    severity; sizes in bytes, `growth_bytes` against `compared_with`, `reclaimable_bytes` of all unused images together,
    an upper bound unless the `registry` was to be read (else that is None);
    `estimated_cost` of the day, `is_priced` whether the price book states any price above zero; `unmatched_references`:
    those that mean no known image. `billed_...`: of the newest charge day whose bill is known, in its currency, and
    what of it is not allocated to images. None where nothing is known.
    """

    is_complete: bool
    compared_with: dt.date | None
    images: int
    changes: dict[str, int]
    findings: dict[str, int]
    new_findings: int
    resolved_findings: int
    suppressed_findings: int
    rule_errors: dict[str, str]
    total_bytes: int
    growth_bytes: int | None
    estimated_cost: float | None
    currency: str
    is_priced: bool
    unpriced: int
    reclaimable_bytes: int | None
    unmatched_references: int | None
    registry: RegistrySummary | None = None
    billed_date: dt.date | None = None
    billed_currency: str | None = None
    billed_cost: Decimal | None = None
    billed_registry_cost: Decimal | None = None
    not_allocated_cost: Decimal | None = None


class Inputs(Facts):
    """What the derived tables of a day were made from besides published days, which shows when that has changed.

    SHA-256 of the audit rules, the file of suppressions and the setting of allowed namespaces (None where there was
    none), the price book, and the setting of tag keys. `handed_on`: SHA-256, by path, of the derived files of earlier
    days that they continue.
    """

    audit_rules: str
    suppressions: str | None
    allowed_namespaces: str | None
    price_book: str
    tag_keys: str
    handed_on: dict[str, str]


class DerivedManifest(Record):
    """What the derived tables of a day were made from, their files, and the day in a few figures.

    `manifest_sha256` is of the day's manifest. `history`: the project's `image_history` after this day was derived; the
    newest derived manifest has the one that holds. `accepted_history`: SHA-256 of a history that an operator accepted
    although no record names it. `previous_record_sha256`: of the derived manifest that the project wrote before.
    """

    snapshot_date: dt.date
    project: str
    run_id: str
    derived_at: AwareDatetime
    code_version: str
    schema_version: int
    basis: str
    manifest_sha256: str
    inputs: Inputs
    files: dict[str, FileFacts]
    history: FileFacts
    accepted_history: str | None = None
    summary: DerivedSummary
    previous_record_sha256: str | None


def bases(lake: Lake, project: str) -> dict[Partition, str]:
    """The basis of each published day of a project, in order."""
    found: dict[Partition, str] = {}
    before = ""
    for partition, content in lake.contents.manifests(project).items():
        digest = hashlib.sha256(content).hexdigest()
        before = hashlib.sha256(f"{before} {digest}".encode()).hexdigest()
        found[partition] = before
    return found


def read_derived_manifest(lake: Lake, partition: Partition) -> DerivedManifest | None:
    """The derived manifest of a day; None when there is none, or none that this version of the software can read.

    One that names other places than those where the tables of the day lie is as good as none, too.
    """
    return _placed(lake, partition, read_record(DerivedManifest, lake.derived_manifest(partition)))


def placed_derived_manifest(lake: Lake, partition: Partition, content: bytes) -> DerivedManifest | None:
    """The derived manifest of a partition in the content of its file; None as for `read_derived_manifest`."""
    return _placed(lake, partition, parse_record(DerivedManifest, content, lake.derived_manifest(partition)))


def _placed(lake: Lake, partition: Partition, found: DerivedManifest | None) -> DerivedManifest | None:
    return found if found is not None and misplaced(lake, partition, found.files) is None else None


def manifest_files(lake: Lake, partition: Partition) -> dict[str, FileFacts]:
    """The files that the manifest of a published day and the derived manifest name, by table.

    Raises:
        StorageError: the manifest is damaged, or names a place that is not that of the day's table.
    """
    derived_manifest = read_derived_manifest(lake, partition)
    manifest = read_manifest(lake.manifest(partition))
    check_places(lake, partition, manifest)
    return manifest.files | (derived_manifest.files if derived_manifest else {})


def readable_manifest_files(lake: Lake, project: str) -> dict[Partition, dict[str, FileFacts]]:
    """What `manifest_files` gives for each published day of a project; days with a damaged manifest are left out.

    A damaged manifest stops nobody who only reads rows; `verify` reports it.
    """
    derived_manifests = lake.contents.derived_manifests(project)
    found = {}
    for partition, content in lake.contents.manifests(project).items():
        try:
            manifest = parse_manifest(content, lake.manifest(partition))
            check_places(lake, partition, manifest)
        except StorageError:
            continue
        derived_manifest = (
            placed_derived_manifest(lake, partition, derived_manifests[partition])
            if partition in derived_manifests
            else None
        )
        found[partition] = manifest.files | (derived_manifest.files if derived_manifest else {})
    return found


# The chain


def chain_of_derived(lake: Lake, project: str) -> dict[LakePath, bytes]:
    """All derived manifests that a project ever had."""
    current = {
        lake.derived_manifest(partition): content
        for partition, content in lake.contents.derived_manifests(project).items()
    }
    return current | lake.contents.superseded_derived_manifests(project)


def newest_derived_record(lake: Lake, project: str) -> str | None:
    """SHA-256 of the derived manifest that a project wrote last; None when there is none."""
    return _newest_of(chain_of_derived(lake, project).values())


def _newest_of(records: Iterable[bytes]) -> str | None:
    return newest(link for content in records if (link := derived_link(content)))


def newest_history_sha256(lake: Lake, project: str) -> str | None:
    """SHA-256 of `image_history` in the derived manifest that a project wrote last; None without one."""
    records = chain_of_derived(lake, project).values()
    newest_record = _newest_of(records)
    for content in records:
        if hashlib.sha256(content).hexdigest() == newest_record:
            return _history_sha256(content)
    return None


def coming_history_sha256(lake: Lake, project: str) -> str | None:
    """SHA-256 of `image_history` in the record that a killed derivation was about to write, or None.

    The record counts only when it follows the newest one.
    """
    path = lake.pending_derived_manifest(project)
    if not path.is_there():
        return None
    content = path.read_whole()
    link = derived_link(content)
    if link is None or link.previous != newest_derived_record(lake, project):
        return None
    return _history_sha256(content)


def _history_sha256(derived_manifest: bytes) -> str | None:
    history = orjson.loads(derived_manifest).get("history")
    digest = history.get("sha256") if isinstance(history, dict) else None
    return digest if isinstance(digest, str) else None


def derived_link(content: bytes) -> Link | None:
    """A derived manifest in its chain; None when it is damaged, so that its day is derived again."""
    if not is_whole(content):
        return None
    try:
        read = orjson.loads(content)
        if not isinstance(read, Mapping):
            return None
        at = dt.datetime.fromisoformat(read["derived_at"])
        previous = read["previous_record_sha256"]
    except (ValueError, KeyError, TypeError):
        return None
    if at.tzinfo is None or not isinstance(previous, str | None):
        return None
    return Link(hashlib.sha256(content).hexdigest(), previous, at)
