"""Reads the user's inventory of image ids and cleans it into the `inventory` table.

An inventory is a file (`.csv .tsv .txt .json .jsonl .parquet`), the result of a SQL query, or the API's image list. It
has a column `id` (or `image_id`), and optionally `project`, `owner`, `cost_center` and `environment`. Case, and blanks
and quotes around a name, do not matter. A name that is almost one of these is refused: if `projects` were ignored,
every id would be requested in every project. Further columns are kept in `attributes`, a JSON object, with their type
in the source and without null or blank values. Sources are read in pieces, so memory holds only the ids seen and one
batch of rows.

A row without a project belongs to every project. A project must match exactly. Rows of other projects are dropped;
those of projects that are not configured are counted separately, because they are never requested.

Ids are trimmed and put in lower case; of several rows with one id the first is kept. A valid id has the API's own form,
8-4-4-4-12 hexadecimal digits. An id without dashes did not come from the API, and guessing their place could request
another image. Invalid ids stay in the table, because an auditor wants to see them, but they are never sent. If too many
ids are invalid, or all, the inventory is refused: it probably lists something else.

Not here: reading files and databases (`inventory.sources`) and requesting the image list (`cloud.modelarts`).
`Inventory.read_listed` takes the ids of that list.
"""

import re
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipelines import tables as columns
from pipelines.errors import ConfigurationError
from pipelines.inventory.sources import BATCH_ROWS, LISTED, InventorySource, brief, describe_source, read_source

__all__ = [
    "FROM_INVENTORY",
    "FROM_LAST_COMPLETE_DAY",
    "LISTED",
    "Inventory",
    "InventoryCounts",
    "InventorySource",
    "describe_source",
]

# Where an id comes from: the inventory's source, or the inventory of an earlier day (see `snapshot.absence`).
FROM_INVENTORY, FROM_LAST_COMPLETE_DAY = "inventory", "last_complete_day"

_SHOWN_CHARACTERS = 80
_UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_NAMES = {
    "id": "id",
    "image_id": "id",
    "project": "project",
    "owner": "owner",
    "cost_center": "cost_center",
    "environment": "environment",
}
# Characters that spreadsheets, editors and people put around a name: quotes, blanks, invisible marks.
_AROUND_NAMES = "\"'`\u00b4\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb \t\r\n\u00a0\u200b\ufeff"
# Shorter names are not compared: too many other words are similar.
_LEAST_SPELT = 5


@dataclass(slots=True)
class InventoryCounts:
    """Counts of rows: `rows_read` is the sum of the others, except `invalid`, which is part of `ids`."""

    rows_read: int = 0
    other_project: int = 0
    unknown_project: int = 0
    blank: int = 0
    duplicate: int = 0
    ids: int = 0
    invalid: int = 0


