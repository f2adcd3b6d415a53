"""What may be the key of a project."""

import re

# A key becomes a directory name and half of a partition key of the orchestrator, which joins with "|".
# Readers of the directories (pandas, DuckDB, Polars, Spark) take one that looks like a number or a date for it, so that
# 007 is 7; all that look so begin with a digit.
_PROJECT_KEY = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
# These they take for other values than text, and so do readers of CSV, JSON and YAML.
_OTHER_VALUES = frozenset(
    ("null", "none", "nil", "nan", "na", "true", "false", "yes", "no", "on", "off", "inf", "infinity", "epoch")
)


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
