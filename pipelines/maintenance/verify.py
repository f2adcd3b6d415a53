"""Verifies the lake: proves that files, evidence, records and derived tables are as published, or names what changed.

It reads the lake only and changes nothing. This module has the order of the checks, and the checks of a published day.
`verify_files` looks for unknown files, `verify_records` checks the chains of records, `verify_derived` and
`verify_reports` check what is derived, `verify_witnesses` looks for traces of missing manifests, and `verify_tables`
checks a single file.
"""

import hashlib
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import pyarrow.compute as pc

from pipelines.bodies.json_text import NotJSONError
from pipelines.errors import StorageError
from pipelines.fingerprint import code_version
from pipelines.lake.hash_tree import root_of
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.local_storage import LocalPath
from pipelines.lake.manifests import Manifest, read_manifest
from pipelines.lake.parquet_files import read_batches
from pipelines.lake.retention_records import RetentionRecords
from pipelines.lake.stored_responses import response_leaves
from pipelines.lake.witnesses import Witness
from pipelines.maintenance.compaction import check_months
from pipelines.maintenance.verify_derived import verify_derived
from pipelines.maintenance.verify_files import survey
from pipelines.maintenance.verify_records import (
    is_in_place,
    verify_derived_chain,
    verify_manifests,
    verify_retention_records,
)
from pipelines.maintenance.verify_reports import verify_reports
from pipelines.maintenance.verify_tables import (
    BATCH_ROWS,
    Note,
    Problem,
    false_statistics,
    first_difference,
    named,
    rows_of,
    wrong_keys,
)
from pipelines.maintenance.verify_witnesses import claims_of, find_witnesses, lost_manifests, warehouse_claims
from pipelines.settings import Settings
from pipelines.snapshot.image_list import ImageList, confirms, microseconds
from pipelines.snapshot.publish import build_tables
from pipelines.tables import IMAGE_TAGS, IMAGE_VALUES, IMAGES, INVENTORY, LIST_PAGES, REGISTRY_PAGES, RESPONSES, TABLES

__all__ = ["Note", "Problem", "verify", "verify_derived"]


def verify(
    lake: Lake,
    partitions: Sequence[Partition],
    on_checked: Callable[[Partition], None] = lambda _: None,
    *,
    settings: Settings | None = None,
    quick: bool = False,
    is_whole_lake: bool = False,
    witnesses: Sequence[Witness] = (),
    on_note: Callable[[Note], None] = lambda _: None,
    on_witness: Callable[[Witness, str], None] = lambda *_: None,
) -> list[Problem]:
    """Check the partitions, their projects' records, and that no reader sees a file without a record.

    An empty list means that everything is as published. Facts that only a project's newest manifest states (times, run
    id) are proved by the next manifest; until then, by that manifest's SHA-256 noted elsewhere. A missing file is not a
    problem if a retention record names it with the SHA-256 from its manifest or derived manifest.

    With `settings`, tables are derived again and compared. `quick` reads only key columns and derives nothing. With
    `is_whole_lake`, the partitions are all published ones, and projects without any published day are checked, too.
    `witnesses` are looked for among all records; `on_witness` is called with the place of each. `on_note` is called for
    everything that could not be checked, and for files outside the checks.

    Raises:
        ConfigurationError: a file or directory may not be read.
        StorageUnreachableError: the object store cannot be reached.
    """
    problems, seen = survey(lake, on_note)
    found, marks = warehouse_claims(lake, on_note)
    problems += found
    projects = {partition.project for partition in partitions} | (seen if is_whole_lake else set())
    removed = {project: RetentionRecords(lake, project, skip_damaged=True) for project in projects}
    by_project: dict[str, list[Problem]] = {project: [] for project in projects}
    for partition in partitions:
        by_project[partition.project] += _verify_partition(lake, partition, removed[partition.project], quick=quick)
        on_checked(partition)
    for project in sorted(projects):
        mine = by_project[project]
        days = {partition.date for partition in partitions if partition.project == project}
        mine += verify_manifests(lake, project)
        mine += verify_retention_records(lake, project)
        # Derived tables can be judged only if the published days are unchanged.
        is_sound = not mine
        mine += verify_derived_chain(lake, project)
        mine += lost_manifests(lake, project, [*claims_of(lake, project), *marks.get(project, ())])
        chosen = None if is_whole_lake else days
        mine += verify_derived(
            lake,
            project,
            None if mine else settings,
            quick=quick or bool(mine),
            is_sound=is_sound,
            days=chosen,
            on_note=on_note,
        )
        is_sound = not mine
        months = {month for month, owner in lake.contents.monthly_manifests() if owner == project}
        if not is_whole_lake:
            months &= {f"{day:%Y-%m}" for day in days}
        compared = check_months(lake, project, months, compares=is_sound and not quick)
        mine += named("_monthly", (Problem(path, sentence) for path, sentence in compared))
        mine += verify_reports(lake, project, chosen, renders=is_sound and not quick, on_note=on_note)
        problems += mine
    for witness, path in find_witnesses(lake, seen | projects, witnesses).items():
        if path is None:
            noted = f" (noted: {witness.note})" if witness.note else ""
            problems.append(
                Problem(
                    "_manifests",
                    f"No record has the noted SHA-256 {witness.sha256}{noted}: it was changed or removed, or is from "
                    "another lake.",
                )
            )
        else:
            on_witness(witness, path)
    # A record may be read for more than one reason.
    return list(dict.fromkeys(problems))


