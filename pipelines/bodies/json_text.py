"""Parses the JSON that the cloud sends, and writes canonical JSON.

All code that classifies, pages through, compares or normalises a body parses it here, so that all agree on what is
valid. The meaning of values belongs to that code.

The parser accepts more than the standard, because one odd value must cost that value and never the whole body:

- a byte order mark, UTF-16 and UTF-32;
- bytes that are not UTF-8: each becomes a lone surrogate, as does half an escaped pair (`"\\ud83d"`);
- control characters in strings;
- NaN and Infinity, read as text; integers of any length, and numbers beyond a double, kept as written;
- nesting of any depth: anything deeper than 100 levels is read as text.

If a key occurs twice, the last value counts. Anything else that is not JSON is refused.
"""

import json
import math
import re
from typing import Any

import orjson

MAX_DEPTH = 100
# The longest text that every warehouse has a type for. Documented texts have at most 512 characters.
MAX_TEXT_BYTES = 65_535
# Longer lists are not sorted: sorting millions of elements takes many times the body's memory.
_MOST_ORDERED = 65_536

NESTED = frozenset({dict, list})
_DIGITS_AS_ZERO = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER = b"0" * 19  # orjson rounds integers beyond 64 bits; they have at least this many digits
# A string without an end is one match, too: each quote that is escaped in it would be looked at as another beginning.
_OPENED_OR_CLOSED = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[{]+|[\]}]+', re.DOTALL)


class NotJSONError(ValueError):
    """A body is not JSON, even by these rules. The error quotes nothing: a body may hold secrets."""


def parse(content: bytes, anomalies: set[str] | None = None, *, exactly: bool = True) -> Any:
    """Parse a body. Deviations from the JSON standard are added to `anomalies`, if given.

    Returns dict, list, str, int, float, bool or None. Strings may hold lone surrogates. NaN, Infinity and numbers that
    Python cannot hold are an `orjson.Fragment` of their canonical JSON. `exactly=False` is faster, for callers that
    read text only: it may round long integers and keep deep nesting.

    Raises:
        NotJSONError: the body is not JSON.
    """
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    else:
        if not exactly or not (_LONG_NUMBER in content.translate(_DIGITS_AS_ZERO) or _is_too_deep(content, value)):
            return value
    # Outside the `except` block: its error holds the whole document.
    return _parse_exactly(content, set() if anomalies is None else anomalies)


def _is_too_deep(content: bytes, value: Any) -> bool:
    if content.count(b"[") + content.count(b"{") <= MAX_DEPTH:
        return False
    level = [value] if type(value) in NESTED else []
    for _ in range(MAX_DEPTH):
        children = (parent.values() if type(parent) is dict else parent for parent in level)
        level = [child for some in children for child in some if type(child) in NESTED]
        if not level:
            return False
    return True


def _parse_exactly(content: bytes, anomalies: set[str]) -> Any:
    """Parse with Python's own parser, for bodies that orjson refuses or rounds."""

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

    text = _without_depth(_decoded(content, anomalies), anomalies)
    for strict in (True, False):
        try:
            value = json.loads(text, parse_int=integer, parse_float=real, parse_constant=constant, strict=strict)
        except (ValueError, RecursionError):
            continue
        if not strict:
            anomalies.add("body:control_character")
        return value
    raise NotJSONError("not JSON")


def _decoded(content: bytes, anomalies: set[str]) -> str:
    encoding = json.detect_encoding(content)
    if encoding != "utf-8":
        anomalies.add("body:byte_order_mark" if encoding == "utf-8-sig" else "body:not_utf8")
    try:
        return content.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "surrogatepass")
    except UnicodeDecodeError:
        pass
    raise NotJSONError("not text in the encoding of its first bytes")


def _without_depth(text: str, anomalies: set[str]) -> str:
    """Replace everything deeper than `MAX_DEPTH` levels by a JSON string of its text.

    Python's own depth limit depends on its stack; our results must not.
    """
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return text
    parts: list[str] = []
    depth = begin = written = 0
    for match in _OPENED_OR_CLOSED.finditer(text):
        first = text[match.start()]
        if first == '"':
            continue
        before, length = depth, match.end() - match.start()
        depth += length if first in "[{" else -length
        if before <= MAX_DEPTH < depth:
            begin = match.start() + MAX_DEPTH - before
        elif depth <= MAX_DEPTH < before:
            end = match.start() + before - MAX_DEPTH
            parts += [text[written:begin], json.dumps(text[begin:end])]
            written = end
    if not parts:
        return text
    anomalies.add("body:nested_too_deeply")
    return "".join([*parts, text[written:]])


# --- texts ----------------------------------------------------------------------------------------------------------


def is_utf8(text: str) -> bool:
    """Whether a string can be stored as UTF-8: it holds no lone surrogate."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_too_long(text: str) -> bool:
    """Whether a string is too long for a text column."""
    if len(text) * 4 <= MAX_TEXT_BYTES:
        return False
    return len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT_BYTES


def text_or_none(value: Any) -> str | None:
    """The value if it is a string that a column can hold."""
    return value if isinstance(value, str) and is_utf8(value) and not is_too_long(value) else None


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
        # For a lone surrogate, "backslashreplace" writes exactly JSON's own escape.
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")
    if type(value) is int:
        return str(value).encode()
    return orjson.dumps(value)


def ordered(value: Any) -> Any:
    """The value with every list sorted by its elements' canonical JSON, except very long lists."""
    if type(value) is dict:
        nested = {key: ordered(child) for key, child in value.items() if type(child) in NESTED}
        return value | nested if nested else value
    if type(value) is list and len(value) <= _MOST_ORDERED:
        return sorted([ordered(child) if type(child) in NESTED else child for child in value], key=_sort_key)
    return value


def _sort_key(value: Any) -> bytes:
    # A copy: orjson's result keeps its buffer of kilobytes alive, and a list may have thousands of elements.
    return bytes(memoryview(dumps(value)))
