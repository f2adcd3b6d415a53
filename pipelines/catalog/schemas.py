"""The tables of the catalog: their Iceberg schemas and partitions, made from `tables`, created and brought up to date.

They are the warehouse's tables. Iceberg gives each column an id of its own, so a column that is added later, or renamed
by somebody, never takes another's values.
"""

from typing import TYPE_CHECKING

import pyarrow as pa
from pyiceberg.exceptions import NoSuchTableError, TableAlreadyExistsError
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import (
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    IntegerType,
    LongType,
    NestedField,
    PrimitiveType,
    StringType,
    TimestamptzType,
)

from pipelines.catalog.opening import CatalogAccess, check_outside
from pipelines.errors import ConfigurationError
from pipelines.lake.layout import Lake
from pipelines.tables import AMOUNT, AMOUNT_DIGITS, AMOUNT_PLACES, IMAGE_HISTORY, TIMESTAMP, Table
from pipelines.warehouse.ddl import DAYS, PROJECT, WAREHOUSE_TABLES

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table as IcebergTable

_TYPES: dict[pa.DataType, PrimitiveType] = {
    pa.string(): StringType(),
    pa.int32(): IntegerType(),
    pa.int64(): LongType(),
    pa.bool_(): BooleanType(),
    pa.float64(): DoubleType(),
    pa.date32(): DateType(),
    # Microseconds since the epoch, adjusted to UTC.
    TIMESTAMP: TimestamptzType(),
    AMOUNT: DecimalType(AMOUNT_DIGITS, AMOUNT_PLACES),
}
_FIRST_PARTITION_ID = 1000
# Each commit writes the table's whole metadata again, and time travel needs the newest of them only.
_KEPT_METADATA = 20

# A commit replaces the rows of a day and project; of these two tables, those of a project. Of `days`, each day would be
# a file of one row.
_WHOLE_PROJECT = (IMAGE_HISTORY.name, DAYS.name)


def partition_columns(table: Table) -> tuple[str, ...]:
    """The columns that a table is partitioned by, with their values as they are."""
    return (PROJECT.name,) if table.name in _WHOLE_PROJECT else ("snapshot_date", PROJECT.name)


def iceberg_schema(table: Table) -> Schema:
    """The schema of a table; ids of columns count from 1, and a catalog may give others."""
    fields = [
        NestedField(number, column.name, _TYPES[column.type], required=column.required, doc=column.meaning)
        for number, column in enumerate(table.columns, 1)
    ]
    ids = {field.name: field.field_id for field in fields}
    return Schema(*fields, identifier_field_ids=[ids[name] for name in table.key])


def bring_up_to_date(catalog: "Catalog", access: CatalogAccess, lake: Lake) -> dict[str, "IcebergTable"]:
    """The tables by name, created where they are missing, with the columns that this version of the software has.

    Raises:
        ConfigurationError: a column has another type, a table lacks a key column or is partitioned otherwise, or a
            table's files would lie inside the lake.
    """
    namespace = access.place.namespace
    if not catalog.namespace_exists(namespace):
        catalog.create_namespace_if_not_exists(namespace)
    found = {}
    for table in WAREHOUSE_TABLES.values():
        identifier = (namespace, table.name)
        try:
            one = catalog.load_table(identifier)
        except NoSuchTableError:
            one = _created(catalog, identifier, table)
        for location in (
            one.location(),
            *(value for name, value in one.properties.items() if name in ("write.data.path", "write.metadata.path")),
        ):
            check_outside(lake, location, access)
        _check_and_extend(one, table, access)
        found[table.name] = one
    return found


def _created(catalog: "Catalog", identifier: tuple[str, str], table: Table) -> "IcebergTable":
    schema = iceberg_schema(table)
    spec = PartitionSpec(
        *(
            PartitionField(schema.find_field(name).field_id, _FIRST_PARTITION_ID + number, IdentityTransform(), name)
            for number, name in enumerate(partition_columns(table))
        )
    )
    properties = {
        "comment": table.meaning,
        "write.metadata.delete-after-commit.enabled": "true",
        "write.metadata.previous-versions-max": str(_KEPT_METADATA),
    }
    try:
        return catalog.create_table(identifier, schema, partition_spec=spec, properties=properties)
    except TableAlreadyExistsError:
        return catalog.load_table(identifier)


def _check_and_extend(one: "IcebergTable", table: Table, access: CatalogAccess) -> None:
    found = {field.name: field for field in one.schema().fields}
    missing = []
    for column in table.columns:
        field = found.get(column.name)
        if field is None:
            if column.name in table.key:
                raise ConfigurationError(
                    f"The catalog {access.name} has a table {table.name} without the key column {column.name}, so "
                    "another program made it and nothing was loaded: name a namespace for the snapshots alone."
                )
            missing.append(column)
        elif field.field_type != _TYPES[column.type]:
            raise ConfigurationError(
                f"The column {column.name} of the table {table.name} in the catalog {access.name} has the type "
                f"{field.field_type} instead of {_TYPES[column.type]}, so nothing was loaded: rename the table and "
                "load its days again."
            )
    partitions = tuple(one.schema().find_column_name(field.source_id) for field in one.spec().fields)
    if partitions != partition_columns(table) or any(
        not isinstance(field.transform, IdentityTransform) for field in one.spec().fields
    ):
        raise ConfigurationError(
            f"The table {table.name} in the catalog {access.name} is not partitioned by "
            f"{' and '.join(partition_columns(table))}, so nothing was loaded: rename it and load its days again."
        )
    if missing:
        # Earlier days have no value for it, so it may be null whatever it is in the lake.
        with one.update_schema() as update:
            for column in missing:
                update.add_column(column.name, _TYPES[column.type], doc=column.meaning, required=False)