class Inventory:
    """One reading of an inventory for one project and day. Read it once, to the end; then `counts` is final."""

    def __init__(
        self,
        *,
        snapshot_date: date,
        project_key: str,
        project_keys: Sequence[str],
        allow_empty: bool = False,
        max_invalid_ratio: float = 1.0,
    ) -> None:
        self.counts = InventoryCounts()
        self._date = snapshot_date
        self._project_key = project_key
        self._project_keys = pa.array(project_keys, pa.string())
        self._allow_empty = allow_empty
        self._max_invalid_ratio = max_invalid_ratio
        # As read, to show an example in the error.
        self._first_invalid: str | None = None
        # As a number, a UUID takes half the memory of its text.
        self._seen: set[int | str] = set()

    def read(self, source: str, query_file: Path) -> Iterator[pa.RecordBatch]:
        """Read a file or database, and yield batches of `tables.INVENTORY`.

        `query_file` holds the query for a database; other sources ignore it. The query may use the parameter
        `:project`, the project's key.

        Raises:
            ConfigurationError: the source is missing, unreadable, malformed or refused, has no id column, has no usable
                id for this project (unless an empty inventory is allowed), or has too many invalid ids. Discard the
                batches yielded before.
            EndpointUnreachableError: the database does not answer; trying later may help.
        """
        name = describe_source(source).name
        for names, arrays in read_source(source, query_file, self._project_key):
            try:
                batch = self._clean(names, arrays, name)
            except (UnicodeError, orjson.JSONEncodeError, pa.ArrowInvalid) as error:
                # A lone surrogate, bytes that are not text, or too deep nesting.
                raise ConfigurationError(
                    f"The inventory {name} holds a value that cannot be stored, between rows "
                    f"{self.counts.rows_read + 1} and {self.counts.rows_read + len(arrays[0])}: {brief(error)}."
                ) from None
            if batch.num_rows:
                yield batch
        self._refuse_unusable(name)

    async def read_listed(self, ids: AsyncIterator[str]) -> AsyncIterator[pa.RecordBatch]:
        """Take the ids of the image list for this project, and yield batches of `tables.INVENTORY`.

        Raises:
            ConfigurationError: there is no usable id (unless an empty inventory is allowed), or too many are invalid.
        """
        rows: list[str] = []
        async for id_ in ids:
            rows.append(id_)
            if len(rows) == BATCH_ROWS:
                yield self._clean(["id"], [rows], LISTED)
                rows = []
        if rows:
            yield self._clean(["id"], [rows], LISTED)
        self._refuse_unusable(LISTED)

    def _clean(self, names: Sequence[str], arrays: Sequence[Any], source: str) -> pa.RecordBatch:
        known, further = _columns_by_name(names, source)
        as_read = _text(arrays[known["id"]])
        attributes = _attributes(further, arrays) if further else None
        counts = self.counts
        total = len(as_read)

        def optional(name: str) -> pa.Array:
            return _text_or_null(arrays[known[name]]) if name in known else pa.nulls(total, pa.string())

        project = optional("project")
        stated = pc.is_valid(project)
        mine = pc.fill_null(pc.equal(project, self._project_key), True)
        unknown = pc.and_(stated, pc.invert(pc.is_in(project, value_set=self._project_keys)))
        ids = pc.utf8_lower(pc.utf8_trim_whitespace(pc.fill_null(as_read, "")))
        valid = pc.match_substring_regex(ids, _UUID)
        keep = self._first_of_each(ids.to_pylist(), valid.to_pylist(), mine.to_pylist())

        counts.rows_read += total
        unknown_count = pc.sum(unknown).as_py() or 0
        counts.unknown_project += unknown_count
        counts.other_project += total - (pc.sum(mine).as_py() or 0) - unknown_count
        if unknown_count:
            _refuse_quoted(project.filter(unknown), source)
        batch = pa.RecordBatch.from_arrays(
            [
                pa.repeat(pa.scalar(self._date, pa.date32()), total),
                pa.repeat(self._project_key, total),
                ids,
                pc.fill_null(as_read, ""),
                valid,
                optional("owner"),
                optional("cost_center"),
                optional("environment"),
                pa.nulls(total, pa.string()) if attributes is None else attributes,
                pa.repeat(FROM_INVENTORY, total),
            ],
            schema=columns.INVENTORY.schema,
        ).filter(pa.array(keep, pa.bool_()))
        counts.ids += batch.num_rows
        invalid = batch.filter(pc.invert(batch["is_valid"]))["id_as_read"]
        counts.invalid += len(invalid)
        if self._first_invalid is None and len(invalid):
            self._first_invalid = invalid[0].as_py()
        return batch

    def lacks(self, ids: Iterable[str]) -> list[str]:
        """Those of the given valid ids that this inventory does not have."""
        return [id_ for id_ in ids if _number(id_) not in self._seen]

    def _first_of_each(self, ids: list[str], valid: list[bool], mine: list[bool]) -> list[bool]:
        """For each row: whether it is the first of this project with its id. The other rows are counted."""
        seen, counts = self._seen, self.counts
        keep = []
        for id_, is_uuid, is_mine in zip(ids, valid, mine, strict=True):
            if not is_mine:
                keep.append(False)
                continue
            if not id_:
                counts.blank += 1
                keep.append(False)
                continue
            key = _number(id_) if is_uuid else id_
            if key in seen:
                counts.duplicate += 1
                keep.append(False)
            else:
                seen.add(key)
                keep.append(True)
        return keep

    def _refuse_unusable(self, name: str) -> None:
        """Refuse an inventory with no valid id, or with too many invalid ones."""
        c = self.counts
        if c.invalid > self._max_invalid_ratio * c.ids or (c.invalid and c.invalid == c.ids and not self._allow_empty):
            example = self._first_invalid or ""
            shown = f"{example[:_SHOWN_CHARACTERS]!r}{' ...' if len(example) > _SHOWN_CHARACTERS else ''}"
            raise ConfigurationError(
                f"In the inventory {name}, {c.invalid} of {c.ids} ids for project {self._project_key!r} are not "
                f"image ids, such as {shown}. IMAGE_SNAPSHOTS_MAX_INVALID_RATIO allows "
                f"{self._max_invalid_ratio:g} of them and never all, so nothing is published: write the ids as the API "
                "does, 8-4-4-4-12 hexadecimal digits with dashes and without quotes or a prefix, and check that the "
                "column holds ModelArts image ids."
            )
        if c.ids or self._allow_empty:
            return
        raise ConfigurationError(
            f"The inventory {name} holds no image id for project {self._project_key!r} ({c.rows_read} rows read, "
            f"{c.blank} blank, {c.other_project} of other projects, {c.unknown_project} of projects that are not "
            "configured): correct it, or set IMAGE_SNAPSHOTS_ALLOW_EMPTY_INVENTORY=true if it may be empty."
        )


