"""Divides the bill among images: the statements that a day brings, and what is known of each charge day.

A statement of a charge day comes days later and may be corrected. So each day divides only the statements that are new
on it, by the images and their storage on the charge day, and hands on what it knows of the others. Nothing that an
earlier day has published changes. The computing itself is `sql/cost/*.sql`, always in DuckDB: exact integers must not
depend on the engine.
"""

import datetime as dt
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa

from pipelines.derive.analysis import Analysis
from pipelines.engine.duckdb import DERIVING_MEMORY, DuckDBEngine
from pipelines.engine.sql_files import read_sql
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import REGISTRY, FileFacts, last_days, read_manifest
from pipelines.lake.parquet_files import read_batches
from pipelines.lake.storage import LakePath
from pipelines.tables import (
    AMOUNT_PLACES,
    BILL_DAYS,
    BILLED_COSTS,
    BILLED_DAYS,
    IMAGE_BILLS,
    IMAGE_COSTS,
    IMAGE_STORAGE,
    REGISTRY_ONLY,
    Table,
)

_UNITS = pa.decimal128(38, 0)
_BATCH_ROWS = 8_192
_ESTIMATES = pa.schema(
    [BILL_DAYS.schema.field(name) for name in ("charge_date", "estimated_cost", "estimate_currency")]
)
_BILL = pa.schema(
    [
        ("id", pa.string()),
        ("billed_date", pa.date32()),
        ("currency", pa.string()),
        ("billed_cost", IMAGE_BILLS.schema.field("billed_cost").type),
        ("billed_registry_cost", IMAGE_BILLS.schema.field("billed_registry_cost").type),
    ]
)


def bill_inputs(lake: Lake, partition: Partition) -> Iterator[LakePath]:
    """The derived files of earlier days that the bills of a day are divided by, and that hold the newest bill."""
    _, before = last_days(lake, partition)
    previous = _known(lake, before)
    known = {row["charge_date"]: row["version"] for row in previous}
    columns = ["charge_date", "version"]
    read = {
        row["charge_date"]: row["version"]
        for batch in read_batches(lake.table(BILLED_COSTS.name, partition), _BATCH_ROWS, columns)
        for row in batch.to_pylist()
    }
    new = sorted(date for date, version in read.items() if known.get(date) != version)
    for date in new:
        for table in (IMAGE_COSTS, IMAGE_STORAGE, REGISTRY_ONLY):
            yield lake.table(table.name, Partition(date, partition.project))
    newest = max(previous, key=lambda row: row["charge_date"], default=None)
    if newest is not None and not (new and new[-1] >= newest["charge_date"]):
        yield lake.table(IMAGE_BILLS.name, Partition(newest["known_since"], partition.project))


@dataclass(frozen=True, slots=True)
class BillResult:
    """The written tables, and the newest charge day whose bill is known: its amounts in its `currency`.

    `known_since`: the day whose `image_bills` divides that bill. All None if no bill is known.
    """

    files: tuple[FileFacts, FileFacts]
    billed_date: dt.date | None = None
    known_since: dt.date | None = None
    currency: str | None = None
    billed_cost: Decimal | None = None
    billed_registry_cost: Decimal | None = None
    not_allocated_cost: Decimal | None = None


def derive_bills(analysis: Analysis) -> BillResult:
    """Write `image_bills` and `bill_days` of the day; reads derived tables of the charge days, which are earlier.

    Raises:
        StorageError: the lake cannot be read or written.
    """
    billed = analysis.manifest.files.get(BILLED_COSTS.name)
    if not (billed and billed.rows) and not _known(analysis.lake, analysis.before):
        return BillResult((analysis.write_batches(BILL_DAYS, ()), analysis.write_batches(IMAGE_BILLS, ())))
    with ExitStack() as stack:
        engine = analysis.engine
        if not isinstance(engine, DuckDBEngine):
            engine = DuckDBEngine(DERIVING_MEMORY)
        session = stack.enter_context(engine.session() if engine is analysis.engine else engine)
        return _Division(analysis, session).write()


