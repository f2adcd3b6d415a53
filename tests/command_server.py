"""Runs the command line and sandboxes as separate processes that share one start, because imports are slow.

`CommandServer` starts one process with everything imported, and forks it for each command and sandbox. A forked process
is like any other: it has its own environment, working directory, standard streams, exit status and end. Tests about the
start of a command run the installed script instead (fixture `command`).

Run as a script, this file is that server; it ends with the socket that it received.
"""

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipelines.sandbox import process

_DESCRIPTORS = 3
# The ends of two pipes, as a sandbox's standard input and output.
_MODES = ("rb", "wb", "rb", "wb")
_REQUEST_BYTES = 1 << 20


class CommandServer:
    """Runs commands one after the other; `close` ends it."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(other.fileno())], pass_fds=[other.fileno()], stdin=subprocess.DEVNULL
            )

    def run(self, arguments, *, env, cwd, timeout, keeps_runs):
        """Run `image-snapshots` with these arguments; returns output and exit status, like `subprocess.run`.

        `keeps_runs`: Dagster keeps its runs in DAGSTER_HOME, which takes half of a run's time; otherwise in memory.
        """
        with (
            open(os.devnull) as nothing,
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile("w+") as errors,
        ):
            streams = [file.fileno() for file in (nothing, out, errors)]
            status = self.status(arguments, streams, env=env, cwd=cwd, timeout=timeout, keeps_runs=keeps_runs)
            out.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(arguments, status, out.read(), errors.read())

    def status(self, arguments, streams, *, env, cwd, timeout=600, keeps_runs=False):
        """Run `image-snapshots` with these arguments and standard streams; returns the exit status."""
        pid = self._start("kept command" if keeps_runs else "command", arguments, env, cwd, streams)
        self._socket.settimeout(timeout)
        try:
            return self._receive()["status"]
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            self._socket.settimeout(None)
            self._receive()
            raise subprocess.TimeoutExpired(arguments, timeout) from None
        finally:
            self._socket.settimeout(None)

    @contextmanager
    def sandbox(self, options):
        """Run a sandbox, as `running_sandbox` does."""
        with ExitStack() as stack:
            theirs_in, ours_out, ours_in, theirs_out = (
                stack.enter_context(open(end, mode)) for end, mode in zip((*os.pipe(), *os.pipe()), _MODES, strict=True)
            )
            nothing = stack.enter_context(open(os.devnull, "w"))
            streams = [file.fileno() for file in (theirs_in, theirs_out, nothing)]
            pid = self._start("sandbox", process.arguments(options), dict(os.environ), os.getcwd(), streams)
            theirs_in.close()
            theirs_out.close()
            connection = process.announced(ours_in, pid)
            assert connection is not None, "the sandbox did not start"
            yield connection
            # The sandbox ends with its standard input; its output ends with it.
            ours_out.close()
            ours_in.read()

    def _start(self, program, arguments, env, cwd, streams):
        request = {"program": program, "arguments": arguments, "env": env, "cwd": str(cwd)}
        socket.send_fds(self._socket, [json.dumps(request).encode()], streams)
        return self._receive()["pid"]

    def _receive(self):
        answer = self._socket.recv(_REQUEST_BYTES)
        assert answer, "the command server has ended"
        return json.loads(answer)

    def close(self) -> None:
        self._socket.close()
        self._process.wait(60)


def _serve(requests: socket.socket) -> str:
    """Serve requests until there are no more; in a forked process, return the program to run."""
    sandboxes = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, _REQUEST_BYTES, _DESCRIPTORS)
        if not message:
            sys.exit(0)
        request = json.loads(message)
        pid = os.fork()
        if pid == 0:
            requests.close()
            _become(request, descriptors)
            return request["program"]
        for descriptor in descriptors:
            os.close(descriptor)
        requests.send(json.dumps({"pid": pid}).encode())
        if request["program"] == "sandbox":
            sandboxes.add(pid)
        else:
            _, status = os.waitpid(pid, 0)
            requests.send(json.dumps({"status": os.waitstatus_to_exitcode(status)}).encode())
        sandboxes -= {sandbox for sandbox in sandboxes if os.waitpid(sandbox, os.WNOHANG)[0]}


def _become(request, descriptors) -> None:
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.argv = ["image-snapshots", *request["arguments"]]
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  (for the rest of the process)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115


def _end_with(main) -> None:
    """End the process as Python does, but without unloading all modules, which takes most of a small command's time."""
    status = 0
    try:
        main()
    except SystemExit as ending:
        status = ending.code or 0
    except BaseException:  # noqa: BLE001  (whatever ends the command)
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    # As for the installed command: modules do not come from its own folder, and the checkout is installed.
    sys.path.remove(str(Path(__file__).parent))
    # The modules that commands import, directly or later.
    import dagster as dg
    import upath.core  # noqa: F401
    from dagster._core.storage.event_log import InMemoryEventLogStorage

    import assets.cli
    import assets.runner
    import pipelines.derive.days
    import pipelines.maintenance.compaction
    import pipelines.maintenance.retention
    import pipelines.maintenance.verify
    import pipelines.report.page
    import pipelines.sandbox.__main__
    import pipelines.warehouse.duckdb
    import pipelines.warehouse.postgres

    pipelines.report.page.template()
    with dg.DagsterInstance.ephemeral():
        pass  # Only now it has imported its storage.

    # A garbage collection would touch, and so copy, every page that a fork shares with this process.
    gc.freeze()
    program = _serve(socket.socket(fileno=int(sys.argv[1])))
    if program == "sandbox":
        _end_with(lambda: sys.exit(pipelines.sandbox.__main__.main()))
    if program == "command":
        # The process ends at once, so its resources need no events.
        InMemoryEventLogStorage.store_event = lambda *_: None
        assets.runner.open_run_history = lambda warn: dg.DagsterInstance.ephemeral()
    _end_with(assets.cli.main)
