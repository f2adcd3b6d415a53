"""dbt in its own environment, as a user starts it in `sql/dbt`, with a watch over the connections that it opens."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.settings import ROOT

_DBT = ROOT / ".venv-dbt" / "bin" / "dbt"
INSTALL = "python3 -m venv .venv-dbt && .venv-dbt/bin/pip install -q -r requirements-dbt.txt"

# Python runs this at its start. It refuses connections to other machines, and notes them.
_WATCH = """
import socket

connect = socket.socket.connect


def checked(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        with open({seen!r}, "a") as file:
            file.write(f"{{address}}\\n")
        raise OSError("only loopback")
    return connect(self, address)


socket.socket.connect = checked
"""


@dataclass(frozen=True)
class DbtRun:
    """What a run of dbt printed, and the status of each node, by its name."""

    returncode: int
    output: str
    statuses: dict[str, str]

    def having(self, *statuses: str) -> set[str]:
        return {name for name, status in self.statuses.items() if status in statuses}


class Dbt:
    """Runs dbt with its own files in `directory`, where `marts` is the DuckDB file that it writes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.marts = directory / "marts.duckdb"
        self._seen = directory / "connections"
        (directory / "sitecustomize.py").write_text(_WATCH.format(seen=str(self._seen)))

    def run(self, *arguments: str, env: dict[str, str]) -> DbtRun:
        """Run a command of dbt, which must leave its results."""
        target = self.directory / "target"
        results = target / ("sources.json" if arguments[0] == "source" else "run_results.json")
        results.unlink(missing_ok=True)
        own = {
            "PYTHONPATH": str(self.directory),
            "DBT_TARGET_PATH": str(target),
            "DBT_LOG_PATH": str(self.directory / "logs"),
            "MARTS_DUCKDB": str(self.marts),
            "NO_COLOR": "1",
        }
        done = subprocess.run(
            [_DBT, *arguments],
            cwd=ROOT / "sql" / "dbt",
            env=os.environ | own | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert not self._seen.exists(), self._seen.read_text()
        assert results.exists(), done.stdout
        found = json.loads(results.read_text())["results"]
        statuses = {result["unique_id"].split(".")[-1 if arguments[0] == "source" else 2]: result for result in found}
        return DbtRun(done.returncode, done.stdout, {name: result["status"] for name, result in statuses.items()})


@pytest.fixture
def dbt(tmp_path) -> Dbt:
    if not _DBT.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no dbt in .venv-dbt: {INSTALL}")
    directory = tmp_path / "dbt"
    directory.mkdir()
    return Dbt(directory)
