"""Compiles and runs the load server (`load_server.c`), and reads its counts."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "benchmarks"
PROJECT_ID = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True, slots=True)
class LoadServer:
    """A running server; `bundle` is the authority to trust, None without TLS."""

    endpoint: str
    bundle: Path | None

    def stats(self) -> dict[str, Any]:
        """Requests served, refused (429) and denied, connections and seconds, since the last call. Without TLS only."""
        with urllib.request.urlopen(f"{self.endpoint}/stats") as response:
            return dict(json.load(response))


def compiled() -> tuple[Path, bool]:
    """The server's program, and whether it speaks TLS (if OpenSSL's headers are installed)."""
    if shutil.which("cc") is None:
        sys.exit("The load server is a C program: install a C compiler (`cc`).")
    source, program, plain = HERE / "load_server.c", BUILD / "load_server_tls", BUILD / "load_server"
    BUILD.mkdir(parents=True, exist_ok=True)
    for target, options in ((program, ["-DTLS", "-lssl", "-lcrypto"]), (plain, [])):
        if target.exists() and target.stat().st_mtime > source.stat().st_mtime:
            return target, target is program
        command = ["cc", "-O2", "-o", str(target), str(source), *options]
        if subprocess.run(command, check=False, capture_output=target is program).returncode == 0:
            return target, target is program
    sys.exit(f"{source} does not compile.")


@contextmanager
def running(
    latency_ms: float = 0, rate: float = 0, burst: float = 0, tls: bool = False, listed: Path | None = None
) -> Iterator[LoadServer]:
    """Run the server during the block. `rate` in requests per second, 0 for no limit.

    `listed` is a file of ids, one a line: with it the server has a list of images, and one of notebooks.
    """
    program, has_tls = compiled()
    arguments = [str(latency_ms), str(rate), str(burst)]
    bundle = None
    if tls:
        if not has_tls:
            sys.exit("The load server was compiled without TLS: install OpenSSL's headers (libssl-dev).")
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        bundle, chain, key = (BUILD / name for name in ("authority.pem", "certificate.pem", "key.pem"))
        authority.cert_pem.write_to_path(str(bundle))
        chain.unlink(missing_ok=True)
        for blob in certificate.cert_chain_pems:
            blob.write_to_path(str(chain), append=True)
        certificate.private_key_pem.write_to_path(str(key))
        arguments += [str(chain), str(key)]
    process = subprocess.Popen(
        [str(program), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"LISTED": str(listed or "")},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        yield LoadServer(f"{'https' if tls else 'http'}://127.0.0.1:{port}", bundle)
    finally:
        process.stdin.close()
        process.wait(timeout=10)
        process.stdout.close()
