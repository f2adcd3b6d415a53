"""The launcher's view of real workers: alive, killed, forgotten by Redis; and no task runs twice."""

import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import redis
from dagster._core.launcher import WorkerStatus
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG
from kombu.exceptions import OperationalError
from redis_fixture import RedisServer, free_port, stop

from assets import celery_launcher
from assets.celery_launcher import CeleryLauncher
from benchmarks.workers import kill_session
from pipelines.settings import ROOT

# A worker of the launcher's app with a task that counts its starts, instead of a run.
WORKER = """
import sys, time
import redis
from assets.celery_launcher import CeleryLauncher
url, name = sys.argv[1:]
launcher = CeleryLauncher(
    default_queue="dagster", broker=url, backend=url,
    config_source={"broker_transport_options": {"visibility_timeout": 5, "unacked_restore_interval": 0.5}},
)
@launcher.celery.task(name="execute_job", track_started=True)
def execute_job(seconds):
    redis.Redis.from_url(url).incr("begun")
    time.sleep(seconds)
launcher.celery.worker_main(["worker", "--concurrency=1", f"--hostname={name}@%h", "--loglevel=info"])
"""


@contextmanager
def worker(url, name="worker"):
    with open(f"{name}.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", WORKER, url, name],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        kill_session(process.pid)
        process.wait(10)


@pytest.fixture
def launcher(redis_server):
    return CeleryLauncher(default_queue="dagster", broker=redis_server.url, backend=redis_server.url)


def begin(launcher, seconds):
    return launcher.celery.signature("execute_job", (seconds,)).apply_async(queue="dagster")


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def looks(launcher, task, times):
    run = SimpleNamespace(run_id="run", tags={DAGSTER_CELERY_TASK_ID_TAG: task.id})
    return [launcher.check_run_worker_health(run).status for _ in range(times)]


def test_worker_is_lost_after_three_unanswered_checks(launcher, redis_server, monkeypatch):
    # The reply of the only asked worker ends the wait.
    monkeypatch.setattr(celery_launcher, "_REPLY_SECONDS", 60.0)
    with worker(redis_server.url) as process:
        task = begin(launcher, 600)
        until(lambda: task.state == "STARTED")
        assert looks(launcher, task, 5) == [WorkerStatus.RUNNING] * 5
        # Redis has lost the task's state, but the worker is at work on it.
        redis.Redis.from_url(redis_server.url).delete(f"celery-task-meta-{task.id}")
        assert task.state == "PENDING"
        # Every worker is asked, and gets time to reply.
        monkeypatch.setattr(celery_launcher, "_REPLY_SECONDS", 2.0)
        assert looks(launcher, task, 4) == [WorkerStatus.RUNNING] * 4
        kill_session(process.pid)
        process.wait(10)
    # Another worker of the same name replies, and does not know the run.
    with worker(redis_server.url):
        until(lambda: launcher.celery.control.inspect(timeout=1).ping())
        monkeypatch.setattr(celery_launcher, "_REPLY_SECONDS", 0.5)
        assert looks(launcher, task, 4) == [
            WorkerStatus.RUNNING,
            WorkerStatus.RUNNING,
            WorkerStatus.NOT_FOUND,
            WorkerStatus.RUNNING,
        ]


@pytest.mark.slow
def test_long_task_is_not_started_twice(launcher, redis_server):
    with worker(redis_server.url, "first"), worker(redis_server.url, "second"):
        until(lambda: len(launcher.celery.control.inspect(timeout=1).ping() or {}) == 2)
        tasks = [begin(launcher, 8) for _ in range(3)]
        until(lambda: all(task.state == "SUCCESS" for task in tasks))
        until(lambda: not any((launcher.celery.control.inspect(timeout=1).active() or {"": 1}).values()))
        assert redis.Redis.from_url(redis_server.url).get("begun") == b"3"


def test_run_is_handed_over_when_redis_is_back(redis_server, monkeypatch):
    server = RedisServer(free_port(), redis_server.directory)
    launcher = CeleryLauncher(
        default_queue="dagster",
        broker=server.url,
        backend=server.url,
        config_source={
            "broker_transport_options": {"max_retries": 0},
            "result_backend_transport_options": {"retry_policy": {"max_retries": 1, "interval_start": 0}},
        },
    )
    monkeypatch.setattr(celery_launcher, "_BROKER_SECONDS", 1)
    with pytest.raises(OperationalError):
        launcher._await_broker()
    monkeypatch.setattr(celery_launcher, "_BROKER_SECONDS", 60)
    started = []

    def start_when_missed(listener):
        """Hang up on the first connection, like a server that is about to end, and start a server then."""
        with listener:
            listener.accept()[0].close()
        started.append(server.start())

    listener = socket.create_server(("127.0.0.1", server.port))
    starting = threading.Thread(target=start_when_missed, args=[listener])
    starting.start()
    try:
        launcher._await_broker()
        begin(launcher, 1)
        assert redis.Redis.from_url(server.url).llen("dagster") == 1
    finally:
        starting.join()
        stop(started[0])
