"""Names of days, months and projects: what may be a key, and what a directory's or file's name stands for.

Readers of the lake ask here, and leave alone what is no such name: a copy that somebody made, or a file of another
program.
"""

import datetime as dt
import re

# A key becomes a directory name and half of a partition key of the orchestrator, which joins with "|".
# Readers of the directories (pandas, DuckDB, Polars, Spark) take one that looks like a number or a date for it, so that
# 007 is 7; all that look so begin with a digit.
_PROJECT_KEY = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
# These they take for other values than text, and so do readers of CSV, JSON and YAML.
_OTHER_VALUES = frozenset(
    ("null", "none", "nil", "nan", "na", "true", "false", "yes", "no", "on", "off", "inf", "infinity", "epoch")
)
_DAY = re.compile(r"dt=(\d{4}-\d{2}-\d{2})")
_MONTH = re.compile(r"month=(\d{4}-(?:0[1-9]|1[0-2]))")
_PROJECT = re.compile(r"project=([^/]*)")


def wrong_with_key(key: str) -> str | None:
    """What keeps a text from being the key of a project, or None."""
    if not _PROJECT_KEY.fullmatch(key):
        return "must be lower-case letters, digits and _ . - only, at most 63, the first a letter"
    if key in _OTHER_VALUES:
        return "must not be a word that readers of tables take for another value than text"
    # Some file systems drop dots at the end, so that two keys would be one; the orchestrator writes ranges with dots.
    if key.endswith(".") or ".." in key:
        return "must not end in a dot, nor hold two in a row"
    return None


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
