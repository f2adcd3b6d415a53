"""Reads bills from FOCUS exports (1.x): CSV or Parquet files below a directory or a bucket's prefix.

The files of one directory are parts of one statement. If several directories have a charge day, the one with the newest
file counts for that day, because exporters write a corrected statement beside the earlier one or in its place.
"""

import datetime as dt
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from pipelines.errors import ListUnreadableError, StorageError
from pipelines.lake.paths import open_storage
from pipelines.lake.storage import LakePath, storage_errors
from pipelines.snapshot.sources.bill_lines import BillLine, amount, kind_of

_NEEDED = ("ChargePeriodStart", "ChargePeriodEnd", "BilledCost", "BillingCurrency", "ServiceName", "SubAccountId")
_WANTED = (*_NEEDED, "ListCost", "ContractedCost", "ResourceId", "ResourceName", "ChargeDescription")
_ENDINGS = (".csv", ".csv.gz", ".parquet")
_BATCH_ROWS = 16_384
_ZONE = "UTC"
# A file cannot hold a day that was not over when it was written; clocks and time zones differ.
_EARLIER = dt.timedelta(days=2)


class FocusExports:
    """The exports of a bill, and what became known of them.

    `others`: lines of the project for other services. `of_others`: lines of other projects. Both are of the charge days
    from `first` to `last`.
    """

    def __init__(self, place: str, project_id: str, first: dt.date, last: dt.date, now: dt.datetime) -> None:
        self._project_id, self._first, self._last, self._now = project_id, first, last, now
        self._root = open_storage(place)
        self.files = self.others = self.of_others = 0

    def lines(self) -> Iterator[BillLine]:
        """The lines that are kept.

        Raises:
            ListUnreadableError: there are no exports, or they cannot be read.
        """
        try:
            yield from self._counted_lines()
        except StorageError as error:
            # Not the lake's storage: the day is published without its bill.
            raise ListUnreadableError(str(error)) from error

    def _counted_lines(self) -> Iterator[BillLine]:
        found = [path for path in self._root.all_files() if path.name.endswith(_ENDINGS)]
        if not found:
            raise ListUnreadableError(f"There is no FOCUS export (.csv, .csv.gz or .parquet) in {self._root}.")
        oldest = dt.datetime.combine(self._first, dt.time(), dt.UTC) - _EARLIER
        written = {path: path.stat().st_mtime for path in found}
        recent = sorted(path for path, time in written.items() if time >= oldest.timestamp())
        self.files = len(recent)
        newest: dict[LakePath, float] = {}
        for path in recent:
            newest[path.parent] = max(newest.get(path.parent, 0.0), written[path])
        counts: dict[dt.date, LakePath] = {}
        for path in recent:
            for date in self._days(path):
                before = counts.get(date)
                # By name, where two were written at the same time.
                if before is None or (newest[before], str(before)) < (newest[path.parent], str(path.parent)):
                    counts[date] = path.parent
        said: dict[tuple[Any, ...], LakePath] = {}
        for path in recent:
            for line in self._lines(path, counts):
                if line.resource_id is not None and line.billed_cost:
                    key = (line.charge_period_start, line.service, line.resource_id, line.description, line.billed_cost)
                    if said.setdefault(key, path) != path:
                        raise ListUnreadableError(
                            f"{path} and {said[key]} have the same line ({line.resource_id} on {line.charge_date}), so "
                            "it would be added twice: give each export a directory of its own."
                        )
                yield line

    def _days(self, path: LakePath) -> set[dt.date]:
        """The charge days of which a file has lines of the project."""
        return {self._day(path, row)[0] for row in self._rows(path) if row["SubAccountId"] == self._project_id}

    def _lines(self, path: LakePath, counts: dict[dt.date, LakePath]) -> Iterator[BillLine]:
        digest = path.sha256()
        for row in self._rows(path):
            date, start = self._day(path, row)
            if not self._first <= date <= self._last:
                continue
            if row["SubAccountId"] != self._project_id:
                self.of_others += 1
                continue
            if counts[date] != path.parent:
                continue
            kind, service = kind_of(row["ServiceName"]), row["ServiceName"]
            if kind is None:
                self.others += 1
                continue
            end = _moment(row["ChargePeriodEnd"])
            try:
                costs = {name: amount(row[name]) for name in ("ListCost", "ContractedCost", "BilledCost")}
            except ValueError:
                costs = {}
            if end is None or not costs or costs["BilledCost"] is None or not row["BillingCurrency"]:
                raise _unreadable(path)
            yield BillLine(
                charge_date=date,
                charge_period_start=start,
                charge_period_end=end,
                time_zone=_ZONE,
                kind=kind,
                service=service,
                resource_id=row["ResourceId"] or None,
                resource_name=row["ResourceName"] or None,
                description=row["ChargeDescription"] or None,
                currency=row["BillingCurrency"],
                list_cost=costs["ListCost"],
                contracted_cost=costs["ContractedCost"],
                billed_cost=costs["BilledCost"],
                source=path.relative_to(self._root).as_posix(),
                source_sha256=digest,
                observed_at=self._now,
            )

    def _day(self, path: LakePath, row: dict[str, Any]) -> tuple[dt.date, dt.datetime]:
        start = _moment(row["ChargePeriodStart"])
        if start is None:
            raise _unreadable(path)
        return start.date(), start

    def _rows(self, path: LakePath) -> Iterator[dict[str, Any]]:
        """The wanted columns of each row of the days and of each project; None for a column that the file lacks."""
        with storage_errors(path), path.open("rb") as file:
            try:
                for batch in _batches(path, file):
                    missing = [name for name in _NEEDED if name not in batch.schema.names]
                    if missing:
                        raise ListUnreadableError(f"{path} has no column {missing[0]}, so it is no FOCUS export.")
                    absent = dict.fromkeys(set(_WANTED) - set(batch.schema.names))
                    for row in batch.select([name for name in _WANTED if name in batch.schema.names]).to_pylist():
                        yield row | absent
            except pa.ArrowInvalid as error:
                reason = str(error).partition("\n")[0].rstrip(".")
                raise ListUnreadableError(f"{path} cannot be read: {reason}.") from None


def _batches(path: LakePath, file: BinaryIO) -> Iterator[pa.RecordBatch]:
    if path.name.endswith(".parquet"):
        with pq.ParquetFile(file) as parquet:
            wanted = [name for name in _WANTED if name in parquet.schema_arrow.names]
            yield from parquet.iter_batches(_BATCH_ROWS, columns=wanted)
        return
    source = pa.CompressedInputStream(file, "gzip") if path.name.endswith(".gz") else file
    # Everything is read as text: a number would be read as a float.
    convert = pacsv.ConvertOptions(
        column_types=dict.fromkeys(_WANTED, pa.string()), strings_can_be_null=True, null_values=["", "null", "NULL"]
    )
    with pacsv.open_csv(source, convert_options=convert) as reader:
        yield from reader


def _moment(value: Any) -> dt.datetime | None:
    """A time of an export; without a time zone it is UTC, as FOCUS has it."""
    try:
        if isinstance(value, str):
            value = dt.datetime.fromisoformat(value.strip())
        if not isinstance(value, dt.datetime):
            return None
        return value.astimezone(dt.UTC) if value.tzinfo else value.replace(tzinfo=dt.UTC)
    except (ValueError, OverflowError):
        return None


def _unreadable(path: LakePath) -> ListUnreadableError:
    return ListUnreadableError(f"{path} has a line whose period, currency or cost cannot be read.")
