"""Reads one body of the image API: its documented values, its canonical JSON, and its anomalies.

Everything about a single body belongs here; building columns belongs in `snapshot.normalise`. `read_plain` reads a body
that follows the documentation, `read_any` reads any bytes. Both give the same values for a body that both can read.
Most bodies are plain, and `read_plain` needs a third of the time.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import orjson
import pyarrow as pa

from pipelines.bodies.json_text import MAX_TEXT_BYTES, NotJSONError, dumps, is_too_long, is_utf8, ordered, parse
from pipelines.tables import IMAGES, LIST_FIELDS, TAGS

NUMBER_FIELDS = ("size", "create_at", "update_at")
TEXT_FIELDS = tuple(
    c.name for c in IMAGES.columns if c.origin == "api" and c.type == pa.string() and c.name not in (*LIST_FIELDS, TAGS)
)
_TEXT = frozenset({"id", *TEXT_FIELDS})
DOCUMENTED = _TEXT.union(NUMBER_FIELDS, LIST_FIELDS, (TAGS,))

# Cloud tags by key, in the order of the API.
Tags = dict[str, str | None]

MAX_INTEGER = 2**53 - 1  # the largest integer that all JSON readers read exactly; KB x 1024 still fits an int64
EARLIEST_MS = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp() * 1000)

# --- plain bodies ---------------------------------------------------------------------------------------------------

# NaN marks an absent field, None a null: msgspec omits default values when encoding, and Arrow reads both as null.
_ABSENT = math.nan


class PlainTag(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """One tag that follows the documentation. A value may be absent, as in `PlainBody`."""

    key: str
    value: str | None = _ABSENT  # type: ignore[assignment]


def _plain_type(field: str) -> Any:
    if field == TAGS:
        return tuple[PlainTag, ...] | None
    if field in LIST_FIELDS:
        return tuple[str, ...] | None
    if field == "size":
        return Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)] | None
    if field in NUMBER_FIELDS:
        return Annotated[int, msgspec.Meta(ge=EARLIEST_MS, le=MAX_INTEGER)] | None
    return str | None


# Sorted by name, so that the encoded body is canonical except for the order of list elements.
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
    """The body as a `PlainBody`; None if it has an unknown field, no id or a wrong type, or is not UTF-8 or not JSON.

    A body is not plain, either, if two tags have one key, or if it is long enough to hold a value that is too long for
    a column.
    """
    if len(content) > MAX_TEXT_BYTES:
        return None
    try:
        plain = _decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if type(plain.tags) is tuple and len({tag.key for tag in plain.tags}) < len(plain.tags):
        return None
    return plain


def take_plain_tags(plain: Any) -> Tags | None:
    """The tags of a `PlainBody`, which it has in canonical order from then on; None if it has none."""
    if type(plain.tags) is not tuple:
        return None
    sent: tuple[PlainTag, ...] = plain.tags
    if len(sent) > 1:
        plain.tags = tuple(sorted(sent, key=canonical_of_plain))
    return {tag.key: tag.value if type(tag.value) is str else None for tag in sent}


# --- any bodies -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of `read_any`.

    `values` has the documented fields that were sent, each None or of its type in `PlainBody` (the tags as `Tags`).
    `unknown` has the names of all other fields, and `extra` as JSON these fields and the tags that `values` has not as
    a whole. The content hash is computed over `canonical`.
    """

    values: dict[str, Any]
    unknown: list[str]
    extra: str | None
    canonical: bytes
    anomalies: set[str]


def read_any(content: bytes, latest_ms: int) -> Reading:
    """Read any body; a time after `latest_ms` is out of range."""
    anomalies: set[str] = set()
    try:
        sent = parse(content, anomalies)
    except NotJSONError:
        return Reading({}, [], None, content, {"body:not_an_object"})
    canonical = dumps(ordered(sent))
    if type(sent) is not dict:
        return Reading({}, [], None, canonical, anomalies | {"body:not_an_object"})
    if sent.get("id") is None:
        anomalies.add("id:missing")
    values: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for field, value in sent.items():
        if field not in DOCUMENTED:
            extra[field] = value
        elif value is None or (type(value) is str and field in _TEXT and value.isascii() and not is_too_long(value)):
            values[field] = value
        elif field in _TEXT:
            values[field] = _text(field, value, anomalies)
        elif field in LIST_FIELDS:
            values[field] = _elements(field, value, anomalies)
        elif field == TAGS:
            problems: set[str] = set()
            values[field] = _tags(value, problems)
            if problems:
                extra[field] = value
                anomalies.update(f"{TAGS}:{problem}" for problem in problems)
        elif field == "size":
            values[field] = _whole_number(field, value, 0, MAX_INTEGER, anomalies)
        else:
            values[field] = _whole_number(field, value, EARLIEST_MS, latest_ms, anomalies)
    text = _extra(extra, anomalies) if extra else None
    return Reading(values, [field for field in extra if field not in DOCUMENTED], text, canonical, anomalies)


