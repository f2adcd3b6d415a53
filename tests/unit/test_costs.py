"""Costs follow the price book and are estimates, never a bill; sizes and growth come from the API."""

import datetime as dt
from pathlib import Path

import pytest
from priced_days import BOOK, GB, A, B, C, D, derive, entry, priced_day, publish_images, write_usage
from published_days import day_of, published_rows, write_history

from pipelines.derive.prices import read_price_book
from pipelines.engine.duckdb import DuckDBEngine
from pipelines.engine.sql_files import read_sql
from pipelines.errors import ConfigurationError
from pipelines.settings import ROOT, Settings
from pipelines.tables import IMAGE_COSTS


def costs_of(day, column):
    return {row["id"]: row[column] for row in published_rows(day, IMAGE_COSTS)}


@pytest.mark.parametrize(
    ("date", "gigabytes"),
    [("2025-02-10", 28), ("2024-02-29", 29), ("2026-04-30", 30), ("2026-12-31", 31), ("2100-02-28", 28)],
)
def test_day_costs_its_share_of_the_month(date, gigabytes):
    day = priced_day(date)
    publish_images(day, [{"id": A, "size_bytes": gigabytes * GB}])
    result = derive(day)
    assert costs_of(day, "estimated_cost") == {A: 1.0}
    assert result.estimated_cost == 1.0


def test_cost_row_has_image_and_price():
    day = priced_day("2026-11-23", BOOK.replace("EUR", "CHF").replace("= 1\n", "= 0.06\n"))
    image = {
        "id": A,
        "name": "pytorch",
        "namespace": "team",
        "registry": "swr.eu-de.otc.t-systems.com",
        "type": "DEDICATED",
        "size_bytes": 5 * GB,
    }
    inventory = [{"id": A, "owner": "ann", "cost_center": "cc-1", "environment": "prod"}]
    publish_images(day, [image], inventory=inventory)
    result = derive(day)
    assert published_rows(day, IMAGE_COSTS) == [
        {
            **image,
            "owner": "ann",
            "cost_center": "cc-1",
            "environment": "prod",
            "growth_bytes": None,
            "is_carried": False,
            "unit_price": 0.06,
            "currency": "CHF",
            "price_valid_from": dt.date(2020, 1, 1),
            "estimated_cost": 0.01,
            "unused_days": None,
            "reclaimable_bytes": None,
            "observed_kinds": None,
            "owner_source": "inventory",
            "reclaimable_by": None,
            **dict.fromkeys(("billed_date", "billed_currency", "billed_cost", "billed_registry_cost")),
        }
    ]
    assert result.file.rows == result.images == 1
    assert (result.total_bytes, result.growth_bytes, result.reclaimable_bytes) == (5 * GB, None, None)
    assert (result.currency, result.is_priced, result.unpriced) == ("CHF", True, 0)


def test_shipped_price_book_is_zero():
    day = day_of("2026-11-23")
    publish_images(day, [{"id": A, "size_bytes": GB}])
    result = derive(day)
    assert costs_of(day, "estimated_cost") == {A: 0.0}
    assert (result.estimated_cost, result.currency, result.is_priced, result.unpriced) == (0.0, "EUR", False, 0)