class _Division:
    """The division of the statements that one day brings."""

    def __init__(self, analysis: Analysis, engine: DuckDBEngine) -> None:
        self._analysis, self._engine = analysis, engine
        self._lake, self._partition = analysis.lake, analysis.partition
        self._estimates: dict[dt.date, dict[str, Any]] = {}

    def write(self) -> BillResult:
        previous = _known(self._lake, self._analysis.before)
        known = {row["charge_date"]: row["version"] for row in previous}
        self._engine.load_file(BILLED_COSTS.name, self._lake.table(BILLED_COSTS.name, self._partition))
        statements = self._engine.read(read_sql("cost/bill_statements.sql"))
        rows = [row for row in statements.to_pylist() if known.get(row["charge_date"]) != row["version"]]
        image_bills = self._analysis.write_batches(IMAGE_BILLS, self._divided(rows))
        bill_days, newest = self._write_days(rows, statements.schema, previous)
        files = (bill_days, image_bills)
        if newest is None:
            return BillResult(files)
        return BillResult(
            files,
            newest["charge_date"],
            newest["known_since"],
            newest["currency"],
            newest["billed_cost"],
            newest["billed_registry_cost"],
            newest["not_allocated_cost"],
        )

    def _keys(self) -> dict[str, Any]:
        return {"snapshot_date": self._partition.date, "project_id": self._analysis.manifest.fetch.project_id}

    def _divided(self, statements: list[dict[str, Any]]) -> Iterator[pa.RecordBatch]:
        """The rows of `image_bills`, by charge day and currency."""
        for statement in statements:
            day = Partition(statement["charge_date"], self._partition.project)
            self._estimate(day)
            parts = {
                "registry": statement["billed_registry_cost"] - statement["long_registry_cost"],
                "all": statement["billed_cost"] - statement["long_cost"],
            }
            if (reason := self._undivided(day)) is not None:
                yield self._row(statement, reason, parts["all"], parts["registry"])
            else:
                yield from self._among_images(statement, day, parts["all"], parts["registry"])
            if statement["long_cost"] or statement["long_registry_cost"]:
                yield self._row(statement, "long_period", statement["long_cost"], statement["long_registry_cost"])

    def _estimate(self, day: Partition) -> None:
        """Note the estimated cost of all images of a day, if it was derived."""
        if day.date in self._estimates or not self._lake.table(IMAGE_COSTS.name, day).is_there():
            return
        self._load(IMAGE_COSTS, day)
        # A sum of decimals does not depend on the order of the rows, as a sum of floats does.
        (found,) = self._engine.read(
            "SELECT CAST(SUM(CAST(estimated_cost AS DECIMAL(28, 12))) AS DECIMAL(28, 12)) AS estimated_cost, "
            "MAX(currency) AS estimate_currency FROM image_costs"
        ).to_pylist()
        self._estimates[day.date] = {"charge_date": day.date} | found

    def _undivided(self, day: Partition) -> str | None:
        """Why the bill of a day cannot be divided among images at all; None if it can."""
        if not self._lake.manifest(day).is_there() or not self._lake.table(IMAGE_COSTS.name, day).is_there():
            return "no_snapshot"
        registry = read_manifest(self._lake.manifest(day)).fetch.sources.get(REGISTRY)
        if registry is None or not registry.was_read or not self._lake.table(IMAGE_STORAGE.name, day).is_there():
            return "registry_not_read"
        return None

    def _among_images(
        self, statement: dict[str, Any], day: Partition, billed: Decimal, registry: Decimal
    ) -> Iterator[pa.RecordBatch]:
        for table in (IMAGE_COSTS, IMAGE_STORAGE, REGISTRY_ONLY):
            self._load(table, day)
        charge = {
            **self._keys(),
            "charge_date": statement["charge_date"],
            "currency": statement["currency"],
            "version": statement["version"],
        }
        units = {"registry_units": _units(registry), "modelarts_units": _units(billed - registry)}
        table = pa.table({name: [value] for name, value in charge.items()})
        for name, value in units.items():
            table = table.append_column(name, pa.array([value], _UNITS))
        self._engine.load("charge", table)
        yield from self._engine.stream(read_sql("cost/image_bills.sql"), IMAGE_BILLS.schema)

    def _load(self, table: Table, day: Partition) -> None:
        path = self._lake.table(table.name, day)
        if path.is_there():
            self._engine.load_file(table.name, path)
        else:
            self._engine.load(table.name, table.schema.empty_table())

    def _row(self, statement: dict[str, Any], reason: str, billed: Decimal, registry: Decimal) -> pa.RecordBatch:
        row = dict.fromkeys(IMAGE_BILLS.schema.names) | {
            **self._keys(),
            "charge_date": statement["charge_date"],
            "currency": statement["currency"],
            "allocation": reason,
            "id": "",
            "billed_cost": billed,
            "billed_registry_cost": registry,
            "version": statement["version"],
        }
        return pa.RecordBatch.from_pylist([row], IMAGE_BILLS.schema)

    def _write_days(
        self, rows: list[dict[str, Any]], schema: pa.Schema, previous: list[dict[str, Any]]
    ) -> tuple[FileFacts, dict[str, Any] | None]:
        """Write `bill_days`; returns the file and the newest charge day, of its first currency."""
        date = self._partition.date
        keys = [("snapshot_date", pa.date32()), ("project_id", pa.string())]
        statements = pa.Table.from_pylist([self._keys() | row for row in rows], pa.schema([*keys, *schema]))
        self._engine.load("new_statements", statements)
        self._engine.load("estimates", pa.Table.from_pylist(list(self._estimates.values()), _ESTIMATES))
        self._engine.load("previous_bill_days", pa.Table.from_pylist(previous, BILL_DAYS.schema))
        # Statements are carried over as long as they are read.
        first = date - dt.timedelta(days=BILLED_DAYS)
        dates = {"snapshot_date": date, "first_charge_date": first}
        self._engine.load("bill_parameters", pa.table({name: pa.array([day]) for name, day in dates.items()}))
        self._engine.load_file(
            IMAGE_BILLS.name, self._analysis.staged_or(self._lake.table(IMAGE_BILLS.name, self._partition))
        )
        found = self._engine.read(read_sql("cost/bill_days.sql")).cast(BILL_DAYS.schema)
        file = self._analysis.write_batches(BILL_DAYS, found.to_batches())
        days = found.to_pylist()
        newest = max((row["charge_date"] for row in days), default=None)
        return file, next((row for row in days if row["charge_date"] == newest), None)


