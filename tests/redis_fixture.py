"""A real Redis server on loopback: `running_redis` for scripts, the fixture `redis_server` for tests."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

PASSWORD = "redis-secret-pa55"
_START_SECONDS = 30


@dataclass(frozen=True)
class RedisServer:
    """A server on 127.0.0.1 with a password, which `url` holds. `stop` and `start` simulate an outage."""

    port: int
    directory: str

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> "subprocess.Popen[bytes]":
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--requirepass", PASSWORD]
        with open(f"{self.directory}/log", "ab") as log:
            process = subprocess.Popen(
                [*command, "--dir", self.directory, "--save", "", "--appendonly", "no"],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except ConnectionRefusedError:
                assert process.poll() is None, "redis-server did not start"
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                return process


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def stop(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait(10)


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """Start a server in its own directory, and end it on leaving."""
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(free_port(), directory)
        process = server.start()
        try:
            yield server
        finally:
            stop(process)


def require_redis() -> None:
    """Skip the test if redis-server is not installed; in CI, fail."""
    if shutil.which("redis-server") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "no redis-server on the PATH: install Redis (Debian: apt-get install redis-server)"
        )


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    require_redis()
    with running_redis() as server:
        yield server
