"""The production settings of Dagster (deploy/dagster.yaml), on a real PostgreSQL server, as docs/operations.md has it."""

import datetime as dt
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from pipelines.lake import Lake, Partition
from pipelines.manifest import read_manifest
from pipelines.sandbox import Faults
from pipelines.settings import ROOT

ASSETS = {"image_inventory", "image_responses", "images", "image_values"}
PATIENCE_SECONDS = 180


@pytest.fixture
def database(postgres, tmp_path, monkeypatch):
    """URL of the database of an instance that deploy/dagster.yaml describes; the environment points at it."""
    url = postgres.new_database()
    home = tmp_path / "dagster_home"
    home.mkdir()
    shutil.copy(ROOT / "deploy" / "dagster.yaml", home)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", url.replace("postgresql://", "postgresql+psycopg2://"))
    monkeypatch.setenv("DAGSTER_COMPUTE_LOGS", str(tmp_path / "logs"))
    # The instance's own setting must do.
    monkeypatch.delenv("DAGSTER_DISABLE_TELEMETRY")
    return url


def query(database, sql, *parameters):
    with psycopg.connect(database) as connection:
        try:
            return connection.execute(sql, parameters).fetchall()
        except psycopg.errors.UndefinedTable:
            return []


def dagster(*arguments):
    return subprocess.run([sys.executable, "-m", "dagster", *arguments], capture_output=True, text=True, timeout=120)


def test_a_run_of_the_command_line_is_recorded_in_postgresql(image_snapshots, database, tmp_path):
    result = image_snapshots("run", "--json")
    assert result.returncode == 0, result.stderr
    (report,) = json.loads(result.stdout)
    assert query(database, "SELECT run_id, pipeline_name, status FROM runs") == [
        (report["run_id"], "daily_snapshot", "SUCCESS")
    ]
    assert {json.loads(key)[-1] for (key,) in query(database, "SELECT asset_key FROM asset_keys")} == ASSETS
    partitions = query(database, "SELECT partition FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'")
    assert partitions == [(f"{report['date']}|default",)] * len(ASSETS)
    assert list((tmp_path / "logs").rglob("*.out"))
    info = dagster("instance", "info")
    assert info.returncode == 0, info.stderr
    assert re.search(r"telemetry:\n\s+enabled: false", info.stdout)
    print(info.stdout)
    # Nothing but its settings: no SQLite file, and no log of telemetry.
    assert [path.name for path in Path(os.environ["DAGSTER_HOME"]).rglob("*") if path.is_file()] == ["dagster.yaml"]


@contextmanager
def service(name, *arguments):
    """One of Dagster's services, ended as systemd does it: SIGTERM to it alone; what it leaves behind must end too."""
    log_path = Path(f"{name}.log").absolute()
    command = [str(Path(sys.executable).with_name(name)), *arguments, "-w", str(ROOT / "workspace.yaml")]
    with (
        log_path.open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True) as process,
    ):
        try:
            yield process, log_path
        finally:
            process.terminate()
            try:
                process.wait(60)
                until(lambda: not processes_of_session(process.pid), log_path)
            finally:
                for pid in processes_of_session(process.pid):
                    os.kill(pid, signal.SIGKILL)


def until(condition, *logs):
    """Wait until `condition` gives something true, and return that."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "\n".join(log.read_text() for log in logs)
        time.sleep(0.3)
    return found


def processes_of_session(session):
    """Ids of the processes of a session that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name before the last parenthesis may hold blanks.
            state, _, _, its_session = path.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.timeout(600)
def test_explore(start_sandbox, database, tmp_path, monkeypatch):
    t0 = time.monotonic()

    def say(*a):
        print(f"{time.monotonic() - t0:.1f}", *a, flush=True)

    sandbox = start_sandbox(size=400, inventory_file=tmp_path / "inventory.csv", faults=Faults(latency_ms=1000))
    for name, value in {
        **sandbox.env,
        "IMAGE_SNAPSHOTS_SCHEDULE": "* * * * *",
        "IMAGE_SNAPSHOTS_CONCURRENCY": "16",
    }.items():
        monkeypatch.setenv(name, value)
    with service("dagster-daemon", "run") as (daemon, log):
        started = until(
            lambda: (
                query(database, "SELECT run_id, tags FROM run_tags_view")
                if False
                else query(database, "SELECT run_id, status, run_body FROM runs WHERE status = 'STARTED'")
            ),
            log,
        )
        say("started", started[0][:2])
        live = dagster("--version")
        say(
            subprocess.run(
                [str(Path(sys.executable).with_name("dagster-daemon")), "liveness-check"],
                capture_output=True,
                text=True,
            )
        )
        (pid,) = until(
            lambda: [
                int(m[1])
                for (e,) in query(database, "SELECT event FROM event_logs WHERE run_id=%s", started[0][0])
                if (m := re.search(r"Started process for run \(pid: (\d+)\)", e))
            ],
            log,
        )
        time.sleep(4)
        os.kill(pid, signal.SIGKILL)
        say("killed", pid)
        last = None
        while True:
            now = query(database, "SELECT run_id, status FROM runs ORDER BY id")
            if now != last:
                say(now)
                last = now
            if now[-1][1] in ("SUCCESS",) or (len(now) > 3) or time.monotonic() - t0 > 300:
                break
            time.sleep(0.5)
        say("end")
    say("stopped")
    print(log.read_text()[-6000:])
    assert 0
