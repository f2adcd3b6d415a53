"""The app of a worker that executes runs: `celery --app assets.celery_worker worker`.

Broker and options come from the `dagster.yaml` in DAGSTER_HOME, so that no other file holds the broker's password.
"""

import sys

import dagster as dg
from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

# Imported for the runs: once, before their processes are forked.
import assets.build  # noqa: F401
from assets.celery_launcher import CeleryLauncher

with dg.DagsterInstance.get() as instance:
    launcher = instance.run_launcher
    if not isinstance(launcher, CeleryLauncher):
        sys.exit("The dagster.yaml in DAGSTER_HOME names no CeleryLauncher: copy deploy/dagster-workers.yaml there.")
    app = launcher.celery
create_execute_job_task(app)
create_resume_job_task(app)
