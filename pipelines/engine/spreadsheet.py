"""Text that a spreadsheet would run as a formula, made harmless: in SQL for CSV files, and in Python for pages.

The rule: text that begins with `=`, `+`, `-`, `@`, their full-width forms, a tab or a line break gets an apostrophe
before it, unless it is a number, with or without words after it. Others' text (names, descriptions, tags) comes into
files that people open.
"""

import re

_BEGINNING = "[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
# With words after it, too, such as a unit, but none of the signs without which no formula calls anything.
_NUMBER = "[+\\-]?[0-9][0-9.,]*([ \u00a0][^(!|=]*)?"
_FORMULA = re.compile(f"(?!{_NUMBER}\\Z){_BEGINNING}")


def inert(text: str) -> str:
    """The text, with an apostrophe before it if it would be a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def inert_sql(text: str) -> str:
    """SQL for the same, of an expression that is text, in DuckDB."""
    is_formula = f"regexp_matches({text}, '^{_BEGINNING}') AND NOT regexp_full_match({text}, '{_NUMBER}')"
    return f"CASE WHEN {is_formula} THEN concat('''', {text}) ELSE {text} END"
