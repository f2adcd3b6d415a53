"""A sandbox as a child process that cannot outlive its parent. What the sandbox answers does not belong here."""

import os
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import orjson

from pipelines.errors import PipelineError
from pipelines.sandbox.options import SandboxOptions

_ROOT = Path(__file__).resolve().parent.parent.parent
_START_SECONDS = 60.0
_STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class SandboxConnection:
    """How to reach a running sandbox.

    `env` holds the settings and credentials that point a client at it, by the names of environment variables; secrets
    are in it, so it is not shown.
    """

    env: dict[str, str] = field(repr=False)
    endpoint: str
    auth_url: str
    project_id: str
    inventory_file: Path | None
    pid: int


@contextmanager
def running_sandbox(options: SandboxOptions) -> Iterator[SandboxConnection]:
    """Start a sandbox with these options in a process of its own, and end it on leaving.

    Writing the inventory file takes its time: most of a minute for a million images.

    Raises:
        PipelineError: it did not start; the message holds the reason it gave.
    """
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(  # noqa: S603 - our own interpreter and our own module
            # -P: a directory `pipelines` in the working directory must not stand in for ours.
            [sys.executable, "-P", "-m", "pipelines.sandbox", *arguments(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_python_path())},
        ) as process,
    ):
        try:
            # One that hangs is ended, and so has announced nothing.
            timer = threading.Timer(_START_SECONDS + options.size / 5_000, process.kill)
            timer.start()
            connection = announced(process.stdout or (), process.pid)
            timer.cancel()
            if connection is None:
                raise PipelineError(f"The sandbox did not start: {_last_line(errors)}")
            yield connection
        finally:
            _end(process)


def arguments(options: SandboxOptions) -> list[str]:
    """The command line of `python -m pipelines.sandbox` for these options, made to end with its parent."""
    words = [f"--port={options.port}", f"--seed={options.seed}", f"--size={options.size}", "--exit-with-parent"]
    if options.day is not None:
        words.append(f"--day={options.day.isoformat()}")
    if options.workspaces != 1:
        words.append(f"--workspaces={options.workspaces}")
    if options.second_workspace_since is not None:
        words.append(f"--second-workspace-since={options.second_workspace_since.isoformat()}")
    for name, project_id in (options.projects or {}).items():
        words.append(f"--projects={name}={project_id}")
    if options.inventory_file is not None:
        words.append(f"--inventory-file={options.inventory_file}")
    if options.bills_directory is not None:
        words.append(f"--bills-directory={options.bills_directory}")
    faults = options.faults.model_dump(mode="json", exclude_defaults=True)
    if faults:
        words.append(f"--faults={orjson.dumps(faults).decode()}")
    return words


def _python_path() -> list[str]:
    # The child imports the same tree as we do, wherever it is started.
    return [str(_ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]


def announced(lines: Iterable[bytes], pid: int) -> SandboxConnection | None:
    """What a starting sandbox prints, up to the empty line; None when it ends before that."""
    env: dict[str, str] = {}
    for line in lines:
        if line == b"\n":
            inventory = env.get("IMAGE_SNAPSHOTS_INVENTORY")
            return SandboxConnection(
                env=env,
                endpoint=env["IMAGE_SNAPSHOTS_ENDPOINT"],
                auth_url=env["OS_AUTH_URL"],
                project_id=env["OS_PROJECT_ID"],
                inventory_file=Path(inventory) if inventory else None,
                pid=pid,
            )
        name, _, value = line.decode().rstrip("\n").partition("=")
        env[name] = "".join(shlex.split(value))
    return None


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it gave no reason."


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
