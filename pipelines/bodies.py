"""One body of the image API -> its documented values, its canonical JSON, and what was wrong with it.

Everything that looks at a single body belongs here; what becomes of a column of values belongs in `normalise`.
A body that is as documented is read by `read_plain`, any bytes whatever by `read_any`, and both say the same of a body
that both can read. Most bodies are plain, and reading those costs a third.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import orjson
import pyarrow as pa

from pipelines.columns import IMAGES, LIST_FIELDS

NUMBER_FIELDS = ("size", "create_at", "update_at")
TEXT_FIELDS = tuple(
    c.name for c in IMAGES.columns if c.origin == "api" and c.type == pa.string() and c.name not in LIST_FIELDS
)
_TEXT = frozenset({"id", *TEXT_FIELDS})
DOCUMENTED = _TEXT.union(NUMBER_FIELDS, LIST_FIELDS)

MAX_INTEGER = 2**53 - 1  # the largest every JSON reader agrees on; as KB x 1024 it still fits an int64
EARLIEST_MS = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp() * 1000)

_MAX_DEPTH = 100
_NESTED = frozenset({dict, list})
_DIGITS_AS_ZERO = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER = b"0" * 19  # orjson rounds integers beyond 64 bits; none has fewer digits

# --- plain bodies ---------------------------------------------------------------------------------------------------

# NaN stands for an absent field, None for null: msgspec leaves a default out again, and Arrow reads both as null.
_ABSENT = math.nan


def _plain_type(field: str) -> Any:
    if field in LIST_FIELDS:
        return tuple[str, ...] | None
    if field == "size":
        return Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)] | None
    if field in NUMBER_FIELDS:
        return Annotated[int, msgspec.Meta(ge=EARLIEST_MS, le=MAX_INTEGER)] | None
    return str | None


# In the order of the names, so that what is encoded again is canonical but for the order of list elements.
PlainBody = msgspec.defstruct(
    "PlainBody",
    [(field, str) if field == "id" else (field, _plain_type(field), _ABSENT) for field in sorted(DOCUMENTED)],
    forbid_unknown_fields=True,
    omit_defaults=True,
    kw_only=True,
    gc=False,
)
_decode: Callable[[bytes], Any] = msgspec.json.Decoder(PlainBody).decode
canonical_of_plain: Callable[[Any], bytes] = msgspec.json.Encoder().encode


def read_plain(content: bytes) -> Any:
    """The body as a `PlainBody`, or None when it is not: an unknown field, no id, another type, not UTF-8, no JSON."""
    try:
        return _decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


# --- any bodies -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """What `read_any` made of a body.

    `values` has the documented fields that were sent, each None or of the type of a `PlainBody`; `extra` the others as
    they were sent; `canonical` is what the content hash is over.
    """

    values: dict[str, Any]
    extra: dict[str, Any]
    canonical: bytes
    anomalies: set[str]


def read_any(content: bytes, latest_ms: int) -> Reading:
    """Read whatever the API sent; an instant after `latest_ms` is out of range."""
    anomalies: set[str] = set()
    try:
        sent = _parse(content, anomalies)
    except ValueError:
        return Reading({}, {}, content, anomalies | {"body:not_an_object"})
    except RecursionError:
        return Reading({}, {}, content, anomalies | {"body:nested_too_deeply"})
    # Where an interpreter gives up depends on its stack, and results must not: the bound is our own.
    if content.count(b"[") + content.count(b"{") > _MAX_DEPTH and _is_deeper(sent, _MAX_DEPTH):
        return Reading({}, {}, content, anomalies | {"body:nested_too_deeply"})
    canonical = dumps(ordered(sent))
    if type(sent) is not dict:
        return Reading({}, {}, canonical, anomalies | {"body:not_an_object"})
    if sent.get("id") is None:
        anomalies.add("id:missing")
    values: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for field, value in sent.items():
        if field not in DOCUMENTED:
            extra[field] = value
        elif value is None or (type(value) is str and field in _TEXT and value.isascii()):
            values[field] = value
        elif field in _TEXT:
            values[field] = _text(field, value, anomalies)
        elif field in LIST_FIELDS:
            values[field] = _elements(field, value, anomalies)
        elif field == "size":
            values[field] = _whole_number(field, value, 0, MAX_INTEGER, anomalies)
        else:
            values[field] = _whole_number(field, value, EARLIEST_MS, latest_ms, anomalies)
    return Reading(values, extra, canonical, anomalies)


def _parse(content: bytes, anomalies: set[str]) -> Any:
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        return _parse_exactly(content, anomalies)
    if _LONG_NUMBER in content.translate(_DIGITS_AS_ZERO):
        return _parse_exactly(content, anomalies)
    return value


def _parse_exactly(content: bytes, anomalies: set[str]) -> Any:
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
        anomalies.add("body:not_a_number")
        return orjson.Fragment(json.dumps(name))

    text = content.decode(json.detect_encoding(content), "surrogateescape")
    return json.loads(text, parse_int=integer, parse_float=real, parse_constant=constant)


def _is_deeper(value: Any, levels: int) -> bool:
    if type(value) not in _NESTED:
        return False
    children = value.values() if type(value) is dict else value
    return levels == 0 or any(_is_deeper(child, levels - 1) for child in children)


def _text(field: str, value: Any, anomalies: set[str]) -> str | None:
    if type(value) is str:
        if _is_utf8(value):
            return value
        anomalies.add(f"{field}:not_utf8")
        return None
    if type(value) is int:
        anomalies.add(f"{field}:number_for_text")
        return str(value)
    anomalies.add(f"{field}:wrong_type")
    return None


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _whole_number(field: str, value: Any, lowest: int, highest: int, anomalies: set[str]) -> int | None:
    problem = None
    if type(value) is int:
        number = value
    elif type(value) is str and value.isascii() and value.strip().isdigit():
        digits = value.strip().lstrip("0")[:30] or "0"  # cut or not, 30 digits are out of any range
        number, problem = int(digits), "number_as_text"
    elif type(value) is float and value.is_integer():
        number, problem = int(value), "number_as_float"
    else:
        anomalies.add(f"{field}:wrong_type")
        return None
    if not lowest <= number <= highest:
        anomalies.add(f"{field}:out_of_range")
        return None
    if problem:
        anomalies.add(f"{field}:{problem}")
    return number


def _elements(field: str, value: Any, anomalies: set[str]) -> tuple[str, ...] | None:
    """The exact elements as text, in the API's order; null when there is no list."""
    if type(value) is not list:
        anomalies.add(f"{field}:wrong_type")
        return None
    return tuple([_element(field, element, anomalies) for element in value])


def _element(field: str, element: Any, anomalies: set[str]) -> str:
    if type(element) is not str:
        anomalies.add(f"{field}:element_not_text")
        return dumps(element).decode()
    if not _is_utf8(element):
        anomalies.add(f"{field}:not_utf8")
        return dumps(element).decode()
    return element


# --- canonical JSON -------------------------------------------------------------------------------------------------


def dumps(value: Any) -> bytes:
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


def ordered(value: Any) -> Any:
    """The value with the elements of every list sorted by their canonical JSON."""
    if type(value) is dict:
        return value | {key: ordered(child) for key, child in value.items() if type(child) in _NESTED}
    if type(value) is list:
        return sorted([ordered(child) if type(child) in _NESTED else child for child in value], key=dumps)
    return value
