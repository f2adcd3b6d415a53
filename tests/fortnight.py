"""Fourteen complete days of the sandbox with all derived tables, made once for all tests that only read."""

import datetime as dt
import os
from pathlib import Path

import httpx
import pytest
from once_per_run import once_per_run

from pipelines.derive.days import derive_days
from pipelines.lake.layout import Partition
from pipelines.sandbox import SandboxOptions, running_sandbox
from pipelines.settings import DEFAULT_PROJECT, Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory

LAST_DAY = dt.date(2026, 11, 23)
DAYS = [LAST_DAY - dt.timedelta(days=number) for number in reversed(range(14))]


@pytest.fixture(scope="session")
def fortnight(tmp_path_factory) -> Path:
    """The lake's directory, read-only: one project of two workspaces, owners in the inventory, all sources read."""
    return once_per_run(tmp_path_factory, "fortnight", make_fortnight)


def make_fortnight(root: Path) -> Path:
    # Clean the environment here, because the shared lake is made outside of any test.
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in list(os.environ):
            if name.startswith(("IMAGE_SNAPSHOTS_", "OS_")):
                monkeypatch.delenv(name)
        options = SandboxOptions(
            seed="fortnight", size=80, day=DAYS[0], workspaces=2, inventory_file=root / "register.csv"
        )
        with running_sandbox(options) as sandbox:
            for name, value in sandbox.env.items():
                monkeypatch.setenv(name, value)
            settings = Settings(lake=str(root / "lake"), usage="all", traces="true", bills="otc-dashboard:")
            for date in DAYS:
                httpx.put(f"{sandbox.endpoint}/sandbox/day", json={"day": date.isoformat()}).raise_for_status()
                noon = dt.datetime.combine(date, dt.time(12), dt.UTC)
                day = SnapshotRun(Partition(date, DEFAULT_PROJECT), f"run-{date}", settings, lambda noon=noon: noon)
                take_inventory(day)
                fetch_responses(day, lambda _: None)
                publish_snapshot(day)
                derive_days(day)
    return root / "lake"
