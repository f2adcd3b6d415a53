"""The steps of a run, in order, as an orchestrator calls them: inventory, fetch, publish; and rebuild.

Each step reads what the step before it left on disk, so a step can be run again alone. The details of a step belong to
the module of its name.
"""

import asyncio
import dataclasses
import datetime as dt
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

from pipelines.bodies.list_page import text_at
from pipelines.cloud.modelarts import ModelArtsClient
from pipelines.errors import ConfigurationError, StorageError, TooManyFailuresError
from pipelines.fingerprint import code_version
from pipelines.inventory.cleaning import LISTED, Inventory, describe_source
from pipelines.lake.manifests import (
    Attempt,
    BuiltFacts,
    FetchFacts,
    FileFacts,
    InventoryFacts,
    Manifest,
    file_facts,
    published,
    published_or_error,
    read_attempt,
    write_attempt,
)
from pipelines.lake.parquet_files import SANDBOX_MARK
from pipelines.lake.retention_records import RetentionRecords, check_derivable
from pipelines.lake.storage import LakePath
from pipelines.lake.stored_responses import failed_ids
from pipelines.lake.witnesses import open_witness
from pipelines.snapshot.absence import KnownImages, judge, known_images, missing_rows
from pipelines.snapshot.connection import Connection
from pipelines.snapshot.fetch import (
    Progress,
)
from pipelines.snapshot.gathering import gather
from pipelines.snapshot.publish import BUILT_TABLES, build_tables, preview_of, publish, validate
from pipelines.snapshot.scope import Scope, find_scope, image_workspaces, known_workspaces
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.tables import (
    IMAGES,
    INVENTORY,
    REGISTRY_LAYERS,
    REGISTRY_PAGES,
    REGISTRY_TAGS,
    RESPONSE_TABLES,
    RESPONSES,
    TABLES,
)

_EVIDENCE = (INVENTORY.name, *RESPONSE_TABLES)
# Evidence that days of earlier versions do not have.
_LATER = (REGISTRY_PAGES.name, REGISTRY_TAGS.name, REGISTRY_LAYERS.name)


_logger = logging.getLogger(__name__)


def start_over(run: SnapshotRun) -> None:
    """Remove everything that an open attempt has staged."""
    directory = run.lake.staging(run.partition)
    directory.remove_tree()


@dataclass(frozen=True, slots=True)
class InventoryResult:
    """The staged inventory. `is_stale`: the source's file is older than the setting allows."""

    facts: InventoryFacts
    file: FileFacts
    is_stale: bool


def take_inventory(run: SnapshotRun) -> InventoryResult:
    """Read the inventory source into the staged `inventory` table; opens an attempt, or resumes the open one.

    Raises:
        ConfigurationError: the day is not today, the project differs from that of the days before, or the source cannot
            be read, is empty, or holds too many invalid ids.
        PipelineError: the project's id or the image list must be requested, and that fails.
    """
    attempt = read_attempt(run.lake, run.partition)
    ended = published(run.lake, run.partition)
    if attempt is not None and ended is not None and ended.started_at == attempt.started_at:
        # The process was killed after it wrote the manifest and before it removed the attempt. The day is published.
        start_over(run)
        attempt = None
    if run.is_fresh:
        attempt = None
    run.check_date(attempt)
    run.check_source()
    run.check_clock()
    attempt = attempt or Attempt(run_id=run.run_id, started_at=run.now())
    path = run.staged(INVENTORY.name)
    # An acceptance holds for every run of the attempt.
    accepted = run.accepts_shrunk or (attempt.inventory is not None and attempt.inventory.is_accepted)
    with run.connect(run.settings, run.partition) as connection:
        project_id = asyncio.run(_project_id(run, connection))
        if run.is_fresh:
            # Discard only now, after all checks that could refuse the run.
            start_over(run)
        # Write first, so that a lake that cannot be written is found before anything slow begins.
        write_attempt(run.lake, run.partition, attempt)
        facts = asyncio.run(_read_inventory(run, connection, path, project_id, accepted=accepted))
    file = file_facts(run.lake, path, INVENTORY.name, run.partition)
    taken = {"inventory": facts, "fetch": None, "early": None, "files": {INVENTORY.name: file}}
    write_attempt(run.lake, run.partition, attempt.model_copy(update=taken))
    limit = dt.timedelta(hours=run.settings.inventory_max_age_hours)
    return InventoryResult(
        facts,
        file,
        is_stale=facts.modified_at is not None and run.now() - facts.modified_at > limit,
    )


async def _project_id(run: SnapshotRun, connection: Connection) -> str | None:
    """The project's id, checked against the days before; None if there are none and the credentials do not state it.

    Raises:
        ConfigurationError: the project differs from that of the days before.
        PipelineError: the id must be requested from the identity service, and that fails.
    """
    project_id = connection.credentials.project_id
    if project_id is None and run.lake.contents.manifests(run.partition.project):
        async with connection.client(run.observed_by) as client:
            project_id = client.project_id
    if project_id is not None:
        run.check_project(project_id, connection.host)
    return project_id


