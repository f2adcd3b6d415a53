"""Reads inventories from files and databases, in pieces, as columns with the source's own names.

One function for each kind of source yields chunks, so memory does not grow with the source. The meaning of columns and
rows belongs to `inventory.cleaning`.
"""

import csv
import itertools
import json
import os
import re
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TextIO
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from pipelines.errors import ConfigurationError, EndpointUnreachableError, PipelineError
from pipelines.inputs.environment import at_home
from pipelines.inputs.secret_urls import looks_like_url, parse_secret_url
from pipelines.inputs.text_files import decoded

LISTED = "modelarts:"
BATCH_ROWS = 32_768

_CONNECT_SECONDS = 10
_BLOCK_CHARACTERS = 1 << 20

# The source's column names, and one list or Arrow array for each column. The first chunk may have no rows; it states
# the columns.
Chunk = tuple[Sequence[str], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class InventorySource:
    """The source of an inventory. `name` holds no credentials; `modified_at` (UTC) is known for files only."""

    kind: Literal["file", "database", "modelarts"]
    name: str
    modified_at: datetime | None


def describe_source(source: str) -> InventorySource:
    """Describe `source` without reading it and without its credentials.

    Raises:
        ConfigurationError: `source` is a file that cannot be found or opened, or a malformed database URL.
    """
    if source == LISTED:
        return InventorySource("modelarts", LISTED, None)
    if looks_like_url(source):
        url = _database_url(source)
        return InventorySource("database", _display_name(url), None)
    path = _path(source)
    _ending(path)
    with _opening(path):
        modified = path.stat().st_mtime
    return InventorySource("file", str(path), datetime.fromtimestamp(modified, UTC))


def check_source(source: str, query_file: Path) -> None:
    """Check that a file can be opened, or a database's URL and query be read, without connecting to anything.

    Raises:
        ConfigurationError: they cannot.
    """
    if describe_source(source).kind == "database":
        _statement(query_file)


def read_source(source: str, query_file: Path, project_key: str) -> Iterator[Chunk]:
    """Read a file or database; `query_file` is the query for a database and may use the parameter `:project`.

    Raises:
        ConfigurationError: the source is missing, unreadable, malformed or refused.
        EndpointUnreachableError: the database does not answer; trying later may help.
    """
    if looks_like_url(source):
        yield from _read_database(source, query_file, project_key)
    else:
        yield from _read_file(_path(source))


def brief(error: Exception) -> str:
    """The first line of a library's message, without a full stop."""
    return str(error).partition("\n")[0].strip().rstrip(".")


# Files


def _path(stated: str) -> Path:
    try:
        return Path(at_home(stated))
    except ValueError as reason:
        raise ConfigurationError(f"The path of the inventory {reason}: correct IMAGE_SNAPSHOTS_INVENTORY.") from None


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Check that `path` can be opened; otherwise raise one sentence that says why not."""
    try:
        with path.open("rb"):
            pass
        yield
    except FileNotFoundError:
        raise ConfigurationError(
            f"The inventory file {path} does not exist (working directory {Path.cwd()}): correct "
            "IMAGE_SNAPSHOTS_INVENTORY."
        ) from None
    except OSError as error:
        raise ConfigurationError(f"The inventory file {path} cannot be read: {error.strerror}.") from None


def _ending(path: Path) -> str:
    ending = path.suffix.lower()
    if ending not in _READERS:
        raise ConfigurationError(
            f"The inventory {path} is of an unknown kind: it must be a file that ends in {' '.join(_READERS)}, a "
            f"database URL such as postgresql://user@host/database, or {LISTED} for the API's own list."
        )
    return ending


def _read_file(path: Path) -> Iterator[Chunk]:
    reader = _READERS[_ending(path)]
    try:
        yield from reader(path)
    except UnicodeDecodeError:
        raise ConfigurationError(f"The inventory file {path} is not UTF-8 text: save it as UTF-8.") from None
    except (pa.ArrowException, OSError) as error:
        kind = _ending(path).removeprefix(".").upper()
        raise ConfigurationError(f"The inventory file {path} is not valid {kind}: {brief(error)}.") from None


def _read_csv(path: Path) -> Iterator[Chunk]:
    # Allow fields of any length: a URL or a description may be longer than the default of 128 KiB.
    csv.field_size_limit(sys.maxsize)
    # Not Arrow's reader: with an unclosed quotation mark it reads the following rows as one value, and so loses them.
    with path.open(encoding="utf-8-sig", newline="") as file:
        delimiter = "\t" if _ending(path) == ".tsv" else ","
        # Skip blanks only before quotes, where the quotes would otherwise be part of the value.
        is_spaced = re.search(rf'(?m)(?:^|{delimiter}) +"', file.read(_BLOCK_CHARACTERS)) is not None
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=is_spaced)
        rows = _csv_rows(path, reader)
        names = next(rows, None)
        if names is None:
            raise ConfigurationError(f"The inventory file {path} is empty: it needs a header with a column 'id'.")
        yield names, [[] for _ in names]
        while chunk := list(itertools.islice(rows, BATCH_ROWS)):
            yield names, list(zip(*chunk, strict=True))


def _csv_rows(path: Path, reader: Any) -> Iterator[list[str]]:
    """Yield the header and all rows except blank lines; each has as many values as the header."""
    width, line = 0, 1
    try:
        for row in reader:
            width = width or len(row)
            if row and len(row) == width:
                yield row
            elif row:
                raise ConfigurationError(
                    f"The inventory file {path} is broken in line {line}: it has {len(row)} values for {width} columns."
                )
            line = reader.line_num + 1
    except csv.Error as error:
        raise ConfigurationError(
            f"The inventory file {path} is broken in the row that begins in line {line}: {brief(error)}."
        ) from None


def _read_parquet(path: Path) -> Iterator[Chunk]:
    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        yield names, [[] for _ in names]
        for batch in file.iter_batches(BATCH_ROWS):
            yield names, batch.columns


def _read_lines(path: Path) -> Iterator[Chunk]:
    """Read one id per line; `#` at the start or after white space begins a comment."""
    with path.open(encoding="utf-8-sig") as file:
        texts = (re.split(r"(?:^|\s)#", line, maxsplit=1)[0].rstrip("\r\n") for line in file)
        ids = (text for text in texts if text.strip())
        while chunk := list(itertools.islice(ids, BATCH_ROWS)):
            yield ["id"], [chunk]


def _read_json_lines(path: Path) -> Iterator[Chunk]:
    def items(file: TextIO) -> Iterator[Any]:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield _JSON.decode(line)
                except (json.JSONDecodeError, RecursionError) as error:
                    raise _broken_json(path, number, error) from None

    with path.open(encoding="utf-8-sig") as file:
        yield from _json_chunks(path, items(file))


def _read_json(path: Path) -> Iterator[Chunk]:
    with path.open(encoding="utf-8-sig") as file:
        yield from _json_chunks(path, _JsonDocument(path, file).items())


def _json_chunks(path: Path, items: Iterator[Any]) -> Iterator[Chunk]:
    """Collect objects or bare ids into columns; a name that occurred once stays a column."""
    names: dict[str, None] = {}
    number = 0
    while chunk := list(itertools.islice(items, BATCH_ROWS)):
        rows = []
        for item in chunk:
            number += 1
            if isinstance(item, list):
                raise ConfigurationError(
                    f"The inventory file {path} has a list as its item {number}: items are ids or objects."
                )
            row = item if isinstance(item, dict) else {"id": item}
            rows.append(row)
            names.update(dict.fromkeys(row))
        yield list(names), [[row.get(name) for row in rows] for name in names]


_READERS = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_lines,
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".parquet": _read_parquet,
}


def _broken_json(path: Path, line: int, error: Exception) -> ConfigurationError:
    what = error.msg if isinstance(error, json.JSONDecodeError) else "it is nested too deeply"
    return ConfigurationError(f"The inventory file {path} is broken JSON in line {line}: {what}.")


def _integer(digits: str) -> int | str:
    # A number beyond 64 bits would be rounded on its way to JSON, so keep it as text.
    return int(digits) if len(digits) < 19 else digits


_JSON = json.JSONDecoder(parse_int=_integer, parse_constant=str)
_JSON_SPACE = re.compile(r"[ \t\r\n]*")


class _JsonDocument:
    """Yields the items of one array without holding the document. The array is the document, or its only list."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path = path
        self._file = file
        self._text = ""
        self._at = 0
        self._lines = 1

    def items(self) -> Iterator[Any]:
        lists = 0
        if self._peek() == "[":
            lists = 1
            yield from self._array()
        elif self._peek() == "{":
            for _ in self._members("{", "}"):
                self._value()
                self._take(":")
                if self._peek() != "[":
                    self._value()
                    continue
                lists += 1
                if lists == 1:
                    yield from self._array()
                else:
                    self._value()
        if lists != 1:
            raise ConfigurationError(
                f"The inventory file {self._path} must hold an array, or an object with one list (it has {lists}): "
                "write the ids, or objects with an id, as a JSON array."
            )
        if self._peek():
            raise self._error("there is text after its end (a file with one object per line must end in .jsonl)")

    def _array(self) -> Iterator[Any]:
        for _ in self._members("[", "]"):
            yield self._value()

    def _members(self, opening: str, end: str) -> Iterator[None]:
        self._take(opening)
        if self._peek() == end:
            self._at += 1
            return
        while True:
            yield
            if self._peek() == end:
                self._at += 1
                return
            self._take(",")

    def _peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            space = _JSON_SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _take(self, character: str) -> None:
        if self._peek() != character:
            raise self._error(f"expected {character!r}")
        self._at += 1

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = _JSON.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._more():
                    continue
                self._at = error.pos
                raise self._error(error.msg) from None
            except RecursionError:
                raise self._error("it is nested too deeply") from None
            # A number at the end of the block may continue in the next one.
            if end == len(self._text) and self._more():
                continue
            self._at = end
            return value

    def _more(self) -> bool:
        block = self._file.read(_BLOCK_CHARACTERS)
        if not block:
            return False
        self._lines += self._text.count("\n", 0, self._at)
        self._text = self._text[self._at :] + block
        self._at = 0
        return True

    def _error(self, what: str) -> ConfigurationError:
        line = self._lines + self._text.count("\n", 0, self._at)
        return ConfigurationError(f"The inventory file {self._path} is broken JSON in line {line}: {what}.")


# Databases


def _database_url(source: str) -> sa.URL:
    try:
        # Checked before SQLAlchemy, which would find another host in an ambiguous URL.
        parse_secret_url(source, "postgresql://user:password@host:5432/database")
    except ValueError as reason:
        raise ConfigurationError(f"The inventory's database URL is malformed: it {reason}.") from None
    try:
        url = sa.make_url(source)
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername="postgresql+psycopg")
        url.get_dialect()
    except sa.exc.NoSuchModuleError:
        raise ConfigurationError(
            f"The inventory is in a database of an unknown kind, {source.partition('://')[0]!r}: use a URL such as "
            "postgresql://user@host/database or sqlite:///path/to/file."
        ) from None
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigurationError(
            "The inventory's database URL is malformed: it must look like "
            "postgresql://user:password@host:5432/database (percent-encode special characters in the password)."
        ) from None
    return url


