"""What follows from published days is derived and loaded again, and the days stay as they are."""

import datetime as dt

import duckdb
import pytest

from pipelines.lake import Lake
from pipelines.settings import ROOT

TODAY = dt.datetime.now(dt.UTC).date()
YESTERDAY = TODAY - dt.timedelta(days=1)


@pytest.fixture
def lake(image_snapshots):
    assert image_snapshots("run", "--days", "2").returncode == 0
    return Lake("lake")


def sealed(lake):
    """All bytes but those of what is derived from several days."""
    days = [*lake.root.glob("_manifests/**/*.json")]
    for table in ("inventory", "responses", "list_pages", "notebooks", "images", "image_values"):
        days += [*(lake.root / table).rglob("*.parquet")]
    return {path: path.read_bytes() for path in days}


def costs(lake, source):
    by_day = f"SELECT snapshot_date, sum(estimated_cost) FROM {source} GROUP BY 1 ORDER BY 1"
    with duckdb.connect(str(lake.root / "warehouse.duckdb"), read_only=True) as connection:
        return connection.sql(by_day).fetchall()


def files(lake):
    return f"read_parquet('{lake.root}/image_costs/*/*/*.parquet')"


def new_price(tmp_path):
    text = (ROOT / "sql" / "cost" / "price-book.toml").read_text()
    book = tmp_path / "prices.toml"
    book.write_text(text.replace("\nper_gb_month = 0\n", "\nper_gb_month = 2\n"))
    assert book.read_text() != text
    return {"IMAGE_SNAPSHOTS_PRICE_BOOK": str(book)}


@pytest.mark.slow  # Seven times two days of the sandbox.
def test_a_new_price_is_derived_and_loaded_for_a_range_of_days(image_snapshots, lake, tmp_path):
    before, zero = sealed(lake), costs(lake, "image_costs")
    env = new_price(tmp_path)
    result = image_snapshots("derive", "--from", str(YESTERDAY), "--to", str(YESTERDAY), env=env)
    assert result.returncode == 0, result.stderr
    assert sealed(lake) == before
    (day, first), second = costs(lake, files(lake))
    assert day == YESTERDAY
    assert first > 0
    assert second == zero[1]
    assert costs(lake, "image_costs") == [(YESTERDAY, first), second]

    assert image_snapshots("derive", "--from", str(YESTERDAY), env=env).returncode == 0
    assert sealed(lake) == before
    assert min(cost for _, cost in costs(lake, files(lake))) > 0
    assert image_snapshots("verify", env=env).returncode == 0


@pytest.mark.slow
def test_load_brings_a_lost_warehouse_back_and_changes_nothing_else(image_snapshots, lake):
    before, rows = sealed(lake), costs(lake, "image_costs")
    seals = {path: path.read_bytes() for path in lake.root.glob("_derived/**/*.json")}
    (lake.root / "warehouse.duckdb").unlink()
    result = image_snapshots("load", "--from", str(YESTERDAY))
    assert result.returncode == 0, result.stderr
    assert costs(lake, "image_costs") == rows
    assert sealed(lake) == before
    assert {path: path.read_bytes() for path in lake.root.glob("_derived/**/*.json")} == seals


@pytest.mark.parametrize("command", ["derive", "load"])
def test_a_range_without_days_is_one_sentence(command, image_snapshots):
    result = image_snapshots(command, "--from", "2026-01-01", "--to", "2026-01-02")
    assert result.returncode == 2
    assert "No day from 2026-01-01 to 2026-01-02" in result.stderr
    result = image_snapshots(command, "--from", "soon")
    assert result.returncode == 2
    assert "soon is no day" in result.stderr
