"""`ui` starts nothing if it cannot serve its page."""

import os
import socket

import pytest
from typer.testing import CliRunner

from assets.cli import app


@pytest.fixture
def started(monkeypatch):
    commands = []
    monkeypatch.setattr(os, "execv", lambda _, command: commands.append(command))
    return commands


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_port_in_use_is_one_sentence_and_starts_nothing(address, started, tmp_path):
    with socket.socket() as other:
        other.bind((address, 0))
        other.listen()
        port = other.getsockname()[1]
        result = CliRunner().invoke(app, ["ui", "--port", str(port)])
    assert started == []
    assert not (tmp_path / ".dagster").exists()
    assert type(result.exception).__name__ == "ConfigurationError"
    assert result.exception.exit_status == 2
    assert str(result.exception).startswith(f"The UI cannot be served at 127.0.0.1:{port} (Address already in use): ")


def test_free_port_is_served(started):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
    assert CliRunner().invoke(app, ["ui", "--port", str(port)]).exit_code == 0
    ((*_, name, value),) = started
    assert (name, value) == ("--port", str(port))


@pytest.mark.parametrize("port", ["0", "65536", "-1"])
def test_invalid_port_is_refused(port, started):
    assert CliRunner().invoke(app, ["ui", "--port", port]).exit_code == 2
    assert started == []
