"""Reads text files that people save: UTF-8, with or without a byte order mark, with the line ends of any system."""

import tomllib
from typing import Any


def decoded(content: bytes) -> str:
    """The text without a byte order mark, its lines ended by LF.

    Raises:
        ValueError: the text has another encoding; the message is the end of a sentence.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    # UTF-16 without a byte order mark looks like UTF-8 with a NUL beside each letter.
    if "\0" in text:
        raise ValueError("is not UTF-8 text: save it as UTF-8")
    return text.replace("\r\n", "\n")


def parse_toml(text: str) -> dict[str, Any]:
    """The tables and values of a TOML text.

    Raises:
        ValueError: it is not TOML, or beyond what can be read; the message says where, or why.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("too many brackets within brackets") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:
        # Python's own message explains Python.
        raise ValueError("a number has too many digits") from None
