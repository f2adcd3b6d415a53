"""The files that a load reads: those of a published and derived day, each checked against the manifests.

Loads into a warehouse (`loading`) and into an Iceberg catalog (`pipelines.catalog`) open a day here.
"""

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import ConfigurationError, StorageError
from pipelines.lake.derived_manifests import bases, read_derived_manifest
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import FileFacts, Manifest, published_or_error
from pipelines.lake.retention_records import RetentionRecords
from pipelines.lake.storage import LakePath, storage_errors
from pipelines.tables import ANALYSIS_TABLES, IMAGE_HISTORY, TABLES, Outcome, Table
from pipelines.warehouse.ddl import DAYS, PROJECT, WAREHOUSE_TABLES
from pipelines.warehouse.interface import Source

WAREHOUSE = "the warehouse"


@dataclass(frozen=True, slots=True)
class OpenPartition:
    """A day's row of `days`, the open files of its tables, and what the manifests say of each."""

    row: pa.RecordBatch
    sources: list[Source]
    files: dict[str, FileFacts]


def is_loadable(_: Lake, partition: Partition, removed: RetentionRecords) -> bool:
    """Whether retention has kept all files of a day that a load needs."""
    return WAREHOUSE_TABLES.keys().isdisjoint(removed.missing(partition))


def open_source(table: Table, path: LakePath, stack: ExitStack, into: str = WAREHOUSE) -> Source:
    """Open a table's file until `stack` ends; `into` says in errors what is loaded.

    Raises:
        StorageError: the file cannot be read, or has columns of another version of this software.
    """
    with storage_errors(path):
        file = stack.enter_context(path.open("rb"))
        try:
            with pq.ParquetFile(file) as parquet:
                found, rows = parquet.schema_arrow, parquet.metadata.num_rows
        except pa.ArrowException:
            raise StorageError(
                f"{path} is not a Parquet file: derive it again with `image-snapshots rebuild`."
            ) from None
        file.seek(0)
    known = {column.name: column for column in table.columns}
    for field in found:
        if field.name not in known or field.type != known[field.name].type:
            raise StorageError(
                f"{path} has a column {field.name} ({field.type}) that this version of the software does not know, so "
                f"nothing was loaded into {into}: load it with the version that wrote it, or a newer one."
            )
    missing = [column.name for column in table.columns if column.required and column.name not in found.names]
    if missing:
        raise StorageError(
            f"{path} lacks the column {missing[0]}, so nothing was loaded into {into}: derive the day again "
            "with `image-snapshots rebuild`."
        )
    wanted = WAREHOUSE_TABLES[table.name].schema.names
    return Source(table, path, file, rows, [name for name in found.names if name in wanted])


def open_partition(lake: Lake, partition: Partition, stack: ExitStack, into: str = WAREHOUSE) -> OpenPartition:
    """Open the files of a day that are loaded until `stack` ends, and check them against the manifests.

    Raises:
        ConfigurationError: the partition is not published or not derived, or retention removed files of it.
        StorageError: a file cannot be read, or is not the one that its manifest names.
    """
    manifest = published_or_error(lake, partition, f"nothing can be loaded into {into}")
    RetentionRecords(lake, partition.project).check_has(
        partition, WAREHOUSE_TABLES, f"nothing of that day can be loaded into {into}"
    )
    derived_manifest = read_derived_manifest(lake, partition)
    if derived_manifest is None or derived_manifest.basis != bases(lake, partition.project)[partition]:
        raise ConfigurationError(
            f"The derived tables of {partition} are missing, or older than this day or an earlier one, so nothing was "
            f"loaded into {into}: derive them first with `image-snapshots derive --from {partition.date}`."
        )
    day = _day(manifest, lake.manifest(partition).sha256(), derived_manifest.basis)
    recorded = manifest.files | derived_manifest.files
    sources = []
    for name, table in (TABLES | ANALYSIS_TABLES).items():
        if name in WAREHOUSE_TABLES and table is not IMAGE_HISTORY:
            source = open_source(table, lake.table(name, partition), stack, into)
            _check_unchanged(source, recorded[name], partition, into)
            sources.append(source)
    return OpenPartition(day, sources, recorded)


def _check_unchanged(source: Source, recorded: FileFacts, partition: Partition, into: str) -> None:
    with storage_errors(source.path):
        found = hashlib.file_digest(source.file, "sha256").hexdigest()
        source.file.seek(0)
    if found != recorded.sha256:
        raise StorageError(
            f"{source.path} is not the file that the manifest names for {partition}, so nothing was loaded into "
            f"{into}: load it again when no run replaces the day; `image-snapshots verify` shows whether a file "
            "was changed."
        )


def _day(manifest: Manifest, sha256: str, basis: str) -> pa.RecordBatch:
    row = {
        PROJECT.name: manifest.project,
        "snapshot_date": manifest.snapshot_date,
        "project_id": manifest.fetch.project_id,
        "is_complete": manifest.is_complete,
        "is_sandbox": manifest.fetch.is_sandbox,
        "mode": manifest.fetch.mode,
        "run_id": manifest.run_id,
        "published_at": manifest.published_at,
        **{outcome.value: manifest.fetch.outcomes.get(outcome, 0) for outcome in Outcome},
        "manifest_sha256": sha256,
        "basis": basis,
        "inventory_is_whole": manifest.inventory.is_whole,
    }
    return pa.RecordBatch.from_pylist([row], schema=DAYS.schema)
