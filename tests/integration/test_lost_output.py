"""Standard streams that cannot be written: the work is done, and the exit status shows the loss."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest
from published_days import day_of, publish_snapshot

FULL, GONE, TAKEN = "a full disk", "a reader that has gone", "a file"


@contextmanager
def stream(kind, path):
    """A descriptor of a stream of this kind; `TAKEN` goes to the file."""
    if kind == GONE:
        end, descriptor = os.pipe()
        os.close(end)
    else:
        descriptor = os.open("/dev/full" if kind == FULL else path, os.O_WRONLY | os.O_CREAT)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture
def ended(command_server, tmp_path):
    """Run the command line with such streams; returns its exit status and the output of each."""

    def run(*arguments, out=TAKEN, errors=TAKEN):
        files = [tmp_path / "out", tmp_path / "errors"]
        for file in files:
            file.write_text("")
        with ExitStack() as stack:
            nothing = stack.enter_context(open(os.devnull))
            streams = [stack.enter_context(stream(kind, file)) for kind, file in zip((out, errors), files, strict=True)]
            streams = [nothing.fileno(), *streams]
            status = command_server.status(arguments, streams, env=dict(os.environ), cwd=tmp_path)
        return status, *(file.read_text() for file in files)

    return run


@pytest.mark.parametrize(("kind", "status"), [(FULL, 3), (GONE, 0)])
def test_snapshot_is_taken_even_if_output_is_lost(ended, tmp_path, kind, status):
    assert ended("run", out=kind, errors=kind)[0] == status
    (manifest,) = (tmp_path / "lake" / "_manifests").glob("dt=*/project=default.json")
    assert json.loads(manifest.read_text())["is_complete"]


COMMANDS = {
    "status": ("status", "--days", "3660"),
    "status --json": ("status", "--days", "3660", "--json"),
    "query": ("query", "SELECT range AS n FROM range(100000)"),
    "query as a table": ("query", "--format", "table", "SELECT 1 AS n"),
    "verify": ("verify",),
    "help": ("run", "--help"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_lost_output_fails_the_command_unless_the_reader_stopped_early(ended, command):
    publish_snapshot(day_of("2026-11-23"), images=[])
    fine, printed, _ = ended(*COMMANDS[command], errors=FULL)
    assert printed
    assert fine == 0
    assert ended(*COMMANDS[command], out=GONE)[0] == fine
    status, _, said = ended(*COMMANDS[command], out=FULL)
    assert status == 1
    assert said.splitlines()[-1].startswith("Error: ")
    assert "No space left on device" in said
    assert "Traceback" not in said


def test_closed_streams_are_not_reused_by_opened_files(tmp_path):
    # An opened file takes the lowest number, and would receive the printed text.
    script = """
import os, sys
from assets.streams import lasting_streams
@lasting_streams()
def main():
    with open("data", "w") as file:
        assert file.fileno() > 2, file.fileno()
        print("printed")
        print("said", file=sys.stderr)
        assert sys.stdin.read() == ""
        file.write("kept")
main()
"""
    command = f"exec {sys.executable} -c '{script}' {{}}"
    closed = subprocess.run(["sh", "-c", command.format("<&- >&- 2>&-")], cwd=tmp_path, check=False)
    assert closed.returncode == 1
    assert (tmp_path / "data").read_text() == "kept"
    shell = ["sh", "-c", command.format("</dev/null >&-")]
    told = subprocess.run(shell, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path)
    assert told.returncode == 1
    assert told.stderr == (
        "said\nError: Standard output cannot be written (it is closed), so the output of this command is "
        "incomplete: send it elsewhere.\n"
    )