def _refuse_quoted(projects: pa.Array, source: str) -> None:
    """Refuse project keys that still have their file's quotes: their rows would be dropped by mistake."""
    quoted = projects.filter(pc.match_substring_regex(projects, r"""^["'].*["']$"""))
    if len(quoted):
        raise ConfigurationError(
            f"The inventory {source} has quotation marks around a project, {quoted[0].as_py()!r}, so it matches none "
            "that is configured: write the key alone, without blanks before or after quotation marks."
        )


def _number(uuid: str) -> int:
    return int(uuid.replace("-", ""), 16)


def _columns_by_name(names: Sequence[str], source: str) -> tuple[dict[str, int], dict[str, int]]:
    """Find the positions of the known columns and, by their names in the source, of all others."""
    known: dict[str, int] = {}
    further: dict[str, int] = {}
    for position, written in enumerate(names):
        ours = _NAMES.get(written.strip(_AROUND_NAMES).lower())
        target = known if ours else further
        # Spreadsheets may write columns without a name.
        key = ours or written.strip() or f"column_{position + 1}"
        if key in target:
            raise ConfigurationError(
                f"The inventory {source} has two columns for {key!r} ({names[target[key]]!r} and {written!r}): "
                "rename or remove one."
            )
        target[key] = position
    near = {written: meant for written in further if (meant := _nearly(written)) is not None and meant not in known}
    if "id" not in known:
        found = ", ".join(repr(name) for name in names[:20]) or "none"
        like = next((written for written, meant in near.items() if meant == "id"), None)
        raise ConfigurationError(
            f"The inventory {source} has no column 'id' or 'image_id' (columns found: {found}): "
            + ("" if like is None else f"did you mean {like!r}? ")
            + f"{'n' if like is None else 'N'}ame the column of image ids so, and check the separator of the columns."
        )
    for written, meant in near.items():
        raise ConfigurationError(
            f"The inventory {source} has a column {written!r}, which would be kept only as an attribute: did you mean "
            f"{meant!r}? Rename it to that, or to a name that is less similar."
        )
    return known, further


def _nearly(written: str) -> str | None:
    """The known column that a name differs from only by punctuation, blanks or one letter; None if there is none."""
    letters = re.sub(r"[\W_]", "", written).lower()
    for name, ours in _NAMES.items():
        spelt = name.replace("_", "")
        if letters == spelt or (len(spelt) >= _LEAST_SPELT and _differ_by_one_letter(letters, spelt)):
            return ours
    return None