def _verify_partition(lake: Lake, partition: Partition, removed: RetentionRecords, *, quick: bool) -> Iterator[Problem]:
    path = lake.manifest(partition)
    try:
        manifest = read_manifest(path)
    except StorageError as error:
        yield Problem(lake.key(path), str(error))
        return
    if not is_in_place(partition, manifest):
        # Reported with the other manifests. Its files belong to another place, too.
        return
    intact = True
    for problem in _verify_files(lake, partition, manifest, removed, quick=quick):
        intact = False
        yield problem
    if not intact or quick:
        return
    # Files removed by retention cannot be checked. The remaining files are checked by their SHA-256.
    gone = set(removed.missing(partition))
    if gone.isdisjoint((RESPONSES.name, LIST_PAGES.name)):
        responses = lake.key(lake.table(RESPONSES.name, partition))
        yield from named(responses, _verify_evidence(lake, partition, manifest))
        if gone.isdisjoint((IMAGES.name, IMAGE_VALUES.name, IMAGE_TAGS.name)):
            yield from named(responses, _verify_derivation(lake, partition, manifest))


def _verify_files(
    lake: Lake, partition: Partition, manifest: Manifest, removed: RetentionRecords, *, quick: bool
) -> Iterator[Problem]:
    for name in TABLES:
        yield from named(
            lake.key(lake.table(name, partition)), _verify_file(lake, partition, name, manifest, removed, quick=quick)
        )


def _verify_file(
    lake: Lake, partition: Partition, name: str, manifest: Manifest, removed: RetentionRecords, *, quick: bool
) -> Iterator[Problem]:
    path = lake.table(name, partition)
    relative = lake.key(path)
    facts = manifest.files.get(name)
    if facts is None:
        yield Problem(relative, f"The manifest of {partition} does not list the table {name}.")
    elif not path.is_there():
        if not removed.names(facts):
            yield Problem(relative, "The file is missing.")
    elif (digest := path.sha256()) != facts.sha256:
        yield Problem(
            relative,
            f"The file was changed: {path.stat().st_size} bytes with SHA-256 {digest}, published with "
            f"{facts.bytes} bytes and {facts.sha256}.",
        )
    elif (rows := rows_of(path)) != facts.rows:
        yield Problem(relative, f"The manifest says {facts.rows} rows, but the file has {rows}.")
    else:
        expected: dict[str, set[Any]] = {"snapshot_date": {partition.date}}
        if name == INVENTORY.name:
            expected["project_key"] = {partition.project}
        else:
            expected["project_id"] = {manifest.fetch.project_id}
        yield from (Problem(relative, sentence) for sentence in wrong_keys(path, expected))
        if not quick:
            yield from (Problem(relative, sentence) for sentence in false_statistics(path))


