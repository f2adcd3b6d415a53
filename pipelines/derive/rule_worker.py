"""The process in which audit rules run: other people's SQL, where it can harm nothing and has limits.

It is started by `rule_process`, without the environment or the site's modules. It must start fast and hold no secret,
so it imports the engine and nothing of this project. One JSON object a line: first what it may read and its limits,
then one rule after the other. Each is answered by `error` (a sentence or null) and `is_last` (this process ends). What
a rule finds is a Parquet file in the scratch directory; there is none when it finds nothing.
"""

import glob
import json
import math
import os
import resource
import sys
from pathlib import Path
from typing import IO, Any

# The package `duckdb` adds what is written in Python, and takes four times as long to import.
import _duckdb as duckdb

# As in `pipelines.engine.sql_text`, which this process does not import.
_RUNNING_TEXT = ("json_execute_serialized_sql",)
_ONE_SELECT = "The file must hold one SELECT statement and nothing else."
# What there is to know of what a rule found. Most rules keep the order of the images, so that no id can come more than
# once.
_FACTS = """
SELECT COUNT(*) - COUNT(id), COUNT(*) - COUNT(evidence), SUM(STRLEN(evidence)), BOOL_AND(id > previous)
FROM (SELECT id, evidence, LAG(id) OVER () AS previous FROM {})
"""
_REPEATED_ID = "SELECT id FROM {} GROUP BY id HAVING COUNT(*) > 1 ORDER BY COUNT(*) DESC, id LIMIT 1"
_ISO_TIMESTAMP = "%Y-%m-%dT%H:%M:%S.%f"
# What a rule shows of an image, and of all that it finds: more is no evidence, and would have to be held.
_MOST_BYTES, _MOST_BYTES_IN_ALL = 65_536, 256_000_000
_LARGEST_FILE = 4 << 30
# What is found is read again for ranges of ids.
_GROUP_ROWS = 32_768
# After these the engine may be of no more use; this process ends, and the next rule gets another.
_FATAL = (duckdb.FatalException, duckdb.InternalException, duckdb.OutOfMemoryException)


class RuleError(Exception):
    """A rule cannot be applied; the message is the sentence that `audit_rules` shows."""


def _check_columns(columns: list[str]) -> None:
    """Refuse a SELECT whose columns are not an id and what shows why the image is found.

    Raises:
        RuleError: says what is wrong.
    """
    if columns[0].lower() != "id":
        raise RuleError(f"The first column must be called id, not {columns[0]}.")
    if len(columns) == 1:
        raise RuleError("The SELECT returns id alone: add at least one column that shows why the image is found.")


def _check_ids(nulls: int, repeated: str | None = None) -> None:
    """Refuse rows without an id, and an image that comes more than once.

    Raises:
        RuleError: says what is wrong.
    """
    if nulls:
        raise RuleError("The SELECT returns a row whose id is null.")
    if repeated is not None:
        raise RuleError(f"The SELECT returns an image more than once, such as {repeated}: return one row for each.")


def _check_evidence(too_long: int, total: int | None) -> None:
    """Refuse more evidence than is kept.

    Raises:
        RuleError: says what is wrong.
    """
    if too_long or (total or 0) > _MOST_BYTES_IN_ALL:
        raise RuleError(
            "The SELECT returns more evidence than is kept (64 KB for an image, 256 MB in all): return what "
            "shows why the image is found."
        )


def _failed(reason: str) -> RuleError:
    """The error of a rule of which the engine says why it fails, in a line without a full stop."""
    return RuleError(f"The SQL fails: {reason}.")


