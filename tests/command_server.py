"""The command line as processes of its own that share one start: imports are two thirds of a command's processor time.

`CommandServer` starts one process that has everything imported, and forks it for each command. What is forked is a
process like any other: it has its own environment, working directory, standard streams, exit status and end. Commands
whose start is what a test is about run the installed script instead (fixture `command`).

Run as a script, this file is that server; it ends with the socket that it was given.
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
from pathlib import Path

_DESCRIPTORS = 3
_REQUEST_BYTES = 1 << 20


class CommandServer:
    """Runs commands one after the other; `close` ends it."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(other.fileno())], pass_fds=[other.fileno()], stdin=subprocess.DEVNULL
            )

    def run(self, arguments, *, env, cwd, timeout):
        """Run `image-snapshots` with these arguments; what it printed, and its exit status, as of `subprocess.run`."""
        with (
            open(os.devnull) as nothing,
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile("w+") as errors,
        ):
            request = json.dumps({"arguments": arguments, "env": env, "cwd": str(cwd)}).encode()
            streams = [nothing.fileno(), out.fileno(), errors.fileno()]
            socket.send_fds(self._socket, [request], streams)
            self._socket.settimeout(timeout)
            pid = self._receive()["pid"]
            try:
                status = self._receive()["status"]
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                self._socket.settimeout(None)
                self._receive()
                raise subprocess.TimeoutExpired(arguments, timeout) from None
            out.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(arguments, status, out.read(), errors.read())

    def _receive(self):
        answer = self._socket.recv(_REQUEST_BYTES)
        assert answer, "the command server has ended"
        return json.loads(answer)

    def close(self) -> None:
        self._socket.close()
        self._process.wait(60)


def _serve(requests: socket.socket) -> None:
    """Answer requests until there are no more; returns in the forked processes, too, as the command that was asked."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, _REQUEST_BYTES, _DESCRIPTORS)
        if not request:
            sys.exit(0)
        pid = os.fork()
        if pid == 0:
            requests.close()
            _become(json.loads(request), descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        requests.send(json.dumps({"pid": pid}).encode())
        _, status = os.waitpid(pid, 0)
        requests.send(json.dumps({"status": os.waitstatus_to_exitcode(status)}).encode())


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
    """End the process as Python does, but for taking all modules apart, which is most of what a small command costs."""
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
    # As the installed command has it: its own folder is not where modules come from, and the checkout is installed.
    sys.path.remove(str(Path(__file__).parent))
    # What the commands import, and what these import late.

    import assets.cli
    import assets.runner
    import pipelines.compaction
    import pipelines.derived
    import pipelines.report
    import pipelines.retention
    import pipelines.verify
    import pipelines.warehouse_duckdb  # noqa: F401

    # A collection would touch, and so copy, every page that a fork shares with this process.
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
    _end_with(assets.cli.main)
