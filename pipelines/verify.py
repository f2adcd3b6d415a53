"""Prove what was published, or name what was changed since: files, evidence, the chain, and all that is derived.

Reads the lake alone and changes nothing.
"""

import hashlib
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.columns import ANALYSIS_TABLES, IMAGE_HISTORY, IMAGE_VALUES, IMAGES, LIST_PAGES, RESPONSES, TABLES
from pipelines.compaction import check_months
from pipelines.derived import bases, read_seal
from pipelines.engine_duckdb import DuckDBEngine
from pipelines.errors import StorageError
from pipelines.history import write_history_again
from pipelines.json_text import NotJSONError
from pipelines.lake import Lake, LakePath, Partition, open_parquet, read_batches, sha256_of_file, storage_errors
from pipelines.listed import ListedImages, confirms, microseconds
from pipelines.manifest import Manifest, chain_of_manifests, code_version, parse_manifest, read_manifest
from pipelines.publish import derive_tables, failed_ids
from pipelines.removed import RemovedFiles, is_derivable, parse_record

_BATCH_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it was published; `path` is relative to the lake's root."""

    path: str
    sentence: str


def verify(
    lake: Lake, partitions: list[Partition], on_checked: Callable[[Partition], None] = lambda _: None
) -> list[Problem]:
    """Check the partitions, the chains of their projects, and that nothing lies about that no manifest names.

    An empty list means that all is as published. What only the newest manifest of a project states (times, run id) is
    proved by the next one; until then by its SHA-256, noted elsewhere. A file that is missing is no problem where a
    retention record names it with the SHA-256 that its manifest, or the seal of the derived tables, has for it.

    Raises:
        StorageError: a retention record is damaged, or the lake cannot be read.
    """
    problems = list(_find_strays(lake))
    removed = {project: RemovedFiles(lake, project) for project in {partition.project for partition in partitions}}
    for partition in partitions:
        problems += _verify_partition(lake, partition, removed[partition.project])
        on_checked(partition)
    for project in sorted({partition.project for partition in partitions}):
        problems += _verify_chain(lake, project)
        problems += _verify_records(lake, project)
        months = {f"{day.date:%Y-%m}" for day in partitions if day.project == project}
        problems += [Problem(path, sentence) for path, sentence in check_months(lake, project, months)]
    if not problems:
        # What is derived from several days can be judged only where all of these are as they were published.
        for project in sorted({partition.project for partition in partitions}):
            problems += verify_derived(lake, project)
    return problems


def _verify_partition(lake: Lake, partition: Partition, removed: RemovedFiles) -> Iterator[Problem]:
    path = lake.manifest(partition)
    try:
        manifest = read_manifest(path)
    except StorageError as error:
        yield Problem(lake.key(path), str(error))
        return
    intact = True
    for problem in _verify_files(lake, partition, manifest, removed):
        intact = False
        yield problem
    # What was removed lawfully proves nothing any more, and what is left is proved by its SHA-256.
    gone = set(removed.missing(partition))
    if intact and gone.isdisjoint((RESPONSES.name, LIST_PAGES.name)):
        yield from _verify_evidence(lake, partition, manifest)
        if gone.isdisjoint((IMAGES.name, IMAGE_VALUES.name)):
            yield from _verify_derivation(lake, partition, manifest)


def _find_strays(lake: Lake) -> Iterator[Problem]:
    """Tables of days that no manifest seals: put in by hand, or a publication that was cut off."""
    sealed = set(lake.partitions())
    for name in TABLES:
        for partition in lake.partitions_of(name):
            if partition not in sealed:
                yield Problem(
                    lake.key(lake.table(name, partition)),
                    "No manifest names this file: it was put in, or its manifest was removed or never written.",
                )


def _verify_files(lake: Lake, partition: Partition, manifest: Manifest, removed: RemovedFiles) -> Iterator[Problem]:
    for name in TABLES:
        path = lake.table(name, partition)
        relative = lake.key(path)
        facts = manifest.files.get(name)
        if facts is None:
            yield Problem(relative, f"The manifest of {partition} does not list the table {name}.")
        elif not path.exists():
            if not removed.names(facts):
                yield Problem(relative, "The file is missing.")
        else:
            with storage_errors(path):
                digest = sha256_of_file(path)
            if digest != facts.sha256:
                yield Problem(
                    relative,
                    f"The file was changed: {path.stat().st_size} bytes with SHA-256 {digest}, published with "
                    f"{facts.bytes} bytes and {facts.sha256}.",
                )
            elif (rows := _rows_of(path)) != facts.rows:
                yield Problem(relative, f"The manifest says {facts.rows} rows, and the file has {rows}.")
    for name in TABLES:
        for other in lake.table(name, partition).parent.glob("*.parquet"):
            if other != lake.table(name, partition):
                yield Problem(lake.key(other), "The file does not belong to the published day.")


