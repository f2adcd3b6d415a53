"""What a directory's or file's name stands for: a day, a month or a project.

Readers of the lake ask here, and leave alone what is no such name: a copy that somebody made, or a file of another
program.
"""

import datetime as dt
import re

from pipelines.inputs.project_keys import wrong_with_key

_DAY = re.compile(r"dt=(\d{4}-\d{2}-\d{2})")
_MONTH = re.compile(r"month=(\d{4}-(?:0[1-9]|1[0-2]))")
_PROJECT = re.compile(r"project=([^/]*)")


def day_of(name: str) -> dt.date | None:
    """The day of a directory such as `dt=2026-11-23`, or None when it is no such name."""
    found = _DAY.fullmatch(name)
    try:
        return dt.date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None


def month_of(name: str) -> str | None:
    """The month of a directory such as `month=2026-11`, or None when it is no such name."""
    found = _MONTH.fullmatch(name)
    return found[1] if found else None


def project_of(name: str) -> str | None:
    """The project's key of a name such as `project=default`, or None when it is no such name."""
    found = _PROJECT.fullmatch(name)
    return found[1] if found and wrong_with_key(found[1]) is None else None