def _display_name(url: sa.URL) -> str:
    # The part after the question mark may hold a password, too.
    return url.set(query={}).render_as_string(hide_password=True)


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() == "sqlite":
        if not url.database:
            raise ConfigurationError("The inventory's database URL names no file: write sqlite:///path/to/file.")
        path = _path(url.database)
        with _opening(path):
            uri = f"file:{quote(str(path.resolve()))}?mode=ro"
        return sa.create_engine("sqlite://", poolclass=sa.NullPool, creator=lambda: sqlite3.connect(uri, uri=True))

    connect_args: dict[str, Any] = {}
    if url.get_driver_name() == "psycopg" and "connect_timeout" not in url.query:
        connect_args["connect_timeout"] = _CONNECT_SECONDS
    if url.get_driver_name() == "psycopg" and "client_encoding" not in url.query:
        # A database without an encoding (SQL_ASCII) would return text as bytes.
        connect_args["client_encoding"] = os.environ.get("PGCLIENTENCODING", "UTF8")
    try:
        return sa.create_engine(url, poolclass=sa.NullPool, connect_args=connect_args)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"The inventory database needs the Python package {error.name!r}: install it, or use another driver."
        ) from None


def _read_database(source: str, query_file: Path, project_key: str) -> Iterator[Chunk]:
    url = _database_url(source)
    statement = _statement(query_file)
    parameters = {"project": project_key} if statement.compile().params else {}
    engine = _engine(url)
    options: dict[str, Any] = {"stream_results": True}
    if url.get_backend_name() == "postgresql":
        options["postgresql_readonly"] = True
    try:
        with engine.connect().execution_options(**options) as connection:
            result = connection.execute(statement, parameters)
            if not result.returns_rows:
                raise ConfigurationError(f"The inventory query {query_file} returns no rows: it must be a SELECT.")
            with closing(result):
                names = list(result.keys())
                yield names, [[] for _ in names]
                for rows in result.partitions(BATCH_ROWS):
                    yield names, list(zip(*rows, strict=True))
    except sa.exc.DBAPIError as error:
        raise _database_error(error, url, query_file) from None
    finally:
        engine.dispose()


