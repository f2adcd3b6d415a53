"""Starts each run as a Celery task on any machine with a free worker, and notices when that worker is gone.

Needs the extra `celery`. `dagster.yaml` names this launcher (see deploy/dagster-workers.yaml); `assets.celery_worker`
is the app of the workers.
"""

import warnings
from collections import Counter
from typing import Any

from celery.exceptions import DuplicateTaskNameWarning
from dagster import DagsterRun
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._serdes import ConfigurableClassData
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

# A run is lost if its worker does not know it at this many checks in a row. A single failure may be a reconnection.
_LOOKS = 3
_REPLY_SECONDS = 5.0
_BROKER_SECONDS = 600
_SETTINGS = {
    # A worker takes only runs that it can start at once. A prefetched run would be lost with its worker, and would be
    # handed out twice after the broker's visibility time-out. Tasks are acknowledged when they start, so that long runs
    # are not handed out twice, either.
    "worker_disable_prefetch": True,
    "task_acks_late": False,
    # Each run has its own process, which releases all its memory.
    "worker_max_tasks_per_child": 1,
    # Dagster captures the steps' output, which needs the real streams.
    "worker_redirect_stdouts": False,
    "broker_connection_retry_on_startup": True,
}


class CeleryLauncher(CeleryRunLauncher):
    """Dagster's launcher for Celery, which also notices killed workers.

    Dagster's own launcher believes that a task runs until its end is reported, but nobody reports it for a killed
    worker. This class asks the worker whether it still works on the run.
    """

    def __init__(
        self, inst_data: ConfigurableClassData | None = None, config_source: dict[str, Any] | None = None, **config: Any
    ) -> None:
        super().__init__(inst_data=inst_data, config_source=_SETTINGS | (config_source or {}), **config)
        self._missed: Counter[str] = Counter()

    def launch_run(self, context: LaunchRunContext) -> None:
        """Hand a run to the workers; waits some minutes for an unreachable broker."""
        self._await_broker()
        with warnings.catch_warnings():
            # Dagster's launcher defines the same task each time.
            warnings.simplefilter("ignore", DuplicateTaskNameWarning)
            super().launch_run(context)

    def _await_broker(self) -> None:
        # Wait for the broker: a run that cannot be handed over fails, and so do its two retries within a minute.
        with self.celery.connection_for_write() as connection:
            connection.ensure_connection(interval_start=1, interval_step=1, interval_max=5, timeout=_BROKER_SECONDS)

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's worker still works on it; Dagster's run monitoring calls this for started runs."""
        task = self.celery.AsyncResult(run.tags[DAGSTER_CELERY_TASK_ID_TAG])
        state = task.state
        # Redis also reports forgotten tasks as pending, so ask the workers.
        if state not in {"STARTED", "PENDING"}:
            return super().check_run_worker_health(run)
        worker = task.info.get("hostname") if state == "STARTED" else None
        inspect = self.celery.control.inspect(destination=[worker] if worker else None, timeout=_REPLY_SECONDS)
        known = (inspect.query_task(task.id) or {}).values()
        if any(task.id in tasks for tasks in known):
            del self._missed[run.run_id]
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        self._missed[run.run_id] += 1
        if self._missed[run.run_id] < _LOOKS:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        del self._missed[run.run_id]
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"{worker or 'Every worker'} no longer knows of this run.")

    def terminate(self, run_id: str) -> bool:
        """Stop a run."""
        run = self._instance.get_run_by_id(run_id)
        if run is not None:
            # Otherwise the end of the task would look like a lost worker, and the run would be retried.
            self._instance.report_run_canceling(run)
        return super().terminate(run_id)
