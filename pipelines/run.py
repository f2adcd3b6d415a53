"""One run of one partition, as every step sees it."""

import contextlib
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.lake.layout import Lake, Partition
from pipelines.settings import Settings


def utc_now() -> dt.datetime:
    """The wall clock."""
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one partition. `now` is the clock that decides which day it is.

    `settings` are those of the partition's project, also if the general ones are passed in.

    `accepted_history`: the SHA-256 of an `image_history` that a user has accepted although no record names it.
    """

    partition: Partition
    run_id: str
    settings: Settings
    now: Callable[[], dt.datetime] = utc_now
    accepted_history: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", self.settings.for_project(self.partition.project))

    @property
    def lake(self) -> Lake:
        """The lake that the settings name."""
        return Lake(self.settings.lake, self.settings.parquet_compression)

    def hold(self) -> contextlib.AbstractContextManager[None]:
        """Lock the partition against other runs."""
        return self.lake.locks.partition(self.partition, self.run_id)
