"""Stored responses -> the frames `images`, `image_values` and `image_tags`, from the responses alone.

What becomes of a column of values belongs here (`bodies` reads the single body), and nothing that asks, stores or
compares: the same responses give the same frames, so that any stored day can be rebuilt. A bad value costs its row that
value. What is repaired or cannot be read is named in `anomalies` as `field:problem`:

``number_for_text``      an integer where text belongs: kept as its decimal text
``number_as_text``, ``number_as_float``  digits as text, or a whole float, where an integer belongs: kept as the integer
``wrong_type``, ``out_of_range``, ``not_utf8``  no such value can be kept in the column: null there
``too_long``             longer than 65,535 bytes, which no text of a warehouse can be: null there
``extra:not_utf8``, ``extra:out_of_range``  `extra` holds half a character, or a number beyond 64 bits: kept as sent
``unknown_value``        outside the documented values of an enumeration: kept as sent
``element_not_text``, ``not_utf8``  an element of a list kept as its JSON text
``separator_in_element`` an element holds the `|` that joins the flattened list: `image_values` has it whole
``tags:repeated_key``    of tags with one key the first counts
``tags:item_not_an_object``, ``tags:key_not_text``  no tag can be made of an item: it is left out
``tags:value_not_text``, ``tags:unknown_member``  a tag has no value, or lacks what its item says besides
``tags:wrong_type``, ``tags:too_long``  no tags; where anything of tags is named, `extra` has them all as sent
``id:missing``, ``id:letter_case``, ``id:differs``  the body's id against the one asked for
``body:not_an_object``   nothing of the body can be read into columns
``body:nested_too_deeply``  what lies deeper than 100 levels is kept as text
``body:not_a_number``    NaN or Infinity, which JSON has not: kept as text
``body:byte_order_mark``, ``body:not_utf8``, ``body:control_character``  JSON that is not quite by the standard

The content hash is the SHA-256 of the body's canonical JSON: keys sorted and list elements sorted (by their own
canonical JSON) at every level, no white space, UTF-8. The elements of a list of more than 65,536 stay as they came.
Numbers are hashed as written up to their type, so `1` and `1.0` differ while `1.0` and `1.00` do not; a number with a
fraction or an exponent is a double. Of a key that occurs twice the last value counts, as everywhere in JSON. A body
that is no JSON hashes its bytes.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.bodies.image import (
    NUMBER_FIELDS,
    TEXT_FIELDS,
    Tags,
    canonical_of_plain,
    read_any,
    read_plain,
    take_plain_tags,
)
from pipelines.bodies.json_text import dumps
from pipelines.tables import IMAGE_TAGS, IMAGE_VALUES, IMAGES, KNOWN_VALUES, LIST_FIELDS, TAGS, Table

SEPARATOR = "|"
COUNTED_APART = 1000
FURTHER = "(further ones)"

_SINGLE_FIELDS = ("id", *TEXT_FIELDS, *NUMBER_FIELDS)
_SINGLE_TYPES = [pa.int64() if field in NUMBER_FIELDS else pa.string() for field in _SINGLE_FIELDS]
_single_values, _list_values = attrgetter(*_SINGLE_FIELDS), attrgetter(*LIST_FIELDS)
_AT_A_TIME = 1000
_GIVEN = ("snapshot_date", "project_id", "id", "observed_at", "body", "body_sha256")
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Normalised:
    """What one chunk of responses says.

    `images`, `image_values` and `image_tags` have exactly the columns of their tables, Arrow-backed.
    The counters count images: by field outside the contract, by `field=value` of unknown enumeration values, and by
    anomaly. The first two name at most `COUNTED_APART` distinct entries and gather the rest under `FURTHER`.
    """

    images: pd.DataFrame
    image_values: pd.DataFrame
    image_tags: pd.DataFrame
    unknown_fields: Counter[str]
    unknown_values: Counter[str]
    anomalies: Counter[str]


def normalise_images(responses: pa.Table | pa.RecordBatch) -> Normalised:
    """Turn a chunk of `responses` (schema `columns.RESPONSES`) into frames.

    One row per response with outcome `ok` or `deleted`, in the order given; `image_values` in the order of the rows,
    then of `LIST_FIELDS`, then of the API; `image_tags` in the order of the rows, then of
    the keys. No content of a body makes this raise.
    """
    is_described = pc.is_in(_joined(responses["outcome"]), value_set=pa.array(["ok", "deleted"]))
    given = {name: _joined(responses[name]).filter(is_described) for name in _GIVEN}
    findings = _Findings(len(given["id"]))
    latest = pc.add(given["observed_at"].cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.int64()), _DAY_MS)
    bodies = _read_bodies(given["body"].fill_null(b""), latest, findings)
    values, lists = bodies.values, bodies.lists

    ids = pc.utf8_lower(given["id"])
    _compare_ids(values["id"], ids, findings)
    built: dict[str, pa.Array] = {
        "snapshot_date": given["snapshot_date"],
        "project_id": given["project_id"],
        "id": ids,
        "observed_at": given["observed_at"],
        "response_sha256": given["body_sha256"],
        "content_hash": pa.array(bodies.content_hashes, pa.string()),
        "extra": pa.array(bodies.extras, pa.string()),
        **{field: values[field] for field in TEXT_FIELDS},
        TAGS: pa.array([None if tags is None else dumps(tags).decode() for tags in bodies.tags], pa.string()),
        **lists.columns(),
    }
    for field in TEXT_FIELDS:
        if field in KNOWN_VALUES:
            _find_unknown_values(field, built[field], findings)
    built["size"] = values["size"]
    built["size_bytes"] = pc.multiply_checked(built["size"], 1024)
    for field in ("create_at", "update_at"):
        built[field] = _instant(field, values[field], latest, findings)
    lists.find_anomalies(findings)
    built["arch_normalised"] = pc.utf8_lower(built["arch"])
    built["registry"], built["repository"] = _registry_and_repository(built["swr_path"])
    built["age_days"] = _days_to(given["snapshot_date"], built["create_at"])
    built["days_since_update"] = _days_to(given["snapshot_date"], built["update_at"])
    built["anomalies"] = findings.column()

    return Normalised(
        _frame(built, IMAGES),
        _frame(lists.value_columns(built), IMAGE_VALUES),
        _frame(_tag_columns(bodies.tags, built), IMAGE_TAGS),
        findings.unknown_fields,
        findings.unknown_values,
        findings.anomalies,
    )


def _joined(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def to_arrow(frame: pd.DataFrame, table: Table) -> pa.Table:
    """The frame under the exact schema of `table`; raises ValueError for a null in a required column."""
    arrow = pa.Table.from_pandas(frame, schema=table.schema, preserve_index=False, nthreads=1)
    return arrow.replace_schema_metadata(None)


def add_counts(total: Counter[str], more: Mapping[str, int]) -> None:
    """Add `more` to `total`, naming at most `COUNTED_APART` entries there and gathering the rest under `FURTHER`."""
    for name, count in more.items():
        total[name if name in total or len(total) < COUNTED_APART else FURTHER] += count


class _Findings:
    """What was found out about the rows of one chunk on the way, besides their values."""

    def __init__(self, rows: int) -> None:
        self._of_row: dict[int, set[str]] = {}
        self._rows = rows
        self.unknown_fields: Counter[str] = Counter()
        self.unknown_values: Counter[str] = Counter()

    def note(self, row: int, anomalies: Iterable[str]) -> None:
        self._of_row.setdefault(row, set()).update(anomalies)

    def note_rows(self, is_so: pa.Array, anomaly: str) -> None:
        for row in pc.indices_nonzero(is_so).to_pylist():
            self.note(row, [anomaly])

    def note_unknown_fields(self, fields: Iterable[str]) -> None:
        add_counts(self.unknown_fields, dict.fromkeys(map(_label, fields), 1))

    def note_unknown_value(self, field: str, value: str, count: int = 1) -> None:
        add_counts(self.unknown_values, {_label(f"{field}={value}"): count})

    @property
    def anomalies(self) -> Counter[str]:
        return Counter(chain.from_iterable(self._of_row.values()))

    def column(self) -> pa.Array:
        texts: list[str | None] = [None] * self._rows
        for row, anomalies in self._of_row.items():
            texts[row] = SEPARATOR.join(sorted(anomalies)) or None
        return pa.array(texts, pa.string())


def _label(text: str) -> str:
    """A name of bounded length that any log or JSON file can hold."""
    return text[:200].encode("utf-8", "backslashreplace").decode()


# --- bodies ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Bodies:
    """The bodies of a chunk: the column of each field of single values, the list fields, the tags, and two columns."""

    values: dict[str, pa.Array]
    lists: "_Lists"
    tags: list[Tags | None]
    content_hashes: list[str]
    extras: list[str | None]


def _read_bodies(contents: pa.Array, latest: pa.Array, findings: _Findings) -> _Bodies:
    """Read the bodies, a few at a time: their values are in columns before they are out of the processor's cache."""
    parts: list[list[pa.Array]] = []
    lists = _Lists()
    tags: list[Tags | None] = []
    content_hashes: list[str] = []
    extras: list[str | None] = []
    for first in range(0, len(contents), _AT_A_TIME):
        flat: list[Any] = []
        for row, content in enumerate(contents[first : first + _AT_A_TIME].to_pylist(), first):
            plain = read_plain(content)
            if plain is not None:
                flat += _single_values(plain)
                for field, value in lists.add(_list_values(plain)):
                    setattr(plain, field, value)
                tags.append(take_plain_tags(plain))
                canonical = canonical_of_plain(plain)
                extras.append(None)
            else:
                reading = read_any(content, latest[row].as_py())
                findings.note(row, reading.anomalies)
                findings.note_unknown_fields(reading.unknown)
                flat += map(reading.values.get, _SINGLE_FIELDS)
                lists.add(tuple(map(reading.values.get, LIST_FIELDS)))
                tags.append(reading.values.get(TAGS))
                canonical = reading.canonical
                extras.append(reading.extra)
            content_hashes.append(hashlib.sha256(canonical).hexdigest())
        width = len(_SINGLE_FIELDS)
        parts.append([pa.array(flat[i::width], t, from_pandas=True) for i, t in enumerate(_SINGLE_TYPES)])
    values = {
        field: pa.chunked_array([part[index] for part in parts], _SINGLE_TYPES[index]).combine_chunks()
        for index, field in enumerate(_SINGLE_FIELDS)
    }
    return _Bodies(values, lists, tags, content_hashes, extras)


