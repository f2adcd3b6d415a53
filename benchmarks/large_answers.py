"""Peak memory of a whole run with large responses: `python -m benchmarks.large_answers [--count N] [--shape NAME]`.

A server on this machine answers each id with a body of 8 MiB that is some 8 kB on the wire. The run is the command
line's, in a process of its own, with everything that follows a fetch.
"""

import argparse
import gzip
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

BODY_BYTES = 8 * 2**20 - 1024
PROJECT_ID = "0123456789abcdef0123456789abcdef"
# The part that repeats in a field of the body, and the parts around it.
SHAPES = {
    "text": ('"description":"', "x", '"'),
    "list": ('"dev_services":["SSH"', ',""', "]"),
    "unknown": ('"new":[0', ",0", "]"),
    "objects": ('"new":[{}', ",{}", "]"),
}


def _packed(shape: str, image_id: str) -> bytes:
    before, unit, after = SHAPES[shape]
    body = f'{{"id":"{image_id}","name":"n","status":"ACTIVE",{before}{unit * (BODY_BYTES // len(unit))}{after}}}'
    return gzip.compress(body.encode())


def _serve(shape: str, port: Connection) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            image_id = re.search(r"/images/([^/?]+)", self.path)
            empty = b'{"data":[],"total":0}'
            content = _packed(shape, image_id[1]) if image_id else gzip.compress(empty)
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port.send(server.server_port)
    server.serve_forever()


def measure(shape: str, count: int) -> tuple[int, float, float]:
    """Exit status, seconds and peak resident memory in MB of a run."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=_serve, args=(shape, theirs), daemon=True)
    server.start()
    try:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            ids = [f"00000000-0000-4000-8000-{number:012}" for number in range(count)]
            (directory / "inventory.csv").write_text("\n".join(["id", *ids]) + "\n")
            env = {
                **{key: value for key, value in os.environ.items() if not key.startswith(("IMAGE_SNAPSHOTS_", "OS_"))},
                "IMAGE_SNAPSHOTS_ENDPOINT": f"http://127.0.0.1:{ours.recv()}",
                "IMAGE_SNAPSHOTS_LAKE": str(directory / "lake"),
                "IMAGE_SNAPSHOTS_INVENTORY": str(directory / "inventory.csv"),
                "DAGSTER_HOME": str(directory / "dagster"),
                "OS_ACCESS_KEY": "access",
                "OS_SECRET_KEY": "secret",
                "OS_PROJECT_ID": PROJECT_ID,
            }
            command = [str(Path(sys.executable).with_name("image-snapshots")), "run", "--json"]
            started = time.perf_counter()
            process = subprocess.Popen(command, env=env, cwd=directory, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            printed = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            process.stdout.close()
            seconds = time.perf_counter() - started
            if process.returncode == 0:
                (report,) = json.loads(printed)
                assert report["outcomes"] == {"ok": count}, report["outcomes"]
            return process.returncode, seconds, usage.ru_maxrss / 1000
    finally:
        server.terminate()
        server.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--shape", choices=[*SHAPES], action="append")
    arguments = parser.parse_args()
    print(f"{'shape':>8} {'answers':>8} {'exit':>5} {'seconds':>8} {'peak MB':>8}")
    for shape in arguments.shape or SHAPES:
        status, seconds, peak = measure(shape, arguments.count)
        print(f"{shape:>8} {arguments.count:>8} {status:>5} {seconds:>8.1f} {peak:>8.0f}", flush=True)


if __name__ == "__main__":
    main()
