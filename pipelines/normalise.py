"""Stored responses -> the `images` frame and the `image_values` frame, from the responses alone.

Everything that reads an image body belongs here, and nothing that asks, stores or compares: the same responses
give the same frames, so that any stored day can be rebuilt. A chunk of about 10,000 rows is turned column by column;
a value that does not fit its column is looked at on its own, so a bad row costs that row its bad value. What is
repaired or cannot be read is named in `anomalies` as `field:problem`:

``number_for_text``      an integer where text belongs: kept as its decimal text
``number_as_text``, ``number_as_float``  digits as text, or a whole float, where an integer belongs: kept as the integer
``wrong_type``, ``out_of_range``, ``not_utf8``  no such value can be kept in the column: null there
``unknown_value``        outside the documented values of an enumeration: kept as sent
``element_not_text``, ``not_utf8``  an element of a list kept as its JSON text
``separator_in_element`` an element holds the `|` that joins the flattened list: `image_values` has it whole
``id:missing``, ``id:letter_case``, ``id:differs``  the body's id against the one asked for
``body:not_an_object``, ``body:nested_too_deeply``  nothing of the body can be read into columns
``body:not_a_number``    NaN or Infinity, which JSON has not: kept as text

The content hash is the SHA-256 of the body's canonical JSON: keys sorted and list elements sorted (by their own
canonical JSON) at every level, no white space, UTF-8. Numbers are hashed as written up to their type, so `1` and `1.0`
differ while `1.0` and `1.00` do not; a number with a fraction or an exponent is a double. Of a key that occurs twice
the last value counts, as everywhere in JSON. A body that is no JSON hashes its bytes.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from types import NoneType
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.columns import IMAGE_VALUES, IMAGES, KNOWN_VALUES, LIST_FIELDS, Table

SEPARATOR = "|"
COUNTED_APART = 1000
FURTHER = "(further ones)"

_API_COLUMNS = [c for c in IMAGES.columns if c.origin == "api"]
_TEXT_FIELDS = [c.name for c in _API_COLUMNS if c.type == pa.string() and c.name not in LIST_FIELDS]
_NUMBER_FIELDS = ["size", "create_at", "update_at"]
_SINGLE_FIELDS = ["id", *_TEXT_FIELDS, *_NUMBER_FIELDS]
_SINGLE_TYPES = [int if field in _NUMBER_FIELDS else str for field in _SINGLE_FIELDS]
_DOCUMENTED = frozenset({*_SINGLE_FIELDS, *LIST_FIELDS})

_MAX_DEPTH = 100
_MAX_SIZE_KB = 2**53 - 1  # the largest integer every JSON reader agrees on, and x 1024 still fits an int64
_EARLIEST_MS = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp() * 1000)
_DAY_MS = 86_400_000


_NESTED = frozenset({dict, list})
_UNREAD = object()
_DIGITS_AS_ZERO = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER = b"0" * 19  # orjson rounds integers beyond 64 bits; none has fewer digits
_SWR_PATH = (
    r"(?s)^(?:(?P<registry>[^/@]*)/)?(?:(?P<namespace>[^/@]*)/)?"
    r"(?P<repository>[^@]*?)(?::[^:/@]*)?(?:@.*)?$"
)
_HOST = r"[.:]|^localhost$"


@dataclass(frozen=True, slots=True)
class Normalised:
    """What one chunk of responses says.

    `images` and `image_values` have exactly the columns of `columns.IMAGES` and `columns.IMAGE_VALUES`, Arrow-backed.
    The counters count images: by field outside the contract, by `field=value` of unknown enumeration values, and by
    anomaly. The first two name at most `COUNTED_APART` distinct entries and gather the rest under `FURTHER`.
    """

    images: pd.DataFrame
    image_values: pd.DataFrame
    unknown_fields: Counter[str]
    unknown_values: Counter[str]
    anomalies: Counter[str]


def normalise_images(responses: pa.Table | pa.RecordBatch) -> Normalised:
    """Turn a chunk of `responses` (schema `columns.RESPONSES`) into frames.

    One row per response with outcome `ok` or `deleted`, in the order given; `image_values` in the order of the rows,
    then of `LIST_FIELDS`, then of the API. No content of a body makes this raise.
    """
    rows = pa.Table.from_batches([responses]) if isinstance(responses, pa.RecordBatch) else responses
    rows = rows.filter(pc.is_in(rows["outcome"], value_set=pa.array(["ok", "deleted"])))
    given = {name: rows[name].combine_chunks() for name in rows.column_names}
    findings = _Findings(rows.num_rows)
    bodies = _read_bodies(given["body"], findings)
    values, lists = bodies.values, bodies.lists

    ids = pc.utf8_lower(given["id"])
    _compare_ids(values["id"], ids.to_pylist(), findings)
    built: dict[str, pa.Array] = {
        "snapshot_date": given["snapshot_date"],
        "project_id": given["project_id"],
        "id": ids,
        "observed_at": given["observed_at"],
        "response_sha256": given["body_sha256"],
        "content_hash": pa.array(bodies.content_hashes, pa.string()),
        "extra": pa.array(bodies.extras, pa.string()),
        **lists.columns(),
    }
    for field in _TEXT_FIELDS:
        built[field] = _text(field, values[field], findings)
        if field in KNOWN_VALUES:
            _find_unknown_values(field, built[field], findings)
    built |= _size(values["size"], findings)
    latest = [observed + _DAY_MS for observed in _epoch_ms(given["observed_at"])]
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
        findings.unknown_fields,
        findings.unknown_values,
        findings.anomalies,
    )


def to_arrow(frame: pd.DataFrame, table: Table) -> pa.Table:
    """The frame under the exact schema of `table`; raises ValueError for a null in a required column."""
    return pa.Table.from_pandas(frame, schema=table.schema, preserve_index=False).replace_schema_metadata(None)


def add_counts(total: Counter[str], more: Mapping[str, int]) -> None:
    """Add `more` to `total`, naming at most `COUNTED_APART` entries there and gathering the rest under `FURTHER`."""
    for name, count in more.items():
        total[name if name in total or len(total) < COUNTED_APART else FURTHER] += count


class _Findings:
    """What was found out about the rows of one chunk on the way, besides their values."""

    def __init__(self, rows: int) -> None:
        self._of_row: dict[int, set[str]] = {}
        self._rows = rows
        self.odd: list[int] = []  # only these rows can hold a value of another type than documented
        self.unreadable: set[int] = set()  # rows without fields, for a reason that is noted
        self.unknown_fields: Counter[str] = Counter()
        self.unknown_values: Counter[str] = Counter()

    def note(self, row: int, anomaly: str) -> None:
        self._of_row.setdefault(row, set()).add(anomaly)

    def note_unreadable(self, row: int, anomaly: str) -> None:
        self.note(row, anomaly)
        self.unreadable.add(row)

    def note_unknown_value(self, field: str, value: str, count: int = 1) -> None:
        add_counts(self.unknown_values, {_label(f"{field}={value}"): count})

    @property
    def anomalies(self) -> Counter[str]:
        return Counter(chain.from_iterable(self._of_row.values()))

    def column(self) -> pa.Array:
        texts: list[str | None] = [None] * self._rows
        for row, anomalies in self._of_row.items():
            texts[row] = SEPARATOR.join(sorted(anomalies))
        return pa.array(texts, pa.string())


def _label(text: str) -> str:
    """A name of bounded length that any log or JSON file can hold."""
    return text[:200].encode("utf-8", "backslashreplace").decode()


# --- bodies ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Bodies:
    """The bodies of a chunk: the values of each field that is no list, the list fields, and two columns."""

    values: dict[str, list[Any]]
    lists: "_Lists"
    content_hashes: list[str]
    extras: list[str | None]


def _read_bodies(raw: pa.Array, findings: _Findings) -> _Bodies:
    """Read one body after the other, so that only its values outlive its turn.

    A plain body takes the short way: documented fields only, each of its documented type or null, in a mix of types
    and lists that was met before. Both ways say the same of it.
    """
    flat: list[Any] = []
    plain_types: set[tuple[type, ...]] = set()
    lists = _Lists()
    content_hashes: list[str] = []
    extras: list[str | None] = []
    for row, content in enumerate(raw.to_pylist()):
        try:
            body = orjson.loads(content)
        except orjson.JSONDecodeError:
            body = _UNREAD
        if type(body) is dict:
            values = list(map(body.get, _SINGLE_FIELDS))
            if tuple(map(type, values)) in plain_types and _DOCUMENTED.issuperset(body):
                reordered = lists.add_known(list(map(body.get, LIST_FIELDS)))
                if reordered is not None:
                    flat += values
                    extras.append(None)
                    body.update(reordered)
                    canonical = orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
                    content_hashes.append(hashlib.sha256(canonical).hexdigest())
                    continue
        body, canonical = _read_any_body(row, content or b"", body, findings)
        values = list(map(body.get, _SINGLE_FIELDS))
        flat += values
        types = tuple(map(type, values))
        if all(t is NoneType or t is documented for t, documented in zip(types, _SINGLE_TYPES, strict=True)):
            plain_types.add(types)
        findings.odd.append(row)
        lists.add(tuple([_elements(row, field, body.get(field), findings) for field in LIST_FIELDS]))
        extras.append(_extra(body, findings))
        content_hashes.append(hashlib.sha256(canonical).hexdigest())
    columns = {field: flat[index :: len(_SINGLE_FIELDS)] for index, field in enumerate(_SINGLE_FIELDS)}
    return _Bodies(columns, lists, content_hashes, extras)


def _read_any_body(row: int, content: bytes, value: Any, findings: _Findings) -> tuple[dict[str, Any], bytes]:
    """The fields of a body, {} when it is no object, and what its content hash is over.

    `value` is what orjson read, or `_UNREAD`.
    """
    try:
        if value is _UNREAD or _LONG_NUMBER in content.translate(_DIGITS_AS_ZERO):
            value = _parse_exactly(row, content, findings)
    except ValueError:
        findings.note_unreadable(row, "body:not_an_object")
        return {}, content
    except RecursionError:
        findings.note_unreadable(row, "body:nested_too_deeply")
        return {}, content
    # Where an interpreter gives up depends on its stack, and results must not: the bound is our own.
    if content.count(b"[") + content.count(b"{") > _MAX_DEPTH and _is_deeper(value, _MAX_DEPTH):
        findings.note_unreadable(row, "body:nested_too_deeply")
        return {}, content
    canonical = _dumps(_ordered(value))
    if type(value) is not dict:
        findings.note_unreadable(row, "body:not_an_object")
        return {}, canonical
    return value, canonical


def _extra(body: dict[str, Any], findings: _Findings) -> str | None:
    unknown = {field: value for field, value in body.items() if field not in _DOCUMENTED}
    if not unknown:
        return None
    add_counts(findings.unknown_fields, dict.fromkeys(map(_label, unknown), 1))
    return _dumps(unknown).decode()


def _is_deeper(value: Any, levels: int) -> bool:
    if type(value) not in _NESTED:
        return False
    children = value.values() if type(value) is dict else value
    return levels == 0 or any(_is_deeper(child, levels - 1) for child in children)


def _parse_exactly(row: int, content: bytes, findings: _Findings) -> Any:
    """Parse with Python's own parser what orjson refuses or rounds: each number and string as it was sent.

    A byte that is not UTF-8 becomes a lone surrogate; a number that Python cannot hold becomes an `orjson.Fragment`
    of its text. Raises ValueError for what is no JSON, RecursionError for what is nested too deeply.
    """

    def integer(text: str) -> int | orjson.Fragment:
        try:
            return int(text)
        except ValueError:  # more digits than Python converts
            return orjson.Fragment(text)

    def real(text: str) -> float | orjson.Fragment:
        value = float(text)
        return value if math.isfinite(value) else orjson.Fragment(text)

    def constant(name: str) -> orjson.Fragment:
        findings.note(row, "body:not_a_number")
        return orjson.Fragment(json.dumps(name))

    text = content.decode(json.detect_encoding(content), "surrogateescape")
    return json.loads(text, parse_int=integer, parse_float=real, parse_constant=constant)


def _dumps(value: Any) -> bytes:
    """Compact JSON with sorted keys."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # an integer beyond 64 bits, or text that is not UTF-8
        return _dumps_anything(value)


