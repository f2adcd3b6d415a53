"""Standard streams that may fail: a full disk behind them, a reader that has gone, or nothing, as they were closed.

What a command says is no reason to leave undone what it does. So writing to them never raises; that standard output was
lost is told at the end, by a sentence and the exit status. That of standard error cannot be told, and changes nothing;
nor does a reader that has enough, as `head` does.
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
    """A descriptor to which writing never raises; `loss` is the first error."""

    loss: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.loss = self.loss or error
            return memoryview(data).nbytes


class _LastingText(io.TextIOWrapper):
    """Text to a descriptor, of which it is known whether some was lost."""

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
        """Why not all that was written so far arrived; None when it did, or when the reader has enough."""
        self.flush()
        error = self._lasting.loss
        return None if error is None or error.errno == errno.EPIPE else error


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Have standard output and standard error never raise while a command runs, and end it.

    Raises:
        SystemExit: always; with the command's own exit status, or 1 where that would be 0 and output was lost.
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
            f"Standard output cannot be written ({output_error(loss)}), so what this command says is not all there: "
            "send it elsewhere."
        )
    sys.exit(status or (FAILED if loss else None))


def output_loss() -> OSError | None:
    """Why not all of standard output was written so far; None when it was, or when its reader has enough."""
    return sys.stdout.loss if isinstance(sys.stdout, _LastingText) else None


@contextmanager
def raising_output() -> Iterator[BinaryIO]:
    """Standard output for rows, which nobody makes where nobody gets them: writing raises an `OSError`."""
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
    """Give streams that were closed a descriptor, which a file that is opened would have instead."""
    # In order: what is opened takes the lowest number that is free. To standard output it cannot be written.
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)
