"""A day that the sandbox plays looks like a real past day: its responses came on that day."""

import datetime as dt

import pyarrow.parquet as pq

from assets.embedded_sandbox import connect
from pipelines.lake.layout import Partition
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory

DATE = dt.date(2026, 3, 4)


def test_responses_of_a_played_day_are_observed_on_that_day(start_sandbox, tmp_path, monkeypatch):
    sandbox = start_sandbox(size=30, day=DATE, inventory_file=tmp_path / "inventory.csv")
    for name, value in sandbox.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("IMAGE_SNAPSHOTS_INVENTORY")
    settings = Settings(lake=str(tmp_path / "lake"), usage="notebooks")
    day = SnapshotRun(
        Partition(DATE, "default"),
        "run",
        settings,
        lambda: dt.datetime.combine(DATE, dt.time(9), dt.UTC),
        is_played=True,
        connect=connect,
    )
    take_inventory(day)
    fetch_responses(day, lambda _: None)
    publish_snapshot(day)
    for table in ("list_pages", "image_references", "responses", "images"):
        rows = pq.ParquetFile(day.lake.table(table, day.partition)).read().to_pylist()
        assert rows, table
        times = {row[name] for row in rows for name in ("observed_at", "fetched_at") if row.get(name) is not None}
        assert {time.date() for time in times} == {DATE}, table
