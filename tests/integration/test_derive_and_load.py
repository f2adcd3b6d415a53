"""`derive` and `load`: published days are derived and loaded again, and the days themselves stay unchanged."""

import contextlib
import datetime as dt
import shutil

import duckdb
import pytest
from once_per_run import once_per_run
from proved_days import A, B, proved_day, publish_proved
from typer.testing import CliRunner

from assets import cli
from pipelines.derive.days import derive_days
from pipelines.lake.layout import Lake
from pipelines.maintenance.verify import verify
from pipelines.settings import ROOT, Settings
from pipelines.warehouse.loading import load_project

TODAY = dt.datetime.now(dt.UTC).date()
YESTERDAY = TODAY - dt.timedelta(days=1)


def two_days(directory):
    """Two days with their derived tables, loaded."""
    with contextlib.chdir(directory):
        days = [proved_day(str(YESTERDAY)), proved_day(str(TODAY))]
        for day in days:
            publish_proved(day, {A: "PUBLIC", B: "PRIVATE"}, hour=0)
            derive_days(day)
        load_project(days[-1].lake, days[-1].partition, None)
        return directory / "lake"


@pytest.fixture
def lake(tmp_path_factory, tmp_path):
    return Lake(str(shutil.copytree(once_per_run(tmp_path_factory, "two-days", two_days), tmp_path / "lake")))


def published_files(lake):
    """All bytes except those of derived tables."""
    days = [*lake.root.glob("_manifests/**/*.json")]
    for table in ("inventory", "responses", "list_pages", "image_references", "images", "image_values", "image_tags"):
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


def test_new_price_is_derived_and_loaded_for_a_range_of_days(image_snapshots, lake, tmp_path):
    before, zero = published_files(lake), costs(lake, "image_costs")
    env = new_price(tmp_path)
    result = image_snapshots("derive", "--from", str(YESTERDAY), "--to", str(YESTERDAY), env=env)
    assert result.returncode == 0, result.stderr
    assert published_files(lake) == before
    (day, first), second = costs(lake, files(lake))
    assert day == YESTERDAY
    assert first > 0
    assert second == zero[1]
    assert costs(lake, "image_costs") == [(YESTERDAY, first), second]

    assert (
        verify(lake, lake.contents.partitions(), settings=Settings(price_book=env["IMAGE_SNAPSHOTS_PRICE_BOOK"])) == []
    )


def test_range_selects_only_its_days(lake, monkeypatch):
    def days_of(*arguments):
        asked = []
        monkeypatch.setattr(cli, "_run_jobs", lambda settings, days, jobs, **_: asked.append((days, jobs)))
        result = CliRunner().invoke(cli.app, arguments)
        assert result.exit_code == 0, result.output
        ((days, jobs),) = asked
        assert {*jobs} == {f"{arguments[0]}_days"}
        return [day.date for day in days]

    for command in ("derive", "load"):
        assert days_of(command, "--from", str(YESTERDAY)) == [YESTERDAY, TODAY]
        assert days_of(command, "--from", str(TODAY)) == [TODAY]
        assert days_of(command, "--from", "2026-01-01", "--to", str(YESTERDAY)) == [YESTERDAY]


def test_load_restores_a_lost_warehouse_and_changes_nothing_else(image_snapshots, lake):
    before, rows = published_files(lake), costs(lake, "image_costs")
    derived_manifests = {path: path.read_bytes() for path in lake.root.glob("_derived/**/*.json")}
    (lake.root / "warehouse.duckdb").unlink()
    result = image_snapshots("load", "--from", str(YESTERDAY))
    assert result.returncode == 0, result.stderr
    assert costs(lake, "image_costs") == rows
    assert published_files(lake) == before
    assert {path: path.read_bytes() for path in lake.root.glob("_derived/**/*.json")} == derived_manifests


@pytest.mark.parametrize("command", ["derive", "load"])
def test_range_without_days_is_one_sentence(command, image_snapshots):
    result = image_snapshots(command, "--from", "2026-01-01", "--to", "2026-01-02")
    assert result.returncode == 2
    assert "No day from 2026-01-01 to 2026-01-02" in result.stderr
    result = image_snapshots(command, "--from", "soon")
    assert result.returncode == 2
    assert "soon is not a date" in result.stderr
