"""Bills of a sandbox from its three sources: FOCUS exports, the dashboard's stream, pages of bill lines."""

import asyncio
import datetime as dt
import json
import os
from decimal import Decimal
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest
from golden_bills import check_bills, expected_parts, new_statements, weights
from once_per_run import once_per_run
from scripted_server import http, serving

from pipelines import open_lake
from pipelines.derive.costs import write_focus
from pipelines.derive.days import derive_days
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import read_manifest
from pipelines.maintenance.verify import verify
from pipelines.report.page import render_report
from pipelines.sandbox import SandboxOptions, running_sandbox
from pipelines.sandbox.bills import OTHER_TENANT
from pipelines.sandbox.catalogue import Catalogue
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory
from pipelines.tables import IMAGE_BILLS

# The statement of the 24th comes on the 26th and is corrected on the 28th. The clocks of Berlin change on the 29th.
FIRST = dt.date(2026, 3, 24)
DAYS = [FIRST + dt.timedelta(days=number) for number in range(5)]
CATALOGUE = Catalogue("bills", 60, workspaces=1)
PROJECT_FILE = "project.txt"
KEY_FILE = "key.txt"


def run_of(settings, date):
    noon = dt.datetime.combine(date, dt.time(12), dt.UTC)
    return SnapshotRun(Partition(date, "default"), f"run-{date}", settings, lambda: noon)


def take(settings, date):
    run = run_of(settings, date)
    take_inventory(run)
    facts = fetch_responses(run, lambda _: None).facts.sources["bills"]
    publish_snapshot(run)
    derive_days(run)
    return facts


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    options = SandboxOptions(
        seed="bills", size=60, day=DAYS[-1], inventory_file=tmp_path / "r.csv", bills_directory=tmp_path / "focus"
    )
    with running_sandbox(options) as connection:
        for name, value in connection.env.items():
            monkeypatch.setenv(name, value)
        yield connection


@pytest.fixture(scope="module")
def billed(tmp_path_factory) -> Path:
    return once_per_run(tmp_path_factory, "billed-days", make_billed_days)


def make_billed_days(root: Path) -> Path:
    """Five days with registry and bills, priced."""
    book = root / "book.toml"
    book.write_text('currency = "EUR"\n[[price]]\nvalid_from = 2026-01-01\nper_gb_month = 0.05\n')
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in list(os.environ):
            if name.startswith(("IMAGE_SNAPSHOTS_", "OS_")):
                monkeypatch.delenv(name)
        options = SandboxOptions(seed="bills", size=60, day=FIRST, inventory_file=root / "register.csv")
        with running_sandbox(options) as sandbox:
            for name, value in sandbox.env.items():
                monkeypatch.setenv(name, value)
            (root / PROJECT_FILE).write_text(sandbox.project_id)
            (root / KEY_FILE).write_text(sandbox.env["IMAGE_SNAPSHOTS_BILLS_KEY"])
            settings = Settings(lake=str(root / "lake"), registry="true", bills="otc-dashboard:", price_book=book)
            for date in DAYS:
                httpx.put(f"{sandbox.endpoint}/sandbox/day", json={"day": date.isoformat()}).raise_for_status()
                take(settings, date)
    return root


def rows_of(lake, name, date):
    return pq.ParquetFile(lake.table(name, Partition(date, "default"))).read().to_pylist()


@pytest.mark.parametrize("date", DAYS[1:], ids=str)
def test_bill_is_divided_among_images_to_the_last_place(billed, date):
    lake, project_id = Lake(str(billed / "lake")), (billed / PROJECT_FILE).read_text()

    def parts_of(day):
        if day < FIRST:
            return "no_snapshot"
        storage = {row["id"]: row for row in rows_of(lake, "image_storage", day)}
        return dict(
            expected_parts(*weights(rows_of(lake, "image_costs", day), storage, rows_of(lake, "registry_only", day)))
        )

    before = date - dt.timedelta(days=1)
    check_bills(rows_of(lake, IMAGE_BILLS.name, date), new_statements(CATALOGUE, project_id, date, before), parts_of)


def test_images_show_their_part_of_the_newest_bill(billed):
    lake = Lake(str(billed / "lake"))
    rows = rows_of(lake, "image_costs", DAYS[-1])
    billed_day = DAYS[-1] - dt.timedelta(days=2)
    parts = {
        row["id"]: row
        for row in rows_of(lake, IMAGE_BILLS.name, DAYS[-1])
        if row["charge_date"] == billed_day and row["allocation"] == "image"
    }
    found = {row["id"]: row for row in rows if row["billed_date"] is not None}
    assert found.keys() == parts.keys() & {row["id"] for row in rows} != set()
    for id_, row in found.items():
        assert (row["billed_date"], row["billed_currency"]) == (billed_day, "EUR")
        assert row["billed_cost"] == parts[id_]["billed_cost"]
        assert row["billed_registry_cost"] == parts[id_]["billed_registry_cost"]
    assert any(row["billed_cost"] > 0 for row in found.values())


