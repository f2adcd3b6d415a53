"""Runs a job of ours in this process, into the Dagster instance that the UI shows, with progress on the terminal."""

import datetime as dt
import errno
import glob
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TextIO

import dagster as dg
from dagster_postgres.utils import DagsterPostgresException
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy.exc import SQLAlchemyError

from assets.build import build_definitions
from assets.partitions import partition_key
from assets.resources import EXIT_STATUS
from assets.streams import second_standard_error
from pipelines import locks
from pipelines.day import utc_now
from pipelines.environment import at_home
from pipelines.errors import ConfigurationError, PipelineError, StorageError
from pipelines.fetch import Progress as FetchProgress
from pipelines.lake import Partition
from pipelines.settings import Settings

_LINE_SECONDS = 5
_AFTER_PUBLICATION = ("derive_tables", "warehouse_tables", "daily_report")
_INSTANCE_SETTINGS = """\
# Dagster's own storage for runs started here. For production see deploy/dagster.yaml.
telemetry:
  enabled: false
nux:
  enabled: false
"""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run failed, for people and for the shell."""

    sentence: str
    exit_status: int
    # The step that failed, where one did.
    step: str | None = None

    @property
    def came_after_publication(self) -> bool:
        """Whether the day was published by then, so that only what follows from it is lacking."""
        return self.step in _AFTER_PUBLICATION


def use_instance_home() -> Path:
    """Make sure that DAGSTER_HOME is set and there: `.dagster` in the working directory unless stated.

    Raises:
        ConfigurationError: it cannot be created or written.
    """
    try:
        home = Path(at_home(os.environ.get("DAGSTER_HOME") or ".dagster")).absolute()
    except ValueError as reason:
        raise ConfigurationError(f"The variable DAGSTER_HOME {reason}.") from None
    try:
        home.mkdir(parents=True, exist_ok=True)
        settings = home / "dagster.yaml"
        if not settings.exists():
            settings.write_text(_INSTANCE_SETTINGS)
    except OSError as error:
        raise ConfigurationError(
            f"Dagster's storage {home} cannot be written ({error.strerror}): set DAGSTER_HOME to a directory that "
            "this user may write."
        ) from None
    os.environ["DAGSTER_HOME"] = str(_without_pattern(home))
    return home


def _without_pattern(home: Path) -> Path:
    """The same place under a name in which Dagster, which looks its settings up by a pattern, can find none."""
    if not glob.has_magic(str(home)):
        return home
    # Stays there for the processes that this one starts or becomes.
    link = Path(tempfile.gettempdir()) / f"image-snapshots-{hashlib.sha256(os.fsencode(home)).hexdigest()[:16]}"
    try:
        if not link.is_symlink():
            link.symlink_to(home)
        if link.readlink() != home or link.lstat().st_uid != os.geteuid():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    except OSError as error:
        raise ConfigurationError(
            f"The path of Dagster's storage {home} holds one of * ? [, which Dagster takes for a pattern, and the link "
            f"{link} in its place cannot be made ({error.strerror}): set DAGSTER_HOME to another directory."
        ) from None
    return link


@contextmanager
def _storage_errors() -> Iterator[None]:
    """Turn what Dagster's own storage refuses into one sentence, without the URL that such errors quote."""
    try:
        yield
    except dg.DagsterUnknownPartitionError:
        raise
    except (dg.DagsterError, SQLAlchemyError, DagsterPostgresException) as error:
        raise StorageError(
            f"Dagster's own storage cannot be used ({type(error).__name__}): check the dagster.yaml in "
            f"{os.environ['DAGSTER_HOME']}, the variables that it names, and that its database is up."
        ) from None


class TerminalReporter:
    """A bar with rate and remaining time on a terminal; a line every few seconds elsewhere."""

    is_attended = True

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream)
        self._stack = ExitStack()

    def listener(self, log: dg.DagsterLogManager) -> Callable[[FetchProgress], None]:
        """Make the function that shows one fetch's progress."""
        return self._bar() if self._console.is_terminal else self._lines()

    def close(self) -> None:
        """Take the bar off the terminal."""
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
    """Runs jobs one after the other; a context manager that lets go of the instance."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        use_instance_home()
        # Dagster points the standard streams at the run's log files while a step runs; this is the terminal still.
        self._stream = self._stack.enter_context(second_standard_error())
        # Whoever watches the terminal wants to know for whom the run waits.
        waits = logging.StreamHandler(self._stream)
        logging.getLogger(locks.__name__).addHandler(waits)
        self._stack.callback(logging.getLogger(locks.__name__).removeHandler, waits)
        with _storage_errors():
            self._instance = self._stack.enter_context(dg.DagsterInstance.get())
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
        """Run a job for one partition; None when it succeeded. `now` and `is_played` are those of the `Day`.

        `tags` of the run may say of it what `assets.resources` names.
        """
        reporter = TerminalReporter(self._stream)
        job = build_definitions(self._settings, reporter, now, is_played=is_played).resolve_job_def(job_name)
        try:
            with _storage_errors():
                result = job.execute_in_process(
                    instance=self._instance,
                    partition_key=partition_key(partition),
                    raise_on_error=False,
                    tags=dict(tags or {}),
                    # The events go to the instance; the terminal gets ours.
                    run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                )
        except dg.DagsterUnknownPartitionError:
            raise ConfigurationError(
                f"{partition} is outside the grid of partitions, which begins on {self._settings.first_day}: "
                "set IMAGE_SNAPSHOTS_FIRST_DAY to an earlier day."
            ) from None
        finally:
            reporter.close()
        return None if result.success else _failure(result)


def _failure(result: dg.ExecuteInProcessResult) -> Failure:
    for event in result.get_step_failure_events():
        data = event.step_failure_data
        if data.user_failure_data is not None:
            status = data.user_failure_data.metadata[EXIT_STATUS].value
            return Failure(str(data.user_failure_data.description), int(str(status)), event.step_key)
        if data.error is not None:
            cause = data.error.cause or data.error
            return Failure(
                f"{event.step_key} ended with an error that was not foreseen, {cause.message.strip()} "
                f"(the traceback is with run {result.run_id} in `image-snapshots ui`).",
                PipelineError.exit_status,
                event.step_key,
            )
    return Failure(f"The run {result.run_id} failed: see it in `image-snapshots ui`.", PipelineError.exit_status)