async def _read_inventory(
    run: SnapshotRun, connection: Connection, path: LakePath, project_id: str | None, *, accepted: bool
) -> InventoryFacts:
    inventory = Inventory(
        snapshot_date=run.partition.date,
        project_key=run.partition.project,
        project_keys=run.settings.project_keys,
        allow_empty=run.settings.allow_empty_inventory,
        max_invalid_ratio=run.settings.max_invalid_ratio,
    )
    source = describe_source(connection.inventory)
    shortfall, is_sandbox = 0, run.settings.uses_sandbox
    with run.lake.writer(path, INVENTORY, run.run_id) as writer:
        if connection.inventory == LISTED:
            async with connection.client(run.observed_by) as client:
                known = known_workspaces(run.lake, run.partition)
                scope = await find_scope(client, run.settings.stated_workspaces, known)
                async for batch in inventory.read_listed(_listed_ids(client, scope)):
                    writer.write(batch)
                shortfall, is_sandbox = client.list_shortfall or 0, is_sandbox or client.met_sandbox
        else:
            for batch in inventory.read(connection.inventory, run.settings.inventory_query):
                writer.write(batch)
        if is_sandbox:
            writer.note(SANDBOX_MARK)
        images = known_images(run.lake, run.partition, project_id) if project_id else KnownImages(run.lake, None)
        judgement = judge(
            inventory,
            source.name,
            images,
            shortfall=shortfall,
            max_shrunk_ratio=run.settings.max_shrunk_ratio,
            accepted=accepted,
        )
        read = writer.rows
        if judgement.reason is not None:
            for batch in missing_rows(inventory, images, run.partition.date):
                writer.write(batch)
        added = writer.rows - read
    return InventoryFacts(
        source=source.name,
        kind=source.kind,
        modified_at=source.modified_at,
        shortfall=shortfall,
        compared_with=images.day.date if images.day else None,
        known=judgement.known,
        missing=judgement.missing,
        added=added,
        is_whole=judgement.reason is None,
        is_accepted=judgement.is_accepted,
        reason=judgement.reason,
        **(dataclasses.asdict(inventory.counts) | {"ids": inventory.counts.ids + added}),
    )


async def _listed_ids(client: ModelArtsClient, scope: Scope) -> AsyncIterator[str]:
    # More workspaces may become known while their lists are read.
    async for page in client.list_images(scope.workspaces):
        for item in page.items:
            scope.note(text_at(item, "workspace_id"))
            yield item["id"]


@dataclass(frozen=True, slots=True)
class FetchResult:
    """The staged responses."""

    facts: FetchFacts
    file: FileFacts


def fetch_responses(run: SnapshotRun, on_progress: Callable[[Progress], None]) -> FetchResult:
    """Request every id of the day's inventory that has no stored response, and stage the day's evidence.

    Raises:
        TooManyFailuresError: more ids failed than allowed; responses are kept, and the next run requests the rest.
        PipelineError: no request can succeed, the run was told to stop, or the storage failed.
    """
    attempt = read_attempt(run.lake, run.partition)
    run.check_date(attempt)
    if attempt is None or attempt.inventory is None:
        raise ConfigurationError(f"No inventory was taken for {run.partition}: run `image_inventory` first.")
    _check_staged(run, attempt, [INVENTORY.name])
    with run.connect(run.settings, run.partition) as connection:
        facts, early = asyncio.run(gather(run, attempt, connection, on_progress))
    total = sum(facts.outcomes.values())
    if facts.failed > run.settings.max_failed_ratio * total:
        raise TooManyFailuresError(
            f"{facts.failed} of {total} images of {run.partition} could not be fetched, more than "
            f"IMAGE_SNAPSHOTS_MAX_FAILED_RATIO ({run.settings.max_failed_ratio:g}) allows, so nothing was published. "
            f"{_most_common_errors(run)} Run again today to ask for those alone."
        )
    names = _EVIDENCE[1:]
    files = attempt.files | {name: file_facts(run.lake, run.staged(name), name, run.partition) for name in names}
    attempt = read_attempt(run.lake, run.partition) or attempt
    write_attempt(run.lake, run.partition, attempt.model_copy(update={"fetch": facts, "early": early, "files": files}))
    return FetchResult(facts, files[RESPONSES.name])


def _check_staged(run: SnapshotRun, attempt: Attempt, names: Iterable[str]) -> None:
    """Refuse staged files that have changed since they were written.

    Raises:
        StorageError: a file has changed; the message names the first.
    """
    for name in names:
        path = run.staged(name)
        if name not in attempt.files or path.sha256() != attempt.files[name].sha256:
            raise StorageError(
                f"{path} is not as it was written: the storage damaged it, or somebody changed it. Nothing was "
                "published from it; run again today to write it again, from the stored responses."
            )


def _most_common_errors(run: SnapshotRun) -> str:
    codes = Counter(failed.error_code or "no error code" for failed in failed_ids(run.staged(RESPONSES.name)))
    return "Most common: " + ", ".join(f"{code} ({count})" for code, count in codes.most_common(3)) + "."


