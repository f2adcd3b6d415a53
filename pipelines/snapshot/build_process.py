"""Builds the tables of images in another process, while this one is still writing the responses of a large day.

Nothing depends on it: what was not built here is built when the day is published. How the tables are built belongs to
`snapshot.publish`. The process gets one JSON object, the responses as an Arrow stream, and at their end one more JSON
object, without which it writes nothing. It answers with one JSON object: what it found, or why it failed.
"""

import json
import logging
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import IO, Self

import pyarrow as pa

from pipelines.errors import PipelineError
from pipelines.fingerprint import code_version
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import BuiltFacts, EarlyTables, file_facts
from pipelines.memory import give_back_memory
from pipelines.settings import ROOT
from pipelines.snapshot.publish import BUILT_TABLES, build_from_batches
from pipelines.tables import RESPONSES

_logger = logging.getLogger(__name__)


class BuildProcess:
    """A process that builds the tables of images from the batches of `responses` it is given; a context manager.

    It ends with the block.
    """

    def __init__(self, lake: Lake, partition: Partition, run_id: str, *, is_sandbox: bool) -> None:
        self._lake, self._partition, self._run_id, self._is_sandbox = lake, partition, run_id, is_sandbox
        # A process of a run that was killed may still be writing: it must not meet this one.
        self._directory = lake.early_tables(partition) / uuid.uuid4().hex

    def __enter__(self) -> Self:
        self._directory.parent.remove_tree()
        # What the two processes hold adds up.
        give_back_memory()
        # A directory `pipelines` in the working directory must not stand in for ours.
        start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from {__name__} import serve; serve()"
        self._process = subprocess.Popen(  # noqa: S603  (our own code)
            [sys.executable, "-P", "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C is for this process, which ends the other one.
            start_new_session=True,
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError
        self._requests, self._answers = self._process.stdin, self._process.stdout
        self._rows = 0
        task = {
            "root": str(self._lake.root),
            "compression": self._lake.compression,
            "directory": self._lake.key(self._directory),
            "run_id": self._run_id,
            "is_sandbox": self._is_sandbox,
        }
        self._send_line(task)
        self._stream = pa.ipc.new_stream(self._requests, RESPONSES.schema)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        with self._process, suppress(BrokenPipeError):
            self._requests.close()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def add(self, batch: pa.RecordBatch) -> None:
        """Send the next rows of `responses`."""
        self._rows += batch.num_rows
        # If it has ended, its answer or its status says why.
        with suppress(BrokenPipeError):
            self._stream.write_batch(batch)

    def end(self) -> EarlyTables | None:
        """Wait for the tables of the responses that were sent; None, and a warning, if there are none.

        Raises:
            StorageError: a table that was written cannot be read.
        """
        with suppress(BrokenPipeError):
            self._stream.close()
        self._send_line({"rows": self._rows})
        answer = self._answers.readline()
        told = json.loads(answer) if answer else {"error": self._how_it_ended()}
        if "error" in told:
            _logger.warning(
                "The tables of images could not be built beside the fetch: %s They are built at publication.",
                told["error"],
            )
            return None
        files = {
            table.name: file_facts(self._lake, self._directory / f"{table.name}.parquet", table.name, self._partition)
            for table in BUILT_TABLES
        }
        return EarlyTables(
            directory=self._directory.name,
            run_id=self._run_id,
            code_version=code_version(),
            found=BuiltFacts.model_validate(told),
            files=files,
        )

    def _how_it_ended(self) -> str:
        status = self._process.wait()
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        return f"the process ended ({how})."

    def _send_line(self, what: object) -> None:
        with suppress(BrokenPipeError):
            self._requests.write(json.dumps(what).encode() + b"\n")
            self._requests.flush()


def serve() -> None:
    """Build the tables of the responses on standard input, and say on standard output what was found."""
    try:
        answer = _build(sys.stdin.buffer).model_dump()
    except PipelineError as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer) + "\n")


def _build(requests: IO[bytes]) -> BuiltFacts:
    task = json.loads(requests.readline())
    lake = Lake(task["root"], task["compression"])
    return build_from_batches(
        lake,
        _received(requests),
        lake.root / task["directory"],
        task["run_id"],
        is_sandbox=task["is_sandbox"],
    )


def _received(requests: IO[bytes]) -> Iterator[pa.RecordBatch]:
    rows = 0
    with pa.ipc.open_stream(requests) as stream:
        for batch in stream:
            rows += batch.num_rows
            yield batch
    # Without this line whoever sends was killed, and these are not all rows.
    end = requests.readline()
    if not end or json.loads(end)["rows"] != rows:
        raise PipelineError("The responses ended before their end.")
