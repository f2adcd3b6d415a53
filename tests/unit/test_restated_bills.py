"""Statements that are stated again: what is divided on which day, what stays; and charges at changes of clocks."""

import datetime as dt
from decimal import Decimal

import pytest
from published_days import day_of, publish_snapshot, published_rows, registry_and_bill

from pipelines import open_lake
from pipelines.derive.analysis import Analysis
from pipelines.derive.bills import derive_bills
from pipelines.derive.costs import derive_image_costs
from pipelines.derive.reconciliation import derive_image_reconciliation
from pipelines.derive.storage import derive_image_storage
from pipelines.snapshot.sources.bill_lines import day_in
from pipelines.tables import BILL_DAYS, BILLED_COSTS, IMAGE_BILLS

A, B = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "ab")


def line(date, amount, version, number=0, zone="UTC", kind="registry", currency="EUR"):
    start, end = day_in(zone, date) if zone != "UTC" else (dt.datetime.combine(date, dt.time(), dt.UTC),) * 2
    if zone == "UTC":
        end = start + dt.timedelta(days=1)
    return {
        "line": number,
        "charge_date": date,
        "charge_period_start": start,
        "charge_period_end": end,
        "time_zone": zone,
        "kind": kind,
        "service": kind,
        "currency": currency,
        "billed_cost": Decimal(amount),
        "source": "focus",
        "source_sha256": "0",
        "version": version,
    }


def take(date, lines, *, images=(A, B), bill_was_read=True):
    """Publish and derive a day with a registry that has a tag for each image, and with these lines of bills."""
    day = day_of(str(date))
    paths = {id_: f"registry.invalid/team/{id_[:1]}:v1" for id_ in images}
    tables = registry_and_bill(str(date), *(path.partition("/")[2] for path in paths.values()))
    tables["billed_costs"] = lines
    if not bill_was_read:
        del tables["billed_costs"]
    publish_snapshot(
        day,
        inventory=[{"id": id_} for id_ in images],
        responses=[{"id": id_, "outcome": "ok"} for id_ in images],
        images=[{"id": id_, "name": id_[:1], "swr_path": path, "type": "DEDICATED"} for id_, path in paths.items()],
        **tables,
    )
    with Analysis(day) as analysis:
        derive_image_reconciliation(analysis)
        derive_image_storage(analysis)
        derive_image_costs(analysis, derive_bills(analysis))
    return day


def bills_of(day):
    """(charge day, image or reason) -> amount."""
    rows = published_rows(day, IMAGE_BILLS)
    return {(str(row["charge_date"]), row["id"][:1] or row["allocation"]): row["billed_cost"] for row in rows}


def known_on(day):
    """Charge day -> amount, since when it is known, and its version."""
    return {
        str(row["charge_date"]): (row["billed_cost"], str(row["known_since"]), row["version"])
        for row in published_rows(day, BILL_DAYS)
    }


CHARGED = dt.date(2026, 11, 20)


def test_each_new_statement_of_a_day_replaces_the_last_and_all_are_kept():
    """A statement, a correction, a day that cannot read it, one that does not show it, and the first one again."""
    take(CHARGED, [])
    days = [
        take("2026-11-21", [line(CHARGED, 3, "first")]),
        take("2026-11-22", [line(CHARGED, "4.5", "second")]),
        take("2026-11-23", [], bill_was_read=False),
        take("2026-11-24", []),
        take("2026-11-25", [line(CHARGED, 3, "first")]),
    ]
    halves = [{("2026-11-20", image): Decimal(amount) / 2 for image in "ab"} for amount in ("3", "4.5")]
    assert [bills_of(day) for day in days] == [halves[0], halves[1], {}, {}, halves[0]]
    assert [known_on(day)["2026-11-20"] for day in days] == [
        (Decimal(3), "2026-11-21", "first"),
        *[(Decimal("4.5"), "2026-11-22", "second")] * 3,
        (Decimal(3), "2026-11-25", "first"),
    ]
    # The evidence of each day stays as it was read.
    assert [[row["version"] for row in published_rows(day, BILLED_COSTS)] for day in days] == [
        ["first"],
        ["second"],
        [],
        [],
        ["first"],
    ]
    with open_lake("lake") as lake:
        (newest,) = lake.sql("SELECT * FROM billed_days").to_dict("records")
        assert (newest["billed_cost"], newest["version"]) == (Decimal(3), "first")
        parts = lake.sql("SELECT id, billed_cost FROM billed_images ORDER BY id").to_dict("records")
    assert [(row["id"], row["billed_cost"]) for row in parts] == [(A, Decimal("1.5")), (B, Decimal("1.5"))]


def test_statement_that_is_read_again_is_not_divided_again():
    take(CHARGED, [])
    first = take("2026-11-21", [line(CHARGED, 3, "first")])
    second = take("2026-11-22", [line(CHARGED, 3, "first"), line(dt.date(2026, 11, 21), 1, "other", 1)])
    assert bills_of(first).keys() == {("2026-11-20", "a"), ("2026-11-20", "b")}
    assert bills_of(second).keys() == {("2026-11-21", "a"), ("2026-11-21", "b")}
    assert known_on(second)["2026-11-20"] == (Decimal(3), "2026-11-21", "first")


def test_correction_is_divided_among_the_images_of_the_charged_day():
    """Not among those of the day that reads it."""
    take(CHARGED, [])
    take("2026-11-21", [line(CHARGED, 3, "first")])
    corrected = take("2026-11-22", [line(CHARGED, 6, "second")], images=(A,))
    assert bills_of(corrected) == {("2026-11-20", "a"): Decimal(3), ("2026-11-20", "b"): Decimal(3)}


def test_correction_that_drops_a_currency_leaves_none_of_it():
    take(CHARGED, [])
    take("2026-11-21", [line(CHARGED, 3, "first"), line(CHARGED, 8, "first", 1, currency="CNY")])
    corrected = take("2026-11-22", [line(CHARGED, 4, "second")])
    rows = published_rows(corrected, BILL_DAYS)
    assert [(row["currency"], row["billed_cost"]) for row in rows] == [("EUR", Decimal(4))]
    with open_lake("lake") as lake:
        for view in ("billed_days", "billed_images"):
            assert set(lake.sql(f"SELECT DISTINCT currency FROM {view}")["currency"]) == {"EUR"}


@pytest.mark.parametrize(
    ("zone", "date", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("Asia/Shanghai", "2026-10-25", 24),
    ],
)
def test_charge_on_the_day_of_a_change_of_clocks_belongs_to_that_day(zone, date, hours):
    """A day of 23 or 25 hours is a day: its bill is divided by the storage of that date, and is no longer period."""
    date = dt.date.fromisoformat(date)
    take(date, [])
    lines = [line(date + dt.timedelta(days=days), 3, f"of {days}", days + 1, zone) for days in (-1, 0)]
    assert lines[0]["charge_period_end"] == lines[1]["charge_period_start"]
    assert lines[1]["charge_period_end"] - lines[1]["charge_period_start"] == dt.timedelta(hours=hours)
    read = take(date + dt.timedelta(days=1), lines)
    before = str(date - dt.timedelta(days=1))
    assert bills_of(read) == {(before, "no_snapshot"): Decimal(3)} | {
        (str(date), image): Decimal(3) / 2 for image in "ab"
    }
    assert {row["time_zone"] for row in published_rows(read, BILL_DAYS)} == {zone}
