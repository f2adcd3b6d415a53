"""How the sandbox sends bills: the dashboard's stream of lines, the pages of bill lines, and FOCUS exports.

Which charges there are belongs to `sandbox.bills`.
"""

import csv
import os
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from pipelines.errors import PipelineError
from pipelines.inputs.endpoints import SANDBOX_HEADER
from pipelines.sandbox.bills import CURRENCY, OTHER_TENANT, REGION, Charge, statement
from pipelines.sandbox.catalogue import Catalogue
from pipelines.sandbox.responses import error_response, json_response

# As many days as the dashboard shows by default.
_SHOWN = timedelta(days=90)
_MOST_LINES = 1000
_NDJSON = {"Content-Type": "application/x-ndjson", SANDBOX_HEADER: "true"}


def consumption(catalogues: Mapping[str, Catalogue], seen: date, query: dict[str, str]) -> web.Response:
    """The days that the dashboard shows, of all tenants, one JSON object a line; `month` and `date` choose some."""
    body = b"".join(
        orjson.dumps(_consumed(charge)) + b"\n"
        for project_id, catalogue in catalogues.items()
        for charge in _charges(catalogue, project_id, seen - _SHOWN, seen, seen)
        # It knows no charges of several days.
        if charge.days == 1
        and charge.day.isoformat().startswith(query.get("month", ""))
        and query.get("date") in (None, charge.day.isoformat())
    )
    response = web.Response(body=body, headers=_NDJSON)
    response.enable_chunked_encoding()
    return response


def _consumed(charge: Charge) -> dict[str, Any]:
    return {
        "consumption_date": charge.day.isoformat(),
        "consumption_type": "Usage",
        "contract": "sandbox-contract",
        "product": f"OTC_{charge.code.rpartition('.')[2].upper()}_{charge.product.upper().replace(' ', '_')}",
        "product_description": charge.product,
        "project_id": charge.project_id,
        "quantity": 24,
        "quantity_type": "h",
        "region": REGION,
        "resource_id": charge.resource_id,
        "status": "ACTIVE",
        # A number in JSON, with as many places as it has.
        "amount": orjson.Fragment(str(charge.billed)),
    }


def bill_lines(catalogues: Mapping[str, Catalogue], seen: date, body: bytes) -> web.Response:
    """A page of the bill lines of the account, of all its projects, for the days that the body names."""
    try:
        asked = orjson.loads(body)
        first, last = (date.fromisoformat(asked[name]) for name in ("bill_cycle_begin", "bill_cycle_end"))
        offset, limit = int(asked.get("offset", 0)), int(asked.get("limit", 10))
    except (ValueError, KeyError, TypeError, AttributeError):
        return error_response(400, "CBC.0100", "Invalid parameters.")
    is_month = first.strftime("%Y-%m") == last.strftime("%Y-%m") == asked.get("cycle")
    if not is_month or asked.get("statistic_type") != 2 or asked.get("query_type") != "DAILY":
        return error_response(400, "CBC.0100", "Invalid parameters.")
    if offset < 0 or not 0 < limit <= _MOST_LINES:
        return error_response(400, "CBC.0100", "Invalid paging parameters.")
    found = [
        charge
        for project_id, catalogue in catalogues.items()
        for charge in _charges(catalogue, project_id, first, last, seen)
        if charge.days == 1 and charge.project_id != OTHER_TENANT
    ]
    records = [_line(charge) for charge in found[offset : offset + limit]]
    return json_response({"monthly_records": records, "total_count": len(found), "currency": CURRENCY})


def _line(charge: Charge) -> dict[str, Any]:
    return {
        "cycle": charge.day.strftime("%Y-%m"),
        "bill_date": charge.day.isoformat(),
        "bill_type": 1,
        "customer_id": "sandbox-customer",
        "region": REGION,
        "region_name": REGION,
        "cloud_service_type": charge.code,
        "cloud_service_type_name": charge.name,
        "resource_type_code": charge.code.replace("service", "resource"),
        "resource_type_name": charge.product,
        "res_instance_id": charge.resource_id,
        "resource_name": charge.resource_name,
        "enterprise_project_id": "0",
        "enterprise_project_name": "default",
        "charge_mode": 3,
        "product_spec_desc": charge.product,
        "official_amount": orjson.Fragment(str(charge.listed)),
        "discount_amount": orjson.Fragment(str(charge.discount)),
        "consume_amount": orjson.Fragment(str(charge.billed)),
        "measure_id": 1,
    }


def write_exports(directory: Path, catalogues: Mapping[str, Catalogue], seen: date) -> None:
    """Write the days that the dashboard shows as FOCUS exports, each in a directory of its own.

    Raises:
        PipelineError: a file cannot be written.
    """
    try:
        for days in range(_SHOWN.days):
            day = seen - timedelta(days=days)
            charges = [
                charge for project_id, one in catalogues.items() for charge in _charges(one, project_id, day, day, seen)
            ]
            if charges:
                _write_export(directory / day.isoformat() / "focus.csv", charges)
    except OSError as error:
        raise PipelineError(f"The sandbox cannot write its bill to {directory}: {error.strerror}.") from None


def _write_export(path: Path, charges: list[Charge]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    rows = [_focus(charge) for charge in charges]
    with partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)


def _focus(charge: Charge) -> dict[str, str]:
    month = charge.day.replace(day=1)
    amounts: dict[str, Decimal] = {
        "BilledCost": charge.billed,
        "ContractedCost": charge.billed,
        "EffectiveCost": charge.billed,
        "ListCost": charge.listed,
    }
    return {
        "BillingAccountId": "sandbox-account",
        "BillingCurrency": CURRENCY,
        "BillingPeriodEnd": _time((month + timedelta(days=32)).replace(day=1)),
        "BillingPeriodStart": _time(month),
        "ChargeCategory": "Usage",
        "ChargeDescription": charge.product,
        "ChargePeriodEnd": _time(charge.day + timedelta(days=charge.days)),
        "ChargePeriodStart": _time(charge.day),
        "ProviderName": "Sandbox",
        "RegionId": REGION,
        "ResourceId": charge.resource_id,
        "ResourceName": charge.resource_name,
        "ServiceName": charge.name,
        "SubAccountId": charge.project_id or "",
        **{name: str(value) for name, value in amounts.items()},
    }


def _time(day: date) -> str:
    return datetime.combine(day, datetime.min.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _charges(catalogue: Catalogue, project_id: str, first: date, last: date, seen: date) -> list[Charge]:
    days = (last - first).days + 1
    return [
        charge
        for number in range(days)
        for charge in statement(catalogue, project_id, first + timedelta(days=number), seen)
    ]