def test_verify_derives_the_same_bills_again(billed):
    lake = Lake(str(billed / "lake"))
    notes = []
    found = verify(
        lake, lake.contents.partitions(), settings=Settings(price_book=billed / "book.toml"), on_note=notes.append
    )
    assert found == []
    assert [note for note in notes if note.path == "_derived"] == []


def test_corrected_statement_is_kept_beside_the_first(billed):
    lake = Lake(str(billed / "lake"))
    first, last = (
        {row["version"] for row in rows_of(lake, "billed_costs", date) if row["charge_date"] == FIRST}
        for date in (DAYS[2], DAYS[4])
    )
    assert len(first) == len(last) == 1
    assert first != last
    known = {row["charge_date"]: row for row in rows_of(lake, "bill_days", DAYS[4])}
    assert known[FIRST]["known_since"] == DAYS[4]
    assert {known[FIRST]["version"]} == last
    sums = {}
    for date in (DAYS[2], DAYS[4]):
        sums[date] = sum(
            row["billed_cost"] for row in rows_of(lake, IMAGE_BILLS.name, date) if row["charge_date"] == FIRST
        )
    assert sums[DAYS[4]] == known[FIRST]["billed_cost"] != sums[DAYS[2]]


def test_report_and_export_show_estimate_bill_and_difference(billed, tmp_path):
    lake = Lake(str(billed / "lake"))
    page = render_report(lake, Partition(DAYS[-1], "default"))
    assert "Estimate and bill" in page
    newest = max(row["charge_date"] for row in rows_of(lake, "bill_days", DAYS[-1]))
    assert f"Bill of {newest} by owner" in page
    target = tmp_path / "focus.parquet"
    write_focus(lake, FIRST, DAYS[-1], ["default"], target)
    rows = pq.read_table(target).to_pylist()
    known = {row["charge_date"]: row for row in rows_of(lake, "bill_days", DAYS[-1])}
    for date in DAYS:
        of_day = [row for row in rows if row["ChargePeriodStart"].date() == date]
        expected = known[date]["billed_cost"] if date in known else 0
        assert sum(row["BilledCost"] for row in of_day) == expected
        assert {row["x_IsEstimate"] for row in of_day} == {date not in known}
        for row in of_day:
            if row["x_Difference"] is not None:
                assert row["x_Difference"] == row["x_BilledRegistryCost"] - row["x_EstimatedCost"]


def test_reader_adds_up_estimate_and_bill_side_by_side(billed):
    lake = Lake(str(billed / "lake"))
    parts = [
        row
        for day, known in {row["charge_date"]: row for row in rows_of(lake, "bill_days", DAYS[-1])}.items()
        if day in DAYS
        for row in rows_of(lake, IMAGE_BILLS.name, known["known_since"])
        if (row["charge_date"], row["allocation"]) == (day, "image")
    ]
    days = {row["charge_date"] for row in parts}
    assert FIRST in days != set(DAYS)
    costs = [row for date in DAYS for row in rows_of(lake, "image_costs", date)]
    with open_lake(billed / "lake") as reader:
        (whole,) = reader.costs(by="project").to_dict("records")
        by_day = reader.costs(by=["snapshot_date", "owner"], since=FIRST).to_dict("records")
    assert (whole["currency"], whole["image_days"]) == ("EUR", len(costs))
    estimates = [row["estimated_cost"] for row in costs if row["estimated_cost"] is not None]
    assert whole["estimated_cost"] == pytest.approx(sum(estimates))
    assert whole["image_days_without_estimate"] == len(costs) - len(estimates)
    assert whole["image_days_without_bill"] == len(costs) - len(parts) > 0
    for name in ("billed_cost", "billed_registry_cost"):
        assert isinstance(whole[name], Decimal)
        assert whole[name] == sum(row[name] for row in parts) > 0
        owners = {(row["snapshot_date"].date(), row["owner"]): row[name] for row in by_day}
        of_owners = {}
        for row in parts:
            key = (row["charge_date"], row["owner"])
            of_owners[key] = of_owners.get(key, 0) + row[name]
        named = {key: amount for key, amount in owners.items() if isinstance(key[1], str)}
        assert {key: amount for key, amount in named.items() if key[0] in days and amount is not None} == {
            key: amount for key, amount in of_owners.items() if key[1] is not None
        }
        # Of days without a bill nothing is said, which is not a bill of zero.
        assert {amount for key, amount in owners.items() if key[0] not in days} == {None}


