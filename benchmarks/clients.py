"""Runs one client (ours or a peer's) once, in its own process, and measures it."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.load_server import BUILD, HERE, PROJECT_ID, LoadServer
from benchmarks.processes import family, resident_mb

SAMPLE_SECONDS = 0.5
PEERS = {"dlt": "dlt_pipeline.py", "plain": "plain.py", "sdk": "vendor_sdk.py"}


@dataclass(frozen=True, slots=True)
class Run:
    """`seconds` from the first request to the last byte on disk, `cpu` (user and system) in them, peak memory in MB.

    `memory` are resident MB at seconds since the start of the process. Memory is that of the process and all that it
    starts, added.
    """

    rows: int
    seconds: float
    cpu: float
    peak_mb: float
    throttled: int = 0
    memory: list[tuple[float, float]] = field(default_factory=list)


def peers_python() -> Path:
    """The interpreter of the peers' environment, which is created if missing."""
    environment = BUILD / "peers"
    python = environment / "bin" / "python"
    if not python.exists():
        print("making the peers' environment (once)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        requirements = HERE / "peers" / "requirements.txt"
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(requirements)], check=True)
    return python


def write_ids(path: Path, count: int) -> None:
    """An inventory file, the same for the same count."""
    with path.open("w") as file:
        file.write("id\n")
        file.writelines(f"{uuid.uuid5(uuid.NAMESPACE_OID, str(number))}\n" for number in range(count))


def run_ours(server: LoadServer, count: int, in_flight: int, rate_limit: float | None = None) -> Run:
    """Our fetch step in an empty lake; another process takes the inventory before."""
    with our_steps(server, count, in_flight, rate_limit) as run_step:
        return run_step("fetch")


@contextmanager
def our_steps(
    server: LoadServer,
    count: int,
    in_flight: int,
    rate_limit: float | None = None,
    storage: Mapping[str, str] | None = None,
) -> Iterator[Callable[[str], Run]]:
    """A lake with an inventory, and what runs a step of `benchmarks.ours` in it as a process of its own.

    `storage`: settings of another lake than a local one.
    """
    with tempfile.TemporaryDirectory(dir=BUILD) as directory:
        ids = Path(directory) / "ids.csv"
        write_ids(ids, count)
        env = _environment() | {
            "OS_AUTH_URL": f"{server.endpoint}/v3",
            "OS_USERNAME": "benchmark",
            "OS_PASSWORD": "benchmark",
            "OS_USER_DOMAIN_NAME": "benchmark",
            "OS_PROJECT_ID": PROJECT_ID,
            "IMAGE_SNAPSHOTS_ENDPOINT": server.endpoint,
            "IMAGE_SNAPSHOTS_INVENTORY": str(ids),
            "IMAGE_SNAPSHOTS_LAKE": f"{directory}/lake",
            "IMAGE_SNAPSHOTS_CONCURRENCY": str(in_flight),
            "IMAGE_SNAPSHOTS_CA_BUNDLE": str(server.bundle or ""),
            "IMAGE_SNAPSHOTS_RATE_LIMIT": str(rate_limit or ""),
            "PYTHONPATH": str(HERE.parent),
            **(storage or {}),
        }

        def run_step(step: str) -> Run:
            return _run([sys.executable, "-m", "benchmarks.ours", step], env, directory)

        run_step("prepare")
        yield run_step


def run_peer(name: str, server: LoadServer, count: int, in_flight: int) -> Run:
    """A peer, from the ids to Parquet on disk."""
    with tempfile.TemporaryDirectory(dir=BUILD) as directory:
        ids = Path(directory) / "ids.txt"
        write_ids(ids, count)
        ids.write_text(ids.read_text().removeprefix("id\n"))
        env = _environment() | {
            "ENDPOINT": server.endpoint,
            "PROJECT_ID": PROJECT_ID,
            "IDS": str(ids),
            "OUT": directory,
            "IN_FLIGHT": str(in_flight),
            "HUAWEICLOUD_SDK_PROJECT_ID": PROJECT_ID,
            "EXTRACT__WORKERS": str(in_flight),
            "EXTRACT__MAX_PARALLEL_ITEMS": str(in_flight),
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "RUNTIME__LOG_LEVEL": "ERROR",
        }
        if server.bundle:
            env |= {"SSL_CERT_FILE": str(server.bundle), "REQUESTS_CA_BUNDLE": str(server.bundle)}
        return _run([str(peers_python()), str(HERE / "peers" / PEERS[name])], env, directory)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "IMAGE_SNAPSHOTS_"))}


def _run(command: list[str], env: dict[str, str], directory: str) -> Run:
    with subprocess.Popen(command, env=env, cwd=directory, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ended, memory = threading.Event(), list[tuple[float, float]]()
        sampler = threading.Thread(target=_sample_memory, args=(process.pid, ended, memory))
        sampler.start()
        written = process.stdout.read()
        ended.set()
        sampler.join()
        # Not wait(): only wait4 reports the resources of this one process.
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)} failed.")
    told = json.loads(written.splitlines()[-1])
    return Run(
        rows=told["rows"],
        seconds=told.get("seconds", 0),
        cpu=told.get("cpu", 0),
        # A peak between two samples shows in the process itself.
        peak_mb=max(usage.ru_maxrss / 1024, *(resident for _, resident in memory)),
        throttled=told.get("throttled", 0),
        memory=memory,
    )


def _sample_memory(pid: int, ended: threading.Event, samples: list[tuple[float, float]]) -> None:
    """Sample the resident memory of a running process and its children until `ended` is set."""
    started = time.monotonic()
    while True:
        with suppress(OSError):  # one of them has just ended
            if resident := sum(map(resident_mb, family(pid))):
                samples.append((time.monotonic() - started, resident))
        if ended.wait(SAMPLE_SECONDS):
            return
