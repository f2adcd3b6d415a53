"""What the assets of a run share: its locked partition, and the reporter of its progress."""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

import dagster as dg

from assets.embedded_sandbox import connect
from assets.partitions import partition_of
from pipelines.errors import EndpointUnreachableError, PartitionBusyError, PipelineError, StorageUnreachableError
from pipelines.lake.failures import Failure, forget_failure, note_failure
from pipelines.lake.layout import Partition
from pipelines.memory import give_back_memory
from pipelines.preflight import in_own_words
from pipelines.run import utc_now
from pipelines.settings import Settings
from pipelines.snapshot.connection import Connection
from pipelines.snapshot.fetch import InterruptedFetchError, Progress
from pipelines.snapshot.snapshot_run import SnapshotRun

EXIT_STATUS = "exit_status"
# Marks a failure's metadata if the process was told to stop.
INTERRUPTED = "interrupted"
# The exceptions that Dagster raises for Ctrl-C and SIGTERM, inside and outside of a step.
INTERRUPTS = {"DagsterExecutionInterruptedError", "KeyboardInterrupt"}
# A tag that the command line sets on a run that it starts.
FRESH_TAG = "image_snapshots/fresh"
# Tags for decisions about a single run, which must not be settings for all runs; only the value "true" counts.
ACCEPT_SHRUNK_TAG = "image_snapshots/accept_shrunk_inventory"
PROJECT_MOVED_TAG = "image_snapshots/project_moved"
# The value is the SHA-256 of a history that the user accepts although no record names it.
ACCEPT_HISTORY_TAG = "image_snapshots/accept_history"
_LOG_SECONDS = 10
# Steps that also repair other days of the project.
_OF_ALL_DAYS = ("derive_tables", "warehouse_tables", "catalog_tables")
# Errors that may pass in minutes. If a run was killed on another machine, its partition stays locked a little longer.
_PASSING = (EndpointUnreachableError, PartitionBusyError, StorageUnreachableError)


class Reporter(Protocol):
    """Receives the progress of a run."""

    # Whether a user waits for the run, and prefers an error at once to retries.
    is_attended: bool

    def begin(self, partition: Partition, step: str) -> None:
        """Report that a step of a partition's run begins."""

    def listener(self, log: dg.DagsterLogManager) -> Callable[[Progress], None]:
        """Return a function that is called with a fetch's progress a few times a second."""
        ...


class LogReporter:
    """Writes a line to the run's log every few seconds."""

    is_attended = False

    def begin(self, partition: Partition, step: str) -> None:
        """Do nothing: Dagster's own log states when a step began."""

    def listener(self, log: dg.DagsterLogManager) -> Callable[[Progress], None]:
        """Return a function that writes a line every few seconds."""
        due = 0.0

        def tell(progress: Progress) -> None:
            nonlocal due
            if progress.seconds >= due or progress.done == progress.total:
                due = progress.seconds + _LOG_SECONDS
                log.info(
                    "%d of %d images, %.0f a second, outcomes %s",
                    progress.done,
                    progress.total,
                    progress.rate,
                    dict(progress.outcomes),
                )

        return tell


class RunResource:
    """Gives each step its run; the steps of a run share the lock on the partition and the connection."""

    def __init__(
        self, settings: Settings, reporter: Reporter, now: Callable[[], dt.datetime], *, is_played: bool
    ) -> None:
        self.reporter = reporter
        self._settings = settings
        self._now = now
        self._is_played = is_played
        self._held = ExitStack()
        self._is_held = False
        self._connection: Connection | None = None
        self._log: dg.DagsterLogManager | None = None

    @contextmanager
    def step(self, context: dg.AssetExecutionContext, lacking: str | None = None) -> Iterator[SnapshotRun]:
        """Run one step's code; a PipelineError ends it with one sentence and without a traceback.

        `lacking`: what a published day lacks if this step fails, such as "its tables were not derived".
        """
        partition = partition_of(context)
        run = SnapshotRun(
            partition,
            context.run.run_id,
            self._settings,
            self._now,
            is_played=self._is_played,
            is_fresh=context.run.tags.get(FRESH_TAG) == "true",
            accepts_shrunk=context.run.tags.get(ACCEPT_SHRUNK_TAG) == "true",
            is_moved=context.run.tags.get(PROJECT_MOVED_TAG) == "true",
            connect=self._connect,
            accepted_history=context.run.tags.get(ACCEPT_HISTORY_TAG),
        )
        step = context.op_execution_context.op.name
        self._log = context.log
        self.reporter.begin(partition, step)
        try:
            if not self._is_held:
                self._held.enter_context(run.hold())
                self._is_held = True
            yield run
            give_back_memory()
            forget_failure(run.lake, partition, step, of_all_days=step in _OF_ALL_DAYS)
        except PipelineError as error:
            sentence = in_own_words(str(error), run.settings)
            if lacking is not None:
                sentence = f"{partition} is published, but {lacking}: {sentence}"
            may_pass = isinstance(error, _PASSING) and not self.reporter.is_attended
            if self._is_held:
                note = Failure(
                    at=utc_now(),
                    run_id=run.run_id,
                    step=step,
                    sentence=sentence,
                    is_tried_again=may_pass and context.retry_number < _most_retries(context),
                )
                note_failure(run.lake, partition, note)
            raise dg.Failure(
                description=sentence,
                metadata={
                    EXIT_STATUS: error.exit_status,
                    **({INTERRUPTED: True} if isinstance(error, InterruptedFetchError) else {}),
                },
                allow_retries=may_pass,
                # Drop the cause: another library's message could quote a URL with its password.
            ) from None

    @contextmanager
    def _connect(self, settings: Settings, partition: Partition) -> Iterator[Connection]:
        # The steps share one embedded sandbox, because it takes a second to start.
        if self._connection is None:
            self._connection = self._held.enter_context(connect(settings, partition))
            if self._connection.origin is not None and self._log is not None:
                self._log.info("No endpoint is stated: %s", self._connection.derived)
        yield self._connection

    def close(self) -> None:
        """End what the steps shared, and release the partition."""
        self._held.close()


def _most_retries(context: dg.AssetExecutionContext) -> int:
    """How often Dagster tries the step again: by the policy of its job or of its own, if any."""
    policy = context.get_step_execution_context().op_retry_policy
    return policy.max_retries if policy else 0


def run_resource(
    settings: Settings, reporter: Reporter, now: Callable[[], dt.datetime] = utc_now, *, is_played: bool = False
) -> dg.ResourceDefinition:
    """The resource `runs` of every asset."""

    @contextmanager
    def make(_: dg.InitResourceContext) -> Iterator[RunResource]:
        resource = RunResource(settings, reporter, now, is_played=is_played)
        try:
            yield resource
        finally:
            resource.close()

    return dg.ResourceDefinition(make, description="The partition that this run works on.")
