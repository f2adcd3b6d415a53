"""Lines of bills: amounts, days in the time zones of bills, and which services concern images."""

import datetime as dt
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.snapshot.sources.bill_lines import amount, day_in, kind_of, months, window


@pytest.mark.parametrize(
    ("zone", "date", "begin", "hours"),
    [
        ("Europe/Berlin", "2026-03-28", "2026-03-27T23:00", 24),
        # Clocks go forward at two o'clock in the night of the 29th of March, and back on the 25th of October.
        ("Europe/Berlin", "2026-03-29", "2026-03-28T23:00", 23),
        ("Europe/Berlin", "2026-03-30", "2026-03-29T22:00", 24),
        ("Europe/Berlin", "2026-10-25", "2026-10-24T22:00", 25),
        ("Europe/Berlin", "2026-10-26", "2026-10-25T23:00", 24),
        ("Asia/Shanghai", "2026-03-29", "2026-03-28T16:00", 24),
        ("Asia/Shanghai", "2026-10-25", "2026-10-24T16:00", 24),
    ],
)
def test_day_of_a_bill_begins_and_ends_by_its_clock(zone, date, begin, hours):
    start, end = day_in(zone, dt.date.fromisoformat(date))
    assert start == dt.datetime.fromisoformat(begin).replace(tzinfo=dt.UTC)
    assert end - start == dt.timedelta(hours=hours)


@given(st.dates(dt.date(2020, 1, 1), dt.date(2035, 1, 1)), st.sampled_from(["Europe/Berlin", "Asia/Shanghai"]))
def test_days_of_a_bill_follow_one_another(date, zone):
    start, end = day_in(zone, date)
    assert end == day_in(zone, date + dt.timedelta(days=1))[0]
    assert start.astimezone(ZoneInfo(zone)).date() == date
    # The day before a snapshot is over everywhere when the snapshot's day begins (UTC).
    assert end <= dt.datetime.combine(date + dt.timedelta(days=1), dt.time(), dt.UTC)


def test_window_ends_on_the_day_before():
    first, last = window(dt.date(2026, 3, 1))
    assert (first, last) == (dt.date(2026, 1, 25), dt.date(2026, 2, 28))
    assert months(first, last) == ["2026-01", "2026-02"]
    assert months(dt.date(2025, 12, 31), dt.date(2026, 1, 1)) == ["2025-12", "2026-01"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.1", "0.100000000000"),
        (0.1, "0.100000000000"),
        (1e-7, "0.000000100000"),
        (Decimal("-12.5"), "-12.500000000000"),
        (7, "7.000000000000"),
        (" 3 ", "3.000000000000"),
        ("0.0000000000005", "0.000000000000"),
        ("0.0000000000015", "0.000000000002"),
        ("9999999999999999", "9999999999999999.000000000000"),
    ],
)
def test_amount_is_a_decimal_of_twelve_places(value, expected):
    assert str(amount(value)) == str(Decimal(expected))


@pytest.mark.parametrize("value", ["1,5", "EUR 1", "nan", "Infinity", True, [1], "1e16", "-1e30"])
def test_amount_that_no_column_holds_is_refused(value):
    with pytest.raises(ValueError, match="number"):
        amount(value)


def test_amount_without_a_value_is_none():
    assert (amount(None), amount("")) == (None, None)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Software Repository for Container", "registry"),
        ("hws.service.type.swr", "registry"),
        ("OTC_SWR_STORAGE", "registry"),
        ("ModelArts", "modelarts"),
        ("Model Arts notebook", "modelarts"),
        ("OTC_MODELARTS_GPU", "modelarts"),
        ("Elastic Cloud Server", None),
        ("Answring service", None),
        (None, None),
        (7, None),
    ],
)
def test_services_of_images_are_known_by_name(name, kind):
    assert kind_of(name) == kind
