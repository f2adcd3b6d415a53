"""What the commands share: options, exit statuses, and printing of tables, figures and errors.

Output is a table on a terminal, and plain lines when piped.
"""

import datetime as dt
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from pipelines.errors import ConfigurationError
from pipelines.lake.layout import Lake
from pipelines.lake.manifests import holds_sandbox
from pipelines.lake.witnesses import is_in_lake
from pipelines.plain_text import UNITS, unit_of, visible
from pipelines.settings import Settings

COMPLETE, FAILED, USAGE, INCOMPLETE = 0, 1, 2, 3

SAMPLE_DATA = "Sample data: the images of this lake are the sandbox's invented ones, not those of a cloud account."

_AGAIN_SECONDS = 0.05
_NUMBERS = ("rows", "bytes", "images", "days", "files", "daily files", "daily bytes")

ProjectOption = Annotated[
    list[str] | None, typer.Option("--project", help="Key of a project; may be repeated. Default: all.")
]
DateOption = Annotated[str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="Day (UTC).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


class Commands(TyperGroup):
    """All commands. Ctrl-C ends each with one sentence, as an error does; the help shows no type for flags."""

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]
        """The options of the program itself."""
        return _without_types(super().get_params(ctx))

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        """One command of that name, or None."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            _without_types(command.get_params(ctx))
        return command

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        """Run the chosen command."""
        try:
            with _hearing_every_interrupt():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            print_error("Stopped by Ctrl-C.")
            raise typer.Exit(FAILED) from None


@contextmanager
def _hearing_every_interrupt() -> Iterator[None]:
    """Send a Ctrl-C again that came during Python's clean-up code, which prints and ignores all exceptions."""
    before = sys.unraisablehook

    def send_again(ignored: "sys.UnraisableHookArgs") -> None:
        # The second name is Dagster's exception; compare names, because importing Dagster takes seconds.
        if ignored.exc_type.__name__ in ("KeyboardInterrupt", "DagsterExecutionInterruptedError"):
            # Send it after this function has returned: inside, it would be ignored, too.
            threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            before(ignored)

    sys.unraisablehook = send_again
    try:
        yield
    finally:
        sys.unraisablehook = before


def _without_types(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


def open_lake(settings: Settings) -> Lake:
    """The lake that the settings name."""
    return Lake(settings.lake, settings.parquet_compression)


def check_output(lake: Lake, output: Path | None) -> None:
    """Refuse to write a command's output into the lake.

    Raises:
        ConfigurationError: `output` is inside the lake.
    """
    if output is not None and is_in_lake(lake, output):
        raise ConfigurationError(f"--output {output} is inside the lake, which is read-only: choose another place.")


def parse_date(text: str | None) -> dt.date | None:
    """The date of an option, or None.

    Raises:
        ConfigurationError: the text is not a date.
    """
    if text is None:
        return None
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{text} is not a date: write it as YYYY-MM-DD.") from None


def print_error(sentence: str) -> None:
    """Print an error's sentence to standard error."""
    _print_sentence(f"[bold red]Error:[/] {escape(visible(sentence))}")


def print_warning(sentence: str) -> None:
    """Print a warning's sentence to standard error."""
    _print_sentence(f"[bold yellow]Warning:[/] {escape(visible(sentence))}")


def print_note(sentence: str) -> None:
    """Print a remark about the result to standard error."""
    _print_sentence(escape(visible(sentence)))


def _print_sentence(marked: str) -> None:
    console = Console(stderr=True)
    # On a terminal, wrap between words; in a log, keep one line.
    console.print(marked, soft_wrap=not console.is_terminal, highlight=False)


def size_text(number: int, *, signed: bool = False) -> str:
    """Format bytes in a suitable unit."""
    power = unit_of(number)
    amount = f"{number / 1024**power:{'+' if signed else ''},.{min(power, 1)}f}"
    return f"{amount} {UNITS[power] if power else 'B'}"


def count_text(number: int, noun: str) -> str:
    """Format a number with its noun."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def print_line(line: str) -> None:
    """Print a line unchanged, however long it is."""
    Console().print(escape(visible(line)), soft_wrap=True, highlight=False)


def note_sandbox(lake: Lake) -> None:
    """Warn on standard error if the lake holds invented images."""
    if holds_sandbox(lake):
        Console(stderr=True).print(SAMPLE_DATA, soft_wrap=True, highlight=False)


def print_table(title: str, names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table on a terminal, tab-separated lines when piped."""
    console = Console()
    if not console.is_terminal:
        for row in (names, *rows):
            typer.echo("\t".join(map(visible, row)))
        return
    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(name, justify="right" if name in _NUMBERS else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(visible(cell)) for cell in row))
    console.print(table)
