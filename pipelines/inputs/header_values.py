"""Checks of what is sent in a header or in the path of a request: other characters cannot be sent there."""

import re
from typing import TypeGuard

from pipelines.errors import ConfigurationError

_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


def can_be_sent(value: object) -> TypeGuard[str]:
    """Whether a value is text that a header can hold as a key or a token."""
    return isinstance(value, str) and re.fullmatch(r"[!-~]+", value) is not None


def check_header_value(value: str, what: str) -> None:
    """Check a key or token; `what` begins the sentence and says where it is stated.

    Raises:
        ConfigurationError: it holds what no header can; never quotes it.
    """
    if not can_be_sent(value):
        raise ConfigurationError(
            f"{what} holds a blank, a line break, or a character that is not ASCII, and no key or token does: copy it "
            "again."
        )


def is_id(value: object) -> bool:
    """Whether a value is the id of a project or an account."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def check_project_id(value: str | None, what: str) -> None:
    """Check a project's id, which stands in the path of requests; `what` as above.

    Raises:
        ConfigurationError: it is malformed.
    """
    if value is not None and not is_id(value):
        raise ConfigurationError(f"{what} is malformed: it must be 1 to 64 letters, digits, - or _, and is {value!a}.")
