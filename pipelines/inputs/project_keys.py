"""Checks project keys."""

import re

# A key becomes a directory name, and half of the orchestrator's partition key, which is joined with "|".
# Readers of directories (pandas, DuckDB, Polars, Spark) convert names that look like numbers or dates, so that 007
# becomes 7. All such names begin with a digit.
_PROJECT_KEY = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
# They convert these words, too, as do readers of CSV, JSON and YAML.
_OTHER_VALUES = frozenset(
    ("null", "none", "nil", "nan", "na", "true", "false", "yes", "no", "on", "off", "inf", "infinity", "epoch")
)


def wrong_with_key(key: str) -> str | None:
    """Why a text cannot be a project key, as the end of a sentence; None if it can."""
    if not _PROJECT_KEY.fullmatch(key):
        return "must be lower-case letters, digits and _ . - only, at most 63, and begin with a letter"
    if key in _OTHER_VALUES:
        return "must not be a word that table readers convert to a value other than text"
    # Some file systems drop a trailing dot, which would merge two keys; the orchestrator writes ranges with two dots.
    if key.endswith(".") or ".." in key:
        return "must not end with a dot or hold two dots in a row"
    return None
