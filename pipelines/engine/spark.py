"""The engine that scales out: Apache Spark, on this machine or on a cluster; the optional extra `spark`.

One session of Spark serves the whole process, and each engine has the temporary views of a session of its own. How
Spark differs from DuckDB in what it takes for SQL is settled here, by `spark_sql`. Where the cluster gets memory,
credentials and libraries from is Spark's own configuration (`spark-defaults.conf` in `SPARK_CONF_DIR`).
"""

import atexit
import functools
import logging
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from pipelines.engine.interface import Engine
from pipelines.errors import ConfigurationError, PipelineError, StorageError
from pipelines.lake.parquet_files import open_parquet
from pipelines.lake.storage import LakePath

_NOT_INSTALLED = (
    "IMAGE_SNAPSHOTS_ENGINE=spark needs the extra `spark`: install it with `pip install 'image-snapshots[spark]'` "
    "(from a clone: `pip install -e '.[spark]'`), or leave the setting out."
)

try:
    from py4j.protocol import Py4JError, Py4JJavaError
    from pyspark.errors import PySparkException
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql import functions as F  # noqa: N812  (as all of Spark's documentation has it)
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError
    from sqlglot.transforms import eliminate_distinct_on, eliminate_qualify
except ImportError as error:
    raise ConfigurationError(_NOT_INSTALLED) from error

# What the results depend on; all else is Spark's configuration.
_SESSION = {
    "spark.sql.session.timeZone": "UTC",
    # What is no number is an error, as in DuckDB, and not null.
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "false",
    "spark.sql.legacy.timeParserPolicy": "CORRECTED",
    # No file is read but by `load_file`.
    "spark.sql.runSQLOnFiles": "false",
}
_APPLICATION = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_LOOPBACK = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
_LOGGING = Path(__file__).with_name("spark-log4j2.properties")

# Rows that this process holds at a time when it sends or fetches, unless one partition of Spark's has more.
_BATCH_ROWS = 131_072
# A relation that was added to more often than this is put together, so that plans do not grow with the days.
_MOST_PARTS = 16

# What DuckDB's TRIM takes for a space: Unicode's space separators. Spark's takes U+0020 alone.
_SPACES = "\u0020\u00a0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u202f\u205f\u3000"
# strftime -> java.time, for what the two write alike.
_TIME_FIELDS = {
    "%Y": "yyyy", "%y": "yy", "%m": "MM", "%d": "dd", "%H": "HH", "%M": "mm", "%S": "ss", "%f": "SSSSSS", "%j": "DDD"
}  # fmt: skip


