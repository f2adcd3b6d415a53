"""The engine that scales out: Apache Spark, on this machine or on a cluster; needs the optional extra `spark`.

The process has one Spark session; each engine has its own session of temporary views below it. `spark_sql` translates
DuckDB's SQL to Spark's. Memory, credentials and libraries of the cluster are set in Spark's own configuration
(`spark-defaults.conf` in `SPARK_CONF_DIR`).
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

# Options that the results depend on; all others belong to Spark's configuration.
_SESSION = {
    "spark.sql.session.timeZone": "UTC",
    # A text that is not a number is an error, as in DuckDB, not null.
    "spark.sql.ansi.enabled": "true",
    "spark.sql.caseSensitive": "false",
    "spark.sql.legacy.timeParserPolicy": "CORRECTED",
    # SQL cannot read files; only `load_file` can.
    "spark.sql.runSQLOnFiles": "false",
}
_APPLICATION = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}
_LOOPBACK = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
_LOGGING = Path(__file__).with_name("spark-log4j2.properties")

# Rows that this process holds while sending or fetching, unless one of Spark's partitions has more.
_BATCH_ROWS = 131_072
# After this many additions a relation is merged, so that plans do not grow with the number of days.
_MOST_PARTS = 16

# DuckDB's TRIM removes Unicode's space separators; Spark's removes U+0020 only.
_SPACES = "\u0020\u00a0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u202f\u205f\u3000"
# strftime -> java.time, for the fields that both write alike.
_TIME_FIELDS = {
    "%Y": "yyyy", "%y": "yy", "%m": "MM", "%d": "dd", "%H": "HH", "%M": "mm", "%S": "ss", "%f": "SSSSSS", "%j": "DDD"
}  # fmt: skip


class SparkEngine(Engine):
    """Spark at a master (`local[*]`, `spark://...`, `yarn`, ...): relations are temporary views of a session.

    The executors keep the rows of relations (`create`, `append`, loaded batches) in memory and on their disks, without
    the plan behind them. If an executor is lost, the run fails and can be started again.
    """

    def __init__(self, master: str) -> None:
        self._master = master
        # Each relation's frame, and the number of additions since it was merged.
        self._held: dict[str, tuple[DataFrame, int]] = {}

    def __enter__(self) -> Self:
        self._session = _shared_session(self._master).newSession()
        for name, value in _SESSION.items():
            self._session.conf.set(name, value)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The executors drop rows that nothing refers to.
        self._held.clear()
        if isinstance(error, (PySparkException, Py4JError, SqlglotError)):
            raise PipelineError(
                f"Spark failed: {_reason(error)}. See its log; run again when the cause is fixed."
            ) from error

    def session(self) -> "SparkEngine":
        """An engine with no relations yet: every engine has a session of its own."""
        return SparkEngine(self._master)

    def expect(self, rows: int) -> None:
        """Do nothing: Spark looks at the rows itself."""

    def load(self, name: str, data: pa.Table | pa.RecordBatchReader) -> None:
        """Create a relation from Arrow data."""
        if isinstance(data, pa.Table):
            self._hold(name, self._session.createDataFrame(data))
            return
        frame = self._session.createDataFrame(data.schema.empty_table())
        for table in _tables(data):
            # Without the checkpoint, the sent rows would stay in this process.
            frame = frame.unionAll(self._session.createDataFrame(table).localCheckpoint())
        self._hold(name, frame)

    def load_file(self, name: str, path: LakePath, columns: str = "*") -> None:
        """Create a relation that reads a Parquet file of the lake, without its directory keys.

        Raises:
            StorageError: the file does not exist, or Spark cannot read it.
        """
        # Read the columns here: Spark would start a job for each file to find them.
        with open_parquet(path) as file:
            columns_of_file = self._session.createDataFrame(file.schema_arrow.empty_table()).schema
        try:
            # Read the file, not its directory: so the keys of its path do not become columns.
            frame = self._session.read.schema(columns_of_file).parquet(_uri(path))
        except PySparkException as error:
            raise StorageError(
                f"Spark cannot read {_uri(path)}: {_reason(error)}. The lake must be where all executors can read it "
                "under this name."
            ) from error
        frame.selectExpr(*columns.split(", ")).createOrReplaceTempView(name)

    def create(self, name: str, sql: str) -> None:
        """Create a relation with the current rows of a SELECT."""
        self._hold(name, self._frame(sql).localCheckpoint())

    def append(self, name: str, sql: str) -> None:
        """Add the rows of a SELECT to a relation made by `create`, or by `load` from a table."""
        held, parts = self._held[name]
        grown = held.unionAll(self._frame(sql))
        if parts == _MOST_PARTS:
            grown, parts = grown.localCheckpoint(), 0
        self._hold(name, grown, parts + 1)

    def create_view(self, name: str, sql: str) -> None:
        """Create a relation that runs a SELECT each time it is read."""
        self._frame(sql).createOrReplaceTempView(name)

    def hold(self, name: str, selects: Iterable[str]) -> None:
        """Create a relation with the rows of several SELECTs, one after the other, outside this process's memory."""
        frames = [self._frame(sql).localCheckpoint() for sql in selects]
        self._hold(name, functools.reduce(DataFrame.unionAll, frames))

    def rest(self) -> None:
        """Do nothing: the executors manage their own memory."""

    def read(self, sql: str) -> pa.Table:
        """The rows of a SELECT, in memory."""
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
    """The session of this process, started on first use and stopped when the process ends.

    Raises:
        ConfigurationError: Java is missing, or Spark cannot be started.
    """
    if "JAVA_HOME" not in os.environ and shutil.which("java") is None:
        raise ConfigurationError(
            "IMAGE_SNAPSHOTS_ENGINE=spark needs Java 17 or newer: install it (such as the package "
            "`default-jre-headless`) or set JAVA_HOME, or leave the setting out."
        )
    # Log errors only, unless the user sets something else.
    os.environ.setdefault("SPARK_SUBMIT_OPTS", f"-Dlog4j2.configurationFile={_LOGGING.as_uri()}")
    options: dict[str, bool | float | int | str | None] = {**_SESSION, **_APPLICATION}
    if re.match(r"local(\[|$)", master):
        options |= _LOOPBACK
        # Without this, Spark creates a directory in the working directory.
        scratch = tempfile.mkdtemp(prefix="image-snapshots-")
        atexit.register(shutil.rmtree, scratch, ignore_errors=True)
        options["spark.sql.warehouse.dir"] = Path(scratch).as_uri()
    # This logger prints every refused statement on standard error, with Java's stack trace.
    logging.getLogger("SQLQueryContextLogger").setLevel(logging.CRITICAL)
    # No code here uses pandas.
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
    """The first line of an error, or of its cause for a failed job."""
    text = str(error)
    if isinstance(error, Py4JJavaError):
        cause = error.java_exception
        while cause.getCause() is not None:
            cause = cause.getCause()
        text = cause.toString()
    return text.strip().partition("\n")[0].rstrip(" .:!")