def _tag_columns(tags: list[Tags | None], images: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """The columns of `image_tags`: the tags of all rows laid end to end, row by row and by key."""
    found = [(row, key, of_row[key]) for row, of_row in enumerate(tags) if of_row for key in sorted(of_row)]
    row = pa.array([row for row, _, _ in found], pa.int32())
    return {
        **{name: images[name].take(row) for name in ("snapshot_date", "project_id", "id")},
        "key": pa.array([key for _, key, _ in found], pa.string()),
        "value": pa.array([value for _, _, value in found], pa.string()),
    }


# --- values of one field, column by column --------------------------------------------------------------------------


def _compare_ids(sent: pa.Array, asked: pa.Array, findings: _Findings) -> None:
    for row in pc.indices_nonzero(pc.not_equal(sent, asked)).to_pylist():
        is_same = sent[row].as_py().strip().lower() == asked[row].as_py()
        findings.note(row, ["id:letter_case" if is_same else "id:differs"])


def _find_unknown_values(field: str, column: pa.Array, findings: _Findings) -> None:
    counted = pc.value_counts(column)
    unknown = [
        (entry["values"], entry["counts"])
        for entry in counted.to_pylist()
        if entry["values"] is not None and entry["values"].upper() not in KNOWN_VALUES[field]
    ]
    if not unknown:
        return
    for value, count in unknown:
        findings.note_unknown_value(field, value, count)
    is_unknown = pc.is_in(column, value_set=pa.array([value for value, _ in unknown], pa.string()))
    findings.note_rows(is_unknown, f"{field}:unknown_value")


def _instant(field: str, milliseconds: pa.Array, latest: pa.Array, findings: _Findings) -> pa.Array:
    is_late = pc.greater(milliseconds, latest)
    findings.note_rows(is_late, f"{field}:out_of_range")
    milliseconds = pc.if_else(is_late, pa.scalar(None, pa.int64()), milliseconds)
    return milliseconds.cast(pa.timestamp("ms", "UTC")).cast(IMAGES.schema.field(field).type)


def _days_to(day: pa.Array, instants: pa.Array) -> pa.Array:
    return pc.days_between(instants.cast(pa.date32()), day)


def _registry_and_repository(swr_path: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Host and repository of `host[:port]/namespace/repository[:tag][@digest]`, null where there is none.

    Of a path with one slash the first part is a host only when it looks like one; else it is the namespace.
    """
    untagged = pc.replace_substring_regex(swr_path, r"(?s)(:[^:/@]*)?(@.*)?$", "")
    parts = pc.list_slice(pc.split_pattern(untagged, "/", max_splits=2), 0, 3, return_fixed_size_list=True)
    first, second, third = (pc.list_element(parts, index) for index in range(3))
    null = pa.scalar(None, pa.string())
    has_namespace = pc.and_(pc.is_valid(third), pc.fill_null(pc.not_equal(second, ""), False))
    has_dot_or_port = pc.or_(pc.match_substring(first, "."), pc.match_substring(first, ":"))
    looks_like_host = pc.or_(has_dot_or_port, pc.equal(first, "localhost"))
    is_registry = pc.and_(
        pc.and_(pc.is_valid(second), pc.not_equal(first, "")),
        pc.or_(has_namespace, looks_like_host),
    )
    repository = pc.coalesce(third, second, first)
    return (
        pc.if_else(is_registry, first, null),
        pc.if_else(pc.not_equal(repository, ""), repository, null),
    )


# --- list fields ----------------------------------------------------------------------------------------------------

Elements = tuple[str, ...] | None


class _Lists:
    """The list fields of all rows: few distinct combinations, and for each row which one it has.

    Many images share few combinations, so what follows from one is worked out once and dealt out to the rows.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._combinations: list[tuple[Elements, ...]] = []
        self._reordered: list[list[tuple[str, Elements]]] = []
        self._of_row: list[int] = []

    def add(self, sent: tuple[Any, ...]) -> list[tuple[str, Elements]]:
        """Add a row: a tuple, or none, for each field. Returns the lists that canonical JSON has in another order."""
        number = self._numbers.get(sent)
        if number is None:
            number = self._numbers[sent] = len(self._combinations)
            combination = tuple([elements if type(elements) is tuple else None for elements in sent])
            self._combinations.append(combination)
            self._reordered.append(_reordered(combination))
        self._of_row.append(number)
        return self._reordered[number]

    def find_anomalies(self, findings: _Findings) -> None:
        """Note what the elements of each row hold that is not documented or cannot be joined unambiguously."""
        unknown = [_unknown_elements(combination) for combination in self._combinations]
        anomalies = [_list_anomalies(combination) for combination in self._combinations]
        if any(anomalies):
            for row, number in enumerate(self._of_row):
                if anomalies[number]:
                    findings.note(row, anomalies[number])
                for field, value in unknown[number]:
                    findings.note_unknown_value(field, value)

    def columns(self) -> dict[str, pa.Array]:
        """The flattened list fields, and what they say the image supports."""
        described = {}
        for index, field in enumerate(LIST_FIELDS):
            flattened = [_flattened(combination[index]) for combination in self._combinations]
            described[field] = pa.array(flattened, pa.string())
        supported = [_supported(*combination) for combination in self._combinations]
        for index, name in enumerate(_SUPPORTS):
            described[name] = pa.array([support[index] for support in supported], pa.bool_())
        return {name: column.take(pa.array(self._of_row, pa.int32())) for name, column in described.items()}

    def value_columns(self, images: dict[str, pa.Array]) -> dict[str, pa.Array]:
        """The columns of `image_values`: the lists of all rows laid end to end, row by row."""
        elements = [
            [
                {"field": field, "position": position, "value": value}
                for field, values in zip(LIST_FIELDS, combination, strict=True)
                for position, value in enumerate(values or ())
            ]
            for combination in self._combinations
        ]
        of_row = pa.array(elements, _ELEMENTS_TYPE).take(pa.array(self._of_row, pa.int32()))
        row = pc.list_parent_indices(of_row)
        flat = pc.list_flatten(of_row)
        return {
            **{name: images[name].take(row) for name in ("snapshot_date", "project_id", "id")},
            **{field.name: pc.struct_field(flat, field.name) for field in _ELEMENTS_TYPE.value_type},
        }


_ELEMENTS_TYPE = pa.list_(pa.struct([IMAGE_VALUES.schema.field(name) for name in ("field", "position", "value")]))
_SUPPORTS = ("supports_notebook", "supports_ssh", "supports_cpu", "supports_gpu", "supports_ascend")


def _reordered(combination: tuple[Elements, ...]) -> list[tuple[str, Elements]]:
    """Those lists which canonical JSON has in another order than the API."""
    ordered = [(f, v, tuple(sorted(v, key=dumps))) for f, v in zip(LIST_FIELDS, combination, strict=True) if v]
    return [(field, canonical) for field, sent, canonical in ordered if canonical != sent]


def _unknown_elements(combination: tuple[Elements, ...]) -> list[tuple[str, str]]:
    return [
        (field, value)
        for field, values in zip(LIST_FIELDS, combination, strict=True)
        for value in sorted(set(values or ()))
        if value.upper() not in KNOWN_VALUES[field]
    ]


def _list_anomalies(combination: tuple[Elements, ...]) -> list[str]:
    fields = zip(LIST_FIELDS, combination, strict=True)
    separators = [f"{f}:separator_in_element" for f, values in fields if any(SEPARATOR in v for v in values or ())]
    return separators + [f"{field}:unknown_value" for field, _ in _unknown_elements(combination)]


def _flattened(values: Elements) -> str | None:
    return None if values is None else SEPARATOR.join(sorted(set(values)))


def _supported(services: Elements, usable: Elements, supported: Elements) -> tuple[bool | None, ...]:
    """Whether the lists name what each of `_SUPPORTS` is about; null where no list says."""
    named = None if services is None else {value.upper() for value in services}
    resources = None
    if usable is not None or supported is not None:
        resources = {value.upper() for value in (*(usable or ()), *(supported or ()))}
    return (
        None if named is None else "NOTEBOOK" in named,
        None if named is None else "SSH" in named,
        None if resources is None else "CPU" in resources,
        None if resources is None else "GPU" in resources,
        None if resources is None else any(value.startswith("ASCEND") for value in resources),
    )


def _frame(columns: dict[str, pa.Array], table: Table) -> pd.DataFrame:
    arrow = pa.Table.from_arrays([columns[column.name] for column in table.columns], schema=table.schema)
    frame: pd.DataFrame = arrow.to_pandas(types_mapper=pd.ArrowDtype)
    return frame