class SparkEngine(Engine):
    """Spark at a master (`local[*]`, `spark://...`, `yarn`, ...): relations are temporary views of a session.

    What a relation holds (`create`, `append`, batches that are loaded) is kept by the executors, in memory and on
    their disks, without the plan that it came from: should an executor be lost, the run fails and can be run again.
    """

    def __init__(self, master: str) -> None:
        self._master = master
        # What was added to each since it was put together.
        self._held: dict[str, tuple[DataFrame, int]] = {}

    def __enter__(self) -> Self:
        self._session = _shared_session(self._master).newSession()
        for name, value in _SESSION.items():
            self._session.conf.set(name, value)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The executors drop what nothing refers to.
        self._held.clear()
        if isinstance(error, (PySparkException, Py4JError, SqlglotError)):
            raise PipelineError(
                f"Spark failed: {_reason(error)}. Its log says more; run again when that is mended."
            ) from error

    def load(self, name: str, data: pa.Table | pa.RecordBatchReader) -> None:
        """Make a relation from Arrow data."""
        if isinstance(data, pa.Table):
            self._hold(name, self._session.createDataFrame(data))
            return
        frame = self._session.createDataFrame(data.schema.empty_table())
        for table in _tables(data):
            # Or what is sent would stay in this process.
            frame = frame.unionAll(self._session.createDataFrame(table).localCheckpoint())
        self._hold(name, frame)

    def load_file(self, name: str, path: LakePath, columns: str = "*") -> None:
        """Make a relation that reads a Parquet file of the lake, without its directory keys.

        Raises:
            StorageError: the file is not there, or Spark cannot read it.
        """
        # Spark would start a job for each file to find its columns.
        with open_parquet(path) as file:
            columns_of_file = self._session.createDataFrame(file.schema_arrow.empty_table()).schema
        try:
            # One file, not its directory: the keys of its path become no columns.
            frame = self._session.read.schema(columns_of_file).parquet(_uri(path))
        except PySparkException as error:
            raise StorageError(
                f"Spark cannot read {_uri(path)}: {_reason(error)}. The lake must be where all executors find it "
                "under this name."
            ) from error
        frame.selectExpr(*columns.split(", ")).createOrReplaceTempView(name)

    def create(self, name: str, sql: str) -> None:
        """Make a relation that holds what a SELECT gives now."""
        self._hold(name, self._frame(sql).localCheckpoint())

    def append(self, name: str, sql: str) -> None:
        """Add what a SELECT gives to a relation that was made by `create`, or by `load` from a table."""
        held, parts = self._held[name]
        grown = held.unionAll(self._frame(sql))
        if parts == _MOST_PARTS:
            grown, parts = grown.localCheckpoint(), 0
        self._hold(name, grown, parts + 1)

    def create_view(self, name: str, sql: str) -> None:
        """Make a relation that is what a SELECT gives whenever it is read."""
        self._frame(sql).createOrReplaceTempView(name)

    def hold(self, name: str, selects: Iterable[str]) -> None:
        """Make a relation of what SELECTs give, one after the other, and hold it outside this process's memory."""
        frames = [self._frame(sql).localCheckpoint() for sql in selects]
        self._hold(name, functools.reduce(DataFrame.unionAll, frames))

    def rest(self) -> None:
        """Do nothing: memory is the executors' own."""

    def read(self, sql: str) -> pa.Table:
        """What a SELECT gives, in memory."""
        return self._frame(sql).toArrow()

    def _select(self, sql: str) -> tuple[list[str], Iterator[pa.RecordBatch]]:
        frame = self._frame(sql)
        return frame.columns, _fetched(frame)

    def _frame(self, sql: str) -> DataFrame:
        return self._session.sql(spark_sql(_parsed(sql)))

    def _hold(self, name: str, frame: DataFrame, parts: int = 0) -> None:
        self._held[name] = (frame, parts)
        frame.createOrReplaceTempView(name)


# --- the session ----------------------------------------------------------------------------------------------------


@functools.cache
def _shared_session(master: str) -> SparkSession:
    """The session of this process, started when it is first needed and stopped when the process ends.

    Raises:
        ConfigurationError: there is no Java, or Spark cannot be started.
    """
    if "JAVA_HOME" not in os.environ and shutil.which("java") is None:
        raise ConfigurationError(
            "IMAGE_SNAPSHOTS_ENGINE=spark needs Java 17 or newer: install it (such as the package "
            "`default-jre-headless`) or set JAVA_HOME, or leave the setting out."
        )
    # Errors alone, unless the user says otherwise.
    os.environ.setdefault("SPARK_SUBMIT_OPTS", f"-Dlog4j2.configurationFile={_LOGGING.as_uri()}")
    options: dict[str, bool | float | int | str | None] = {**_SESSION, **_APPLICATION}
    if re.match(r"local(\[|$)", master):
        options |= _LOOPBACK
        # Or Spark makes a directory where the user is.
        scratch = tempfile.mkdtemp(prefix="image-snapshots-")
        atexit.register(shutil.rmtree, scratch, ignore_errors=True)
        options["spark.sql.warehouse.dir"] = Path(scratch).as_uri()
    # It repeats every refused statement on standard error, with the trace of Java's calls.
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    # Nothing here goes through pandas.
    warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
    builder = SparkSession.builder.appName("image-snapshots").master(master).config(map=options)
    try:
        session = builder.getOrCreate()
    except (PySparkException, Py4JError) as error:
        raise ConfigurationError(
            f"Spark cannot be started at the master {master}: {_reason(error)}. Correct "
            "IMAGE_SNAPSHOTS_SPARK_MASTER or Spark's own configuration."
        ) from error
    atexit.register(session.stop)
    return session


def _reason(error: Exception) -> str:
    """The first line of an error; of a job that failed, that of its cause."""
    text = str(error)
    if isinstance(error, Py4JJavaError):
        cause = error.java_exception
        while cause.getCause() is not None:
            cause = cause.getCause()
        text = cause.toString()
    return text.strip().partition("\n")[0].rstrip(" .:!")