def _dumps_anything(value: Any) -> bytes:
    if isinstance(value, dict):
        members = [_dumps_anything(key) + b":" + _dumps_anything(value[key]) for key in sorted(value)]
        return b"{" + b",".join(members) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join([_dumps_anything(element) for element in value]) + b"]"
    if isinstance(value, str):
        # For a lone surrogate, "backslashreplace" writes just what JSON's own escape looks like.
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")
    if type(value) is int:
        return str(value).encode()
    return orjson.dumps(value)


def _ordered(value: Any) -> Any:
    """The value with the elements of every list sorted by their canonical JSON."""
    if type(value) is dict:
        return {key: _ordered(child) if type(child) in _NESTED else child for key, child in value.items()}
    if type(value) is list:
        return sorted([_ordered(child) if type(child) in _NESTED else child for child in value], key=_dumps)
    return value


# --- values of one field, column by column --------------------------------------------------------------------------


def _compare_ids(sent: list[Any], asked: list[str], findings: _Findings) -> None:
    for row, (value, expected) in enumerate(zip(sent, asked, strict=True)):
        if value == expected or row in findings.unreadable:
            continue
        if value is None:
            findings.note(row, "id:missing")
            continue
        text = _as_text(row, "id", value, findings)
        if text is None:
            continue
        findings.note(row, "id:letter_case" if text.strip().lower() == expected else "id:differs")


