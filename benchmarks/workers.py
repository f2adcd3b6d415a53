"""Many projects on two workers, one of which is killed while it fetches: `python -m benchmarks.workers`.

Sandbox, PostgreSQL, Redis, Dagster's daemon, webserver and code server and the Celery workers are processes of their
own, as in production, with the shipped deploy/dagster-workers.yaml; the runs are submitted to the webserver. `rehearse`
does it and counts; what must be true of the outcome is asserted in tests/integration/test_celery_workers.py, which runs
the same code with less work.
"""

import argparse
import bisect
import datetime as dt
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import psycopg
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets.build import DAILY_JOB
from assets.partitions import partition_key
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import read_manifest
from pipelines.maintenance.verify import verify
from pipelines.sandbox import SandboxOptions, running_sandbox
from pipelines.settings import ROOT

SCRIPTS = Path(sys.executable).parent
INSTANCE = ROOT / "deploy" / "dagster-workers.yaml"
PATIENCE_SECONDS = 1800
LOADED = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"
SUBMISSION = """
mutation($wanted: [ExecutionParams!]!) {
  launchMultipleRuns(executionParamsList: $wanted) {
    __typename
    ... on LaunchMultipleRunsResult { launchMultipleRunsResult { __typename ... on Error { message } } }
    ... on Error { message }
  }
}
"""


@dataclass(frozen=True)
class Outcome:
    """The results.

    complete          partitions whose manifest says that they are complete
    problems          what `verify` found
    runs              statuses of all runs, in the order of submission
    stored            responses that the killed attempt had on disk, of as many ids
    asked_again       those of them that were requested again
    taken_over        responses that its retry did not request, according to its manifest
    requests          of details and lists, in all
    refused           429s
    left_in_a_second  most details requested within one second, by the clock that all processes share
    came_in_a_second  most requests that reached the sandbox within one second; more when the machine is busy, because
                      what waited reaches it at once
    noticed_seconds   from the kill until the killed run was marked failed
    seconds           from the first run's start to the last one's end
    """

    complete: int
    problems: list[str]
    runs: list[str]
    stored: int
    ids: int
    asked_again: int
    taken_over: int
    requests: int
    refused: int
    left_in_a_second: int
    came_in_a_second: int
    noticed_seconds: float
    seconds: float


