"""Audit rules in a process of their own, with limits of time and memory; a rule that breaks them stops no other.

The process is `rule_worker`. It gets the names of the files that rules may read and the rules, one after the other; it
has neither the environment of this process nor its open files. When a rule ends it, or it is ended because of a rule,
that rule has an error, and the next rules get a new process.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.derive.rule_worker import RuleError
from pipelines.errors import StorageError
from pipelines.inputs import local_files
from pipelines.lake.parquet_files import read_batches
from pipelines.lake.storage import LakePath
from pipelines.settings import ROOT
from pipelines.tables import Table

# What the engine holds before it spills, and what the process may have in all, itself included: a megabyte of text for
# each of some hundred images fits, what would take the machine's memory does not.
_MEMORY_LIMIT = "80MB"
_MOST_BYTES = 700_000_000
# A rule that waits, as on a busy machine, takes no time of the processor.
_CLOCK_FOR_PROCESSOR = 10
_BATCH_ROWS = 32_768


@dataclass(frozen=True, slots=True)
class RuleFile:
    """Parquet files that rules read as one relation, and which columns of them."""

    paths: tuple[str, ...]
    columns: str = "*"


def answers_within(answers: IO[bytes], seconds: float) -> bool:
    """Whether something can be read, an end included, before so many seconds have passed."""
    return bool(select.select([answers], [], [], seconds)[0])


class RuleProcess:
    """Applies rules to files and views; a context manager.

    `files` and `views` (SQL over the files and earlier views) are the relations that rules may read. `seconds`: of the
    processor's time that a rule may take; ten times as many may pass by the clock.
    """

    def __init__(
        self,
        scratch: Path,
        files: Mapping[str, RuleFile],
        views: Mapping[str, str],
        seconds: int,
    ) -> None:
        self._seconds = seconds
        self._scratch = scratch
        self._task = {
            "scratch": str(scratch),
            "files": {name: {"paths": file.paths, "columns": file.columns} for name, file in files.items()},
            "views": dict(views),
            "memory_limit": _MEMORY_LIMIT,
            "most_bytes": _MOST_BYTES,
            "seconds": seconds,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        (self._scratch / "found").mkdir()
        (self._scratch / "spilled").mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._end(self._process)

    @property
    def pid(self) -> int | None:
        """The process that a rule was last applied in; None before the first, and after one that ended it."""
        return None if self._process is None else self._process.pid

    def apply(self, name: str, sql: str) -> None:
        """Apply one rule.

        Raises:
            RuleError: it cannot be applied, or took more than it may.
            StorageError: the files cannot be read.
        """
        process = self._process or self._start()
        answer = self._answer(process, {"name": name, "sql": sql})
        if answer is None:
            self._end(process)
            raise RuleError(
                f"The rule had no result after {self._seconds * _CLOCK_FOR_PROCESSOR} seconds and was stopped: let it "
                "do less, or raise IMAGE_SNAPSHOTS_AUDIT_RULE_SECONDS."
            )
        if not answer:
            raise RuleError(self._why_it_died(process))
        told = json.loads(answer)
        if told["is_last"]:
            self._end(process)
        if told["error"] is not None:
            raise RuleError(told["error"])

    def found(self, name: str) -> list[Path]:
        """The Parquet file (rule, id, evidence) of what an applied rule has found; none when it found nothing."""
        path = self._scratch / "found" / f"{name}.parquet"
        return [path] if local_files.exists(path) else []

    def _answer(self, process: subprocess.Popen[bytes], request: object) -> bytes | None:
        """The answer to a request; empty when the process has died, None when there was none in time."""
        if process.stdin is None or process.stdout is None:
            raise AssertionError
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        if not answers_within(process.stdout, self._seconds * _CLOCK_FOR_PROCESSOR):
            return None
        return process.stdout.readline()

    def _start(self) -> subprocess.Popen[bytes]:
        # No site modules and no environment, so the worker is told where the engine is.
        packages = [str(ROOT), str(Path(duckdb.__file__).parent.parent)]
        start = f"import sys; sys.path += {packages!r}; from pipelines.derive.rule_worker import serve; serve()"
        self._process = process = subprocess.Popen(  # noqa: S603  (our own code)
            [sys.executable, "-I", "-S", "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._scratch,
            env={"LC_ALL": "C.UTF-8"},
            # Ctrl-C is this process's to handle.
            start_new_session=True,
        )
        answer = self._answer(process, self._task)
        told = json.loads(answer or b'{"error": "the process that applies them ended, or did not begin in time"}')
        if told["error"] is not None:
            self._end(process)
            raise StorageError(f"The audit rules cannot be applied: {told['error']}.")
        return process

    def _why_it_died(self, process: subprocess.Popen[bytes]) -> str:
        # What it wrote to is closed a moment before it has a status.
        status = process.wait()
        self._end(process)
        if status == -signal.SIGXCPU:
            return (
                f"The rule took more than {self._seconds} seconds of processor time and was stopped: let it do less, "
                "or raise IMAGE_SNAPSHOTS_AUDIT_RULE_SECONDS."
            )
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        return (
            f"The process that applied the rule ended ({how}), as it does when a rule needs more memory than it may "
            f"have ({_MOST_BYTES // 1_000_000} MB): let it hold less at once."
        )

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        self._process = None
        if process.poll() is None:
            process.kill()
        with process, suppress(BrokenPipeError):
            if process.stdin is not None:
                process.stdin.close()


@contextmanager
def rule_scratch() -> Iterator[Path]:
    """A directory for the files of a `RuleProcess`."""
    with tempfile.TemporaryDirectory(prefix="image-snapshots-") as scratch:
        yield Path(os.path.realpath(scratch))


def as_rule_file(scratch: Path, name: str, path: LakePath, table: Table, columns: str = "*") -> RuleFile:
    """A table's file for rules: where it is, copied from an object store, or empty when it is not there."""
    if path.local is not None and path.is_there():
        return RuleFile((str(path.local.resolve()),), columns)
    target = scratch / f"{name}.parquet"
    names = table.schema.names if columns == "*" else columns.split(", ")
    schema = pa.schema([table.schema.field(one) for one in names])
    with pq.ParquetWriter(target, schema) as writer:
        if path.is_there():
            for batch in read_batches(path, _BATCH_ROWS, names):
                writer.write_batch(batch)
    return RuleFile((str(target),))


def small_rule_file(scratch: Path, name: str, data: pa.Table) -> RuleFile:
    """Rows of our own for rules."""
    pq.write_table(data, scratch / f"{name}.parquet")
    return RuleFile((str(scratch / f"{name}.parquet"),))
