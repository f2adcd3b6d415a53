"""Runs a job in this process, in the Dagster instance that the UI shows, with progress on the terminal."""

import datetime as dt
import logging
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self, TextIO

import dagster as dg
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from assets.build import DERIVE_JOB, build_definitions
from assets.importing import lasting_imports
from assets.partitions import partition_key
from assets.resources import EXIT_STATUS, INTERRUPTED, INTERRUPTS
from assets.run_history import open_run_history, why_not_kept
from assets.terminal import print_warning
from pipelines.errors import ConfigurationError, PipelineError
from pipelines.lake import locks
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import published
from pipelines.run import utc_now
from pipelines.settings import Settings
from pipelines.snapshot.fetch import Progress as FetchProgress
from pipelines.warehouse import duckdb as warehouse_duckdb

_LINE_SECONDS = 5
# The name of each step on the terminal.
_PHASES = {
    "image_inventory": "reading the inventory",
    "image_responses": "asking the API",
    "publish_images": "publishing the day",
    "derive_tables": "deriving changes, findings and costs",
    "warehouse_tables": "loading the warehouse",
    "catalog_tables": "loading the catalog",
    "daily_report": "writing the report",
}
_AFTER_PUBLICATION = ("derive_tables", "warehouse_tables", "catalog_tables", "daily_report")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run failed: a sentence and an exit status."""

    sentence: str
    exit_status: int
    # The failed step, if the failure was in a step.
    step: str | None = None
    # The process was told to stop, so no further run must begin.
    is_interrupt: bool = False
    # The sentence holds an error's own message, which may hold anything.
    is_unexpected: bool = False

    @property
    def told(self) -> str:
        """The sentence as others may be told it."""
        return f"{self.step} ended with an unexpected error." if self.is_unexpected else self.sentence

    @property
    def came_after_publication(self) -> bool:
        """Whether the day was already published, so that only derived results are missing."""
        return self.step in _AFTER_PUBLICATION


class TerminalReporter:
    """A line for each step; for the fetch a bar on a terminal, and a line every few seconds elsewhere."""

    is_attended = True

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream)
        self._stack = ExitStack()

    def begin(self, partition: Partition, step: str) -> None:
        """Print the line of a step."""
        self._stack.close()
        self._console.print(
            f"{partition.date} {escape(partition.project)}: {_PHASES.get(step, step)}", highlight=False, soft_wrap=True
        )

    def listener(self, log: dg.DagsterLogManager) -> Callable[[FetchProgress], None]:
        """Return a function that shows one fetch's progress."""
        return self._bar() if self._console.is_terminal else self._lines()

    def close(self) -> None:
        """Remove the progress bar from the terminal."""
        self._stack.close()

    def _bar(self) -> Callable[[FetchProgress], None]:
        columns = (
            TextColumn("Fetching"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:,.0f}/s"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[failed]}"),
        )
        bar = self._stack.enter_context(Progress(*columns, console=self._console, transient=True))
        task = bar.add_task("Fetching", total=None, rate=0.0, failed="")

        def tell(progress: FetchProgress) -> None:
            failed = progress.outcomes["failed"]
            bar.update(
                task,
                total=progress.total,
                completed=progress.done,
                rate=progress.rate,
                failed=f"{failed} failed" if failed else "",
            )

        return tell

    def _lines(self) -> Callable[[FetchProgress], None]:
        due = time.monotonic() + _LINE_SECONDS

        def tell(progress: FetchProgress) -> None:
            nonlocal due
            if time.monotonic() >= due:
                due = time.monotonic() + _LINE_SECONDS
                self._console.print(
                    f"{progress.done} of {progress.total} images, {progress.rate:.0f}/s", highlight=False
                )

        return tell


