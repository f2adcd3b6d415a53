"""The export of costs in FOCUS form: its columns, its formats, and what it refuses."""

import csv
import datetime as dt
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from priced_days import GB, A, B, derive, entry, priced_day, publish_images, write_usage

from pipelines.derive.costs import write_focus
from pipelines.errors import ConfigurationError, StorageError
from pipelines.lake.layout import Lake, Partition

COLUMNS = [
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SubAccountId",
    "Tags",
    "x_CostCenter",
    "x_Environment",
    "x_GrowthBytes",
    "x_ImageType",
    "x_IsCarried",
    "x_IsEstimate",
    "x_IsSandbox",
    "x_Namespace",
    "x_ObservedKinds",
    "x_Owner",
    "x_PriceValidFrom",
    "x_ReclaimableBytesUpperBound",
    "x_Registry",
    "x_SizeBytes",
    "x_UnusedDays",
]

FULL_ROW = {
    "BilledCost": "0.000000000000",
    "BillingAccountId": "",
    "BillingAccountName": "",
    "BillingCurrency": "EUR",
    "BillingPeriodEnd": "2027-01-01T00:00:00Z",
    "BillingPeriodStart": "2026-12-01T00:00:00Z",
    "ChargeCategory": "Usage",
    "ChargeClass": "",
    "ChargeDescription": "Storage of a container image for a day; an estimate by the price book, not a bill",
    "ChargeFrequency": "Usage-Based",
    "ChargePeriodEnd": "2027-01-01T00:00:00Z",
    "ChargePeriodStart": "2026-12-31T00:00:00Z",
    "ConsumedQuantity": "3.875000000000",
    "ConsumedUnit": "GiB-Days",
    "ContractedCost": "0.000005000000",
    "ContractedUnitPrice": "0.000040000000",
    "EffectiveCost": "0.000005000000",
    "InvoiceIssuerName": "Open Telekom Cloud",
    "ListCost": "0.000005000000",
    "ListUnitPrice": "0.000040000000",
    "PricingCategory": "Standard",
    "PricingQuantity": "0.125000000000",
    "PricingUnit": "GiB-Months",
    "ProviderName": "Open Telekom Cloud",
    "PublisherName": "Open Telekom Cloud",
    "RegionId": "eu-de",
    "RegionName": "eu-de",
    "ResourceId": A,
    "ResourceName": 'a "quoted", name',
    "ResourceType": "Container Image",
    "ServiceCategory": "Storage",
    "ServiceName": "Software Repository for Container",
    "ServiceSubcategory": "Other (Storage)",
    "SubAccountId": "p1",
    "Tags": '{"cost_center":null,"environment":"prod","owner":"ann \\"a\\""}',
    "x_CostCenter": "",
    "x_Environment": "prod",
    "x_GrowthBytes": "",
    "x_ImageType": "DEDICATED",
    "x_IsCarried": "false",
    "x_IsEstimate": "true",
    "x_IsSandbox": "true",
    "x_Namespace": "team",
    "x_ObservedKinds": "notebooks",
    "x_Owner": 'ann "a"',
    "x_PriceValidFrom": "2020-01-01",
    "x_ReclaimableBytesUpperBound": "4160749568",
    "x_Registry": "swr.eu-de.otc.t-systems.com",
    "x_SizeBytes": "4160749568",
    "x_UnusedDays": "31",
}

# A price so small that a float would be written with an exponent, which FOCUS forbids.
SMALL_PRICES = 'currency = "EUR"\n' + entry("0.00004", "2020-01-01", type="DEDICATED")


@pytest.fixture
def cost_lake():
    """Costs of two days and two projects; the last day of a year, and the first of the next."""
    for date in ("2026-12-31", "2027-01-01"):
        for project in ("default", "other"):
            day = priced_day(date, SMALL_PRICES, project)
            image = {
                "id": A,
                "name": 'a "quoted", name',
                "namespace": "team",
                "registry": "swr.eu-de.otc.t-systems.com",
                "type": "DEDICATED",
                "size_bytes": 4160749568,
            }
            inventory = [{"id": A, "owner": 'ann "a"', "environment": "prod"}, {"id": B}]
            publish_images(day, [image, {"id": B, "size_bytes": GB}], inventory=inventory, references=[])
            write_usage(day, {A: 31, B: 2})
            derive(day)
    return Lake("lake")


DAYS = (dt.date(2026, 12, 31), dt.date(2027, 1, 1))


def test_focus_export_writes_csv(cost_lake, tmp_path):
    target = tmp_path / "focus.csv"
    target.write_text("an older export")
    assert write_focus(cost_lake, DAYS[0], DAYS[0], ["default"], target) == 2
    with target.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == COLUMNS
    assert dict(zip(header, rows[0], strict=True)) == FULL_ROW
    unpriced = dict(zip(header, rows[1], strict=True))
    assert unpriced["ResourceId"] == B
    assert unpriced["ChargeDescription"].endswith("; the price book states no price for it")
    # An unknown value is neither zero nor an empty tag.
    absent = ("EffectiveCost", "ListCost", "ContractedCost", "ListUnitPrice", "ProviderName", "RegionId", "Tags")
    assert {unpriced[name] for name in absent} == {""}
    assert (unpriced["BilledCost"], unpriced["ConsumedQuantity"]) == ("0.000000000000", "1.000000000000")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(("exact", "owner"), [(False, "'=cmd|' /c calc'!A1"), (True, "=cmd|' /c calc'!A1")])