def _verify_evidence(lake: Lake, partition: Partition, manifest: Manifest) -> Iterator[Problem]:
    path = lake.table(RESPONSES.name, partition)
    outcomes: Counter[str] = Counter()
    for batch in read_batches(path, BATCH_ROWS):
        columns = (batch[name].to_pylist() for name in ("id", "outcome", "body", "body_sha256"))
        for id_, outcome, body, digest in zip(*columns, strict=True):
            outcomes[outcome] += 1
            if (None if body is None else hashlib.sha256(body).hexdigest()) != digest:
                yield Problem(lake.key(path), f"The stored response for {id_} does not have its SHA-256.")
    yield from _verify_pages(lake, partition)
    yield from _verify_listed(lake, partition, has_carried=manifest.fetch.carried > 0)
    if (
        dict(outcomes) != manifest.fetch.outcomes
        or manifest.is_complete != (not outcomes["failed"])
        or manifest.responses_root != root_of(response_leaves(path))
    ):
        yield Problem(
            lake.key(lake.manifest(partition)),
            f"The manifest does not agree with the stored responses: {dict(outcomes)}.",
        )


def _verify_pages(lake: Lake, partition: Partition) -> Iterator[Problem]:
    """Check the responses of the registry; days from before it was read have none."""
    pages = lake.table(REGISTRY_PAGES.name, partition)
    for batch in read_batches(pages, 64, ["page", "body", "body_sha256"]) if pages.is_there() else ():
        for row in batch.to_pylist():
            if hashlib.sha256(row["body"]).hexdigest() != row["body_sha256"]:
                yield Problem(lake.key(pages), f"Page {row['page']} does not have its SHA-256.")


def _verify_listed(lake: Lake, partition: Partition, *, has_carried: bool) -> Iterator[Problem]:
    """Check the pages of the image list, and that a page confirms each response carried over from an earlier day."""
    pages, responses = lake.table(LIST_PAGES.name, partition), lake.table(RESPONSES.name, partition)
    with (
        tempfile.NamedTemporaryFile(prefix="image-snapshots-") as file,
        closing(sqlite3.connect(file.name)) as database,
    ):
        listed = ImageList(database)
        for batch in read_batches(pages, 64):
            for row in batch.to_pylist():
                if hashlib.sha256(row["body"]).hexdigest() != row["body_sha256"]:
                    yield Problem(lake.key(pages), f"Page {row['page']} does not have its SHA-256.")
                elif has_carried:
                    try:
                        listed.index(microseconds(row["observed_at"]), row["body"])
                    except NotJSONError:
                        yield Problem(lake.key(pages), f"Page {row['page']} is not a page of a list.")
        for batch in read_batches(responses, 500):
            carried = {row["id"]: row for row in batch.filter(pc.is_valid(batch["confirmed_at"])).to_pylist()}
            unconfirmed = dict.fromkeys(carried)
            for id_, observed_at, item in listed.find(list(carried)):
                row = carried[id_]
                if observed_at == microseconds(row["confirmed_at"]) and confirms(item, row["body"] or b""):
                    del unconfirmed[id_]
            for id_ in unconfirmed:
                yield Problem(lake.key(responses), f"No page of the list confirms the carried response for {id_}.")


def _verify_derivation(lake: Lake, partition: Partition, manifest: Manifest) -> Iterator[Problem]:
    """Derive the tables again from the stored responses and compare them with the published ones."""
    with tempfile.TemporaryDirectory(prefix="image-snapshots-") as directory:
        build_tables(lake, lake.table(RESPONSES.name, partition), LocalPath(directory), manifest.run_id)
        for table in (IMAGES, IMAGE_VALUES, IMAGE_TAGS):
            path = lake.table(table.name, partition)
            difference = first_difference(path, LocalPath(directory) / f"{table.name}.parquet")
            if difference is not None:
                by = "" if manifest.code_version == code_version() else f" (published by code {manifest.code_version})"
                yield Problem(
                    lake.key(path), f"The table is not what its stored responses give: {difference} differs{by}."
                )
