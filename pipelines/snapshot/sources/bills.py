"""Reads the bill of the last days: from FOCUS exports, from the dashboard of one cloud, or the bill lines of the other.

A statement of a charge day comes days later and is corrected for days, so each day reads the statements of all
`BILLED_DAYS` before it. Of a bill, the lines of this project for the registry and ModelArts are kept, and all else is
dropped at once: a payer's bill shows other tenants. A bill is kept whole or not at all, because its lines are added up.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Iterable
from decimal import Decimal
from itertools import islice
from typing import Any
from urllib.parse import urlencode

import orjson

from pipelines.cloud.classification import classify_list
from pipelines.cloud.sender import brief
from pipelines.cloud.service import ServiceClient
from pipelines.errors import ConfigurationError, ListDeniedError, ListUnreadableError, PipelineError, StorageError
from pipelines.lake.manifests import SourceFacts
from pipelines.snapshot.checkpoint import Checkpoint
from pipelines.snapshot.sources.bill_access import BillAccess
from pipelines.snapshot.sources.bill_lines import BillLine, amount, day_in, kind_of, months, window
from pipelines.snapshot.sources.focus_exports import FocusExports
from pipelines.tables import Outcome

_BATCH_LINES = 1_000
_DASHBOARD_ZONE, _DASHBOARD_CURRENCY = "Europe/Berlin", "EUR"
_BILL_LINES_ZONE = "Asia/Shanghai"
_BILL_LINES_PATH = "/v2/bills/customer-bills/res-records/query"
_PAGE_LINES = 100
# The unit of the amounts: 1, a tenth or a hundredth of the currency.
_MEASURES = {1: Decimal(1), 2: Decimal("0.1"), 3: Decimal("0.01")}


async def read_bills(
    access: BillAccess, store: Checkpoint, project_id: str, day: dt.date, now: Callable[[], dt.datetime]
) -> SourceFacts:
    """Store the lines of the statements that a day reads; returns the facts for the manifest.

    Raises:
        StorageError: the lake's storage failed. Errors of the bill are in the facts and do not end the run.
    """
    reading = _Reading(access, store, project_id, day, now)
    try:
        match access.kind:
            case "otc-dashboard":
                await reading.dashboard()
            case "huawei":
                await reading.bill_lines()
            case _:
                reading.exports()
    except StorageError:
        raise
    except PipelineError as error:
        # A day is published without its bill.
        with store.transaction():
            store.bills.clear()
        return SourceFacts(wanted=True, error=str(error), requests=reading.requests)
    return SourceFacts(
        wanted=True, was_read=True, partial=reading.doubt(), items=reading.kept, requests=reading.requests
    )


class _Reading:
    """The reading of one bill, and its counts. `others`: lines of the project that other services are charged in."""

    def __init__(
        self, access: BillAccess, store: Checkpoint, project_id: str, day: dt.date, now: Callable[[], dt.datetime]
    ) -> None:
        self._access, self._store, self._project_id, self._now = access, store, project_id, now
        self._first, self._last = window(day)
        self.kept = self.others = self.of_others = self.requests = 0

    def doubt(self) -> str | None:
        """Why the bill may lack the project's lines; None if there is no doubt."""
        if self.kept or self.others or not self.of_others:
            return None
        return f"none of its {self.of_others} lines of the days from {self._first} on is of project {self._project_id}"

    def _keep(self, lines: Iterable[BillLine]) -> None:
        remaining = iter(lines)
        while some := list(islice(remaining, _BATCH_LINES)):
            with self._store.transaction():
                self._store.bills.add(some)
            self.kept += len(some)

    # -- FOCUS exports

    def exports(self) -> None:
        """Read the files of exports; `requests` counts files."""
        exports = FocusExports(self._access.place, self._project_id, self._first, self._last, self._now())
        self._keep(exports.lines())
        self.others, self.of_others, self.requests = exports.others, exports.of_others, exports.files

    # -- lines of the dashboard

    async def dashboard(self) -> None:
        if self._access.key is None:
            raise ConfigurationError("The dashboard of the bill needs an API key: set IMAGE_SNAPSHOTS_BILLS_KEY.")
        async with self._access.open_dashboard(self._access.key) as client:
            for month in months(self._first, self._last):
                found: list[dict[str, Any]] = []

                def take(line: bytes, found: list[dict[str, Any]] = found, month: str = month) -> None:
                    if (row := self._dashboard_row(line, client.host, month)) is not None:
                        found.append(row)

                try:
                    digest = await client.read(urlencode({"month": month}), take, found.clear)
                finally:
                    self.requests = client.requests
                observed_at = self._now()
                self._keep(
                    BillLine(**row, source=client.host, source_sha256=digest, observed_at=observed_at) for row in found
                )

    def _dashboard_row(self, line: bytes, host: str, month: str) -> dict[str, Any] | None:
        """The values of a line before its provenance; None for a line that is not kept."""
        item = _object(line, host)
        date = _date(item.get("consumption_date"), host)
        # A server that does not know the filter sends the same days again for each month.
        if not self._first <= date <= self._last or f"{date:%Y-%m}" != month:
            return None
        if item.get("project_id") != self._project_id:
            self.of_others += 1
            return None
        product = _text(item.get("product"))
        kind = kind_of(product, item.get("product_description"), item.get("consumption_type"))
        if kind is None or product is None:
            self.others += 1
            return None
        start, end = day_in(_DASHBOARD_ZONE, date)
        return {
            "charge_date": date,
            "charge_period_start": start,
            "charge_period_end": end,
            "time_zone": _DASHBOARD_ZONE,
            "kind": kind,
            "service": product,
            "resource_id": _text(item.get("resource_id")),
            "resource_name": None,
            "description": _text(item.get("product_description")),
            "currency": _DASHBOARD_CURRENCY,
            "list_cost": None,
            "contracted_cost": None,
            "billed_cost": _amount(item.get("amount"), host, is_needed=True),
        }

    # -- pages of bill lines

    async def bill_lines(self) -> None:
        async with self._access.open_bill_lines() as client:
            for month in months(self._first, self._last):
                first = max(self._first, dt.date.fromisoformat(f"{month}-01"))
                next_month = (first.replace(day=28) + dt.timedelta(days=4)).replace(day=1)
                last = min(self._last, next_month - dt.timedelta(days=1))
                await self._month_of_lines(client, month, first, last)

    async def _month_of_lines(self, client: ServiceClient, month: str, first: dt.date, last: dt.date) -> None:
        offset = 0
        before = None
        while True:
            asked = {
                "cycle": month,
                "statistic_type": 2,
                "query_type": "DAILY",
                "bill_cycle_begin": first.isoformat(),
                "bill_cycle_end": last.isoformat(),
                "include_zero_record": False,
                "offset": offset,
                "limit": _PAGE_LINES,
            }
            result = await client.ask(
                client.path(_BILL_LINES_PATH),
                lambda *answer: classify_list(*answer, items="monthly_records"),
                orjson.dumps(asked),
            )
            self.requests += result.attempts
            verdict, body = result.verdict, result.body
            if verdict.outcome is not Outcome.OK or body is None:
                came = brief(result.status, verdict)
                raised = ListDeniedError if verdict.outcome is Outcome.FORBIDDEN else ListUnreadableError
                raise raised(f"The bill of {client.host} cannot be read ({came}).")
            page = _object(body, client.host)
            total, currency = page.get("total_count"), _text(page.get("currency"))
            rows = page["monthly_records"]
            if rows and rows == before:
                # It would go on for ever.
                raise ListUnreadableError(f"The bill of {client.host} shows the same lines of {month} again.")
            before = rows
            digest = hashlib.sha256(body).hexdigest()
            found = (self._bill_line(row, currency, client.host, digest, result.observed_at) for row in rows)
            self._keep(line for line in found if line is not None and first <= line.charge_date <= last)
            offset += len(rows)
            if not rows or (isinstance(total, int) and offset >= total):
                break
        if isinstance(total, int) and offset != total:
            raise ListUnreadableError(
                f"The bill of {client.host} counts {total} lines for {month} and showed {offset}: it changed while it "
                "was read."
            )

    def _bill_line(
        self, row: Any, currency: str | None, host: str, digest: str, observed_at: dt.datetime
    ) -> BillLine | None:
        if not isinstance(row, dict):
            raise _unreadable_line(host)
        region = _text(row.get("region"))
        if self._access.region is not None and region is not None and region != self._access.region:
            self.of_others += 1
            return None
        service = _text(row.get("cloud_service_type_name")) or _text(row.get("cloud_service_type"))
        kind = kind_of(row.get("cloud_service_type"), row.get("cloud_service_type_name"))
        if kind is None or service is None:
            self.others += 1
            return None
        if currency is None:
            raise ListUnreadableError(f"The bill of {host} states no currency.")
        date = _date(row.get("bill_date"), host)
        measure = row.get("measure_id", 1)
        unit = _MEASURES.get(int(measure)) if measure in tuple(_MEASURES) else None
        if unit is None:
            raise _unreadable_line(host)
        listed, discount, billed = (
            _scaled(_amount(row.get(name), host, is_needed=name == "consume_amount"), unit)
            for name in ("official_amount", "discount_amount", "consume_amount")
        )
        assert billed is not None  # noqa: S101  (needed)
        start, end = day_in(_BILL_LINES_ZONE, date)
        return BillLine(
            charge_date=date,
            charge_period_start=start,
            charge_period_end=end,
            time_zone=_BILL_LINES_ZONE,
            kind=kind,
            service=service,
            resource_id=_text(row.get("res_instance_id")),
            resource_name=_text(row.get("resource_name")),
            description=_text(row.get("product_spec_desc")) or _text(row.get("resource_type_name")),
            currency=currency,
            list_cost=listed,
            contracted_cost=None if listed is None or discount is None else listed - discount,
            billed_cost=billed,
            source=host,
            source_sha256=digest,
            observed_at=observed_at,
        )


def _object(content: bytes, host: str) -> dict[str, Any]:
    """A JSON object whose numbers with a fraction are decimals, as written."""
    try:
        found = json.loads(content, parse_float=Decimal)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _unreadable_line(host)
    return found


def _unreadable_line(host: str) -> ListUnreadableError:
    return ListUnreadableError(
        f"The bill of {host} has a line whose day or amount cannot be read, so its sum is not known."
    )


def _date(value: Any, host: str) -> dt.date:
    try:
        date = dt.date.fromisoformat(value[:10])
    except (TypeError, ValueError, LookupError):
        raise _unreadable_line(host) from None
    # There must be a day before it, and one after it.
    if not dt.date.min < date < dt.date.max:
        raise _unreadable_line(host)
    return date


def _amount(value: Any, host: str, *, is_needed: bool) -> Decimal | None:
    try:
        found = amount(value)
    except ValueError:
        raise _unreadable_line(host) from None
    if found is None and is_needed:
        raise _unreadable_line(host)
    return found


def _scaled(value: Decimal | None, unit: Decimal) -> Decimal | None:
    return value if value is None else amount(value * unit)


def _text(value: Any) -> str | None:
    return value.strip()[:2000] or None if isinstance(value, str) else None