def test_no_file_holds_the_key_or_another_tenant(billed):
    secrets = [(billed / KEY_FILE).read_bytes(), OTHER_TENANT.encode()]
    (billed / "read.txt").write_bytes(b"")
    for path in (billed / "lake").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".parquet":
                content += str(pq.ParquetFile(path).read().to_pydict()).encode()
            assert not any(secret in content for secret in secrets), path


@pytest.mark.parametrize("source", ["focus", "huawei:", "otc-dashboard:"])
def test_each_source_reads_the_same_bill(sandbox, tmp_path, source):
    place = str(tmp_path / "focus") if source == "focus" else source
    facts = take(Settings(lake="lake", bills=place, reconcile=False), DAYS[-1])
    assert (facts.was_read, facts.error, facts.partial) == (True, None, None)
    rows = rows_of(Lake("lake"), "billed_costs", DAYS[-1])
    assert len(rows) == facts.items
    zone, hours = {
        "focus": ("UTC", {24}),
        "huawei:": ("Asia/Shanghai", {24}),
        "otc-dashboard:": ("Europe/Berlin", {24}),
    }[source]
    assert {row["time_zone"] for row in rows} == {zone}
    lengths = {(row["charge_period_end"] - row["charge_period_start"]).total_seconds() / 3600 for row in rows}
    # FOCUS alone has a charge for a whole month.
    assert lengths == hours | ({31 * 24} if source == "focus" else set())
    days = new_statements(CATALOGUE, sandbox.project_id, DAYS[-1], None)
    sums = {}
    for row in rows:
        if row["charge_period_end"] - row["charge_period_start"] < dt.timedelta(days=2):
            sums[row["charge_date"]] = sums.get(row["charge_date"], 0) + row["billed_cost"]
    assert sums == {day: sum(one.billed for one in found) for day, found in days.items()}


@pytest.mark.parametrize(
    ("bills", "faults", "env", "message"),
    [
        ("otc-dashboard:", {"sources_broken": ["bills"]}, {}, "cannot be read (HTTP 500 "),
        ("huawei:", {"sources_forbidden": ["bills"]}, {}, "cannot be read (HTTP 403 "),
        ("huawei:", {}, {"OS_DOMAIN_ID": "another"}, "check OS_ACCESS_KEY, OS_SECRET_KEY, OS_DOMAIN_ID and this "),
        ("nowhere", {}, {}, "There is no FOCUS export (.csv, .csv.gz or .parquet) in "),
    ],
)
def test_day_is_published_when_the_bill_cannot_be_read(sandbox, monkeypatch, bills, faults, env, message):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    httpx.put(f"{sandbox.endpoint}/sandbox/faults", json=faults).raise_for_status()
    facts = take(Settings(lake="lake", bills=bills, reconcile=False), DAYS[-1])
    assert not facts.was_read
    assert message in facts.error
    manifest = read_manifest(Lake("lake").manifest(Partition(DAYS[-1], "default")))
    assert manifest.is_complete
    assert manifest.fetch.sources["bills"] == facts
    assert rows_of(Lake("lake"), "billed_costs", DAYS[-1]) == []


LINE = {"bill_date": "2026-03-25", "cloud_service_type": "swr", "consume_amount": 1, "resource_name": "r"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, "shows the same lines of 2026-02 again"),
        ({"measure_id": [1]}, "has a line whose day or amount cannot be read"),
        ({"bill_date": "9999-12-31"}, "has a line whose day or amount cannot be read"),
        ({"bill_date": "0001-01-01"}, "has a line whose day or amount cannot be read"),
        ({"bill_date": {}}, "has a line whose day or amount cannot be read"),
        ({"consume_amount": "1e999999999"}, "has a line whose day or amount cannot be read"),
    ],
)
async def test_day_is_published_when_the_bill_has_odd_lines_or_no_end(sandbox, changed, message):
    """The bill always counts more lines than it showed."""
    sent = []

    async def script(request, writer):
        sent.append(request.path)
        page = {"monthly_records": [LINE | changed] if len(sent) < 50 else [], "currency": "EUR", "total_count": 1000}
        writer.write(http(200, json.dumps(page).encode()))

    async with serving(script) as server:
        settings = Settings(lake="lake", bills=f"huawei:{server.url}", reconcile=False)
        facts = await asyncio.to_thread(take, settings, DAYS[-1])
    assert (facts.was_read, len(sent)) == (False, 1 if changed else 2)
    assert message in facts.error
    assert rows_of(Lake("lake"), "billed_costs", DAYS[-1]) == []


def test_wrong_key_is_one_sentence_without_the_key(sandbox):
    facts = take(Settings(lake="lake", bills="otc-dashboard:", bills_key="wrong-key", reconcile=False), DAYS[-1])
    host = sandbox.endpoint.removeprefix("http://")
    assert facts.error == f"{host} refuses the API key of the bill (HTTP 401): check IMAGE_SNAPSHOTS_BILLS_KEY."