def _uri(file: object) -> str:
    """A file of the lake as Spark names it, in which its wildcards have no meaning."""
    text = str(file)
    scheme, separator, path = text.partition("://")
    if not separator:
        scheme, path = "file", text
    # Hadoop's connector for S3.
    scheme = "s3a" if scheme == "s3" else scheme
    return f"{scheme}://" + re.sub(r"([\\*?\[\]{}])", r"\\\1", path)


# --- moving rows ----------------------------------------------------------------------------------------------------


def _tables(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Batches put together to tables worth sending."""
    pending: list[pa.RecordBatch] = []
    for batch in reader:
        pending.append(batch)
        if sum(one.num_rows for one in pending) >= _BATCH_ROWS:
            yield pa.Table.from_batches(pending)
            pending = []
    if pending:
        yield pa.Table.from_batches(pending)


def _fetched(frame: DataFrame) -> Iterator[pa.RecordBatch]:
    """Rows of a frame in their order, a few partitions at a time."""
    # Computed once, whichever partitions are fetched.
    held = frame.localCheckpoint()
    if held.rdd.getNumPartitions() == 1:
        yield from held.toArrow().to_batches()
        return
    partition = F.spark_partition_id()
    sizes = held.groupBy(partition.alias("partition")).count().sort("partition").toArrow().to_pylist()
    for first, last in _spans([(row["partition"], row["count"]) for row in sizes]):
        yield from held.where(partition.between(first, last)).toArrow().to_batches()


def _spans(sizes: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """First and last partition of neighbours that have so many rows together."""
    while sizes:
        taken, rows = 1, sizes[0][1]
        while taken < len(sizes) and rows + sizes[taken][1] <= _BATCH_ROWS:
            rows += sizes[taken][1]
            taken += 1
        yield sizes[0][0], sizes[taken - 1][0]
        sizes = sizes[taken:]


# --- one SQL for both engines ---------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def _parsed(sql: str) -> exp.Expr:
    """A statement in DuckDB's dialect."""
    return parse_one(sql, read="duckdb")


def spark_sql(statement: exp.Expr) -> str:
    """A statement in Spark's dialect, with the meaning that it has in DuckDB."""
    statement = statement.copy()
    # What is inside first.
    for node in reversed(list(statement.walk())):
        replacement = _as_in_duckdb(node)
        if node is statement:
            statement = replacement
        elif replacement is not node:
            node.replace(replacement)
    return statement.sql(dialect="spark", comments=False)


def _as_in_duckdb(node: exp.Expr) -> exp.Expr:
    """What sqlglot leaves as it is, or puts in a way that means something else in Spark."""
    match node:
        case exp.Trim() if node.expression is None:
            node.set("expression", exp.Literal.string(_SPACES))
            node.set("position", node.args.get("position") or "BOTH")
        case exp.TimeToStr() if node.args["format"].is_string:
            pattern = exp.Literal.string(_time_pattern(node.args["format"].this))
            return exp.Anonymous(this="DATE_FORMAT", expressions=[node.this, pattern])
        case exp.DateDiff() if node.text("unit").upper() == "DAY":
            # Spark's of times counts whole days, DuckDB's midnights.
            dates = [exp.cast(side, "DATE") for side in (node.this, node.expression)]
            return exp.Anonymous(this="DATEDIFF", expressions=dates)
        case exp.Select() if node.is_star and node.args.get("qualify"):
            return _without_added(node, eliminate_qualify)
        case exp.Select() if node.is_star and isinstance(node.args.get("distinct"), exp.Distinct):
            return _without_added(node, eliminate_distinct_on)
    return node


def _without_added(select: exp.Select, eliminate: Callable[[exp.Expr], exp.Expr]) -> exp.Expr:
    """What becomes of `SELECT *` with a clause that Spark lacks, without the column that takes the clause's place."""
    columns = len(select.expressions)
    outer = eliminate(select.copy())
    subquery = outer.find(exp.Subquery)
    if subquery is not None:
        added = [exp.to_identifier(column.alias) for column in subquery.this.expressions[columns:]]
        if added:
            outer.set("expressions", [exp.Star(except_=added)])
    return outer


def _time_pattern(pattern: str) -> str:
    """A strftime pattern as one of java.time, where letters that stand for themselves are quoted."""
    pieces = re.split(r"(%.)", pattern)
    return "".join(
        _TIME_FIELDS.get(piece) or ("'" + piece.replace("%%", "%").replace("'", "''") + "'")
        for piece in pieces
        if piece
    )