def _statement(query_file: Path) -> sa.TextClause:
    try:
        sql = decoded(query_file.read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it {error}"
        raise ConfigurationError(
            f"The inventory query {query_file} cannot be read: {reason} (setting IMAGE_SNAPSHOTS_INVENTORY_QUERY)."
        ) from None
    sql = _without_comments(sql).strip().rstrip(";").strip()
    if not re.match(r"(?i)(select|with)\b", sql):
        raise ConfigurationError(f"The inventory query {query_file} must be one SELECT statement.")
    statement = sa.text(sql)
    unknown = sorted(set(statement.compile().params) - {"project"})
    if unknown:
        raise ConfigurationError(
            f"The inventory query {query_file} uses the parameter :{unknown[0]}: only :project is known."
        )
    return statement


def _without_comments(sql: str) -> str:
    """Drop comments and escape colons in literals: SQLAlchemy would find parameters in both."""

    def replace(match: re.Match[str]) -> str:
        found = match[0]
        return found.replace(":", r"\:") if found[0] in "'\"" else " "

    return re.sub(r"'[^']*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/", replace, sql, flags=re.DOTALL)


def _database_error(error: sa.exc.DBAPIError, url: sa.URL, query_file: Path) -> PipelineError:
    # The text of `error` holds the whole statement; `error.orig` has only the database's message.
    said = brief(error.orig) if isinstance(error.orig, Exception) else type(error).__name__
    stated = url.render_as_string(hide_password=False)
    said = parse_secret_url(stated, "").hide(said)
    name = _display_name(url)
    refused = re.search(r"authentication failed|no password supplied|does not exist|denied", said)
    if "invalid byte sequence" in said:
        return ConfigurationError(
            f"The inventory database {name} holds text that is not UTF-8 ({said}): state its encoding at the end of "
            "its URL, such as ?client_encoding=LATIN1."
        )
    # SQLite uses one class for all errors.
    if isinstance(error, sa.exc.OperationalError) and url.get_backend_name() != "sqlite" and not refused:
        return EndpointUnreachableError(
            f"The inventory database {name} does not answer: {said}. Try again when it is up."
        )
    return ConfigurationError(
        f"The inventory database {name} refused: {said}. Check IMAGE_SNAPSHOTS_INVENTORY and the query {query_file}."
    )
