"""Dagster's production settings (deploy/dagster.yaml) on a real PostgreSQL server, as in docs/operations.md."""

import datetime as dt
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import httpx
import psycopg
import pytest
from dagster._core.execution.backfill import BulkActionStatus
from proved_days import A, proved_day, publish_proved

from pipelines.lake.derived_manifests import read_derived_manifest
from pipelines.lake.layout import Lake, Partition
from pipelines.maintenance.verify import verify
from pipelines.sandbox import Faults
from pipelines.settings import ROOT
from pipelines.tables import ANALYSIS_TABLES

SNAPSHOT = {"image_inventory", "image_responses", "images", "image_values", "image_tags"}
ASSETS = {*SNAPSHOT, *ANALYSIS_TABLES, "warehouse_tables", "daily_report"}
SCRIPTS = Path(sys.executable).parent
WORKSPACE = ("-w", str(ROOT / "deploy" / "workspace.yaml"))
PATIENCE_SECONDS = 300


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def database(postgres, tmp_path, monkeypatch):
    """URL of the database of an instance with the production settings; the environment points at the instance."""
    url = postgres.new_database()
    home = tmp_path / "dagster_home"
    home.mkdir()
    shutil.copy(ROOT / "deploy" / "dagster.yaml", home)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", url.replace("postgresql://", "postgresql+psycopg2://"))
    monkeypatch.setenv("DAGSTER_COMPUTE_LOGS", str(tmp_path / "compute_logs"))
    monkeypatch.setenv("DAGSTER_CODE_HOST", "127.0.0.1")
    monkeypatch.setenv("DAGSTER_CODE_PORT", str(free_port()))
    # The instance's own setting must be enough.
    monkeypatch.delenv("DAGSTER_DISABLE_TELEMETRY")
    return url


def query(database, sql, *parameters):
    with psycopg.connect(database) as connection:
        try:
            return connection.execute(sql, parameters).fetchall()
        except psycopg.errors.UndefinedTable:
            # The process that starts first creates the tables.
            return []


def runs(database):
    return query(database, "SELECT run_id, status FROM runs ORDER BY id")


def recorded_assets(database):
    materialised = "SELECT DISTINCT asset_key FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'"
    return {json.loads(key)[-1] for (key,) in query(database, materialised)}


def files_of_home():
    return {path.name for path in Path(os.environ["DAGSTER_HOME"]).rglob("*") if path.is_file()}