def _known(lake: Lake, partition: Partition | None) -> list[dict[str, Any]]:
    """The rows of `bill_days` of a day; none if it is None or has no such table."""
    path = None if partition is None else lake.table(BILL_DAYS.name, partition)
    if path is None or not path.is_there():
        return []
    return [row for batch in read_batches(path, _BATCH_ROWS) for row in batch.to_pylist()]


def newest_bill(analysis: Analysis, bills: BillResult) -> pa.RecordBatchReader:
    """The parts of images in the newest bill: id, billed_date, currency, billed_cost, billed_registry_cost."""
    return pa.RecordBatchReader.from_batches(_BILL, _parts(analysis, bills))


def _parts(analysis: Analysis, bills: BillResult) -> Iterator[pa.RecordBatch]:
    if bills.known_since is None:
        return
    path = analysis.lake.table(IMAGE_BILLS.name, Partition(bills.known_since, analysis.partition.project))
    if bills.known_since == analysis.partition.date:
        path = analysis.staged_or(path)
    if not path.is_there():
        # Retention removed it.
        return
    names = ["charge_date", *_BILL.names[2:], "allocation", "id"]
    for batch in read_batches(path, _BATCH_ROWS, names):
        table = pa.Table.from_batches([batch]).filter(
            (pa.compute.field("charge_date") == pa.scalar(bills.billed_date, pa.date32()))
            & (pa.compute.field("currency") == bills.currency)
            & (pa.compute.field("allocation") == "image")
        )
        if table.num_rows:
            yield from table.rename_columns({"charge_date": "billed_date"}).select(_BILL.names).cast(_BILL).to_batches()


def _units(value: Decimal) -> Decimal:
    """An amount as a whole number of units of its last place."""
    return value.scaleb(AMOUNT_PLACES).to_integral_exact()
