"""What the names of directories and files stand for: a day, a month, a project, a partition.

Readers of the lake ask here, and leave any other name alone: a copy that somebody made, or a file of another program.
"""

import datetime as dt
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipelines.inputs.project_keys import wrong_with_key

# Digits of other scripts look like these, and are other names.
_DAY = re.compile(r"dt=([0-9]{4}-[0-9]{2}-[0-9]{2})")
_MONTH = re.compile(r"month=([0-9]{4}-(?:0[1-9]|1[0-2]))")
_PROJECT = re.compile(r"project=([^/]*)")


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One day (UTC) of one project; `project` is the partition key, not the cloud's project id."""

    date: dt.date
    project: str

    def __str__(self) -> str:
        return f"{self.date} of project {self.project}"

    @property
    def directory(self) -> PurePosixPath:
        """The part of a path that all tables of this partition share."""
        return PurePosixPath(f"dt={self.date}", f"project={self.project}")


def day_of(name: str) -> dt.date | None:
    """The day of a directory such as `dt=2026-11-23`; None for any other name."""
    found = _DAY.fullmatch(name)
    try:
        return dt.date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None


def month_of(name: str) -> str | None:
    """The month of a directory such as `month=2026-11`; None for any other name."""
    found = _MONTH.fullmatch(name)
    return found[1] if found else None


def project_of(name: str) -> str | None:
    """The project's key of a name such as `project=default`; None for any other name."""
    found = _PROJECT.fullmatch(name)
    return found[1] if found and wrong_with_key(found[1]) is None else None


def partition_of(date: str, project: str) -> Partition | None:
    """The partition of the names of its day and project; None when one of them is any other name."""
    day, key = day_of(date), project_of(project)
    return Partition(day, key) if day and key else None
