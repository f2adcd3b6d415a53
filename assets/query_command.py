"""The command `image-snapshots query`: runs one SQL query, or offers a prompt for several.

The views, and the check that a query only reads, belong to `pipelines.query.views`.
"""

import codecs
import io
import os
import re
import readline
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, redirect_stdout
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

import duckdb
import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperCommand
from typing_extensions import Buffer

from assets.streams import output_error, raising_output
from assets.terminal import check_output, note_sandbox, print_error
from pipelines.errors import ConfigurationError, PipelineError, StorageError
from pipelines.inputs.text_files import decoded
from pipelines.lake.layout import Lake
from pipelines.plain_text import visible
from pipelines.query.views import Format, connect_lake, relations, select, sql_errors, write_rows
from pipelines.settings import Settings

_ROWS_SHOWN = 40
# Without a terminal, lines are as long as their rows.
_WIDTH_WHEN_PIPED = 10_000

_KEYWORDS = ("SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "LIMIT", "JOIN", "USING", "DESCRIBE", "SUMMARIZE")


# Words that end the prompt; none of them is SQL.
_ENDING = ("exit", "quit", ".exit", ".quit", "\\q")
_HELPING = ("help", ".help", "?", "\\?", "\\h")
_LISTING = (".tables", "\\d", "\\dt")


# A comment, not an option: an option has no blank at its beginning and no line break before its value.
_COMMENT = re.compile(r"--(\s|[^=]*\n)")


class OutputFormat(StrEnum):
    """How rows are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


_SUFFIXES = {f".{form}": form for form in (OutputFormat.CSV, OutputFormat.JSON, OutputFormat.PARQUET)}


class QueryCommand(TyperCommand):
    """The command; an argument that begins with an SQL comment is a query, not an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments."""
        return super().parse_args(ctx, [f"\n{text}" if _COMMENT.match(text) else text for text in args])


def query(
    sql: Annotated[
        str | None,
        typer.Argument(metavar="[SQL]", help="The query. Default: read standard input, or show a prompt."),
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", help="Read the query from a file.")] = None,
    output_format: Annotated[
        OutputFormat | None,
        typer.Option("--format", help="Default: by the output file's suffix; table on a terminal, csv when piped."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Write all rows to a file, whole or not at all.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="CSV: keep text that a spreadsheet would run as a formula as it is.")
    ] = False,
    include_incomplete: Annotated[
        bool, typer.Option("--include-incomplete", help="Include incomplete days in latest_days and images_latest.")
    ] = False,
) -> None:
    """Query the lake in SQL (DuckDB's dialect), over all days and projects; read-only.

    SHOW TABLES lists the tables, DESCRIBE images the columns of a table.
    """
    form = _format(output_format, output)
    lake = Lake(Settings.load().lake)
    check_output(lake, output)
    text = _text(sql, file)
    if text is None and output is not None:
        raise ConfigurationError("--output needs a query: give one as argument, with --file or on standard input.")
    if text is None or output is not None or form == OutputFormat.TABLE:
        note_sandbox(lake)
    with closing(connect_lake(lake, include_incomplete=include_incomplete)) as connection:
        if text is None:
            _ask(connection, form, exact)
        elif output is None:
            _interruptible(connection, partial(_print, connection, text, form, exact))
        else:
            _interruptible(connection, partial(_write, connection, text, output, form, exact))


def _format(chosen: OutputFormat | None, output: Path | None) -> OutputFormat:
    if output is None:
        if chosen == OutputFormat.PARQUET:
            raise ConfigurationError("--format parquet is not for the screen: name a file with --output.")
        return chosen or (OutputFormat.TABLE if sys.stdout.isatty() else OutputFormat.CSV)
    form = chosen or _SUFFIXES.get(output.suffix.lower())
    if form is None or form == OutputFormat.TABLE:
        raise ConfigurationError(
            f"--output {output} does not show the format: end it in .csv, .json or .parquet, or give --format."
        )
    return form


def _text(sql: str | None, file: Path | None) -> str | None:
    """The query, or None to show the prompt."""
    if sql is not None and file is not None:
        raise ConfigurationError("The query is given twice, as argument and with --file: leave one out.")
    if sql is not None:
        return sql
    if file is None:
        return None if sys.stdin.isatty() else sys.stdin.read().removeprefix("\ufeff")
    try:
        return decoded(file.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"--file {file} cannot be read: {os.strerror(error.errno or 0)}.") from error
    except ValueError as reason:
        raise ConfigurationError(f"--file {file} {reason}.") from None


@contextmanager
def _replaced(path: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name when the block ends without an error."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with part.open("wb") as target:
                yield target
                target.flush()
                os.fsync(target.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--output {path} cannot be written: {os.strerror(error.errno or 0)}.") from error


def _interruptible(connection: duckdb.DuckDBPyConnection, work: Callable[[], None]) -> None:
    """Run a query in another thread, so that Ctrl-C can end it: the engine's own thread receives no signals."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        try:
            future.result()
        except KeyboardInterrupt:
            connection.interrupt()
            raise


def _write(connection: duckdb.DuckDBPyConnection, text: str, output: Path, form: OutputFormat, exact: bool) -> None:
    relation = select(connection, text)
    with _replaced(output) as target:
        write_rows(relation, target, Format(form.value), exact=exact)


def _print(connection: duckdb.DuckDBPyConnection, text: str, form: OutputFormat, exact: bool) -> None:
    relation = select(connection, text)
    if form == OutputFormat.TABLE:
        with sql_errors():
            _print_table(relation)
        return
    # Data is written unchanged, except to a terminal, which would act on control characters.
    is_shown = sys.stdout.isatty()
    try:
        with raising_output() as out:
            target = cast("BinaryIO", _Visible(out, has_quoted_lines=form == OutputFormat.CSV)) if is_shown else out
            write_rows(relation, target, Format(form.value), exact=exact)
    except BrokenPipeError:
        # The reader stopped early, as `head` does.
        return
    except OSError as error:
        raise StorageError(f"The rows cannot be written to standard output: {output_error(error)}.") from error


def _print_table(relation: duckdb.DuckDBPyRelation) -> None:
    if relation.columns == ["explain_key", "explain_value"]:
        # A plan is a drawing of many lines.
        for _, plan in relation.fetchall():
            typer.echo(visible(plan, keep="\n"))
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH_WHEN_PIPED
    with redirect_stdout(io.StringIO()) as drawn:
        relation.show(max_width=width, max_rows=_ROWS_SHOWN)
    typer.echo(visible(drawn.getvalue(), keep="\n"), nl=False)


class _Visible:
    """Writes bytes to a terminal with control characters escaped; in CSV, also line breaks within quotes."""

    closed = False

    def __init__(self, target: BinaryIO, *, has_quoted_lines: bool) -> None:
        self._target = target
        self._has_quoted_lines = has_quoted_lines
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._is_quoted = False

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer) -> int:
        content = bytes(data)
        parts = self._decode(content).split('"')
        for number, part in enumerate(parts):
            # JSON has no line breaks within quotes, and escapes quotes differently.
            if number and self._has_quoted_lines:
                self._is_quoted = not self._is_quoted
            parts[number] = visible(part, keep="" if self._is_quoted else "\n")
        self._target.write('"'.join(parts).encode())
        return len(content)

    def flush(self) -> None:
        self._target.flush()


def _ask(connection: duckdb.DuckDBPyConnection, form: OutputFormat, exact: bool = False) -> None:
    """Run queries from a terminal until the user ends the prompt."""
    names = relations()
    _print_relations(names)
    _print_help()
    readline.set_completer(_Completer([*names, *_KEYWORDS]))
    readline.parse_and_bind("tab: complete")
    lines: list[str] = []
    while True:
        try:
            lines.append(input("...> " if lines else "sql> "))
            if not "".join(lines).strip():
                lines.clear()
            word = "".join(lines).strip().rstrip(";").rstrip().lower()
            if word in _ENDING:
                return
            if word in _HELPING or word in _LISTING:
                lines.clear()
                if word in _LISTING:
                    _print_relations(names)
                else:
                    _print_help()
            if lines and lines[-1].rstrip().endswith(";"):
                text = "\n".join(lines)
                lines.clear()
                _interruptible(connection, partial(_print, connection, text, form, exact))
        except EOFError:
            typer.echo()
            return
        except KeyboardInterrupt:
            # Ctrl-C cancels the query, not the prompt.
            lines.clear()
            typer.echo()
        except PipelineError as error:
            print_error(str(error))


def _print_relations(names: dict[str, str]) -> None:
    console = Console()
    for name, meaning in names.items():
        console.print(f"[bold]{name:<22}[/]{escape(meaning)}", highlight=False, overflow="ellipsis", no_wrap=True)


def _print_help() -> None:
    Console().print(
        "\nEnd a query with a semicolon. DESCRIBE images; shows columns, .tables lists tables. exit or Ctrl-D ends.\n",
        highlight=False,
        soft_wrap=True,
    )


class _Completer:
    """Completes the typed word from tables, columns and keywords."""

    def __init__(self, words: list[str]) -> None:
        self._words = words

    def __call__(self, begun: str, number: int) -> str | None:
        found = [word for word in self._words if word.lower().startswith(begun.lower())]
        return found[number] if number < len(found) else None
