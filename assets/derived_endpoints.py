"""The first line of `run` where no endpoint is stated: which one was found, and what it follows from."""

import contextlib
import datetime as dt
from collections.abc import Sequence

from assets.terminal import print_note
from pipelines.errors import PipelineError
from pipelines.lake.layout import Partition
from pipelines.settings import Settings
from pipelines.snapshot.connection import connect


def note_derived_endpoints(settings: Settings, projects: Sequence[str]) -> None:
    """Print a line for each project whose endpoint is not stated; the run itself reports what is wrong with others."""
    today = dt.datetime.now(dt.UTC).date()
    for key in projects:
        if settings.for_project(key).derives_endpoint:
            whose = "" if len(settings.project_keys) == 1 else f" for {key}"
            with contextlib.suppress(PipelineError), connect(settings, Partition(today, key)) as connection:
                print_note(f"No endpoint is stated{whose}: {connection.derived}")
