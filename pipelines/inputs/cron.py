"""Checks a cron line: five fields in cron's own syntax, and a day that exists.

The orchestrator accepts every line that passes here. It would itself refuse a bad line only when loading the schedule.
"""

import re

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
# Name, least and greatest number, and the words for the numbers, starting with the least.
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _WEEKDAYS),
)
_PART = re.compile(
    r"(?:\*|(?P<first>[0-9]{1,2}|[a-z]{3})(?:-(?P<last>[0-9]{1,2}|[a-z]{3}))?)(?:/(?P<step>[0-9]{1,2}))?"
)
_LONGEST = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}


def check_cron(line: str) -> str:
    """Return a cron line with single blanks.

    Raises:
        ValueError: the line is wrong; the message says how it must be, as the end of a sentence.
    """
    fields = line.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(
            f"must be a cron line with 5 fields (minute, hour, day of the month, month, day of the week), such as "
            f"17 2 * * *, but has {len(fields)}"
        )
    numbers = [_numbers(text, *field) for text, field in zip(fields, _FIELDS, strict=True)]
    days, months = numbers[2:4]
    if fields[4] == "*" and min(days) > max(_LONGEST.get(month, 31) for month in months):
        raise ValueError(f"never runs: month {fields[3]} has no day {fields[2]}")
    return " ".join(fields)


def _numbers(text: str, name: str, least: int, greatest: int, words: tuple[str, ...]) -> set[int]:
    numbers: set[int] = set()
    for part in text.lower().split(","):
        found = _PART.fullmatch(part)
        step = int(found["step"] or 1) if found else 0
        first = _number(found["first"], least, words) if found else None
        # `5` is a range of one number; `5/10` goes to the end.
        last = _number(found["last"], first if found["step"] is None else greatest, words) if found else None
        if found and found["first"] is None:
            first, last = least, greatest
        if first is None or last is None or not least <= first <= last <= greatest or not step:
            raise ValueError(
                f"has {text!r} for the {name}: write numbers from {least} to {greatest}, *, a-b, */n or a,b"
            )
        numbers.update(range(first, last + 1, step))
    return numbers


def _number(text: str | None, default: int | None, words: tuple[str, ...]) -> int | None:
    if text is None:
        return default
    if text.isdigit():
        return int(text)
    return words.index(text) + (1 if words is _MONTHS else 0) if text in words else None
