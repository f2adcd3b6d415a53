"""Monthly files: readers see the same rows without them, with them, and in between."""

import datetime as dt
import json
import shutil
from contextlib import closing

import pyarrow.parquet as pq
import pytest
from cut_off import was_killed
from once_per_run import once_per_run
from published_days import day_of, publish_snapshot

from pipelines.derive.days import derive_days
from pipelines.errors import ConfigurationError, StorageError
from pipelines.lake.layout import Lake
from pipelines.lake.monthly_manifests import read_monthly_manifest
from pipelines.lake.records import record_bytes
from pipelines.maintenance.compaction import check_months, compact, months_over
from pipelines.query.views import connect_lake, select
from pipelines.tables import ANALYSIS_TABLES, IMAGE_HISTORY, IMAGES, SNAPSHOT_TABLES, TABLES

A, B = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "ab")
DATES = ("2025-09-30", "2025-10-01", "2025-10-02", "2025-10-31", "2025-11-01")
NOW = dt.datetime(2025, 11, 2, tzinfo=dt.UTC)


def publish(date, names):
    publish_snapshot(
        day_of(date),
        inventory=[{"id": id_, "owner": "o"} for id_ in sorted(names)],
        responses=[{"id": id_, "outcome": "ok"} for id_ in sorted(names)],
        images=[
            {"id": id_, "name": name, "content_hash": name, "size_bytes": 1024, "visibility": "PUBLIC"}
            for id_, name in sorted(names.items())
        ],
        image_values=[{"id": A, "field": "dev_services", "position": n, "value": str(n)} for n in range(2)],
        references=[{"resource_id": "n", "image_id": A, "strength": "running"}],
        listed=[],
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Five days of three months with all derived tables."""

    def make(root):
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.chdir(root)
            for number, date in enumerate(DATES):
                publish(date, {A: f"a{number}", B: "b"})
            derive_days(day_of(DATES[-1]))
        return root / "lake"

    return once_per_run(tmp_path_factory, "five-days", make)


@pytest.fixture
def lake(published, tmp_path):
    shutil.copytree(published, tmp_path / "lake")
    return Lake("lake")


@pytest.fixture(scope="module")
def published_again(published, tmp_path_factory):
    """The same after the month was compacted, and then a day of it taken again."""

    def make(root):
        shutil.copytree(published, root / "lake")
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.chdir(root)
            compact(Lake("lake"), "default", "2025-10", NOW)
            publish("2025-10-02", {A: "other"})
            derive_days(day_of("2025-10-02"))
        return root / "lake"

    return once_per_run(tmp_path_factory, "five-days-again", make)


@pytest.fixture
def lake_again(published_again, tmp_path):
    shutil.copytree(published_again, tmp_path / "lake")
    return Lake("lake")


def seen(lake, names=None):
    """All rows that readers see, by table."""
    with closing(connect_lake(lake)) as connection:
        rows = {}
        for name, table in (TABLES | ANALYSIS_TABLES).items():
            if names is not None and name not in names:
                continue
            found = select(connection, f"SELECT * FROM {name} ORDER BY {', '.join(table.key)}").to_arrow_table()
            rows[name] = (str(found.schema), found.to_pylist())
        return rows


def files(lake, pattern="[!_]*/dt=*/*/*.parquet"):
    return {str(path.relative_to(lake.root)): path.sha256() for path in lake.root.glob(pattern)}


def problems(lake):
    return list(check_months(lake, "default", {"2025-10"}))


def test_compact_writes_one_file_per_table_with_the_same_rows(lake):
    before, daily = seen(lake), files(lake)
    assert months_over(lake, "default", NOW.date()) == ["2025-09", "2025-10"]
    done = compact(lake, "default", "2025-10", NOW)
    assert (done.was_current, done.days, done.daily_files) == (False, 3, 45)
    assert sorted(files(lake, "_monthly/*/*/*/*.parquet")) == [
        f"_monthly/{name}/month=2025-10/project=default/{name}.parquet" for name in sorted(SNAPSHOT_TABLES)
    ]
    table = pq.ParquetFile(lake.monthly("images", "2025-10", "default")).read()
    assert table.schema.names == IMAGES.schema.names
    # An image's days are side by side.
    assert [(row["id"][0], row["name"], row["snapshot_date"].day) for row in table.to_pylist()] == [
        ("a", "a1", 1),
        ("a", "a2", 2),
        ("a", "a3", 31),
        ("b", "b", 1),
        ("b", "b", 2),
        ("b", "b", 31),
    ]
    monthly = read_monthly_manifest(lake, "2025-10", "default")
    assert {
        f"images/dt={day}/project=default/images.parquet": found["images"] for day, found in monthly.days.items()
    } == {path: sha256 for path, sha256 in daily.items() if path.startswith("images/dt=2025-10")}
    assert files(lake) == daily
    assert seen(lake) == before
    assert problems(lake) == []
    # If the daily files were read, they would be missing.
    lake.table("images", day_of("2025-10-02").partition).write_bytes(b"no Parquet")
    assert seen(lake) == before


def test_compact_skips_a_month_that_is_current(lake):
    compact(lake, "default", "2025-10", NOW)
    written = files(lake, "_monthly/*/*/*/*.parquet")
    assert compact(lake, "default", "2025-10", NOW).was_current
    assert files(lake, "_monthly/*/*/*/*.parquet") == written


def test_rerun_day_is_read_from_its_daily_file_until_compacted_again(lake_again):
    lake = lake_again
    with closing(connect_lake(lake)) as connection:
        sql = "SELECT DAY(snapshot_date), name FROM images WHERE snapshot_date BETWEEN '2025-10-01' AND '2025-10-31'"
        assert sorted(select(connection, sql).fetchall()) == [
            (1, "a1"),
            (1, "b"),
            (2, "other"),
            (31, "a3"),
            (31, "b"),
        ]
    after = seen(lake)
    assert problems(lake) == []
    assert not compact(lake, "default", "2025-10", NOW).was_current
    assert seen(lake) == after
    shutil.rmtree(lake.root / "_monthly")
    assert seen(lake) == after


def test_dropped_day_is_not_read_from_the_monthly_file(lake):
    compact(lake, "default", "2025-10", NOW)
    lake.manifest(day_of("2025-10-02").partition).unlink()
    for name in TABLES | ANALYSIS_TABLES:
        shutil.rmtree(lake.root / name / "dt=2025-10-02", ignore_errors=True)
    with closing(connect_lake(lake)) as connection:
        days = select(connection, "SELECT DISTINCT DAY(snapshot_date) FROM images ORDER BY 1").fetchall()
    assert days == [(1,), (30,), (31,)]


def test_column_missing_in_old_files_is_null_in_the_monthly_file(lake):
    day = day_of("2025-10-01")
    path = lake.table("image_costs", day.partition)
    table = pq.ParquetFile(path).read()
    pq.write_table(table.drop_columns(["currency", "reclaimable_bytes"]), path)
    monthly = lake.derived_manifest(day.partition)
    manifest = json.loads(monthly.read_text())
    manifest["files"]["image_costs"] |= {"sha256": path.sha256(), "bytes": path.stat().st_size}
    monthly.write_text(json.dumps(manifest))
    before = seen(lake)
    compact(lake, "default", "2025-10", NOW)
    assert seen(lake) == before
    currencies = {(row["snapshot_date"].day, row["currency"]) for row in before["image_costs"][1]}
    assert (1, None) in currencies
    assert (2, "EUR") in currencies


def test_changed_daily_file_is_not_compacted(lake):
    path = lake.table("images", day_of("2025-10-02").partition)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(StorageError) as raised:
        compact(lake, "default", "2025-10", NOW)
    assert str(raised.value) == (
        f"{path} is not the file that the manifest names for 2025-10-02 of project default, so its month was not "
        "compacted: run again when no run replaces the day; `image-snapshots verify` shows whether the file "
        "was changed."
    )
    assert read_monthly_manifest(lake, "2025-10", "default") is None


def test_changed_monthly_file_is_reported_and_written_again(lake):
    compact(lake, "default", "2025-10", NOW)
    path = lake.monthly("images", "2025-10", "default")
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    again = "write it again with `image-snapshots compact --month 2025-10 --project default`."
    assert problems(lake) == [
        (lake.key(path), f"The monthly file is missing or was changed: {again}"),
    ]
    assert not compact(lake, "default", "2025-10", NOW).was_current
    assert path.read_bytes() == whole
    # Somebody who knows about hashes changes both.
    table = pq.ParquetFile(path).read()
    pq.write_table(table.slice(1), path)
    monthly = lake.monthly_manifest("2025-10", "default")
    manifest = read_monthly_manifest(lake, "2025-10", "default")
    facts = manifest.files["images"].model_copy(update={"sha256": path.sha256()})
    forged = manifest.model_copy(update={"files": manifest.files | {"images": facts}})
    monthly.write_bytes(record_bytes(forged))
    assert problems(lake) == [(lake.key(path), f"The monthly file does not have the rows of the daily files: {again}")]


@pytest.mark.parametrize(
    ("month", "why"), [("2025-11", "is not over"), ("2099-01", "is not over"), ("2025-08", "has no published days")]
)
def test_month_that_cannot_be_compacted_is_refused(lake, month, why):
    with pytest.raises(ConfigurationError) as raised:
        compact(lake, "default", month, NOW)
    assert str(raised.value) == (
        f"{month} {why} in project default, so there is nothing to compact: choose a past month, written as "
        "YYYY-MM; `image-snapshots status` lists the published days."
    )


# The old monthly manifest is removed, then fifteen tables and the new one appear: killed before all of it, between the
# old manifest and the tables, around each table that is read here, and before the new manifest.
CHOSEN_KILLS = (0, 1, 1, 2, 7, 8, 14, 15)


@pytest.mark.parametrize(
    "operations", [CHOSEN_KILLS, pytest.param(range(16), marks=pytest.mark.slow)], ids=["chosen", "all"]
)
def test_killed_compaction_leaves_readers_the_same_rows(lake_again, operations):
    lake = lake_again
    # One of its days is void, so a killed run leaves new files beside the old monthly manifest.
    names = ("inventory", "images", "image_changes", "image_costs")
    before = seen(lake, names)
    assert [list(SNAPSHOT_TABLES).index(name) for name in names] == [0, 1, 7, 14]
    for kills in operations:
        assert was_killed(kills, lambda: compact(lake, "default", "2025-10", NOW)), kills
        assert seen(lake, names) == before, kills
    assert not was_killed(16, lambda: compact(lake, "default", "2025-10", NOW))
    assert compact(lake, "default", "2025-10", NOW).was_current
    assert seen(lake, names) == before


def test_history_is_not_compacted():
    assert IMAGE_HISTORY.name not in SNAPSHOT_TABLES
    assert set(SNAPSHOT_TABLES) == {
        "inventory",
        "images",
        "image_values",
        "image_tags",
        "image_changes",
        "image_reconciliation",
        "bill_days",
        "image_bills",
        "image_storage",
        "registry_only",
        "reclaimable",
        "image_usage",
        "audit_rules",
        "audit_findings",
        "image_costs",
    }


def test_compact_command_compacts_all_past_months(lake, image_snapshots):
    first = image_snapshots("compact", "--json", "--month", "2025-10")
    assert first.returncode == 0, first.stderr
    (month,) = json.loads(first.stdout)
    assert month.pop("bytes") < month.pop("daily_bytes")
    assert month.pop("rows") > 3 * 3 * 2
    assert month == {
        "month": "2025-10",
        "project": "default",
        "state": "compacted",
        "days": 3,
        "daily_files": 45,
    }
    second = image_snapshots("compact", "--month", "2025-08")
    assert second.returncode == 2
    assert second.stderr.startswith("Error: 2025-08 has no published days in project default, so there is nothing to")