class Runner:
    """Runs jobs one after the other; a context manager that closes the instance."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        # Show on the terminal which process a run waits for, and which one has the warehouse open.
        waits = logging.StreamHandler(sys.stderr)
        for module in (locks, warehouse_duckdb):
            logging.getLogger(module.__name__).addHandler(waits)
            self._stack.callback(logging.getLogger(module.__name__).removeHandler, waits)
        with lasting_imports():
            # Dagster imports its storage as it opens it.
            self._instance = self._stack.enter_context(open_run_history(print_warning))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(
        self,
        job_name: str,
        partition: Partition,
        now: Callable[[], dt.datetime] = utc_now,
        tags: Mapping[str, str] | None = None,
        *,
        is_played: bool = False,
    ) -> Failure | None:
        """Run a job for one partition; None if it succeeded. `now` and `is_played` are passed to the run.

        `tags` may hold those that `assets.resources` names.
        """

        def execute(name: str, run_id: str) -> dg.ExecuteInProcessResult:
            reporter = TerminalReporter(sys.stderr)
            job = build_definitions(self._settings, reporter, now, is_played=is_played).resolve_job_def(name)
            try:
                return job.execute_in_process(
                    instance=self._instance,
                    partition_key=partition_key(partition),
                    raise_on_error=False,
                    run_id=run_id,
                    tags=dict(tags or {}),
                    # Dagster's events go to the instance only; the terminal shows our own lines.
                    run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                )
            finally:
                reporter.close()

        run_id = str(uuid.uuid4())
        try:
            result = execute(job_name, run_id)
        except dg.DagsterUnknownPartitionError:
            raise ConfigurationError(
                f"{partition} is before the first partition, {self._settings.first_day}: "
                "set IMAGE_SNAPSHOTS_FIRST_DAY to an earlier day."
            ) from None
        except Exception as error:
            # The result has the errors of steps, so this error came from Dagster's run storage.
            if not self._instance.is_persistent:
                raise
            print_warning(why_not_kept(error))
            self._instance = self._stack.enter_context(dg.DagsterInstance.ephemeral())
            # Continue as after a killed run: what is published is not fetched again.
            manifest = published(Lake(self._settings.lake), partition)
            was_published = manifest is not None and manifest.run_id == run_id
            result = execute(DERIVE_JOB if was_published else job_name, str(uuid.uuid4()))
        return None if result.success else _failure(result, partition)


def _failure(result: dg.ExecuteInProcessResult, partition: Partition) -> Failure:
    for event in result.get_step_failure_events():
        data = event.step_failure_data
        if data.user_failure_data is not None:
            facts = data.user_failure_data.metadata
            return Failure(
                str(data.user_failure_data.description),
                int(str(facts[EXIT_STATUS].value)),
                event.step_key,
                is_interrupt=INTERRUPTED in facts,
            )
        if data.error is not None:
            cause = data.error.cause or data.error
            if {data.error.cls_name, cause.cls_name} & INTERRUPTS:
                return _interrupted(partition, event.step_key)
            return Failure(
                f"{event.step_key} ended with an unexpected error, {cause.message.strip()} "
                f"(the traceback is with run {result.run_id} in `image-snapshots ui`).",
                PipelineError.exit_status,
                event.step_key,
                is_unexpected=True,
            )
    for event in result.all_events:
        error = event.job_failure_data.error if event.is_job_failure else None
        if error is not None and error.cls_name in INTERRUPTS:
            return _interrupted(partition, None)
    return Failure(f"The run {result.run_id} failed: see it in `image-snapshots ui`.", PipelineError.exit_status)


def _interrupted(partition: Partition, step: str | None) -> Failure:
    if step in _AFTER_PUBLICATION:
        command = "load" if step in ("warehouse_tables", "catalog_tables") else "derive"
        sentence = (
            f"Stopped after {partition} was published: `image-snapshots {command} --from {partition.date} "
            f"--project {partition.project}` makes the missing results."
        )
    else:
        sentence = f"Stopped before {partition} was published: run again today to resume it."
    return Failure(sentence, PipelineError.exit_status, step, is_interrupt=True)