def _extra(extra: dict[str, Any], anomalies: set[str]) -> str | None:
    """The undocumented fields as JSON. A value too long for a column becomes null; if still too long, all do."""
    text = dumps(extra)
    if len(text) > MAX_TEXT_BYTES:
        anomalies.add("extra:too_long")
        extra = {name: None if len(dumps(value)) > MAX_TEXT_BYTES else value for name, value in extra.items()}
        text = dumps(extra)
        if len(text) > MAX_TEXT_BYTES:
            return None
    anomalies.update(f"extra:{problem}" for problem in _problems(extra))
    return text.decode()


def _problems(value: Any) -> Iterator[str]:
    """Reasons why a JSON reader may refuse or misread a value."""
    if type(value) is str:
        if not is_utf8(value):
            yield "not_utf8"
    elif type(value) is dict:
        for key, child in value.items():
            yield from _problems(key)
            yield from _problems(child)
    elif type(value) is list:
        for child in value:
            yield from _problems(child)
    elif type(value) is orjson.Fragment:
        # NaN and Infinity are text here, and already reported.
        if not orjson.dumps(value).startswith(b'"'):
            yield "out_of_range"
    elif type(value) is int and not -(2**63) <= value < 2**64:
        yield "out_of_range"


def _text(field: str, value: Any, anomalies: set[str]) -> str | None:
    if type(value) is int:
        anomalies.add(f"{field}:number_for_text")
        value = str(value)
    if type(value) is str:
        if is_too_long(value):
            anomalies.add(f"{field}:too_long")
            return None
        if is_utf8(value):
            return value
        anomalies.add(f"{field}:not_utf8")
        return None
    anomalies.add(f"{field}:wrong_type")
    return None


def _whole_number(field: str, value: Any, lowest: int, highest: int, anomalies: set[str]) -> int | None:
    problem = None
    if type(value) is int:
        number = value
    elif type(value) is str and value.isascii() and value.strip().isdigit():
        digits = value.strip().lstrip("0")[:30] or "0"  # 30 digits are out of any range, cut off or not
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
    """The exact elements as text, in the API's order; None if it is not a list, or too long for a column."""
    if type(value) is not list:
        anomalies.add(f"{field}:wrong_type")
        return None
    # Each element takes at least three bytes of JSON, so a list that fits a column has no more than this.
    elements = [_element(field, element, anomalies) for element in value[: MAX_TEXT_BYTES // 2]]
    if len(elements) < len(value) or is_too_long("|".join(elements)):
        anomalies.add(f"{field}:too_long")
        return None
    return tuple(elements)


def _element(field: str, element: Any, anomalies: set[str]) -> str:
    if type(element) is not str:
        anomalies.add(f"{field}:element_not_text")
        return dumps(element).decode()
    if not is_utf8(element):
        anomalies.add(f"{field}:not_utf8")
        return dumps(element).decode()
    return element


def _tags(value: Any, problems: set[str]) -> Tags | None:
    """The tags that can be read, and what cannot as `problems`; None if it is not a list, or too long for a column."""
    if type(value) is not list:
        problems.add("wrong_type")
        return None
    tags: Tags = {}
    for item in value[:MAX_TEXT_BYTES]:
        if type(item) is not dict:
            problems.add("item_not_an_object")
            continue
        key = item.get("key")
        if type(key) is not str:
            problems.add("key_not_text")
        elif not is_utf8(key):
            problems.add("not_utf8")
        elif key in tags:
            problems.add("repeated_key")
        else:
            tags[key] = _tag_value(item.get("value"), problems)
        if not item.keys() <= {"key", "value"}:
            problems.add("unknown_member")
    if len(value) > MAX_TEXT_BYTES or len(dumps(tags)) > MAX_TEXT_BYTES:
        problems.add("too_long")
        return None
    return tags


def _tag_value(value: Any, problems: set[str]) -> str | None:
    if value is None or (type(value) is str and is_utf8(value)):
        text: str | None = value
        return text
    problems.add("not_utf8" if type(value) is str else "value_not_text")
    return None