def _verify_evidence(lake: Lake, partition: Partition, manifest: Manifest) -> Iterator[Problem]:
    path = lake.table(RESPONSES.name, partition)
    outcomes: Counter[str] = Counter()
    for batch in read_batches(path, _BATCH_ROWS):
        columns = (batch[name].to_pylist() for name in ("id", "outcome", "body", "body_sha256"))
        for id_, outcome, body, digest in zip(*columns, strict=True):
            outcomes[outcome] += 1
            if (None if body is None else hashlib.sha256(body).hexdigest()) != digest:
                yield Problem(lake.key(path), f"The stored answer for {id_} does not have its SHA-256.")
    yield from _verify_listed(lake, partition, has_carried=manifest.fetch.carried > 0)
    failed = failed_ids(path)
    if dict(outcomes) != manifest.fetch.outcomes or failed != manifest.failed or manifest.is_complete != (not failed):
        yield Problem(
            lake.key(lake.manifest(partition)),
            f"The manifest does not say what the stored answers show: {dict(outcomes)}, {len(failed)} failed.",
        )


def _verify_listed(lake: Lake, partition: Partition, *, has_carried: bool) -> Iterator[Problem]:
    """Check the pages of the list, and that one is there that confirms each answer of an earlier day."""
    pages, responses = lake.table(LIST_PAGES.name, partition), lake.table(RESPONSES.name, partition)
    with (
        tempfile.NamedTemporaryFile(prefix="image-snapshots-") as file,
        closing(sqlite3.connect(file.name)) as database,
    ):
        listed = ListedImages(database)
        for batch in read_batches(pages, 64):
            for row in batch.to_pylist():
                if hashlib.sha256(row["body"]).hexdigest() != row["body_sha256"]:
                    yield Problem(lake.key(pages), f"Page {row['page']} does not have its SHA-256.")
                elif has_carried:
                    try:
                        listed.index(microseconds(row["observed_at"]), row["body"])
                    except NotJSONError:
                        yield Problem(lake.key(pages), f"Page {row['page']} is no page of a list.")
        for batch in read_batches(responses, 500):
            carried = {row["id"]: row for row in batch.filter(pc.is_valid(batch["confirmed_at"])).to_pylist()}
            unconfirmed = dict.fromkeys(carried)
            for id_, observed_at, item in listed.find(list(carried)):
                row = carried[id_]
                if observed_at == microseconds(row["confirmed_at"]) and confirms(item, row["body"] or b""):
                    del unconfirmed[id_]
            for id_ in unconfirmed:
                yield Problem(lake.key(responses), f"No page of the list confirms the carried answer for {id_}.")


def _verify_derivation(lake: Lake, partition: Partition, manifest: Manifest) -> Iterator[Problem]:
    """Derive the tables again from the stored answers and compare them with the published ones."""
    with tempfile.TemporaryDirectory(prefix="image-snapshots-") as directory:
        derive_tables(lake, lake.table(RESPONSES.name, partition), Path(directory), manifest.run_id)
        for table in (IMAGES, IMAGE_VALUES):
            path = lake.table(table.name, partition)
            difference = _first_difference(path, Path(directory) / f"{table.name}.parquet")
            if difference is not None:
                by = "" if manifest.code_version == code_version() else f" (published by code {manifest.code_version})"
                yield Problem(
                    lake.key(path), f"The table is not what its stored answers give: {difference} differs{by}."
                )


def _first_difference(published: LakePath, derived: LakePath) -> str | None:
    # Batches end where row groups do, and another version may have made other groups of the same rows.
    left, right = read_batches(published, _BATCH_ROWS), read_batches(derived, _BATCH_ROWS)
    ours, theirs = next(left, None), next(right, None)
    while ours is not None and theirs is not None:
        rows = min(ours.num_rows, theirs.num_rows)
        if not ours.slice(0, rows).equals(theirs.slice(0, rows)):
            return _differing_row(ours.slice(0, rows), theirs.slice(0, rows))
        ours = ours.slice(rows) if rows < ours.num_rows else next(left, None)
        theirs = theirs.slice(rows) if rows < theirs.num_rows else next(right, None)
    return None if ours is theirs else "the number of rows"