def _text(field: str, values: list[Any], findings: _Findings) -> pa.Array:
    for row in findings.odd:
        values[row] = _as_text(row, field, values[row], findings)
    return pa.array(values, pa.string())


def _as_text(row: int, field: str, value: Any, findings: _Findings) -> str | None:
    if value is None:
        return None
    if type(value) is str:
        if _is_utf8(value):
            return value
        findings.note(row, f"{field}:not_utf8")
        return None
    if type(value) is int:
        findings.note(row, f"{field}:number_for_text")
        return str(value)
    findings.note(row, f"{field}:wrong_type")
    return None


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
    for row in pc.indices_nonzero(is_unknown).to_pylist():
        findings.note(row, f"{field}:unknown_value")


def _whole_numbers(field: str, values: list[Any], lowest: int, highest: Sequence[int], findings: _Findings) -> pa.Array:
    """The integers, repaired where that is safe, null where out of `lowest`..`highest[row]`."""
    for row in findings.odd:
        values[row] = _as_whole_number(row, field, values[row], lowest, highest[row], findings)
    for row, (value, limit) in enumerate(zip(values, highest, strict=True)):
        if value is not None and not lowest <= value <= limit:
            findings.note(row, f"{field}:out_of_range")
            values[row] = None
    return pa.array(values, pa.int64())


