"""Reads the data of a report: the rows of `sql/report/`, and the days of the trend from their derived manifests."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from pipelines.engine.duckdb import DuckDBEngine
from pipelines.engine.sql_files import read_sql
from pipelines.errors import StorageError
from pipelines.lake.derived_manifests import DerivedManifest, DerivedSummary, read_derived_manifest
from pipelines.lake.layout import Lake, Partition
from pipelines.report.words import SHOWN_TEXT
from pipelines.tables import BILL_DAYS, IMAGE_BILLS, IMAGE_HISTORY, IMAGES, INVENTORY, RECLAIMABLE

TREND_DAYS = 90
# Row limits that bound the size of the page. `sql/report/outliers.sql` limits the outliers.
SHOWN_FINDINGS = 10_000
SHOWN_CHANGES = 200
SHOWN_GROUPS = 15
SHOWN_BILL_DAYS = 14

_LIMITS = {
    "shown_findings": SHOWN_FINDINGS,
    "shown_changes": SHOWN_CHANGES,
    "shown_groups": SHOWN_GROUPS,
    "shown_bill_days": SHOWN_BILL_DAYS,
    "shown_text": SHOWN_TEXT,
}
# Sorting many findings takes all of it, beside what a whole run still holds.
_MEMORY = "128MB"
_QUERIES = ("rules", "findings", "change_classes", "changes", "bytes_and_costs", "bills", "bill_groups", "outliers")


@dataclass(frozen=True, slots=True)
class TrendPoint:
    """A day of the trend; `summary` is None if the day has no snapshot or no derived tables."""

    date: dt.date
    summary: DerivedSummary | None
    currency: str

    @property
    def state(self) -> str:
        """The day's state in words."""
        if self.summary is None:
            return "no snapshot"
        return "complete" if self.summary.is_complete else "incomplete"

    @property
    def findings(self) -> int | None:
        """The number of open findings of all severities."""
        return None if self.summary is None else sum(self.summary.findings.values())

    @property
    def severe(self) -> int | None:
        """The number of open findings that are critical or high."""
        return None if self.summary is None else severe(self.summary)

    @property
    def cost(self) -> float | None:
        """The estimated cost of the day, if it is in the currency of the report's day."""
        if self.summary is None or self.summary.currency != self.currency or not self.summary.is_priced:
            return None
        return self.summary.estimated_cost


def severe(summary: DerivedSummary) -> int:
    """The number of open findings of a day that are critical or high."""
    return summary.findings["critical"] + summary.findings["high"]


def read_tables(lake: Lake, partition: Partition, derived_manifest: DerivedManifest) -> dict[str, list[dict[str, Any]]]:
    """The rows of each query of `sql/report/`, within the row limits."""
    history = lake.project_table(IMAGE_HISTORY.name, partition.project)
    try:
        with DuckDBEngine(_MEMORY) as engine:
            engine.expect(max((file.rows for file in derived_manifest.files.values()), default=0))
            engine.load("report_limits", pa.table({name: [limit] for name, limit in _LIMITS.items()}))
            for table in (IMAGES, INVENTORY):
                engine.load_file(table.name, lake.table(table.name, partition))
            # A day that an earlier version derived has none.
            engine.load(RECLAIMABLE.name, RECLAIMABLE.schema.empty_table())
            for table in (BILL_DAYS, IMAGE_BILLS):
                engine.load(table.name, table.schema.empty_table())
            for name in derived_manifest.files:
                engine.load_file(name, lake.place(name, partition))
            engine.load_file(IMAGE_HISTORY.name, history)
            return {name: engine.read(read_sql(f"report/{name}.sql")).to_pylist() for name in _QUERIES}
    except duckdb.Error as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise StorageError(
            f"The tables of {partition} cannot be read for the report: {reason}. Derive them again with "
            f"`image-snapshots rebuild --date {partition.date} --project {partition.project}`."
        ) from error


def read_trend(lake: Lake, partition: Partition, currency: str, basis: dict[Partition, str]) -> list[TrendPoint]:
    """The days up to the report's, from the first one with figures; outdated days have no figures."""
    first = partition.date - dt.timedelta(days=TREND_DAYS - 1)
    found = {}
    for day, its_basis in basis.items():
        if first <= day.date <= partition.date:
            derived_manifest = read_derived_manifest(lake, day)
            if derived_manifest is not None and derived_manifest.basis == its_basis:
                found[day.date] = derived_manifest.summary
    begin = min(found)
    dates = [begin + dt.timedelta(days=number) for number in range((partition.date - begin).days + 1)]
    return [TrendPoint(date, found.get(date), currency) for date in dates]