# Each image matches every entry of these selectors.
ALL = {"registry": "Swr.Example.com", "namespace": "team", "type": "DEDICATED"}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param([entry(1)], (1, "2026-01-01"), id="an entry without selectors matches all"),
        pytest.param([entry(1), entry(2, type="DEDICATED")], (2, "2026-01-01"), id="one selector wins over none"),
        pytest.param(
            [entry(3, registry="swr.example.com"), entry(2, type="DEDICATED")],
            (3, "2026-01-01"),
            id="registry wins over type",
        ),
        pytest.param(
            [entry(2, namespace="team"), entry(3, registry="swr.example.com")],
            (2, "2026-01-01"),
            id="namespace wins over registry",
        ),
        pytest.param(
            [entry(2, namespace="team"), entry(3, registry="swr.example.com", type="DEDICATED")],
            (3, "2026-01-01"),
            id="two selectors win over the best one",
        ),
        pytest.param(
            [
                entry(4, registry="swr.example.com", type="DEDICATED"),
                entry(5, namespace="team", type="DEDICATED"),
                entry(6, namespace="team", registry="swr.example.com"),
            ],
            (6, "2026-01-01"),
            id="namespace and registry win over other pairs",
        ),
        pytest.param(
            [entry(5, namespace="team", type="DEDICATED"), entry(4, registry="swr.example.com", type="DEDICATED")],
            (5, "2026-01-01"),
            id="namespace and type win over registry and type",
        ),
        pytest.param([entry(7, **ALL), entry(6, namespace="team")], (7, "2026-01-01"), id="all three win"),
        pytest.param(
            [entry(1), entry(2, namespace="other"), entry(3, registry="other.example.com"), entry(4, type="BUILD_IN")],
            (1, "2026-01-01"),
            id="entries of other images do not match",
        ),
        pytest.param(
            [entry(2, "2026-11-23"), entry(1), entry(3, "2026-11-24")],
            (2, "2026-11-23"),
            id="the latest that is valid on the day",
        ),
        pytest.param(
            [entry(9, "2025-01-01", namespace="team"), entry(1, "2026-06-01")],
            (9, "2025-01-01"),
            id="a later general entry does not end a special one",
        ),
        pytest.param(
            [entry(1), entry(9, "2026-11-24", namespace="team")],
            (1, "2026-01-01"),
            id="a special entry that is not valid yet does not hide the general one",
        ),
        pytest.param([entry(1, "2026-11-24")], (None, None), id="no price is valid yet"),
        pytest.param([entry(0, namespace="team"), entry(1)], (0, "2026-01-01"), id="zero is a price"),
    ],
)
def test_the_most_specific_valid_price_wins(entries, expected):
    day = priced_day("2026-11-23", 'currency = "EUR"\n' + "\n".join(entries))
    image = {"id": A, "registry": "swr.example.COM", "namespace": "team", "type": "Dedicated", "size_bytes": 30 * GB}
    publish_images(day, [image])
    derive(day)
    price, valid_from = expected
    assert costs_of(day, "unit_price") == {A: price}
    assert costs_of(day, "price_valid_from") == {A: valid_from and dt.date.fromisoformat(valid_from)}
    assert costs_of(day, "estimated_cost") == {A: price}


def test_image_without_price_or_size_has_no_cost_and_is_counted():
    day = priced_day("2026-11-23", 'currency = "EUR"\n' + entry(2, type="DEDICATED"))
    publish_images(
        day,
        [
            {"id": A, "type": "DEDICATED", "size_bytes": 30 * GB},
            {"id": B, "type": "BUILD_IN", "size_bytes": GB},
            {"id": C, "size_bytes": GB},
            {"id": D, "type": "DEDICATED"},
        ],
    )
    result = derive(day)
    assert costs_of(day, "unit_price") == {A: 2.0, B: None, C: None, D: 2.0}
    assert costs_of(day, "estimated_cost") == {A: 2.0, B: None, C: None, D: None}
    assert (result.images, result.unpriced) == (4, 2)
    assert (result.estimated_cost, result.total_bytes) == (2.0, 32 * GB)


def test_missing_price_is_not_a_cost_of_zero():
    day = priced_day("2026-11-23", 'currency = "EUR"\n' + entry(2, "2027-01-01"))
    publish_images(day, [{"id": A, "size_bytes": GB}])
    result = derive(day)
    assert (result.estimated_cost, result.unpriced, result.is_priced) == (None, 1, True)
    assert costs_of(day, "currency") == {A: "EUR"}


def test_growth_compares_with_the_last_complete_day():
    first, second = priced_day("2026-11-22"), priced_day("2026-11-23")
    publish_images(
        first, [{"id": A, "size_bytes": 5 * GB}, {"id": B}, {"id": C, "size_bytes": GB}, {"id": D, "size_bytes": GB}]
    )
    assert derive(first).growth_bytes is None
    assert costs_of(first, "growth_bytes") == {A: None, B: None, C: None, D: None}
    new = "eeeeeeee-0000-4000-8000-000000000000"
    publish_images(
        second, [{"id": A, "size_bytes": 7 * GB}, {"id": B, "size_bytes": GB}, {"id": C}, {"id": new, "size_bytes": 3}]
    )
    result = derive(second)
    assert costs_of(second, "growth_bytes") == {A: 2 * GB, B: None, C: None, new: 3}
    # 7 + 1 GB and 3 bytes today, 5 + 1 + 1 GB before.
    assert result.growth_bytes == GB + 3