class _Rules:
    """The locked database that rules are applied in, with the relations that they may read."""

    def __init__(self, task: dict[str, Any]) -> None:
        self._scratch = Path(task["scratch"])
        config: dict[str, Any] = {
            "memory_limit": task["memory_limit"],
            # In little memory the buffers of a second thread are too much.
            "threads": 1,
            "temp_directory": str(self._scratch / "spilled"),
            "max_temp_directory_size": "8GB",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        }
        self._connection = duckdb.connect(":memory:", config=config)
        self._connection.execute("SET TimeZone = 'UTC'")
        for name, file in task["files"].items():
            # The engine takes `lake*` for a pattern, and would read others.
            names = ", ".join(_quoted(glob.escape(path)) for path in file["paths"])
            source = f"read_parquet([{names}], hive_partitioning = false)"
            self._connection.execute(f"CREATE TEMP VIEW {name} AS SELECT {file['columns']} FROM {source}")  # noqa: S608
        for name, sql in task["views"].items():
            self._connection.execute(f"CREATE TEMP VIEW {name} AS {sql}")
        # The engine asks for the name that it is given, and for that of the file it finds.
        paths = {
            name for file in task["files"].values() for path in file["paths"] for name in (path, glob.escape(path))
        }
        # The scratch directory alone can be written, by no statement that passes for a rule.
        self._connection.execute(f"SET allowed_paths = [{', '.join(map(_quoted, paths))}]")
        written = str(self._scratch / "found")
        directories = ", ".join(_quoted(f"{name}/") for name in (written, glob.escape(written)))
        self._connection.execute(f"SET allowed_directories = [{directories}]")
        self._connection.execute("SET allow_persistent_secrets = false")
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

    def apply(self, name: str, sql: str) -> None:
        """Write what a rule finds (rule, id, evidence), if anything, to its file in the scratch directory.

        Raises:
            RuleError: the rule cannot be applied.
        """
        try:
            # `WITH ... AS (INSERT ...)` counts among the SELECTs here, but no view is made of it.
            if not self._is_one(sql, duckdb.StatementType.SELECT) or self._runs_text(sql):
                raise RuleError(_ONE_SELECT)
            view = f"CREATE OR REPLACE TEMP VIEW rule AS {sql}"
            if not self._is_one(view, duckdb.StatementType.CREATE):
                raise RuleError(_ONE_SELECT)
            self._connection.execute(view)
            columns = self._connection.execute("SELECT * FROM rule LIMIT 0").description or []
            _check_columns([column[0] for column in columns])
            self._write(name, _evidence(columns[1:]))
        except _FATAL:
            raise
        except duckdb.Error as error:
            raise _failed(_reason(error)) from None

    def _write(self, name: str, evidence: str) -> None:
        """Write what `rule` finds to its file; there is none when it finds nothing.

        Raises:
            RuleError: it finds what may not be kept.
        """
        path = self._scratch / "found" / f"{name}.parquet"
        found = f"SELECT LOWER(CAST(id AS VARCHAR)) AS id, {evidence} AS evidence FROM rule"  # noqa: S608
        (rows,) = self._row(
            f"COPY (SELECT {_quoted(name)} AS rule, id, "  # noqa: S608
            # Longer evidence, which is refused below, would have to be held until it is written.
            f"CASE WHEN STRLEN(evidence) <= {_MOST_BYTES} THEN evidence END AS evidence FROM ({found})) "
            f"TO {_quoted(str(path))} (FORMAT parquet, COMPRESSION lz4_raw, ROW_GROUP_SIZE {_GROUP_ROWS})"
        )
        # Most rules find nothing on most days.
        if not rows:
            path.unlink()
            return
        file = _quoted(glob.escape(str(path)))
        nulls, too_long, total, is_ascending = self._row(_FACTS.format(file))
        _check_ids(nulls, *(() if is_ascending else self._row(_REPEATED_ID.format(file))))
        _check_evidence(too_long, total)

    def _runs_text(self, sql: str) -> bool:
        """Whether a SELECT calls a function that runs other statements, such as one that writes what others found."""
        (serialised,) = self._row(f"SELECT json_serialize_sql({_quoted(sql)})")
        return any(name in text.lower() for name in _RUNNING_TEXT for text in (sql, serialised))

    def _is_one(self, sql: str, kind: duckdb.StatementType) -> bool:
        return [one.type for one in self._connection.extract_statements(sql)] == [kind]

    def _row(self, sql: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = self._connection.execute(sql).fetchone()
        return row or ()


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(" .:!")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _evidence(columns: list[tuple[Any, ...]]) -> str:
    """SQL of a JSON object of these columns, as text: nulls included, times in ISO 8601."""
    members = ", ".join(f"{_quoted(name)}, {_json_value(name, str(type_))}" for name, type_, *_ in columns)
    return f"CAST(JSON_OBJECT({members}) AS VARCHAR)"


def _json_value(column: str, type_: str) -> str:
    """SQL of a column as a value of a JSON object; text for a number that JSON does not have."""
    name: str = '"' + column.replace('"', '""') + '"'
    if type_.startswith("TIMESTAMP") and not type_.endswith("]"):
        return f"STRFTIME({name}, '{_ISO_TIMESTAMP}{'Z' if type_.endswith('TIME ZONE') else ''}')"
    if type_ in {"FLOAT", "DOUBLE"}:
        return f"CASE WHEN ISFINITE({name}) THEN TO_JSON({name}) ELSE TO_JSON(CAST({name} AS VARCHAR)) END"
    return name


def _limit_processor(seconds: int) -> None:
    """Let the system end this process when it has taken so many seconds more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(
        resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime) + seconds, resource.RLIM_INFINITY)
    )


def serve() -> None:
    """Answer the requests of standard input on standard output."""
    # The engine prints, such as how far it is: nothing that it says may pass for an answer.
    with os.fdopen(os.dup(1), "w") as answers, open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        _answer_all(sys.stdin, answers)


def _answer_all(requests: IO[str], answers: IO[str]) -> None:
    task = json.loads(requests.readline())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))
    resource.setrlimit(resource.RLIMIT_DATA, (task["most_bytes"], task["most_bytes"]))

    def answer(error: str | None, *, is_last: bool = False) -> None:
        answers.write(json.dumps({"error": error, "is_last": is_last}) + "\n")
        answers.flush()

    try:
        rules = _Rules(task)
    except duckdb.Error as error:
        answer(_reason(error), is_last=True)
        return
    answer(None)
    for line in requests:
        rule = json.loads(line)
        _limit_processor(task["seconds"])
        try:
            rules.apply(rule["name"], rule["sql"])
        except RuleError as refused:
            answer(str(refused))
        except _FATAL as broken:
            answer(str(_failed(_reason(broken))), is_last=True)
            return
        else:
            answer(None)
