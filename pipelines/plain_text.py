"""Text for people: text from outside made safe to print, and the units in which sizes are shown.

Terminal controls, line breaks and direction marks are escaped in everything that people read: error messages, terminal
output, the orchestrator's log and pages, the report. Tables, evidence and data files keep every character as it is.
"""

import re

# C0 and C1 controls with DEL, bidi controls, line and paragraph separators, invisible joiners and marks, and lone
# surrogates, which no stream can encode.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
# Units of bytes, each 1,024 of the one before it.
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def visible(text: str, keep: str = "") -> str:
    """The text with each unsafe character as an escape such as `\\x1b` or `\\u202e`; those in `keep` stay.

    Escaped text does not change, so a second call does no harm.
    """
    # Almost no text has unsafe characters.
    if _UNSAFE.search(text) is None:
        return text
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def unit_of(size: int) -> int:
    """The place in `UNITS` of the largest unit of which so many bytes, above or below zero, are at least one."""
    return min(max(abs(size).bit_length() - 1, 0) // 10, len(UNITS) - 1)
