"""What the registry stores for images and tags, and what deleting sets of images frees: counted by distinct layers.

A layer is stored once, however many tags have it, and freed when none is left. The counting is SQL:
`sql/derive/layer_tags.sql`, `numbered_layers.sql`, `shared_layers.sql`, `manifest_storage.sql`, `tag_storage.sql`,
`image_storage.sql`, `registry_only.sql`, `freed_bytes.sql` and `reclaimable.sql`. Reading the registry belongs to the
fetch.

What could not be read may share layers with everything of its namespace, so bytes there are not known. Namespaces are
taken to share no layer with what was not read in another one.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa

from pipelines.derive.analysis import Analysis
from pipelines.derive.usage import UNUSED_AFTER_DAYS
from pipelines.engine.interface import Engine
from pipelines.engine.sql_files import read_sql
from pipelines.engine.sql_text import quoted
from pipelines.lake.manifests import FetchFacts, FileFacts
from pipelines.tables import (
    AUDIT_FINDINGS,
    IMAGE_STORAGE,
    IMAGE_USAGE,
    RECLAIMABLE,
    REGISTRY_LAYERS,
    REGISTRY_ONLY,
    REGISTRY_TAGS,
)

# So many fit in the memory of an engine with all their layers.
MANIFESTS_AT_A_TIME = 65_536

_NAMESPACES = pa.schema([("namespace", pa.string()), ("is_whole", pa.bool_()), ("list_was_read", pa.bool_())])
_UNREAD = pa.schema([("namespace", pa.string()), ("repository", pa.string())])


@dataclass(frozen=True, slots=True)
class StorageResult:
    """The written tables, and what the registry stores in all; None where the registry was not read.

    `stored_bytes` counts each layer once. `unread`: how many repositories were not read, or not as a whole.
    """

    files: tuple[FileFacts, ...]
    tags: int | None
    stored_bytes: int | None
    registry_only_tags: int | None
    registry_only_bytes: int | None
    unread: int


def derive_image_storage(analysis: Analysis) -> StorageResult:
    """Write `image_storage` and `registry_only` of the day; reads the day's `image_reconciliation`.

    Raises:
        StorageError: the lake cannot be read or written.
    """
    engine, fetch = analysis.engine, analysis.manifest.fetch
    analysis.load_derived(IMAGE_STORAGE, "previous_storage", analysis.previous)
    if not fetch.registry_was_wanted and not engine.read("SELECT id FROM previous_storage LIMIT 1").num_rows:
        # The statements below would look through all images to find nothing.
        files = analysis.write_batches(IMAGE_STORAGE, ()), analysis.write_batches(REGISTRY_ONLY, ())
        for table in (IMAGE_STORAGE, REGISTRY_ONLY):
            analysis.load_today(table)
        return StorageResult(files, None, None, None, None, 0)
    for table in (REGISTRY_TAGS, REGISTRY_LAYERS):
        analysis.load_evidence(table)
    load_scope(engine, fetch)
    count_layers(engine)
    engine.hold("tag_storage", [read_sql("derive/tag_storage.sql")])
    _hold_addresses(engine, "image_addresses", "SELECT id, swr_path, swr_instance_id FROM current_images")
    engine.hold(
        "tag_images",
        ["SELECT namespace, repository, tag, COUNT(*) AS images FROM image_addresses GROUP BY ALL"],
    )
    analysis.load_undescribed_rows()
    _hold_addresses(
        engine,
        "listed_addresses",
        "SELECT id, swr_path, NULL AS swr_instance_id FROM image_reconciliation WHERE kind = 'not_registered' "
        "UNION ALL SELECT id, swr_path, NULL AS swr_instance_id FROM undescribed_rows",
    )
    files = (
        analysis.write(IMAGE_STORAGE, read_sql("derive/image_storage.sql")),
        analysis.write(REGISTRY_ONLY, read_sql("derive/registry_only.sql")),
    )
    analysis.load_today(IMAGE_STORAGE)
    analysis.load_today(REGISTRY_ONLY)
    (facts,) = engine.read(
        """
        SELECT
            (SELECT COUNT(*) FROM registry_tags) AS tags,
            (SELECT CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) FROM layer_tags) AS stored_bytes,
            (SELECT COUNT(*) FROM registry_only) AS registry_only_tags,
            (SELECT CAST(SUM(unique_bytes) AS BIGINT) FROM registry_only) AS registry_only_bytes
        """
    ).to_pylist()
    unread = len(fetch.registry.unread) if fetch.registry is not None else 0
    if not fetch.registry_was_read:
        facts = dict.fromkeys(facts)
    return StorageResult(files, **facts, unread=unread)


def derive_reclaimable(analysis: Analysis) -> FileFacts:
    """Write `reclaimable` of the day; reads the day's usage, storage and findings.

    Raises:
        StorageError: the lake cannot be written.
    """
    engine = analysis.engine
    if not analysis.manifest.fetch.registry_was_wanted:
        return analysis.write_batches(RECLAIMABLE, ())
    analysis.load_today(AUDIT_FINDINGS, "findings")
    engine.load("cost_parameters", pa.table({"unused_after_days": [UNUSED_AFTER_DAYS]}))
    sources = ("current_images", IMAGE_USAGE.name, "findings")
    analysis.hold_by_id("unused_sets", read_sql("derive/unused_sets.sql"), sources)
    free_sets(engine, analysis.each_range)
    return analysis.write(RECLAIMABLE, read_sql("derive/reclaimable.sql"))


def count_layers(engine: Engine) -> None:
    """Make `layer_tags`, `shared_layers` and `manifest_storage` from `registry_tags` and `registry_layers`."""
    for name in ("layer_tags", "numbered_layers", "manifests"):
        engine.hold(name, [read_sql(f"derive/{name}.sql")])
    _hold_by_manifest(engine, "shared_layers", ("registry_layers", "manifests"), "digest")
    engine.hold("manifest_storage", [read_sql("derive/manifest_storage.sql")])


def free_sets(engine: Engine, each_range: Callable[[Collection[str]], Iterator[None]] = lambda _: iter([None])) -> None:
    """Make the relation `freed_bytes` from `unused_sets`, `image_storage`, `manifest_storage` and `shared_layers`.

    `each_range` lets relations with images by `id` hold one range of ids after the other.
    """
    for name in ("sets", "stored_tags"):
        engine.hold(name, [read_sql(f"derive/{name}.sql")])
    of_range = each_range(("unused_sets", "stored_tags"))
    engine.hold("set_members", (read_sql("derive/set_members.sql") for _ in of_range))
    engine.hold("set_tags", [read_sql("derive/set_tags.sql")])
    _hold_by_manifest(engine, "set_layers", ("shared_layers", "set_tags"), "manifest")
    engine.hold("freed_bytes", [read_sql("derive/freed_bytes.sql")])


def _hold_by_manifest(engine: Engine, name: str, sources: Collection[str], column: str) -> None:
    """Hold a relation of what its SELECT gives for one range of manifests after the other: few at a time fit in memory.

    `column` of `sources` tells manifests apart: `manifest`, their number, or `digest`, which has the same order.
    """
    engine.hold(name, (read_sql(f"derive/{name}.sql") for _ in _each_manifest_range(engine, sources, column)))


def _each_manifest_range(engine: Engine, sources: Collection[str], column: str) -> Iterator[None]:
    starts: list[str] = []
    if engine.ids_at_a_time is not None:
        first = engine.read(
            f"SELECT CAST({column} AS VARCHAR) AS first FROM manifests "  # noqa: S608  (names of ours)
            f"WHERE manifest % {MANIFESTS_AT_A_TIME} = 0 ORDER BY manifest"
        )
        starts = [quoted(value) if column == "digest" else value for value in first["first"].to_pylist()]
    if not starts:
        yield
        return
    between = [f"{column} >= {first} AND {column} < {after}" for first, after in pairwise(starts)]
    for condition in (f"{column} < {starts[0]}", *between, f"{column} >= {starts[-1]}"):
        for name in sources:
            engine.narrow(name, condition)
        yield
    for name in sources:
        engine.narrow(name, None)


def load_scope(engine: Engine, fetch: FetchFacts) -> None:
    """Make the relations `registry_namespaces` and `unread_repositories`: what was read, and what in it was not."""
    facts = fetch.registry
    unread = {(one.namespace, one.repository) for one in facts.unread} if facts is not None else set()
    partial = {namespace for namespace, _ in unread}
    names = facts.namespaces if facts is not None else []
    namespaces = [(name, name not in partial, (name, None) not in unread) for name in names]
    engine.load("registry_namespaces", _table(namespaces, _NAMESPACES))
    engine.load("unread_repositories", _table([one for one in unread if None not in one], _UNREAD))


def _table(rows: Sequence[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.table([pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema)


def _hold_addresses(engine: Engine, name: str, known: str) -> None:
    engine.create_view("known_addresses", known)
    engine.hold(name, [read_sql("derive/image_addresses.sql")])