def test_csv_makes_text_harmless_that_a_spreadsheet_would_run(exact, owner, tmp_path):
    day = priced_day("2026-12-31", SMALL_PRICES)
    publish_images(day, [{"id": A, "size_bytes": GB}], inventory=[{"id": A, "owner": "=cmd|' /c calc'!A1"}])
    derive(day)
    write_focus(Lake("lake"), DAYS[0], DAYS[0], ["default"], tmp_path / "focus.csv", exact=exact)
    with (tmp_path / "focus.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["x_Owner"] == owner


def test_focus_export_writes_parquet(cost_lake, tmp_path):
    target = tmp_path / "focus.PARQUET"
    assert write_focus(cost_lake, *DAYS, ["other", "default", "third"], target) == 8
    with pq.ParquetFile(target) as file:
        schema, table = file.schema_arrow, file.read()
    assert schema.names == COLUMNS
    assert {str(schema.field(name).type) for name in COLUMNS if "Period" in name} == {"timestamp[us, tz=UTC]"}
    assert {str(schema.field(name).type) for name in COLUMNS if name.endswith(("Cost", "Price", "Quantity"))} == {
        "decimal128(28, 12)"
    }
    assert str(schema.field("Tags").type) == "string"
    starts = [dt.datetime(*date, tzinfo=dt.UTC) for date in ((2026, 12, 31), (2027, 1, 1))]
    assert table["ChargePeriodStart"].to_pylist() == [starts[0]] * 4 + [starts[1]] * 4
    assert table["BillingPeriodStart"].to_pylist()[::4] == [dt.datetime(2026, 12, 1, tzinfo=dt.UTC), starts[1]]
    assert table["ResourceId"].to_pylist() == [A, B] * 4
    assert table["x_IsEstimate"].to_pylist() == [True] * 8
    assert table["EffectiveCost"].to_pylist()[1] is None
    assert {float(cost) for cost in table["EffectiveCost"].to_pylist()[::2]} == {0.000005}
    assert table["x_GrowthBytes"].to_pylist() == [None] * 4 + [0] * 4


@pytest.mark.parametrize(
    ("registry", "provider", "region"),
    [
        ("swr.cn-north-4.myhuaweicloud.com", "Huawei Cloud", "cn-north-4"),
        ("registry.example.com", None, None),
        (None, None, None),
    ],
)
def test_provider_and_region_come_from_the_registry(registry, provider, region, tmp_path):
    day = priced_day("2026-11-23")
    publish_images(day, [{"id": A, "registry": registry}])
    derive(day)
    write_focus(day.lake, day.partition.date, day.partition.date, ["default"], tmp_path / "focus.parquet")
    (row,) = pq.read_table(tmp_path / "focus.parquet").to_pylist()
    assert (row["ProviderName"], row["RegionId"]) == (provider, region)
    assert row["ChargeDescription"] == "Storage of a container image for a day; its size is not known"
    assert (row["ListUnitPrice"], row["ListCost"], row["ConsumedQuantity"]) == (1, None, None)


def test_impossible_export_is_one_sentence(cost_lake, tmp_path):
    with pytest.raises(ConfigurationError, match=r"costs\.xlsx ends with neither \.csv nor \.parquet"):
        write_focus(cost_lake, *DAYS, ["default"], tmp_path / "costs.xlsx")
    with pytest.raises(ConfigurationError, match="The first day, 2027-01-01, is after the last one, 2026-12-31"):
        write_focus(cost_lake, *reversed(DAYS), ["default"], tmp_path / "focus.csv")
    with pytest.raises(ConfigurationError, match="There are no costs from 2026-12-30 to 2026-12-30 of default, other"):
        write_focus(cost_lake, dt.date(2026, 12, 30), dt.date(2026, 12, 30), ["other", "default"], Path("focus.csv"))
    with pytest.raises(ConfigurationError, match=r"none/focus\.csv cannot be written: No such file or dir"):
        write_focus(cost_lake, *DAYS, ["default"], tmp_path / "none" / "focus.csv")


def test_failed_export_keeps_the_older_file(cost_lake, tmp_path):
    target = tmp_path / "focus.csv"
    target.write_text("an older export")
    cost_lake.table("image_costs", Partition(DAYS[1], "default")).write_bytes(b"damaged")
    with pytest.raises(StorageError, match=r"The costs could not be exported to .*focus\.csv: "):
        write_focus(cost_lake, *DAYS, ["default"], target)
    assert target.read_text() == "an older export"
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []
