"""The findings of `verify`, and the checks of one Parquet file: its keys, its footer, and equality with another."""

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import StorageError, StorageUnreachableError, ValidationError
from pipelines.lake.parquet_files import open_parquet, read_batches
from pipelines.lake.storage import LakePath

BATCH_ROWS = 10_000

# Errors that a changed file raises on reading. Its SHA-256 may still agree, if somebody changed the record, too.
_UNREADABLE = (
    pa.ArrowException,
    duckdb.Error,
    sqlite3.Error,
    StorageError,
    ValidationError,
    ValueError,
    LookupError,
    TypeError,
    OverflowError,
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One difference from what was published; `path` is relative to the lake's root."""

    path: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something that was not checked, and why, or an extra file; not a sign of a change. `path` as in `Problem`."""

    path: str
    sentence: str


def named(path: str, problems: Iterator[Problem]) -> Iterator[Problem]:
    """Pass problems on; turn a read error into a problem, so that it does not hide the others."""
    try:
        yield from problems
    except StorageUnreachableError:
        # An unreachable store says nothing about the file.
        raise
    except _UNREADABLE as error:
        reason = str(error).strip().partition("\n")[0].rstrip(" .")
        yield Problem(path, f"It cannot be read completely: {reason or type(error).__name__}.")


def rows_of(path: LakePath) -> int:
    """The number of rows in a file's footer."""
    with open_parquet(path) as file:
        return int(file.metadata.num_rows)


def wrong_keys(path: LakePath, expected: Mapping[str, Collection[Any]]) -> Iterator[str]:
    """A sentence for each key column with a value that is not expected."""
    with open_parquet(path) as file:
        schema = file.schema_arrow
    missing = [name for name in expected if name not in schema.names]
    if missing:
        yield f"The file lacks the column {', '.join(missing)}."
        return
    allowed = {name: pa.array(sorted(values), schema.field(name).type) for name, values in expected.items()}
    wrong = set()
    for batch in read_batches(path, BATCH_ROWS, list(expected)):
        wrong |= {
            name for name, values in allowed.items() if not pc.all(pc.is_in(batch[name], values), min_count=0).as_py()
        }
    for name in sorted(wrong):
        shown = ", ".join(str(value) for value in sorted(expected[name])) or "none is known"
        yield f"The file has rows whose {name} does not match its place ({shown}): it was moved or copied."


def false_statistics(path: LakePath) -> Iterator[str]:
    """A sentence if the footer's statistics do not match the rows; engines skip rows by these statistics."""
    with open_parquet(path) as file:
        for group in range(file.metadata.num_row_groups):
            facts = file.metadata.row_group(group)
            for index in range(facts.num_columns):
                column = facts.column(index)
                name = column.path_in_schema
                if column.has_column_index or column.has_offset_index or column.bloom_filter_offset is not None:
                    yield f"The footer has an index for {name}, which no file of ours has."
                    return
                if not _is_true(file, group, facts.num_rows, column):
                    yield f"The footer's values of {name} differ from those of the rows, so engines may skip rows."
                    return


def _is_true(file: pq.ParquetFile, group: int, rows: int, column: Any) -> bool:
    stated = column.statistics
    count, nulls = 0, 0
    extremes: list[Any] = []
    for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=[column.path_in_schema]):
        values = batch.column(0)
        count, nulls = count + len(values), nulls + values.null_count
        if stated is not None and stated.has_min_max:
            found = pc.min_max(values).as_py()
            extremes += [value for value in found.values() if value is not None]
    if count != rows or column.num_values != rows:
        return False
    if stated is None:
        return True
    if stated.has_null_count and stated.null_count != nulls:
        return False
    if not stated.has_min_max:
        return True
    return bool(extremes) and (stated.min, stated.max) == (min(extremes), max(extremes))


def first_difference(published: LakePath, derived: LakePath) -> str | None:
    """The first difference between two files of a table, in words; None if they have the same rows."""
    # Batches end with row groups, and another version may have grouped the same rows differently.
    left, right = read_batches(published, BATCH_ROWS), read_batches(derived, BATCH_ROWS)
    ours, theirs = next(left, None), next(right, None)
    while ours is not None and theirs is not None:
        rows = min(ours.num_rows, theirs.num_rows)
        if not ours.slice(0, rows).equals(theirs.slice(0, rows)):
            return _differing_row(ours.slice(0, rows), theirs.slice(0, rows))
        ours = ours.slice(rows) if rows < ours.num_rows else next(left, None)
        theirs = theirs.slice(rows) if rows < theirs.num_rows else next(right, None)
    return None if ours is theirs else "the number of rows"


def _differing_row(ours: pa.RecordBatch, theirs: pa.RecordBatch) -> str:
    if ours.schema.names != theirs.schema.names:
        return "the schema"
    of = next((name for name in ("id", "rule") if name in ours.schema.names), ours.schema.names[0])
    for name in ours.schema.names:
        if not ours[name].equals(theirs[name]):
            for key, left, right in zip(
                ours[of].to_pylist(), ours[name].to_pylist(), theirs[name].to_pylist(), strict=True
            ):
                if left != right:
                    return f"{name} of {key}"
    return "the schema"
