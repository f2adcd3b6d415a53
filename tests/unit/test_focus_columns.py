"""The export of costs against the columns of FOCUS 1.2: names, types, nulls, values, and what columns ask of others.

The list of columns is data, taken from the facts of the specification. Where the export differs, the test says why.
"""

import csv
import datetime as dt
import json
import re
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from priced_days import GB, entry, priced_day, publish_images
from published_days import registry_and_bill

from pipelines.derive.costs import write_focus
from pipelines.derive.days import derive_days
from pipelines.lake.layout import Lake

DECIMAL, TEXT, TIME, JSON = "decimal", "text", "time", "json"
CATEGORIES = {"Usage", "Purchase", "Tax", "Credit", "Adjustment"}
SERVICES = (
    *("AI and Machine Learning", "Analytics", "Business Applications", "Compute", "Databases", "Developer Tools"),
    *("Multicloud", "Identity", "Integration", "Internet of Things", "Management and Governance", "Media"),
    *("Migration", "Mobile", "Networking", "Security", "Storage", "Web", "Other"),
)
STORAGE = {"Backup Storage", "Block Storage", "File Storage", "Object Storage", "Storage Platforms", "Other (Storage)"}

# Column of FOCUS 1.2: its feature level, whether it may be null, its type, its allowed values.
COLUMNS = {
    "AvailabilityZone": ("recommended", True, TEXT, None),
    "BilledCost": ("mandatory", False, DECIMAL, None),
    "BillingAccountId": ("mandatory", False, TEXT, None),
    "BillingAccountName": ("mandatory", True, TEXT, None),
    "BillingAccountType": ("conditional", False, TEXT, None),
    "BillingCurrency": ("mandatory", False, TEXT, None),
    "BillingPeriodEnd": ("mandatory", False, TIME, None),
    "BillingPeriodStart": ("mandatory", False, TIME, None),
    "CapacityReservationId": ("conditional", True, TEXT, None),
    "CapacityReservationStatus": ("conditional", True, TEXT, {"Used", "Unused"}),
    "ChargeCategory": ("mandatory", False, TEXT, CATEGORIES),
    "ChargeClass": ("mandatory", True, TEXT, {"Correction"}),
    "ChargeDescription": ("mandatory", True, TEXT, None),
    "ChargeFrequency": ("recommended", False, TEXT, {"One-Time", "Recurring", "Usage-Based"}),
    "ChargePeriodEnd": ("mandatory", False, TIME, None),
    "ChargePeriodStart": ("mandatory", False, TIME, None),
    "CommitmentDiscountCategory": ("conditional", True, TEXT, {"Spend", "Usage"}),
    "CommitmentDiscountId": ("conditional", True, TEXT, None),
    "CommitmentDiscountName": ("conditional", True, TEXT, None),
    "CommitmentDiscountQuantity": ("conditional", True, DECIMAL, None),
    "CommitmentDiscountStatus": ("conditional", True, TEXT, {"Used", "Unused"}),
    "CommitmentDiscountType": ("conditional", True, TEXT, None),
    "CommitmentDiscountUnit": ("conditional", True, TEXT, None),
    "ConsumedQuantity": ("conditional", True, DECIMAL, None),
    "ConsumedUnit": ("conditional", True, TEXT, None),
    "ContractedCost": ("mandatory", False, DECIMAL, None),
    "ContractedUnitPrice": ("conditional", True, DECIMAL, None),
    "EffectiveCost": ("mandatory", False, DECIMAL, None),
    "InvoiceId": ("recommended", True, TEXT, None),
    "InvoiceIssuerName": ("mandatory", False, TEXT, None),
    "ListCost": ("mandatory", False, DECIMAL, None),
    "ListUnitPrice": ("conditional", True, DECIMAL, None),
    "PricingCategory": ("conditional", True, TEXT, {"Standard", "Dynamic", "Committed", "Other"}),
    "PricingCurrency": ("conditional", True, TEXT, None),
    "PricingCurrencyContractedUnitPrice": ("conditional", True, DECIMAL, None),
    "PricingCurrencyEffectiveCost": ("conditional", True, DECIMAL, None),
    "PricingCurrencyListUnitPrice": ("conditional", True, DECIMAL, None),
    "PricingQuantity": ("mandatory", True, DECIMAL, None),
    "PricingUnit": ("mandatory", True, TEXT, None),
    "ProviderName": ("mandatory", False, TEXT, None),
    "PublisherName": ("mandatory", False, TEXT, None),
    "RegionId": ("conditional", True, TEXT, None),
    "RegionName": ("conditional", True, TEXT, None),
    "ResourceId": ("conditional", True, TEXT, None),
    "ResourceName": ("conditional", True, TEXT, None),
    "ResourceType": ("conditional", True, TEXT, None),
    "ServiceCategory": ("mandatory", False, TEXT, set(SERVICES)),
    "ServiceName": ("mandatory", False, TEXT, None),
    # Of the category Storage.
    "ServiceSubcategory": ("recommended", False, TEXT, STORAGE),
    "SkuId": ("conditional", True, TEXT, None),
    "SkuMeter": ("conditional", True, TEXT, None),
    "SkuPriceDetails": ("conditional", True, JSON, None),
    "SkuPriceId": ("conditional", True, TEXT, None),
    "SubAccountId": ("conditional", True, TEXT, None),
    "SubAccountName": ("conditional", True, TEXT, None),
    "SubAccountType": ("conditional", True, TEXT, None),
    "Tags": ("conditional", True, JSON, None),
}
# Columns that the export lacks, none of them mandatory.
ABSENT = {
    "the API does not state it": {"AvailabilityZone", "InvoiceId", "SubAccountName", "SubAccountType"}
    | {"BillingAccountType", "SkuId", "SkuMeter", "SkuPriceDetails", "SkuPriceId"},
    "images have no such thing": {name for name in COLUMNS if name.startswith(("Capacity", "Commitment"))},
    "there is one currency in a row": {name for name in COLUMNS if name.startswith("PricingCurrency")},
}
# Columns that may be null here, against the specification: unknown is neither zero nor a name that we make up.
UNKNOWN = {
    "BillingAccountId": lambda row: True,
    "InvoiceIssuerName": lambda row: row["x_Registry"] != HOST,
    "ProviderName": lambda row: row["x_Registry"] != HOST,
    "PublisherName": lambda row: row["x_Registry"] != HOST,
    "ContractedCost": lambda row: row["x_EstimatedCost"] is None and row["x_IsEstimate"],
    "EffectiveCost": lambda row: row["x_EstimatedCost"] is None and row["x_IsEstimate"],
    "ListCost": lambda row: row["x_EstimatedCost"] is None and row["x_IsEstimate"],
}
HOST = "swr.eu-de.otc.t-systems.com"
TYPES = {
    DECIMAL: {pa.decimal128(28, 12)},
    TEXT: {pa.string()},
    JSON: {pa.string()},
    TIME: {pa.timestamp("us", "UTC")},
}
FIRST, LAST = dt.date(2026, 11, 29), dt.date(2026, 12, 1)
PRICES = 'currency = "EUR"\n' + entry("0.07", "2020-01-01", type="DEDICATED")


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """The export of three days, the first two with their bill: the Parquet file's table, and the CSV's rows as text."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(tmp_path_factory.mktemp("focus"))
        image = {"type": "DEDICATED", "registry": HOST, "namespace": "team"}
        images = [
            image | {"id": "billed", "name": "b", "size_bytes": 3 * GB, "swr_path": f"{HOST}/team/billed:v1"},
            image | {"id": "no-size", "swr_path": f"{HOST}/team/no-size:v1"},
            {"id": "elsewhere", "registry": "registry.example.com", "type": "BUILD_IN", "size_bytes": GB},
            image | {"id": "no-price", "type": "OTHER", "size_bytes": GB, "swr_path": f"{HOST}/team/no-price:v1"},
        ]
        tags = ("team/billed:v1", "team/no-price:v1", "team/no-size:v1", "team/nobody:v1")
        for number in range((LAST - FIRST).days + 1):
            date = str(FIRST + dt.timedelta(days=number))
            day = priced_day(date, PRICES)
            inventory = [{"id": "billed", "owner": "ann", "cost_center": None}]
            inventory += [{"id": row["id"]} for row in images[1:]]
            tables = registry_and_bill(date, *tags)
            publish_images(day, sorted(images, key=lambda row: row["id"]), inventory=inventory, **tables)
            derive_days(day)
        for ending in ("csv", "parquet"):
            write_focus(Lake("lake"), FIRST, LAST, ["default"], day.lake.root.local / f"focus.{ending}")
        with (day.lake.root.local / "focus.csv").open(newline="") as file:
            texts = list(csv.DictReader(file))
        return pq.read_table(day.lake.root.local / "focus.parquet"), texts


def test_every_mandatory_column_is_there_and_no_other_than_the_specification_s(export):
    names = [name for name in export[0].column_names if not name.startswith("x_")]
    assert names == sorted(names)
    assert set(names) | set().union(*ABSENT.values()) == COLUMNS.keys()
    assert not set(names) & set().union(*ABSENT.values())
    assert {COLUMNS[name][0] for absent in ABSENT.values() for name in absent} == {"conditional", "recommended"}


def test_types_are_those_of_the_specification(export):
    table, texts = export
    for field in table.schema:
        if field.name in COLUMNS:
            assert field.type in TYPES[COLUMNS[field.name][2]], field.name
    patterns = {DECIMAL: r"-?\d+(\.\d+)?", TIME: r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", TEXT: ".+", JSON: r"\{.*\}"}
    for row in texts:
        for name, text in row.items():
            if text and name in COLUMNS:
                assert re.fullmatch(patterns[COLUMNS[name][2]], text), (name, text)
    assert all(len(row["BillingCurrency"]) == 3 and row["BillingCurrency"].isupper() for row in texts)


def test_rows_are_of_every_kind(export):
    rows = export[0].to_pylist()
    assert len(rows) == len(export[1])
    kinds = {(row["ResourceId"], row["x_Allocation"], row["x_IsEstimate"]) for row in rows}
    assert kinds == {
        *((id_, "image", False) for id_ in ("billed", "no-price", "no-size")),
        *((id_, None, True) for id_ in ("billed", "elsewhere", "no-price", "no-size")),
        ("elsewhere", "image", False),
        (None, "registry_only", False),
    }


def test_only_unknown_values_are_null_where_the_specification_allows_none(export):
    unknown = set()
    for row in export[0].to_pylist():
        for name, (_, nullable, _, _) in COLUMNS.items():
            if name in row and row[name] is None and not nullable:
                assert name in UNKNOWN, name
                assert UNKNOWN[name](row), (name, row)
                unknown.add(name)
    assert unknown == UNKNOWN.keys()


def test_values_are_allowed_ones(export):
    for row in export[0].to_pylist():
        for name, (_, _, type_, allowed) in COLUMNS.items():
            value = row.get(name)
            if value is not None and allowed is not None:
                assert value in allowed, (name, value)
            if value is not None and type_ == JSON:
                assert all(isinstance(one, str | None) for one in json.loads(value).values())
            # A value that is not known is null, and no text.
            assert value not in ("", "null", "None", "Not Applicable"), name


def test_columns_agree_with_each_other(export):
    for row in export[0].to_pylist():
        for quantity, unit in (("ConsumedQuantity", "ConsumedUnit"), ("PricingQuantity", "PricingUnit")):
            assert (row[quantity] is None) == (row[unit] is None)
        assert (row["ResourceId"] is None) == (row["ResourceType"] is None)
        assert row["ResourceId"] is not None or row["ResourceName"] is None
        assert row["RegionId"] == row["RegionName"]
        for price, cost in (("ListUnitPrice", "ListCost"), ("ContractedUnitPrice", "ContractedCost")):
            assert row[price] is None or row[price] >= 0
            if row[price] is not None and row["PricingQuantity"] is not None:
                # Both factors have twelve places.
                assert abs(row[price] * row["PricingQuantity"] - row[cost]) < Decimal("1e-11")
            elif row[price] is None and not row["x_IsEstimate"]:
                assert row[cost] == row["BilledCost"]
        assert row["ChargePeriodEnd"] - row["ChargePeriodStart"] == dt.timedelta(days=1)
        assert row["BillingPeriodStart"] <= row["ChargePeriodStart"] < row["ChargePeriodEnd"] <= row["BillingPeriodEnd"]
        assert row["BillingPeriodStart"].day == row["BillingPeriodEnd"].day == 1
        assert row["EffectiveCost"] == (row["x_EstimatedCost"] if row["x_IsEstimate"] else row["BilledCost"])


def test_billed_costs_of_a_day_add_up_to_its_bill(export):
    sums = {}
    for row in export[0].to_pylist():
        day = row["ChargePeriodStart"].date()
        sums[day] = sums.get(day, 0) + row["BilledCost"]
    assert sums == {FIRST: 3, FIRST + dt.timedelta(days=1): 3, LAST: 0}