def _differ_by_one_letter(one: str, other: str) -> bool:
    """Whether two texts differ by one letter added, removed or replaced, or by two neighbours swapped."""
    if abs(len(one) - len(other)) > 1:
        return False
    if len(one) > len(other):
        one, other = other, one
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    if len(one) < len(other):
        return one[at:] == other[at + 1 :]
    return one[at + 1 :] == other[at + 1 :] or (
        one[at : at + 2] == other[at : at + 2][::-1] and one[at + 2 :] == other[at + 2 :]
    )


def _text(values: Any) -> pa.Array:
    """Convert a list or an Arrow array to an Arrow array of text; nulls stay null."""
    if isinstance(values, pa.Array):
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        if _is_text(values.type):
            return values.cast(pa.string())
        values = _plain_list(values)
    try:
        return pa.array(values, pa.string())
    except pa.ArrowTypeError:
        return pa.array([_plain_text(v) for v in values], pa.string())


def _plain_list(array: pa.Array) -> list[Any]:
    """The array's Python values; a time beyond Python's range, such as the year 10000, becomes text."""
    try:
        values: list[Any] = array.to_pylist()
    except (OverflowError, ValueError):
        return [_plain(scalar) for scalar in array]
    return values


def _plain(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):
        type_ = scalar.type
        if pa.types.is_struct(type_):
            return {name: _plain(value) for name, value in scalar.items()}
        if pa.types.is_nested(type_):
            return [_plain(value) for value in scalar.values]
        return _text_of_time(scalar)


def _text_of_time(scalar: pa.Scalar) -> str:
    """A date or time of any year in ISO 8601, in UTC if it has a zone; a number with its unit if Arrow has no format.

    Raises:
        pa.ArrowInvalid: the value is not a date or time.
    """
    type_ = scalar.type
    unit = {pa.date32(): "d", pa.date64(): "ms"}.get(type_) or getattr(type_, "unit", None)
    if unit is None:
        raise pa.ArrowInvalid(f"a value of the type {type_} that cannot be written as text")
    zone = "+00:00" if pa.types.is_timestamp(type_) and type_.tz else ""
    # An out-of-range time with a zone would be written as another time, so remove the zone first.
    plain = scalar.cast(pa.timestamp(unit)) if zone else scalar
    text = str(plain.cast(pa.string()).as_py())
    if pa.types.is_duration(type_) or "out of range" in text:
        number = scalar.cast(pa.int32() if type_ == pa.date32() else pa.int64()).as_py()
        return f"{number} {unit}" + ("" if pa.types.is_duration(type_) else " since 1970-01-01")
    return re.sub(r"\.0+$", "", text.replace(" ", "T")) + zone


def _is_text(type_: pa.DataType) -> bool:
    # Some writers have no text type and write bytes.
    tests = ("is_string", "is_large_string", "is_string_view", "is_binary", "is_large_binary", "is_binary_view")
    return any(getattr(pa.types, test)(type_) for test in tests)


def _plain_text(value: Any) -> str | bytes | None:
    if value is None or isinstance(value, str | bytes):
        return value
    return _json(value) if isinstance(value, dict | list | tuple | bool) else str(value)


def _no_json(value: Any) -> str:
    """Write a value that JSON has no type for as text."""
    return value.hex() if isinstance(value, bytes) else str(value)


def _json(value: Any) -> str:
    return orjson.dumps(value, default=_no_json, option=orjson.OPT_SORT_KEYS).decode()


def _text_or_null(values: Any) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(_text(values))
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)


def _attributes(further: dict[str, int], arrays: Sequence[Any]) -> pa.Array:
    lists = []
    for position in further.values():
        array = arrays[position]
        lists.append(_plain_list(array) if isinstance(array, pa.Array) else array)
    objects: list[str | None] = []
    for values in zip(*lists, strict=True):
        pairs = zip(further, values, strict=True)
        kept = {k: v for k, v in pairs if v is not None and not (isinstance(v, str) and not v.strip())}
        objects.append(_json(kept) if kept else None)
    return pa.array(objects, pa.string())
