"""What a column and a table are, and the columns that several tables share."""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

Origin = Literal["key", "inventory", "api", "derived", "provenance"]

TIMESTAMP = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `origin` is the source of its values; a `required` column is never null.

    `source`: the columns or fields that its values are computed from, where the origin and the name do not say it.
    `values`: the only values that it can have, where these are few and ours to choose.
    """

    name: str
    type: pa.DataType
    origin: Origin
    meaning: str
    required: bool = False
    source: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the lake. `key` identifies a row over all days and projects."""

    name: str
    meaning: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema, in column order."""
        return pa.schema([pa.field(c.name, c.type, nullable=not c.required) for c in self.columns])


SNAPSHOT_DATE = Column("snapshot_date", pa.date32(), "key", "Day (UTC) of the snapshot.", True)
PROJECT_ID = Column("project_id", pa.string(), "key", "Project id in the cloud, as used in the URL.", True)
ID = Column("id", pa.string(), "key", "Image id in lower case.", True)


def api(name: str, meaning: str, type_: pa.DataType | None = None) -> Column:
    """A column that the API sends, text unless a type is given; it may be null."""
    return Column(name, type_ or pa.string(), "api", meaning)


def derived(name: str, type_: pa.DataType, meaning: str, *source: str, values: tuple[str, ...] = ()) -> Column:
    """A column computed from others, which `source` may name; it may be null."""
    return Column(name, type_, "derived", meaning, source=source, values=values)