def _as_whole_number(row: int, field: str, value: Any, lowest: int, highest: int, findings: _Findings) -> int | None:
    if value is None or type(value) is int:
        return value
    if type(value) is str and value.isascii() and value.strip().isdigit():
        digits = value.strip().lstrip("0")[:30] or "0"  # cut or not, 30 digits are out of any range
        number, problem = int(digits), "number_as_text"
    elif type(value) is float and value.is_integer():
        number, problem = int(value), "number_as_float"
    else:
        findings.note(row, f"{field}:wrong_type")
        return None
    if lowest <= number <= highest:
        findings.note(row, f"{field}:{problem}")
    return number


def _size(values: list[Any], findings: _Findings) -> dict[str, pa.Array]:
    kilobytes = _whole_numbers("size", values, 0, [_MAX_SIZE_KB] * len(values), findings)
    return {"size": kilobytes, "size_bytes": pc.multiply_checked(kilobytes, 1024)}


def _instant(field: str, values: list[Any], latest: list[int], findings: _Findings) -> pa.Array:
    milliseconds = _whole_numbers(field, values, _EARLIEST_MS, latest, findings)
    return pc.multiply_checked(milliseconds, 1000).cast(IMAGES.schema.field(field).type)


def _epoch_ms(instants: pa.Array) -> list[int]:
    microseconds = instants.cast(pa.int64()).to_pylist()
    return [value // 1000 for value in microseconds]


def _days_to(day: pa.Array, instants: pa.Array) -> pa.Array:
    return pc.days_between(instants.cast(pa.date32()), day)


def _registry_and_repository(swr_path: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Host and repository of `host[:port]/namespace/repository[:tag][@digest]`, null where there is none.

    Of a path with one slash the first part is a host only when it looks like one; else it is the namespace.
    """
    parts = pc.extract_regex(swr_path, _SWR_PATH)
    registry, namespace, repository = (pc.struct_field(parts, index) for index in range(3))
    is_registry = pc.and_(
        pc.not_equal(registry, ""),
        pc.or_(pc.not_equal(namespace, ""), pc.match_substring_regex(registry, _HOST)),
    )
    null = pa.scalar(None, pa.string())
    return (
        pc.if_else(is_registry, registry, null),
        pc.if_else(pc.not_equal(repository, ""), repository, null),
    )


# --- list fields ----------------------------------------------------------------------------------------------------

Elements = tuple[str, ...] | None


def _elements(row: int, field: str, value: Any, findings: _Findings) -> Elements:
    """The exact elements as text, in the API's order; null when there is no list."""
    if value is None:
        return None
    if type(value) is not list:
        findings.note(row, f"{field}:wrong_type")
        return None
    return tuple([_element_as_text(row, field, element, findings) for element in value])


def _element_as_text(row: int, field: str, element: Any, findings: _Findings) -> str:
    if type(element) is not str:
        findings.note(row, f"{field}:element_not_text")
        return _dumps(element).decode()
    if not _is_utf8(element):
        findings.note(row, f"{field}:not_utf8")
        return _dumps(element).decode()
    return element


class _Lists:
    """The list fields of all rows: few distinct combinations, and for each row which one it has.

    Many images share few combinations, so what follows from one is worked out once and dealt out to the rows.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[Elements, ...], int] = {}
        self._reordered: list[dict[str, list[str]]] = []
        self._of_row: list[int] = []

    def add(self, combination: tuple[Elements, ...]) -> None:
        """Add a row."""
        number = self._numbers.setdefault(combination, len(self._numbers))
        if number == len(self._reordered):
            self._reordered.append(_reordered(combination))
        self._of_row.append(number)

    def add_known(self, values: list[Any]) -> dict[str, list[str]] | None:
        """Add a row whose lists, as sent, were met before, and return those that canonical JSON has in another order.

        None when they were not met before, and then nothing is added.
        """
        combination = tuple([tuple(value) if type(value) is list else value for value in values])
        try:
            number = self._numbers.get(combination)
        except TypeError:  # a list or object among the elements cannot be looked up
            return None
        if number is None:
            return None
        self._of_row.append(number)
        return self._reordered[number]

    def find_anomalies(self, findings: _Findings) -> None:
        """Note what the elements of each row hold that is not documented or cannot be joined unambiguously."""
        unknown = [_unknown_elements(combination) for combination in self._numbers]
        anomalies = [_list_anomalies(combination) for combination in self._numbers]
        if any(anomalies):
            for row, number in enumerate(self._of_row):
                for anomaly in anomalies[number]:
                    findings.note(row, anomaly)
                for field, value in unknown[number]:
                    findings.note_unknown_value(field, value)

    def columns(self) -> dict[str, pa.Array]:
        """The flattened list fields, and what they say the image supports."""
        described = {}
        for index, field in enumerate(LIST_FIELDS):
            flattened = [_flattened(combination[index]) for combination in self._numbers]
            described[field] = pa.array(flattened, pa.string())
        supported = [_supported(*combination) for combination in self._numbers]
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
            for combination in self._numbers
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


def _reordered(combination: tuple[Elements, ...]) -> dict[str, list[str]]:
    """Those lists which canonical JSON has in another order than the API."""
    ordered = {f: sorted(v, key=_dumps) for f, v in zip(LIST_FIELDS, combination, strict=True) if v}
    return {f: v for f, v in ordered.items() if tuple(v) != combination[LIST_FIELDS.index(f)]}


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
