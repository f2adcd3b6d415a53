"""An S3 server on this machine, as a separate process, for measuring a lake in an object store."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

_START_SECONDS = 30


@contextmanager
def object_store() -> Iterator[dict[str, str]]:
    """Run the server, and yield the settings of a lake in an empty bucket there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    server = [str(Path(sys.executable).with_name("moto_server")), "--host", "127.0.0.1", "--port", str(port)]
    with (
        tempfile.NamedTemporaryFile() as log,
        subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=log) as process,
    ):
        try:
            _make_bucket(endpoint)
            yield {
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_ACCESS_KEY_ID": "benchmark",
                "AWS_SECRET_ACCESS_KEY": "benchmark",
                "AWS_REGION": "us-east-1",
                "IMAGE_SNAPSHOTS_LAKE": "s3://benchmark/lake",
                # Do not log each request.
                "LOG": log.name,
            }
        finally:
            process.terminate()


def _make_bucket(endpoint: str) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        try:
            httpx.put(f"{endpoint}/benchmark").raise_for_status()
        except httpx.TransportError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return