def _differing_row(ours: pa.RecordBatch, theirs: pa.RecordBatch) -> str:
    for name in ours.schema.names:
        if not ours[name].equals(theirs[name]):
            for id_, left, right in zip(
                ours["id"].to_pylist(), ours[name].to_pylist(), theirs[name].to_pylist(), strict=True
            ):
                if left != right:
                    return f"{name} of {id_}"
    return "the schema"


def verify_derived(lake: Lake, project: str) -> Iterator[Problem]:
    """Check the derived tables of all days of a project: their files, what they were made from, and the history.

    Those of days that retention took files from stand as they were sealed.
    """
    removed = RemovedFiles(lake, project)
    for partition, basis in bases(lake, project).items():
        seal = read_seal(lake, partition)
        again = f"derive it again with `image-snapshots rebuild --date {partition.date}`"
        if seal is None:
            for name in ANALYSIS_TABLES.keys() - {IMAGE_HISTORY.name}:
                path = lake.table(name, partition)
                if path.exists():
                    yield Problem(lake.key(path), f"No seal names this file: {again}.")
            continue
        if seal.basis != basis and is_derivable(lake, partition, removed):
            yield Problem(
                lake.key(lake.derived_seal(partition)),
                f"The derived tables were made from days that were published anew since: {again}.",
            )
        for facts in seal.files.values():
            path = lake.root / facts.path
            if not path.exists():
                if not removed.names(facts):
                    yield Problem(facts.path, f"The file is missing: {again}.")
            elif sha256_of_file(path) != facts.sha256:
                yield Problem(facts.path, f"The file was changed: {again}.")
    history = lake.project_table(IMAGE_HISTORY.name, project)
    if history.exists():
        with tempfile.TemporaryDirectory(prefix="image-snapshots-") as directory:
            derived = Path(directory) / history.name
            # By the engine that every installation has, whichever made the file.
            with DuckDBEngine() as engine:
                write_history_again(engine, lake, project, derived)
            difference = _first_difference(history, derived)
        if difference is not None:
            yield Problem(
                lake.key(history),
                f"The history is not what the complete days give: {difference} differs. Remove the file, and derive "
                "any day again with `image-snapshots rebuild`.",
            )


def _verify_chain(lake: Lake, project: str) -> Iterator[Problem]:
    """Check that each manifest follows one that is there, and that one alone is the newest."""
    manifests: dict[str, tuple[LakePath, Manifest]] = {}
    for path, content in chain_of_manifests(lake, project).items():
        digest = hashlib.sha256(content).hexdigest()
        if path.parent == lake.superseded_manifests(project) and path.stem != digest:
            yield Problem(lake.key(path), f"The kept manifest was changed: its SHA-256 is now {digest}.")
        try:
            manifests[digest] = (path, parse_manifest(content, path))
        except StorageError as error:
            yield Problem(lake.key(path), str(error))
    followed = [manifest.previous_manifest_sha256 for _, manifest in manifests.values()]
    for path, manifest in manifests.values():
        previous = manifest.previous_manifest_sha256
        if previous is not None and previous not in manifests:
            yield Problem(
                lake.key(path),
                f"It follows a manifest with SHA-256 {previous}, which is not there: that one was changed or removed.",
            )
    heads = sorted(
        (manifest.published_at, lake.key(path))
        for digest, (path, manifest) in manifests.items()
        if digest not in followed
    )
    for _, newest in heads[:-1]:
        yield Problem(newest, "No later manifest follows this one: it was changed or put in.")


def _verify_records(lake: Lake, project: str) -> Iterator[Problem]:
    """Check that each retention record follows the one before it."""
    before: str | None = None
    for path, content in lake.retention_records(project).items():
        if parse_record(content, path).previous_record_sha256 != before:
            yield Problem(
                lake.key(path), "It does not follow the retention record before it: that one was changed or removed."
            )
        before = hashlib.sha256(content).hexdigest()


def _rows_of(path: LakePath) -> int:
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)
