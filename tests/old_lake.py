"""A small lake with all tables, as the code of one schema version writes it; kept for the tests of later versions.

`python tests/old_lake.py` writes the lake of this version to `tests/old_lakes/`, beside the others. It is run once,
before the first release with that schema version; what is kept never changes.
"""

import datetime as dt
import json
import os
import tarfile
import tempfile
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from pipelines.derive.days import derive_days
from pipelines.lake.layout import Lake, Partition
from pipelines.maintenance.compaction import compact
from pipelines.query.reader import open_lake
from pipelines.sandbox import SandboxOptions, running_sandbox
from pipelines.sandbox.catalogue import Catalogue
from pipelines.settings import DEFAULT_PROJECT, Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory
from pipelines.tables import SCHEMA_VERSION

ARCHIVES = Path(__file__).with_name("old_lakes")

# Three days of a month that is compacted, one of them incomplete, and one of the next month.
DATES = [dt.date(2026, 10, 29) + dt.timedelta(days=number) for number in range(4)]
INCOMPLETE = DATES[1]
SEED, SIZE = "old lake", 24
REFUSED = {"status": 418, "body": {"error_code": "ModelArts.9999", "error_msg": "no"}}

# Questions that users ask in SQL. Later versions must give the same rows. First those about what was seen: these stay
# the same when days are rebuilt.
SEEN = {
    "SELECT snapshot_date, is_complete FROM days ORDER BY ALL",
    "SELECT snapshot_date, id, outcome, body_sha256 FROM responses ORDER BY ALL",
    "SELECT snapshot_date, id, name, status, visibility, size_bytes, content_hash FROM images ORDER BY ALL",
    "SELECT snapshot_date, id, field, position, value FROM image_values ORDER BY ALL",
    "SELECT snapshot_date, kind, resource_id, image_reference, strength FROM image_references ORDER BY ALL",
    "SELECT snapshot_date, namespace, repository, tag, digest FROM registry_tags ORDER BY ALL",
}
QUERIES = (
    *sorted(SEEN),
    "SELECT id, name, status, visibility, size_bytes, create_at FROM images_latest ORDER BY ALL",
    "SELECT id, name, rests_on FROM images_as_of('2026-10-30') ORDER BY ALL",
    "SELECT snapshot_date, id, owner, cost_center FROM images_with_owner ORDER BY ALL",
    "SELECT snapshot_date, id, change, field, old_value, new_value, actor FROM image_changes ORDER BY ALL",
    "SELECT rule, id, severity, state, first_seen FROM open_findings ORDER BY ALL",
    "SELECT snapshot_date, id, unused_days, observed_kinds FROM image_usage ORDER BY ALL",
    "SELECT snapshot_date, id, estimated_cost, currency, billed_cost FROM image_costs ORDER BY ALL",
    "SELECT snapshot_date, id, state, digest, unique_bytes, shared_bytes FROM image_storage ORDER BY ALL",
    "SELECT snapshot_date, namespace, repository, tag, unique_bytes FROM registry_only ORDER BY ALL",
    "SELECT snapshot_date, dimension, name, images, reclaimable_bytes FROM reclaimable ORDER BY ALL",
    "SELECT charge_date, currency, billed_cost, allocated_cost, lines FROM bill_days ORDER BY ALL",
)


def settings_of(directory: Path) -> Settings:
    return Settings(
        lake=str(directory / "lake"),
        usage="all",
        traces="true",
        registry="true",
        registry_namespaces="all",
        bills="otc-dashboard:",
        max_failed_ratio=0.5,
    )


@contextmanager
def playing(directory: Path):
    """The catalogue's endpoint, with its settings in the environment; a function that shows a day of it."""
    register = directory / "register.csv"
    options = SandboxOptions(seed=SEED, size=SIZE, day=DATES[0], workspaces=2, inventory_file=register)
    with running_sandbox(options) as sandbox, pytest.MonkeyPatch.context() as monkeypatch:
        for name in list(os.environ):
            if name.startswith(("IMAGE_SNAPSHOTS_", "OS_")):
                monkeypatch.delenv(name)
        for name, value in sandbox.env.items():
            monkeypatch.setenv(name, value)

        def show(date: dt.date, **answers: dict) -> None:
            httpx.put(f"{sandbox.endpoint}/sandbox/faults", json={"answers": answers}).raise_for_status()
            httpx.put(f"{sandbox.endpoint}/sandbox/day", json={"day": date.isoformat()}).raise_for_status()

        yield show


def take(settings: Settings, date: dt.date, *, is_moved: bool = False) -> None:
    """Take, publish and derive a day at its noon."""
    noon = dt.datetime.combine(date, dt.time(12), dt.UTC)
    run = SnapshotRun(Partition(date, DEFAULT_PROJECT), f"run-{date}", settings, lambda: noon, is_moved=is_moved)
    take_inventory(run)
    fetch_responses(run, lambda _: None)
    publish_snapshot(run)
    derive_days(run)


def answers_to(queries, lake: Path) -> list[list[dict]]:
    """The rows that each query finds, as JSON can hold them."""
    with open_lake(lake) as reader:
        rows = [reader.arrow().sql(query).to_pylist() for query in queries]
    return json.loads(json.dumps(rows, default=str))


def keep() -> None:
    """Write the lake of this version, and what its own reader finds in it."""
    archive = ARCHIVES / f"version-{SCHEMA_VERSION}.tar.xz"
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        failing = next(Catalogue(SEED, SIZE, workspaces=2).ids(INCOMPLETE))
        with playing(directory) as show:
            settings = settings_of(directory)
            for date in DATES:
                show(date, **({failing: REFUSED} if date == INCOMPLETE else {}))
                take(settings, date)
        now = dt.datetime.combine(DATES[-1], dt.time(13), dt.UTC)
        compact(Lake(settings.lake), DEFAULT_PROJECT, f"{DATES[0]:%Y-%m}", now)
        answers = dict(zip(QUERIES, answers_to(QUERIES, directory / "lake"), strict=True))
        (directory / "answers.json").write_text(json.dumps(answers, indent=1))
        ARCHIVES.mkdir(exist_ok=True)
        with tarfile.open(archive, "x:xz") as tar:
            tar.add(directory / "lake", "lake")
            tar.add(directory / "answers.json", "answers.json")


if __name__ == "__main__":
    keep()