def _uri(file: object) -> str:
    """Spark's name for a file of the lake, with wildcards escaped."""
    text = str(file)
    scheme, separator, path = text.partition("://")
    if not separator:
        scheme, path = "file", text
    # Hadoop's S3 connector is named s3a.
    scheme = "s3a" if scheme == "s3" else scheme
    return f"{scheme}://" + re.sub(r"([\\*?\[\]{}])", r"\\\1", path)


# --- moving rows ----------------------------------------------------------------------------------------------------


def _tables(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Combine batches into tables large enough to send."""
    pending: list[pa.RecordBatch] = []
    for batch in reader:
        pending.append(batch)
        if sum(one.num_rows for one in pending) >= _BATCH_ROWS:
            yield pa.Table.from_batches(pending)
            pending = []
    if pending:
        yield pa.Table.from_batches(pending)


def _fetched(frame: DataFrame) -> Iterator[pa.RecordBatch]:
    """The rows of a frame in order, a few partitions at a time."""
    # Compute the frame once, not once per fetched partition.
    held = frame.localCheckpoint()
    if held.rdd.getNumPartitions() == 1:
        yield from held.toArrow().to_batches()
        return
    partition = F.spark_partition_id()
    sizes = held.groupBy(partition.alias("partition")).count().sort("partition").toArrow().to_pylist()
    for first, last in _spans([(row["partition"], row["count"]) for row in sizes]):
        yield from held.where(partition.between(first, last)).toArrow().to_batches()


def _spans(sizes: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """First and last partition of each group of neighbours that has about one batch of rows."""
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
    """Parse a statement in DuckDB's dialect."""
    return parse_one(sql, read="duckdb")


def spark_sql(statement: exp.Expr) -> str:
    """Translate a statement to Spark's dialect, with the meaning that it has in DuckDB."""
    statement = statement.copy()
    # Translate inner nodes first.
    for node in reversed(list(statement.walk())):
        replacement = _as_in_duckdb(node)
        if node is statement:
            statement = replacement
        elif replacement is not node:
            node.replace(replacement)
    return statement.sql(dialect="spark", comments=False)


def _as_in_duckdb(node: exp.Expr) -> exp.Expr:
    """Translate what sqlglot leaves as it is, or translates to something with another meaning in Spark."""
    match node:
        case exp.Trim() if node.expression is None:
            node.set("expression", exp.Literal.string(_SPACES))
            node.set("position", node.args.get("position") or "BOTH")
        case exp.TimeToStr() if node.args["format"].is_string:
            pattern = exp.Literal.string(_time_pattern(node.args["format"].this))
            return exp.Anonymous(this="DATE_FORMAT", expressions=[node.this, pattern])
        case exp.DateDiff() if node.text("unit").upper() == "DAY":
            # For times, Spark's function counts whole days, DuckDB's counts midnights.
            dates = [exp.cast(side, "DATE") for side in (node.this, node.expression)]
            return exp.Anonymous(this="DATEDIFF", expressions=dates)
        case exp.Select() if node.is_star and node.args.get("qualify"):
            return _without_added(node, eliminate_qualify)
        case exp.Select() if node.is_star and isinstance(node.args.get("distinct"), exp.Distinct):
            return _without_added(node, eliminate_distinct_on)
    return node


def _without_added(select: exp.Select, eliminate: Callable[[exp.Expr], exp.Expr]) -> exp.Expr:
    """Replace a clause that Spark lacks in a `SELECT *`, without the helper column that replaces the clause."""
    columns = len(select.expressions)
    outer = eliminate(select.copy())
    subquery = outer.find(exp.Subquery)
    if subquery is not None:
        added = [exp.to_identifier(column.alias) for column in subquery.this.expressions[columns:]]
        if added:
            outer.set("expressions", [exp.Star(except_=added)])
    return outer


def _time_pattern(pattern: str) -> str:
    """Translate a strftime pattern to java.time, with literal letters quoted."""
    pieces = re.split(r"(%.)", pattern)
    return "".join(
        _TIME_FIELDS.get(piece) or ("'" + piece.replace("%%", "%").replace("'", "''") + "'")
        for piece in pieces
        if piece
    )
