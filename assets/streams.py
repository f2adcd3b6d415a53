"""Makes the standard streams robust against a full disk, a closed stream, or a reader that has gone.

A command must finish its work even if its output is lost. So writing never raises an error; lost standard output is
reported at the end by a sentence and the exit status. Lost standard error is ignored, because it cannot be reported.
A reader that stops early, such as `head`, is not an error.
"""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, TextIO

from typing_extensions import Buffer

from assets.terminal import FAILED, print_error


class _Lasting(io.FileIO):
    """A descriptor whose writes never raise; `loss` is the first error."""

    loss: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.loss = self.loss or error
            return memoryview(data).nbytes


class _LastingText(io.TextIOWrapper):
    """A text stream to a descriptor that knows whether output was lost."""

    def __init__(self, descriptor: int, like: TextIO | None, *, is_by_line: bool, closes: bool) -> None:
        self._lasting = _Lasting(descriptor, "w", closefd=closes)
        super().__init__(
            io.BufferedWriter(self._lasting),
            encoding=(like and like.encoding) or "utf-8",
            errors=(like and like.errors) or "backslashreplace",
            line_buffering=is_by_line,
        )

    @property
    def loss(self) -> OSError | None:
        """Why output was lost; None if all arrived, or if the reader stopped early."""
        self.flush()
        error = self._lasting.loss
        return None if error is None or error.errno == errno.EPIPE else error


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Run a command with standard output and standard error that never raise, then exit.

    Raises:
        SystemExit: always; with the command's own exit status, or 1 if that is 0 but output was lost.
    """
    _open_closed()
    sys.stdout = _LastingText(1, sys.stdout, is_by_line=os.isatty(1), closes=False)
    sys.stderr = _LastingText(2, sys.stderr, is_by_line=True, closes=False)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115  (for the rest of the process)
    status: str | int | None = None
    try:
        yield
    except SystemExit as ending:
        status = ending.code
    loss = output_loss()
    if loss is not None:
        print_error(
            f"Standard output cannot be written ({output_error(loss)}), so the output of this command is incomplete: "
            "send it elsewhere."
        )
    sys.exit(status or (FAILED if loss else None))


def output_loss() -> OSError | None:
    """Why standard output was lost; None if all was written, or if the reader stopped early."""
    return sys.stdout.loss if isinstance(sys.stdout, _LastingText) else None


@contextmanager
def raising_output() -> Iterator[BinaryIO]:
    """Standard output for rows. Writing raises an `OSError`, so that a query stops when its rows cannot be written."""
    sys.stdout.flush()
    if isinstance(sys.stdout, _LastingText):
        with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as file:
            yield file
    else:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()


def output_error(error: OSError) -> str:
    """What is wrong with standard output, in words."""
    return "it is closed" if error.errno == errno.EBADF else os.strerror(error.errno or 0)


def _open_closed() -> None:
    """Give closed streams a descriptor, so that no opened file gets their numbers."""
    # In this order, because an open takes the lowest free number. Standard output is not writable.
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)