@dataclass(frozen=True, slots=True)
class Publication:
    """A published partition, what was found while its tables were built, and a few rows of `images`."""

    manifest: Manifest
    built: BuiltFacts
    preview: list[dict[str, object]]


def publish_snapshot(run: SnapshotRun) -> Publication:
    """Build `images`, `image_values` and `image_tags`, validate the day and publish it.

    If an open attempt has fetched its responses, this ends the attempt. If not, a published day is rebuilt from its own
    stored responses.

    Raises:
        ValidationError: a table breaks a rule; nothing was published.
        StorageError: a stored file does not match its record.
        ConfigurationError: there is neither an attempt with fetched responses nor a published day; or retention removed
            what a rebuild needs; or the lake holds days of a cloud and this one is the sandbox's, or the other way
            round.
    """
    run.check_clock()
    attempt = read_attempt(run.lake, run.partition)
    if attempt is not None and attempt.inventory is not None and attempt.fetch is not None:
        _check_staged(run, attempt, _EVIDENCE)
        evidence = {name: run.staged(name) for name in _EVIDENCE}
        directory, built = _build_unless_early(run, attempt, evidence[RESPONSES.name])
        publication = _publish(
            run, evidence, directory, built, attempt.started_at, attempt.inventory, attempt.fetch, rebuilt=False
        )
        start_over(run)
        return publication
    manifest = published_or_error(run.lake, run.partition, "nothing can be derived again")
    check_derivable(run.lake, run.partition, RetentionRecords(run.lake, run.partition.project))
    directory = run.lake.rebuilding(run.partition)
    evidence = {name: run.lake.table(name, run.partition) for name in _EVIDENCE}
    for name, path in list(evidence.items()):
        if name not in manifest.files and name in _LATER and not path.is_there():
            evidence[name] = _empty(run, name, directory, is_sandbox=manifest.fetch.is_sandbox)
        elif name not in manifest.files or path.sha256() != manifest.files[name].sha256:
            raise StorageError(
                f"{path} is not the file that the manifest of {run.partition} names: the evidence was changed. "
                "`image-snapshots verify` says what else was; restore the file from a backup."
            )
    built = build_tables(run.lake, evidence[RESPONSES.name], directory, run.run_id)
    publication = _publish(
        run, evidence, directory, built, manifest.started_at, manifest.inventory, manifest.fetch, rebuilt=True
    )
    directory.remove_tree()
    return publication


def _build_unless_early(run: SnapshotRun, attempt: Attempt, responses: LakePath) -> tuple[LakePath, BuiltFacts]:
    """The directory of the day's tables of images, and what was found in them.

    They are built here unless this run and this code built them beside the fetch, and they are as they were written.
    """
    early = attempt.early
    if early is not None and (early.run_id, early.code_version) == (run.run_id, code_version()):
        directory = run.lake.early_tables(run.partition) / early.directory
        paths = {table.name: directory / f"{table.name}.parquet" for table in BUILT_TABLES}
        if early.files.keys() == paths.keys() and all(
            path.is_there() and path.sha256() == early.files[name].sha256 for name, path in paths.items()
        ):
            return directory, early.found
        _logger.warning("The tables of images in %s are not as they were written: they are built again.", directory)
    directory = run.lake.staging(run.partition)
    return directory, build_tables(run.lake, responses, directory, run.run_id)


def _empty(run: SnapshotRun, name: str, directory: LakePath, *, is_sandbox: bool) -> LakePath:
    """An empty file of a table that the day's version of this software did not have."""
    path = directory / f"{name}.parquet"
    with run.lake.writer(path, TABLES[name], run.run_id) as writer:
        writer.note(SANDBOX_MARK if is_sandbox else {})
    return path


def _with_stated_workspaces(fetch: FetchFacts, images: LakePath) -> FetchFacts:
    """Facts whose `outside` also names the workspaces of `images` that were not read."""
    stated = image_workspaces(images) - set(fetch.scope.workspaces)
    scope = fetch.scope.model_copy(update={"outside": sorted({*fetch.scope.outside, *stated})})
    return fetch.model_copy(update={"scope": scope})


def _publish(
    run: SnapshotRun,
    evidence: dict[str, LakePath],
    directory: LakePath,
    built: BuiltFacts,
    started_at: dt.datetime,
    inventory: InventoryFacts,
    fetch: FetchFacts,
    *,
    rebuilt: bool,
) -> Publication:
    fetch = _with_stated_workspaces(fetch, directory / f"{IMAGES.name}.parquet")
    files = evidence | {table.name: directory / f"{table.name}.parquet" for table in BUILT_TABLES}
    validate(run.partition, fetch.project_id, files, inventory.ids, fetch.outcomes)
    with open_witness(run.settings.witness, run.lake) as note, run.lake.founding():
        run.check_kind(is_sandbox=fetch.is_sandbox)
        manifest = publish(
            run.lake,
            run.partition,
            files,
            run_id=run.run_id,
            started_at=started_at,
            published_at=run.publication_time(),
            rebuilt=rebuilt,
            inventory=inventory,
            fetch=fetch,
        )
        note(manifest)
    return Publication(manifest, built, preview_of(run.lake.table(IMAGES.name, run.partition)))