def until(condition, *logs):
    """Wait until `condition` returns something true, and return that."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "\n".join(log.read_text() for log in logs)
        time.sleep(0.3)
    return found


def processes_of_session(session):
    """Ids of the running processes of a session."""
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


@contextmanager
def service(name, *arguments):
    """One of Dagster's services; SIGTERM goes only to its main process, and all its children must end, too."""
    log_path = Path(f"{name}.log").absolute()
    with (
        log_path.open("wb") as log,
        subprocess.Popen(
            [str(SCRIPTS / name), *arguments], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            yield Service(process.pid, log_path)
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_SECONDS)
                until(lambda: not processes_of_session(process.pid), log_path)
            finally:
                for pid in processes_of_session(process.pid):
                    os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class Service:
    """The id of a service's main process, and the file of its output."""

    pid: int
    log: Path


@contextmanager
def code_server():
    """The service that has loaded the code; it accepts connections when it has."""
    host, port = os.environ["DAGSTER_CODE_HOST"], os.environ["DAGSTER_CODE_PORT"]
    code = ("-f", str(ROOT / "assets/definitions.py"), "-a", "defs", "-d", str(ROOT))
    with (
        service("dagster", "code-server", "start", *code, "-h", host, "-p", port) as server,
        socket.socket() as probe,
    ):
        until(lambda: probe.connect_ex((host, int(port))) == 0, server.log)
        yield server


def daemon():
    return service("dagster-daemon", "run", *WORKSPACE)


def webserver(port):
    return service("dagster-webserver", "-h", "127.0.0.1", "-p", str(port), *WORKSPACE)


def test_command_line_run_is_recorded_in_postgresql(image_snapshots, database, tmp_path):
    result = image_snapshots("run", "--json", keeps_runs=True)
    assert result.returncode == 0, result.stderr
    (report,) = json.loads(result.stdout)
    assert runs(database) == [(report["run_id"], "SUCCESS")]
    assert recorded_assets(database) == ASSETS
    partitions = query(database, "SELECT partition FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'")
    assert partitions == [(f"{report['date']}|default",)] * len(ASSETS)
    # No SQLite file and no log of telemetry.
    assert files_of_home() == {".setup.lock", "dagster.yaml"}
    with dg.DagsterInstance.get() as instance:
        assert not instance.telemetry_enabled


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_scheduled_run_survives_a_kill_and_a_stop_of_all_services(start_sandbox, database, monkeypatch, tmp_path):
    # About thirty seconds of fetching, longer than it takes to notice its begin.
    sandbox = start_sandbox(size=600, inventory_file=tmp_path / "inventory.csv", faults=Faults(latency_ms=1000))
    settings = {"IMAGE_SNAPSHOTS_SCHEDULE": "* * * * *", "IMAGE_SNAPSHOTS_CONCURRENCY": "20"}
    for name, value in (sandbox.env | settings).items():
        monkeypatch.setenv(name, value)
    port = free_port()

    def shown_schedules():
        fields = "nodes { schedules { scheduleState { name status } } }"
        data = ask(port, f"{{ repositoriesOrError {{ ... on RepositoryConnection {{ {fields} }} }} }}")
        nodes = data["repositoriesOrError"].get("nodes", []) if data else []
        return [schedule["scheduleState"] for node in nodes for schedule in node["schedules"]]

    def worker_of(run_id):
        events = query(database, "SELECT event FROM event_logs WHERE run_id = %s", run_id)
        found = [re.search(r"Started process for run \(pid: (\d+)\)", event) for (event,) in events]
        return next((int(match[1]) for match in found if match), None)

    def answers_on_disk():
        return len(httpx.get(f"{sandbox.endpoint}/sandbox/requested").json()) > 60

    with code_server() as code, daemon() as scheduler:
        with webserver(port) as web:
            assert sorted(until(shown_schedules, web.log), key=lambda schedule: schedule["name"]) == [
                {"name": "compact_months_schedule", "status": "STOPPED"},
                {"name": "daily_snapshot_schedule", "status": "RUNNING"},
                {"name": "verify_lake_schedule", "status": "RUNNING"},
            ]
        liveness = [SCRIPTS / "dagster-daemon", "liveness-check"]
        until(lambda: subprocess.run(liveness, capture_output=True, timeout=120).returncode == 0, scheduler.log)

        ((first, _),) = until(lambda: [run for run in runs(database) if run[1] == "STARTED"], code.log)
        until(answers_on_disk, code.log)
        os.kill(until(lambda: worker_of(first), code.log), signal.SIGKILL)

        (second,) = until(
            lambda: [id_ for id_, status in runs(database) if id_ != first and status == "STARTED"], code.log
        )
        # Daemon and code server are stopped here, during the run.
    assert runs(database) == [(first, "FAILURE"), (second, "SUCCESS")]
    # Usage and the registry are read if they are switched on.
    assert recorded_assets(database) == ASSETS - {"image_usage", "image_storage", "registry_only", "reclaimable"}
    (manifest_path,) = Path("lake/_manifests").glob("dt=*/*.json")
    manifest = json.loads(manifest_path.read_text())
    assert manifest["run_id"] == second
    assert manifest["fetch"]["kept"] > 0
    assert files_of_home() <= {"dagster.yaml"}


def materialised(instance, run_id):
    """The assets that a run has materialised."""
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    return {event.dagster_event.asset_key.path[-1] for event in events}


def failures(instance, run_id):
    """Why the steps of a run failed."""
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    found = [event.dagster_event.step_failure_data for event in events]
    return [data.user_failure_data.description if data.user_failure_data else str(data.error) for data in found]


LAUNCH = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message }
  }
}
"""
RELOAD = """
mutation { reloadRepositoryLocation(repositoryLocationName: "image_snapshots") { __typename } }
"""


def ask(port, text, **variables):
    """What the webserver replies to GraphQL, or None if it is not up yet."""
    request = {"query": text, "variables": variables}
    try:
        reply = httpx.post(f"http://127.0.0.1:{port}/graphql", json=request, timeout=120)
    except httpx.TransportError:
        return None
    return reply.json()["data"]


def ended(instance, backfill, number):
    """The records of a backfill's runs when this many have ended."""
    found = instance.get_run_records(dg.RunsFilter(tags={"dagster/backfill": backfill}))
    return found if len(found) == number and all(record.dagster_run.is_finished for record in found) else None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_backfill_rebuilds_days_in_order_and_past_days_end_at_once(database, monkeypatch, tmp_path):
    today = dt.datetime.now(dt.UTC).date()
    days = [today - dt.timedelta(days=back) for back in (4, 3, 2)]
    monkeypatch.setenv("IMAGE_SNAPSHOTS_PROJECTS", json.dumps({"alpha": "p1", "beta": "p1"}))
    for day in days:
        for project in ("alpha", "beta"):
            publish_proved(proved_day(str(day), project), {A: "PUBLIC"})
    port = free_port()

    def launched(job, partitions):
        """The id of a backfill, started as the UI starts it."""
        repository = {"repositoryName": "__repository__", "repositoryLocationName": "image_snapshots"}
        selector = {"partitionSetName": f"{job}_partition_set", "repositorySelector": repository}
        data = ask(port, LAUNCH, params={"selector": selector, "partitionNames": partitions})
        return data and data["launchPartitionBackfill"]["backfillId"]

    with code_server() as code, daemon() as coordinator, webserver(port) as web, dg.DagsterInstance.get() as instance:
        keys = [f"{day}|{project}" for project in ("alpha", "beta") for day in days]
        rebuild = until(lambda: launched("rebuild_images", keys), web.log)
        yesterday = today - dt.timedelta(days=1)
        past = until(lambda: launched("daily_snapshot", [f"{yesterday}|{key}" for key in ("alpha", "beta")]), web.log)
        rebuilt = until(lambda: ended(instance, rebuild, len(keys)), code.log, coordinator.log)
        refused = until(lambda: ended(instance, past, 2), code.log, coordinator.log)
        for record in rebuilt:
            assert record.dagster_run.is_success, failures(instance, record.dagster_run.run_id)
        by_partition = {record.dagster_run.tags["dagster/partition"]: record for record in rebuilt}
        for project in ("alpha", "beta"):
            own = [by_partition[f"{day}|{project}"] for day in days]
            # One after the other, the oldest first.
            times = [time_ for record in own for time_ in (record.start_time, record.end_time)]
            assert times == sorted(times)
            made = [materialised(instance, record.dagster_run.run_id) for record in own]
            assert made[:-1] == [{"images", "image_values", "image_tags"}] * 2
            assert {"image_costs", "daily_report", "warehouse_tables"} < made[-1]
        # Each ends with one sentence, and is not retried: neither the step nor the run.
        for record in refused:
            (failure,) = failures(instance, record.dagster_run.run_id)
            assert " is over, " in failure
            retries = instance.all_logs(record.dagster_run.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY)
            assert list(retries) == []
        assert instance.get_runs_count() == len(keys) + 2
    lake = Lake("lake")
    for project in ("alpha", "beta"):
        last = by_partition[f"{days[-1]}|{project}"].dagster_run.run_id
        for day in days:
            assert read_derived_manifest(lake, Partition(day, project)).run_id == last
    assert verify(lake, lake.contents.partitions()) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_reload_makes_an_added_project_known_to_all_services(database, monkeypatch, tmp_path):
    projects = tmp_path / "projects.toml"

    def configure(*keys):
        projects.write_text("".join(f'[{key}]\nproject_id = "p1"\n' for key in keys))

    monkeypatch.setenv("IMAGE_SNAPSHOTS_PROJECTS", str(projects))
    day = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=2)
    configure("alpha", "beta", "gamma")
    publish_proved(proved_day(str(day), "gamma"), {A: "PUBLIC"})
    configure("alpha", "beta")
    port = free_port()

    def launched():
        """A backfill of assets: the daemon checks its partitions against the definitions that it knows."""
        selection = [{"path": [name]} for name in ("images", "image_values", "image_tags")]
        data = ask(port, LAUNCH, params={"assetSelection": selection, "partitionNames": [f"{day}|gamma"]})
        return data and data["launchPartitionBackfill"]

    with code_server() as code, daemon() as coordinator, webserver(port) as web, dg.DagsterInstance.get() as instance:
        assert until(launched, web.log)["__typename"] == "PartitionKeysNotFoundError"
        configure("alpha", "beta", "gamma")
        assert ask(port, RELOAD)["reloadRepositoryLocation"]["__typename"] == "WorkspaceLocationEntry"
        backfill = launched()["backfillId"]

        def rebuilt():
            nonlocal backfill
            if instance.get_backfill(backfill).status == BulkActionStatus.FAILED:
                # The daemon has looked at it in the second before it knew the project.
                backfill = launched()["backfillId"]
            return ended(instance, backfill, 1)

        (record,) = until(rebuilt, code.log, coordinator.log)
        assert record.dagster_run.is_success, failures(instance, record.dagster_run.run_id)
        assert materialised(instance, record.dagster_run.run_id) == {"images", "image_values", "image_tags"}
        # Neither has loaded the code in a process of its own.
        for alone in (coordinator, web):
            assert processes_of_session(alone.pid) == [alone.pid]