def test_all_images_are_new_after_a_day_without_any():
    first, second = priced_day("2026-11-22"), priced_day("2026-11-23")
    publish_images(first, [])
    result = derive(first)
    assert (result.images, result.total_bytes, result.estimated_cost) == (0, 0, None)
    publish_images(second, [{"id": A, "size_bytes": GB}])
    assert derive(second).growth_bytes == GB
    assert costs_of(second, "growth_bytes") == {A: GB}


def test_last_complete_day_without_costs_gives_no_growth():
    publish_images(priced_day("2026-11-22"), [{"id": A, "size_bytes": GB}])
    day = priced_day("2026-11-23")
    publish_images(day, [{"id": A, "size_bytes": GB}])
    assert derive(day).growth_bytes is None
    assert costs_of(day, "growth_bytes") == {A: None}


def test_incomplete_day_carries_images_without_response():
    first, second, third = (priced_day(f"2026-11-2{n}") for n in (2, 3, 4))
    publish_images(first, [{"id": A, "size_bytes": 30 * GB}, {"id": B, "size_bytes": 60 * GB}])
    derive(first)
    since = {"valid_from": first.partition.date}
    write_history(first, [{"id": A, "size_bytes": 30 * GB, **since}, {"id": B, "size_bytes": 60 * GB, **since}])
    publish_images(second, [{"id": A, "size_bytes": 33 * GB}], failed=[B])
    result = derive(second)
    assert costs_of(second, "is_carried") == {A: False, B: True}
    assert costs_of(second, "estimated_cost") == {A: 1.1, B: 2.0}
    assert costs_of(second, "growth_bytes") == {A: 3 * GB, B: 0}
    assert (result.total_bytes, result.growth_bytes) == (93 * GB, 3 * GB)
    # Growth on an incomplete day appears again on the next complete day, which is not compared with it.
    publish_images(third, [{"id": A, "size_bytes": 33 * GB}, {"id": B, "size_bytes": 60 * GB}])
    assert derive(third).growth_bytes == 3 * GB


def test_long_unused_images_of_users_are_reclaimable():
    day = priced_day("2026-11-23")
    publish_images(
        day,
        [
            {"id": A, "size_bytes": GB, "type": "DEDICATED"},
            {"id": B, "size_bytes": GB, "type": "DEDICATED"},
            {"id": C, "size_bytes": GB, "type": "BUILD_IN"},
            {"id": D, "size_bytes": GB},
        ],
        references=[],
    )
    write_usage(day, {A: 30, B: 29, C: 99})
    result = derive(day)
    assert costs_of(day, "unused_days") == {A: 30, B: 29, C: 99, D: None}
    assert costs_of(day, "reclaimable_bytes") == {A: GB, B: 0, C: 0, D: None}
    assert costs_of(day, "observed_kinds") == dict.fromkeys((A, B, C), "notebooks") | {D: None}
    assert result.reclaimable_bytes == GB


def test_unused_images_are_summed_by_owner():
    first, second = priced_day("2026-11-22"), priced_day("2026-11-23")
    images = [{"id": i, "size_bytes": n * GB} for i, n in ((A, 1), (B, 2), (C, 4), (D, 8))]
    inventory = [{"id": A, "owner": "ann"}, {"id": B, "owner": "bob", "cost_center": "cc-2"}, {"id": C, "owner": "ann"}]
    for day in (first, second):
        publish_images(day, images, inventory=[*inventory, {"id": D}], references=[])
        write_usage(day, {A: 40, B: 40, C: 40, D: 0})
        derive(day)
    with DuckDBEngine() as engine:
        engine.create_view("image_costs", "SELECT * FROM read_parquet('lake/image_costs/*/*/*.parquet')")
        rows = engine.read(read_sql("cost/unused.sql")).to_pylist()
    shared = {"snapshot_date": dt.date(2026, 11, 23), "project_id": "p1", "currency": "EUR"}
    shared["observed_kinds"] = "notebooks"
    assert rows == [
        {
            **shared,
            "owner": "ann",
            "cost_center": None,
            "unused_images": 2,
            "reclaimable_bytes_upper_bound": 5 * GB,
            "estimated_month_cost_upper_bound": 5.0,
        },
        {
            **shared,
            "owner": "bob",
            "cost_center": "cc-2",
            "unused_images": 1,
            "reclaimable_bytes_upper_bound": 2 * GB,
            "estimated_month_cost_upper_bound": 2.0,
        },
    ]


