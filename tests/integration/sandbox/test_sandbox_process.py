"""A sandbox as a process: its start, its announcements, its end."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from sandbox_calls import ALPHA, BETA

from pipelines.errors import ConfigurationError, PipelineError
from pipelines.sandbox import SandboxOptions, running_sandbox

ROOT = Path(__file__).resolve().parents[3]


def test_sandbox_starts_from_any_working_directory(tmp_path, monkeypatch):
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__init__.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.chdir(tmp_path)
    with running_sandbox(SandboxOptions(size=1, inventory_file=Path("inventory.csv"))) as connection:
        assert connection.inventory_file == tmp_path / "inventory.csv"
        assert connection.inventory_file.read_text().startswith("id,project,owner,")


def is_listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition, seconds=10):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.02)


def test_connection_describes_the_sandbox_and_hides_secrets(sandbox):
    assert sandbox.endpoint == sandbox.env["IMAGE_SNAPSHOTS_ENDPOINT"]
    assert sandbox.auth_url == sandbox.env["OS_AUTH_URL"] == f"{sandbox.endpoint}/v3"
    assert sandbox.inventory_file == Path(sandbox.env["IMAGE_SNAPSHOTS_INVENTORY"])
    assert sandbox.env["IMAGE_SNAPSHOTS_PROJECTS"] == f'{{"alpha":"{ALPHA}","beta":"{BETA}"}}'
    assert (sandbox.env["OS_PROJECT_NAME"], sandbox.project_id) == ("alpha", ALPHA)
    for name in ("OS_PASSWORD", "OS_ACCESS_KEY", "OS_SECRET_KEY"):
        assert len(sandbox.env[name]) >= 20
        assert sandbox.env[name] not in repr(sandbox)


def test_sandbox_ends_with_its_context_and_keys_depend_on_the_seed():
    with running_sandbox(SandboxOptions(size=1)) as first:
        port = urlsplit(first.endpoint).port
        assert is_listening(port)
        assert "IMAGE_SNAPSHOTS_PROJECTS" not in first.env
        assert first.inventory_file is None
        with (
            running_sandbox(SandboxOptions(size=1)) as second,
            running_sandbox(SandboxOptions(size=1, seed="another")) as other,
        ):
            for name in ("OS_PASSWORD", "OS_ACCESS_KEY", "OS_SECRET_KEY"):
                assert first.env[name] == second.env[name]
                assert first.env[name] != other.env[name]
            assert len({first.env[name] for name in ("OS_PASSWORD", "OS_ACCESS_KEY", "OS_SECRET_KEY")}) == 3
            assert first.project_id == second.project_id
    assert not is_listening(port)
    with pytest.raises(ProcessLookupError):
        os.kill(first.pid, 0)


def test_port_in_use_is_one_clear_error(sandbox):
    port = urlsplit(sandbox.endpoint).port
    expected = rf"did not start: The sandbox cannot listen on 127.0.0.1:{port} \(Address already in use\)"
    with pytest.raises(PipelineError, match=expected), running_sandbox(SandboxOptions(port=port)):
        pass


def test_unwritable_inventory_is_one_clear_error(tmp_path):
    options = SandboxOptions(inventory_file=tmp_path / "missing" / "inventory.csv")
    with pytest.raises(PipelineError, match=r"cannot write its inventory to .*No such file"), running_sandbox(options):
        pass


@pytest.mark.parametrize("wrong", [{"port": -1}, {"port": 65536}, {"size": -1}, {"size": 10**12}])
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ConfigurationError, match="is wrong: give 0 to"):
        SandboxOptions(**wrong)


def command(*words):
    return [sys.executable, "-m", "pipelines.sandbox", "--size=5", *words]


def announced(process):
    lines = {}
    for line in process.stdout:
        if line == "\n":
            return lines
        name, _, value = line.rstrip("\n").partition("=")
        lines[name] = shlex.split(value)[0]
    raise AssertionError("it ended before it was ready")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sandbox_ends_cleanly_on_a_signal(number, tmp_path):
    environment = os.environ | {"SANDBOX_PASSWORD": "p w", "SANDBOX_ACCESS_KEY": "AK1", "SANDBOX_SECRET_KEY": "SK1"}
    environment |= {"SANDBOX_BILLS_KEY": "BK1"}
    inventory = tmp_path / "inventory.csv"
    # If a check fails, the process is ended: the block would wait for it.
    with subprocess.Popen(
        command("--projects=eu-de_team=0123", f"--inventory-file={inventory}", "--latency-ms=5", "--suspended"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT,
    ) as process, ExitStack() as stack:  # fmt: skip
        stack.callback(process.kill)
        env = announced(process)
        assert env == {
            "IMAGE_SNAPSHOTS_ENDPOINT": env["OS_AUTH_URL"].removesuffix("/v3"),
            "IMAGE_SNAPSHOTS_INVENTORY": str(inventory),
            "IMAGE_SNAPSHOTS_PROJECTS": '{"eu-de_team":"0123"}',
            "OS_AUTH_URL": env["OS_AUTH_URL"],
            "OS_USERNAME": "sandbox-user",
            "OS_PASSWORD": "p w",
            "OS_USER_DOMAIN_NAME": "sandbox-domain",
            "OS_PROJECT_NAME": "eu-de_team",
            "OS_PROJECT_ID": "0123",
            "OS_ACCESS_KEY": "AK1",
            "OS_SECRET_KEY": "SK1",
            "IMAGE_SNAPSHOTS_BILLS_KEY": "BK1",
        }
        # An idle connection must not delay the end.
        with httpx.Client(base_url=env["IMAGE_SNAPSHOTS_ENDPOINT"], trust_env=False) as client:
            faults = client.get("/sandbox/faults").json()
            assert (faults["latency_ms"], faults["suspended"]) == (5, True)
            assert client.get("/sandbox/day").json()["follows_clock"] is True
            process.send_signal(number)
            assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_sandbox_ends_when_its_parent_is_killed():
    parent_code = (
        "import time; from pipelines.sandbox import *\n"
        "with running_sandbox(SandboxOptions(size=1)) as connection:\n"
        "    print(connection.endpoint, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent_code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        port = urlsplit(parent.stdout.readline().strip()).port
        assert is_listening(port)
        parent.kill()
    wait_until(lambda: not is_listening(port))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ratio-429=2"], "ratio_429: Input should be less than or equal to 1"),
        (["--projects=alpha"], "'alpha' must be NAME=ID"),
        (["--day=soon"], "invalid fromisoformat value: 'soon'"),
        (["--port=99999"], "The sandbox's port 99999 is wrong"),
        (["--faults=[]"], "must be a JSON object"),
        (["--faults={"], "must be a JSON object"),
    ],
)
def test_wrong_arguments_are_one_clear_error(words, said):
    ended = subprocess.run(command(*words), capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=ROOT)
    assert ended.returncode == 2
    assert said in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