class Services:
    """Daemon and workers of one instance, each a session of its own with a log in `directory`."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self._directory = directory
        self._environ = environ
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *command: str) -> "subprocess.Popen[bytes]":
        with (self._directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(SCRIPTS / command[0]), *command[1:]],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                env=self._environ,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def end(self) -> None:
        """Ask all processes to end, and kill those that do not, or that outlive their parent."""
        for process in self._started:
            process.terminate()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and any(process.poll() is None for process in self._started):
            time.sleep(0.1)
        for process in self._started:
            kill_session(process.pid)
            process.wait(10)

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"--- {path.name}\n{path.read_text()[-4000:]}" for path in self._directory.glob("*.log"))


@contextmanager
def services(directory: Path, environ: Mapping[str, str]) -> Iterator[Services]:
    started = Services(directory, environ)
    try:
        yield started
    finally:
        started.end()


def kill_session(session: int) -> None:
    """Kill all processes of a session at once, like the loss of a machine."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name before the last parenthesis may hold blanks.
            if int(path.read_text().rpartition(")")[2].split()[3]) == session:
                os.kill(int(path.parent.name), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            continue


def stored_responses(lake: Lake, partition: Partition) -> set[str]:
    """Ids whose response is on disk in the open attempt."""
    path = lake.staging(partition) / "checkpoint.sqlite"
    if not Path(path).exists():
        return set()
    with closing(sqlite3.connect(path)) as connection:
        if connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'responses'").fetchone()[0] == 0:
            return set()
        return {id_ for (id_,) in connection.execute("SELECT id FROM responses WHERE outcome <> 'failed'")}


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def submit(url: str, partitions: list[Partition]) -> list[str]:
    """Submit the daily job for each partition, as Dagster's UI does; returns the errors."""
    selector = {"repositoryLocationName": "image_snapshots", "repositoryName": "__repository__", "jobName": DAILY_JOB}
    wanted = [
        {
            "selector": selector,
            "runConfigData": {},
            "executionMetadata": {
                "tags": [
                    {"key": "dagster/partition", "value": str(partition_key(partition))},
                    {"key": "dagster/partition/date", "value": str(partition.date)},
                    {"key": "dagster/partition/project", "value": partition.project},
                ]
            },
        }
        for partition in partitions
    ]
    answer = httpx.post(f"{url}/graphql", json={"query": SUBMISSION, "variables": {"wanted": wanted}}, timeout=300)
    result = answer.json()["data"]["launchMultipleRuns"]
    launched = result.get("launchMultipleRunsResult", [result])
    return [str(run) for run in launched if run["__typename"] != "LaunchRunSuccess"]


def is_up(url: str) -> bool:
    """Whether the webserver answers and has loaded the code."""
    try:
        answer = httpx.post(f"{url}/graphql", json={"query": LOADED}, timeout=60)
    except httpx.TransportError:
        return False
    return bool(answer.json()["data"]["repositoriesOrError"].get("nodes"))


class Database:
    """The runs in Dagster's run storage."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, sql: str, *parameters: object) -> list[Any]:
        with psycopg.connect(self._url) as connection:
            return connection.execute(sql, parameters).fetchall()

    def statuses(self) -> list[str]:
        return [status for (status,) in self.query("SELECT status FROM runs ORDER BY id")]

    def started_run(self, partition: Partition) -> tuple[str, int]:
        """The run that works on a partition, and the id of its process."""
        ((run_id, event),) = self.query(
            "SELECT run_id, event FROM event_logs JOIN runs USING (run_id) JOIN run_tags USING (run_id) "
            "WHERE key = 'dagster/partition' AND value = %s AND status = 'STARTED' "
            "AND event LIKE '%%Started process for run%%'",
            str(partition_key(partition)),
        )
        match = re.search(r"Started process for run \(pid: (\d+)\)", event)
        assert match
        return run_id, int(match[1])


def busiest_second(lake: Lake, partitions: list[Partition]) -> int:
    """The most requests within one second; each response has its time and its duration."""
    sent: list[float] = []
    for partition in partitions:
        table = pq.read_table(lake.table("responses", partition), columns=["observed_at", "elapsed_ms", "http_status"])
        asked = table.filter(pc.is_valid(table["http_status"])).to_pylist()
        sent += [row["observed_at"].timestamp() - row["elapsed_ms"] / 1000 for row in asked]
    sent.sort()
    return max(bisect.bisect_right(sent, first + 1) - place for place, first in enumerate(sent))


def rehearse(
    directory: Path,
    postgres_url: str,
    redis_url: str,
    *,
    projects: int,
    images: int,
    rate: float,
    poll_seconds: int,
) -> Outcome:
    """Take one day of all projects with two workers, and kill one of them while it fetches; a third replaces it."""
    names = {f"p{number:02d}": f"{number:032x}" for number in range(projects)}
    partitions = [Partition(dt.datetime.now(dt.UTC).date(), name) for name in names]
    home, lake, database = directory / "dagster_home", Lake(str(directory / "lake")), Database(postgres_url)
    home.mkdir()
    text, count = re.subn(r"poll_interval_seconds: \d+", f"poll_interval_seconds: {poll_seconds}", INSTANCE.read_text())
    assert count == 1
    (home / "dagster.yaml").write_text(text)
    code_port, port = free_ports(2)
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        sandbox = stack.enter_context(
            running_sandbox(SandboxOptions(size=images, projects=names, inventory_file=directory / "inventory.csv"))
        )
        environ = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
        environ |= sandbox.env | {
            "DAGSTER_HOME": str(home),
            "DAGSTER_POSTGRES_URL": postgres_url.replace("postgresql://", "postgresql+psycopg2://"),
            "DAGSTER_CELERY_BROKER": redis_url,
            "DAGSTER_COMPUTE_LOGS": str(directory / "compute_logs"),
            "DAGSTER_CODE_HOST": "127.0.0.1",
            "DAGSTER_CODE_PORT": str(code_port),
            "IMAGE_SNAPSHOTS_LAKE": str(lake.root),
            "IMAGE_SNAPSHOTS_RATE_LIMIT": str(rate),
            "IMAGE_SNAPSHOTS_RATE_LIMITER": redis_url,
            # Must not be interrupted here.
            "IMAGE_SNAPSHOTS_SCHEDULE": "0 0 1 1 *",
        }
        running = stack.enter_context(services(directory, environ))

        def until(condition: Callable[[], Any], seconds: float = 0.2) -> Any:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not (found := condition()):
                assert time.monotonic() < deadline, running.logs()
                time.sleep(seconds)
            return found

        # Creates the tables first: services that start at once would disturb each other.
        assert running.start("migrate", "dagster", "instance", "migrate").wait(PATIENCE_SECONDS) == 0, running.logs()
        at = ("-h", "127.0.0.1", "-p")
        code = ("--python-file", str(ROOT / "assets/definitions.py"), "--attribute", "defs", "-d", str(ROOT))
        running.start("code", "dagster", "code-server", "start", *code, *at, str(code_port))

        def start_worker(number: int) -> None:
            name = f"worker-{number}"
            options = ("--concurrency=1", f"--hostname={name}@%h", "--loglevel=info")
            running.start(name, "celery", "--app=assets.celery_worker", "worker", *options)

        start_worker(1)
        start_worker(2)
        workspace = ("-w", str(ROOT / "deploy/workspace.yaml"))
        running.start("webserver", "dagster-webserver", *workspace, *at, str(port))
        running.start("daemon", "dagster-daemon", "run", *workspace)
        until(lambda: is_up(url))
        assert submit(url, partitions) == []

        inventory = pd.read_csv(directory / "inventory.csv", dtype=str).dropna(subset=["id"])
        projects_of = dict(zip(inventory["id"], inventory["project"], strict=True))

        def fetching() -> Partition | None:
            """A partition with some of its responses. Its checkpoint is locked during the fetch."""
            requested = httpx.get(f"{sandbox.endpoint}/sandbox/requested").json()
            asked = Counter(projects_of.get(id_) for id_ in requested)
            return next((found for found in partitions if images / 5 < asked[found.project] < images * 4 / 5), None)

        partition = until(fetching, 0.1)
        killed, process = database.started_run(partition)
        # Each worker is a session.
        kill_session(os.getsid(process))
        killed_at = time.monotonic()
        stored = stored_responses(lake, partition)
        before = httpx.get(f"{sandbox.endpoint}/sandbox/requested").json()
        print(f"killed the worker of {partition} at {len(stored)} answers", flush=True)
        until(lambda: database.query("SELECT 1 FROM runs WHERE run_id = %s AND status = 'FAILURE'", killed))
        noticed = time.monotonic() - killed_at
        print(f"its run was marked failed after {noticed:.1f} s", flush=True)
        # As an administrator would.
        start_worker(3)
        until(lambda: database.statuses().count("SUCCESS") == projects, 0.5)
        after = httpx.get(f"{sandbox.endpoint}/sandbox/requested").json()
        stats = httpx.get(f"{sandbox.endpoint}/sandbox/stats").json()
        ((first, last),) = database.query("SELECT min(start_time), max(end_time) FROM runs")
    manifests = {found: read_manifest(lake.manifest(found)) for found in partitions}
    in_its_place = manifests[partition]
    return Outcome(
        complete=sum(manifest.is_complete for manifest in manifests.values()),
        problems=[str(problem) for problem in verify(lake, partitions)],
        runs=database.statuses(),
        stored=len(stored),
        ids=sum(in_its_place.fetch.outcomes.values()),
        asked_again=sum(after[id_] != before[id_] for id_ in stored if id_ in before),
        taken_over=in_its_place.fetch.kept,
        requests=stats["requests"]["image"] + stats["requests"]["list"],
        refused=stats["answers"].get("429", 0),
        left_in_a_second=busiest_second(lake, partitions),
        came_in_a_second=stats["busiest_second"],
        noticed_seconds=noticed,
        seconds=last - first,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--projects", type=int, default=24)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--poll-seconds", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="keep lake and logs here; default: a temporary directory")
    arguments = parser.parse_args()
    sys.path.append(str(ROOT / "tests"))
    from postgres_fixture import running_postgres  # noqa: PLC0415  (the tests' own servers)
    from redis_fixture import running_redis  # noqa: PLC0415

    with running_postgres() as postgres, running_redis() as redis, tempfile.TemporaryDirectory() as temporary:
        outcome = rehearse(
            arguments.directory or Path(temporary),
            postgres.new_database(),
            redis.url,
            projects=arguments.projects,
            images=arguments.images,
            rate=arguments.rate,
            poll_seconds=arguments.poll_seconds,
        )
    for name, value in vars(outcome).items():
        print(f"{name:<17} {value}")


if __name__ == "__main__":
    main()