CODE = "must be an ISO 4217 code of three capital letters in quotes, such as EUR"
ENTRIES = "must be at least one entry [[price]]: a price of 0 is stated too"
DATE = "must be a date without quotes, such as 2026-01-01"
NUMBER = "must be a number of 0 or more without quotes, such as 0.05"
FIELDS = "valid_from, per_gb_month, registry, namespace, type"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("currency = ", "is no valid TOML: Invalid value (at end of document)"),
        ("currency = " + "[" * 50_000, "is no valid TOML: too many brackets within brackets"),
        (
            entry(1),
            f"`currency` is missing: it {CODE}",
        ),
        (
            BOOK.replace("EUR", "euro"),
            f"`currency` {CODE}",
        ),
        (
            BOOK.replace('"EUR"', "978"),
            f"`currency` {CODE}",
        ),
        ('currency = "EUR"', f"`price` is missing: it {ENTRIES}"),
        ('currency = "EUR"\nprice = []', f"`price` {ENTRIES}"),
        ('currency = "EUR"\nprice = 0.05', f"`price` {ENTRIES}"),
        ('currency = "EUR"\nprice = [0.05]', "entry 1 must be a table that begins with [[price]]"),
        ("version = 1\n" + BOOK, "it has the unknown field `version`; known are currency, price"),
        (
            BOOK + "[[price]]\nper_gb_month = 1",
            f"`valid_from` of entry 2 is missing: it {DATE}",
        ),
        (
            BOOK + entry(1, '"2026-01-01"'),
            f"`valid_from` of entry 2 {DATE}",
        ),
        (
            BOOK + entry(1, "2026-01-01T00:00:00Z"),
            f"`valid_from` of entry 2 {DATE}",
        ),
        (
            BOOK + "[[price]]\nvalid_from = 2026-01-01",
            f"`per_gb_month` of entry 2 is missing: it {NUMBER}",
        ),
        *(
            (
                BOOK + entry(price),
                f"`per_gb_month` of entry 2 {NUMBER}",
            )
            for price in ("-0.01", '"0.05"', "nan", "inf", "true", "1" + "0" * 400)
        ),
        (BOOK + entry(1, registry=""), "`registry` of entry 2 must be text in quotes that is not empty"),
        (BOOK + entry(1) + "namespace = 7", "`namespace` of entry 2 must be text in quotes that is not empty"),
        (BOOK + entry(1, type="PRESET"), "`type` of entry 2 must be BUILD_IN or DEDICATED in quotes"),
        (
            BOOK + entry(1, organisation="team"),
            f"entry 2 has the unknown field `organisation`; known are {FIELDS}",
        ),
        (
            BOOK + entry(1, registry="swr.example.com") + entry(2, registry="SWR.example.com"),
            "entry 3 has the `valid_from` and selectors of entry 2, so it is not clear which holds",
        ),
    ],
)
def test_wrong_price_book_is_one_sentence(text, problem, tmp_path):
    path = tmp_path / "book.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        read_price_book(path)
    middle = "" if problem.startswith("is ") else "is wrong: "
    assert str(caught.value) == f"The price book {path} {middle}{problem}."


def test_unreadable_price_book_names_the_setting(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        read_price_book(tmp_path / "none.toml")
    assert str(caught.value) == (
        f"The price book {tmp_path}/none.toml cannot be read: No such file or directory. "
        "Correct IMAGE_SNAPSHOTS_PRICE_BOOK."
    )
    (tmp_path / "latin.toml").write_bytes(b'currency = "\xe9"')
    with pytest.raises(ConfigurationError, match=r"latin\.toml is not UTF-8 text: save it as UTF-8"):
        read_price_book(tmp_path / "latin.toml")


def test_price_book_setting_is_used(monkeypatch):
    assert Settings.load().price_book == ROOT / "sql" / "cost" / "price-book.toml"
    monkeypatch.setenv("IMAGE_SNAPSHOTS_PRICE_BOOK", "prices/ours.toml")
    assert Settings.load().price_book == Path("prices/ours.toml")
