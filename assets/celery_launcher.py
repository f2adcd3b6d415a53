"""Starts each run as one task of Celery, on whichever machine has a worker free, and notices when that worker is gone.

Needs the extra `celery`. `dagster.yaml` names the launcher (see deploy/dagster-workers.yaml); the workers' end is
`assets.celery_worker`.
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

# A worker is given up when it did not know of its run at so many looks in succession: it may be reconnecting.
_LOOKS = 3
_REPLY_SECONDS = 5.0
_BROKER_SECONDS = 600
_SETTINGS = {
    # A worker takes what it can start: a run that waits elsewhere would be lost with that worker, and handed out twice
    # once it had waited for longer than the broker's visibility time-out. Acknowledged when started, so that one which
    # runs for longer than that is not.
    "worker_disable_prefetch": True,
    "task_acks_late": False,
    # Memory of a run goes with its process.
    "worker_max_tasks_per_child": 1,
    # Dagster keeps what a step prints, and needs the real streams for that.
    "worker_redirect_stdouts": False,
    "broker_connection_retry_on_startup": True,
}


class CeleryLauncher(CeleryRunLauncher):
    """Dagster's launcher for Celery, which by itself believes that a task is running for as long as nobody ended it.

    Of a worker that was killed nobody says so. This one asks the worker whether it is at work on the run still.
    """

    def __init__(
        self, inst_data: ConfigurableClassData | None = None, config_source: dict[str, Any] | None = None, **config: Any
    ) -> None:
        super().__init__(inst_data=inst_data, config_source=_SETTINGS | (config_source or {}), **config)
        self._missed: Counter[str] = Counter()

    def launch_run(self, context: LaunchRunContext) -> None:
        """Hand a run to the workers; waits some minutes for a broker that is away."""
        self._await_broker()
        with warnings.catch_warnings():
            # Dagster's launcher makes the same task anew each time.
            warnings.simplefilter("ignore", DuplicateTaskNameWarning)
            super().launch_run(context)

    def _await_broker(self) -> None:
        # A run that cannot be handed over has failed, and so have its two successors within a minute.
        with self.celery.connection_for_write() as connection:
            connection.ensure_connection(interval_start=1, interval_step=1, interval_max=5, timeout=_BROKER_SECONDS)

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's worker is at work on it; Dagster's run monitoring asks this of runs that have started."""
        task = self.celery.AsyncResult(run.tags[DAGSTER_CELERY_TASK_ID_TAG])
        state = task.state
        # Pending is what Redis says of tasks that it has forgotten, too: the workers know better.
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
            # Or its end would pass for that of a worker, and it would be tried again.
            self._instance.report_run_canceling(run)
        return super().terminate(run_id)
