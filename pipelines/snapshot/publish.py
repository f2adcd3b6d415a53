"""Publishes a day: builds its tables from stored responses, validates them, puts them in place, writes the manifest.

No published table is replaced before all tables of the day are complete and valid. The staged files stay until the
manifest is written. If the process is killed between two replacements, the next run repairs the day.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import ValidationError
from pipelines.fingerprint import code_version
from pipelines.lake.clock import rising
from pipelines.lake.derived_manifests import newest_derived_record
from pipelines.lake.hash_tree import root_of
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import (
    BuiltFacts,
    FetchFacts,
    InventoryFacts,
    Manifest,
    chain_head,
    file_facts,
    write_manifest,
)
from pipelines.lake.parquet_files import SANDBOX_MARK, is_marked_sandbox, open_parquet, read_batches
from pipelines.lake.storage import LakePath
from pipelines.lake.stored_responses import response_leaves
from pipelines.snapshot.normalise import add_counts, normalise_images, to_arrow
from pipelines.tables import (
    BILLED_COSTS,
    IMAGE_REFERENCES,
    IMAGE_TAGS,
    IMAGE_TRACES,
    IMAGE_VALUES,
    IMAGES,
    LIST_PAGES,
    REGISTRY_LAYERS,
    REGISTRY_PAGES,
    REGISTRY_TAGS,
    RESPONSES,
    SCHEMA_VERSION,
    Table,
)

# The tables that are built from the responses alone.
BUILT_TABLES = (IMAGES, IMAGE_VALUES, IMAGE_TAGS)
_BATCH_ROWS = 4_096
_PREVIEW_ROWS = 5
# The digits of the largest 32-bit number.
_DIGITS = 10
_PREVIEW_COLUMNS = ("id", "name", "status", "visibility", "size_bytes", "update_at")


def build_tables(lake: Lake, responses: LakePath, directory: LakePath, run_id: str) -> BuiltFacts:
    """Write `images`, `image_values` and `image_tags` into `directory` from a `responses` file.

    This takes one pass and bounded memory.
    """
    batches = read_batches(responses, _BATCH_ROWS)
    return build_from_batches(lake, batches, directory, run_id, is_sandbox=is_marked_sandbox(responses))


def build_from_batches(
    lake: Lake, responses: Iterable[pa.RecordBatch], directory: LakePath, run_id: str, *, is_sandbox: bool
) -> BuiltFacts:
    """Write the tables of `build_tables` from batches of `responses`, in their order."""
    unknown_fields, unknown_values, anomalies = Counter[str](), Counter[str](), Counter[str]()
    with ExitStack() as stack:
        images, values, tags = (
            stack.enter_context(lake.writer(directory / f"{table.name}.parquet", table, run_id))
            for table in BUILT_TABLES
        )
        for batch in responses:
            normalised = normalise_images(batch)
            images.write(to_arrow(normalised.images, IMAGES))
            values.write(to_arrow(normalised.image_values, IMAGE_VALUES))
            tags.write(to_arrow(normalised.image_tags, IMAGE_TAGS))
            add_counts(unknown_fields, normalised.unknown_fields)
            add_counts(unknown_values, normalised.unknown_values)
            add_counts(anomalies, normalised.anomalies)
        for writer in (images, values, tags):
            writer.note(SANDBOX_MARK if is_sandbox else {})
    return BuiltFacts(unknown_fields=unknown_fields, unknown_values=unknown_values, anomalies=anomalies)


def preview_of(images: LakePath) -> list[dict[str, object]]:
    """A few rows of `images`, and of each what says most."""
    first = next(read_batches(images, _PREVIEW_ROWS, list(_PREVIEW_COLUMNS)), None)
    return [] if first is None else first.select(_PREVIEW_COLUMNS).to_pylist()


def validate(
    partition: Partition,
    project_id: str,
    files: Mapping[str, LakePath],
    inventory_ids: int,
    outcomes: Mapping[str, int],
) -> None:
    """Check the tables of a day against each other and against their schemas, before anyone can read them.

    Raises:
        ValidationError: a rule does not hold; the message names the first.
    """
    counted: Counter[str] = Counter()
    responses = _check_rows(files["responses"], RESPONSES, partition, project_id, ["outcome"])
    for batch in responses:
        for pair in pc.value_counts(batch["outcome"]).to_pylist():
            counted[pair["values"]] += pair["counts"]
    if counted.total() != inventory_ids:
        raise ValidationError(f"responses has {counted.total()} rows for {inventory_ids} ids of the inventory.")
    if counted != Counter(outcomes):
        raise ValidationError(f"responses has the outcomes {dict(counted)}, and the fetch counted {dict(outcomes)}.")
    rows = 0
    for batch in _check_rows(files["images"], IMAGES, partition, project_id, ["create_at", "update_at", "observed_at"]):
        rows += batch.num_rows
        _check_timestamps(batch)
    described = counted["ok"] + counted["deleted"]
    if rows != described:
        raise ValidationError(f"images has {rows} rows, and {described} ids were described by the API.")
    for table in (IMAGE_REFERENCES, IMAGE_TRACES, IMAGE_TAGS, REGISTRY_TAGS, REGISTRY_LAYERS, BILLED_COSTS):
        for _ in _check_rows(files[table.name], table, partition, project_id):
            pass
    for table in (IMAGE_VALUES, LIST_PAGES, REGISTRY_PAGES):
        with open_parquet(files[table.name]) as file:
            _check_schema(file.schema_arrow, table)


def _check_rows(
    path: LakePath, table: Table, partition: Partition, project_id: str, columns: Sequence[str] = ()
) -> Iterator[pa.RecordBatch]:
    """Yield batches of some columns, after checking the schema and the keys.

    Ids must be strictly ascending, and are therefore unique.
    """
    with open_parquet(path) as file:
        _check_schema(file.schema_arrow, table)
    last = ""
    for batch in read_batches(path, _BATCH_ROWS, [*table.key, *columns]):
        if batch.num_rows == 0:
            continue
        ids = _ids(batch, table.key[2:])
        if ids[0].as_py() <= last or not pc.all(pc.less(ids[:-1], ids[1:]), min_count=0).as_py():
            raise ValidationError(f"{table.name} holds an id twice, or ids out of order.")
        last = ids[-1].as_py()
        for name, expected in (("snapshot_date", partition.date), ("project_id", project_id)):
            if not pc.all(pc.equal(batch[name], pa.scalar(expected, batch.schema.field(name).type))).as_py():
                raise ValidationError(f"{table.name} holds rows whose {name} is not {expected}.")
        yield batch


def _ids(batch: pa.RecordBatch, key: Sequence[str]) -> pa.Array:
    """The keys that identify a row within its partition, as text that sorts in the order of the key."""
    if len(key) == 1 and pa.types.is_string(batch[key[0]].type):
        return batch[key[0]]
    texts = [
        batch[name]
        if pa.types.is_string(batch[name].type)
        else pc.utf8_lpad(batch[name].cast(pa.string()), _DIGITS, "0")
        for name in key
    ]
    return pc.binary_join_element_wise(*texts, "\0")


def _check_schema(schema: pa.Schema, table: Table) -> None:
    if not schema.equals(table.schema):
        raise ValidationError(f"{table.name} does not have its columns: {schema.names} != {table.schema.names}.")


def _check_timestamps(batch: pa.RecordBatch) -> None:
    earliest = pa.scalar(dt.datetime(2000, 1, 1, tzinfo=dt.UTC), batch.schema.field("observed_at").type)
    latest = pc.add(batch["observed_at"], pa.scalar(dt.timedelta(days=1)))
    for name in ("create_at", "update_at"):
        in_range = pc.and_(pc.greater_equal(batch[name], earliest), pc.less_equal(batch[name], latest))
        if not pc.all(in_range, min_count=0).as_py():
            raise ValidationError(f"images holds a {name} before 2000 or after the day it was observed.")


def publish(
    lake: Lake,
    partition: Partition,
    files: Mapping[str, LakePath],
    *,
    run_id: str,
    started_at: dt.datetime,
    published_at: dt.datetime,
    rebuilt: bool,
    inventory: InventoryFacts,
    fetch: FetchFacts,
) -> Manifest:
    """Put the files in the places of the published ones, then write the manifest that names them.

    `files` has all tables of the partition. Files that are published already stay where they are.

    Raises:
        ConfigurationError: `published_at` is earlier than the project's newest manifest; nothing was replaced.
    """
    responses_root = root_of(response_leaves(files["responses"]))
    with lake.locks.chain(partition.project, f"run {run_id}"):
        manifest = Manifest(
            snapshot_date=partition.date,
            project=partition.project,
            run_id=run_id,
            started_at=started_at,
            published_at=rising(lake, partition.project, published_at),
            rebuilt=rebuilt,
            code_version=code_version(),
            schema_version=SCHEMA_VERSION,
            inventory=inventory,
            fetch=fetch,
            is_complete=not fetch.failed,
            responses_root=responses_root,
            files={name: file_facts(lake, path, name, partition) for name, path in files.items()},
            previous_manifest_sha256=chain_head(lake, partition.project),
            derived_record_sha256=newest_derived_record(lake, partition.project),
        )
        for name, path in files.items():
            if path != lake.table(name, partition):
                lake.replace(path, lake.table(name, partition))
        return write_manifest(lake, partition, manifest)
