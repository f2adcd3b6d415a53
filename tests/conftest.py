"""What all tests share: a clean environment, running sandboxes, and the command line as a user starts it."""

import os
import shutil
import signal
import sys
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import httpx
import pytest
from command_server import CommandServer
from dbt_fixture import dbt  # noqa: F401  (a fixture)
from fortnight import fortnight  # noqa: F401  (a fixture)
from loaded_days import made, made_again  # noqa: F401  (fixtures)
from once_per_run import once_per_run
from permissions import open_directory  # noqa: F401  (a fixture)
from postgres_fixture import postgres  # noqa: F401  (a fixture)
from redis_fixture import redis_server  # noqa: F401  (a fixture)
from s3_server import S3Server
from spark_fixture import spark_master  # noqa: F401  (a fixture)
from webhook_server import webhook_server

from pipelines.sandbox import SandboxOptions

# A shell that starts the tests in the background makes them, and all their children, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Without a cache, each of some hundred processes would compile every module that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A test's own requests wait as long as a busy machine needs; by default httpx gives up after five seconds.
for phase in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, phase, None)

# Each of a test's own requests uses a new client, which would read all authorities that the machine trusts.
httpx._transports.default.create_ssl_context = cache(httpx._transports.default.create_ssl_context)

COMMAND = Path(sys.executable).with_name("image-snapshots")


def pytest_xdist_auto_num_workers():
    """Use one process more than there are processors: tests wait for the processes, servers and browsers they start."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_unconfigure(config):
    """Print, as the last line, which tests were left out."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and config.option.markexpr == "not slow":
        terminal.write_line("Left out: the slow tests. Run them with `.venv/bin/pytest -m slow`.")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """Give each test its own working directory, without the machine's settings and credentials."""
    for name in list(os.environ):
        if name.startswith(
            (
                *("IMAGE_SNAPSHOTS_", "OS_", "HUAWEICLOUD_", "HW_", "AWS_", "DAGSTER_", "SSL_CERT_"),
                *("REQUESTS_CA_BUNDLE", "PYICEBERG_"),
            )
        ):
            monkeypatch.delenv(name)
    before = set(os.environ)
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
    monkeypatch.chdir(tmp_path)
    yield
    # A `.env` adds its variables to the environment, also those that are wrong: no other test may see them.
    for name in set(os.environ) - before:
        del os.environ[name]


@pytest.fixture
def start_sandbox(command_server):
    """Start sandboxes, with options given by keyword, that end with the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(command_server.sandbox(SandboxOptions(**options)))


@pytest.fixture
def s3(monkeypatch):
    """A running S3 server, and an environment that points this process to it."""
    server = S3Server()
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    with server.running():
        yield server


@pytest.fixture
def webhook():
    """A running webhook on loopback."""
    with webhook_server() as hook:
        yield hook


@pytest.fixture
def command():
    """Path of the installed command."""
    return str(COMMAND)


@pytest.fixture(scope="session")
def command_server():
    server = CommandServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def dagster_home(tmp_path_factory):
    """Dagster's storage as the first command sets it up, which takes a second; tests copy it."""

    def make(directory):
        # Only for tests that need it.
        import dagster as dg

        from assets.run_history import use_instance_home

        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setenv("DAGSTER_HOME", str(directory))
            use_instance_home()
            with dg.DagsterInstance.get():
                return directory

    return once_per_run(tmp_path_factory, "dagster-home", make)


@pytest.fixture
def home(dagster_home, tmp_path, monkeypatch):
    """Dagster's storage, set up before."""
    home = shutil.copytree(dagster_home, tmp_path / "home")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return home


@pytest.fixture
def image_snapshots(command_server, tmp_path):
    """Run the command line in the test's directory; returns output and exit status.

    Dagster's record of the run is dropped, unless the test sets `keeps_runs`.
    """

    def run(*arguments, env=None, timeout=600, cwd=tmp_path, keeps_runs=False):
        env = {**os.environ, **(env or {})}
        return command_server.run(arguments, env=env, cwd=cwd, timeout=timeout, keeps_runs=keeps_runs)

    return run
