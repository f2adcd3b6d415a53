"""An inventory that shows too little deletes nothing: short lists, truncated exports, another project's ids.

Real days of a sandbox: inventory, fetch, publication and derived tables.
"""

import datetime as dt

import httpx
import pyarrow.parquet as pq
import pytest
from sandbox_faults import set_faults

from pipelines.derive.days import derive_days
from pipelines.errors import ConfigurationError
from pipelines.lake.layout import Partition
from pipelines.maintenance.verify import verify
from pipelines.sandbox import SandboxOptions, running_sandbox
from pipelines.sandbox.catalogue import Catalogue
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory
from pipelines.tables import AUDIT_FINDINGS, IMAGE_CHANGES, INVENTORY

DATE = dt.date(2026, 11, 16)
SIZE = 60
PROJECTS = {"default": "a" * 32, "other": "b" * 32}
CATALOGUE = Catalogue("sandbox", SIZE, "default")


@pytest.fixture(scope="module")
def started():
    with running_sandbox(SandboxOptions(size=SIZE, day=DATE, projects=PROJECTS)) as sandbox:
        yield sandbox


@pytest.fixture
def cloud(started, monkeypatch):
    """A running sandbox that stays on one day, without faults, and its credentials in the environment."""
    for name, value in started.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("IMAGE_SNAPSHOTS_PROJECTS", f'{{"default": "{PROJECTS["default"]}"}}')
    set_faults(started, method="PUT")
    return started


def alive():
    """Ids of images that the sandbox describes as living, in order."""
    items = CATALOGUE.page(DATE, 0, SIZE)
    return sorted(item["id"] for item in items if item["status"] != "DELETED")


def day_of(number, *, accepts_shrunk=False, is_moved=False, **settings):
    """The run of the day this many days after the first, with a matching clock."""
    date = DATE + dt.timedelta(days=number)
    noon = dt.datetime.combine(date, dt.time(12), dt.UTC)
    stated = {"lake": "lake", "projects": {"default": PROJECTS["default"]}} | settings
    return SnapshotRun(
        Partition(date, "default"),
        f"run-{number}",
        Settings(**stated),
        lambda: noon,
        accepts_shrunk=accepts_shrunk,
        is_moved=is_moved,
    )


def take(number, **options):
    """Take a day and derive it; returns the warnings about its inventory, its manifest, and some figures."""
    day = day_of(number, **options)
    taken = take_inventory(day)
    fetch_responses(day, lambda _: None)
    manifest = publish_snapshot(day).manifest
    return taken, manifest, derive_days(day).derived_manifest.summary


def rows(number, table):
    day = day_of(number)
    return pq.read_table(day.lake.table(table.name, day.partition)).to_pylist()


def removed(number):
    return {row["id"]: row["new_value"] for row in rows(number, IMAGE_CHANGES) if row["change"] == "removed"}


def resolved(number):
    return {(row["rule"], row["id"]) for row in rows(number, AUDIT_FINDINGS) if row["state"] == "resolved"}


def write_ids(ids, name="ids.csv", columns="id,owner,cost_center"):
    with open(name, "w") as file:
        file.write("\n".join([columns, *(f"{id_},vision,7" for id_ in ids)]) + "\n")
    return name


def test_short_list_removes_nothing_and_missing_images_are_requested_by_id(cloud):
    _, before, _ = take(0, inventory="modelarts:")
    total = before.inventory.ids
    set_faults(cloud, list_shows=5)
    taken, manifest, summary = take(1, inventory="modelarts:")
    facts = manifest.inventory
    assert (facts.ids, facts.shortfall, facts.is_whole) == (total, total - 5, False)
    assert taken.facts == facts
    known = before.fetch.outcomes["ok"] + before.fetch.outcomes.get("forbidden", 0)
    assert 5 < facts.known == known
    assert facts.added == facts.missing == total - 5
    assert manifest.is_complete
    assert manifest.fetch.outcomes == before.fetch.outcomes
    assert (summary.changes, resolved(1)) == ({}, set())
    sources = [row["id_source"] for row in rows(1, INVENTORY)]
    assert (sources.count("inventory"), sources.count("last_complete_day")) == (5, total - 5)
    # A list that stays short does not become the measure of the next day.
    _, manifest, summary = take(2, inventory="modelarts:")
    assert (manifest.inventory.added, manifest.inventory.is_whole, summary.changes) == (total - 5, False, {})
    # A whole list counts again.
    set_faults(cloud, list_shows=None)
    _, manifest, summary = take(3, inventory="modelarts:")
    assert (manifest.inventory.added, manifest.inventory.is_whole, summary.changes) == (0, True, {})
    lake = day_of(0).lake
    assert verify(lake, lake.contents.partitions()) == []


def test_truncated_file_removes_nothing_until_whole_or_accepted(cloud):
    ids = alive()[:10]
    take(0, inventory=write_ids(ids))
    _, manifest, summary = take(1, inventory=write_ids(ids[:5]))
    assert (manifest.inventory.is_whole, manifest.inventory.added, summary.changes) == (False, 5, {})
    assert {row["owner"] for row in rows(1, INVENTORY)} == {"vision"}
    # The same day again, accepted; then once more without the flag.
    _, manifest, summary = take(1, inventory="ids.csv", accepts_shrunk=True)
    assert (manifest.inventory.is_accepted, manifest.inventory.ids) == (True, 5)
    assert removed(1) == dict.fromkeys(ids[5:], "not_in_inventory")
    _, manifest, _ = take(1, inventory="ids.csv")
    assert (manifest.inventory.is_whole, manifest.inventory.ids) == (True, 5)


def files_below(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"}


@pytest.mark.parametrize("moved", ["project id", "endpoint"])
def test_other_project_under_the_same_key_is_refused_until_declared_moved(cloud, monkeypatch, tmp_path, moved):
    take(0, inventory=write_ids(alive()[:3]))
    if moved == "project id":
        settings = {"projects": {"default": PROJECTS["other"]}}
    else:
        settings = {"endpoint": cloud.endpoint.replace("127.0.0.1", "localhost")}
    before = files_below(tmp_path / "lake")
    requests = httpx.get(f"{cloud.endpoint}/sandbox/stats").json()["requests"]
    for number in (0, 1):
        with pytest.raises(ConfigurationError, match="--project-moved") as raised:
            take_inventory(day_of(number, inventory="ids.csv", **settings))
        old, new = PROJECTS["default"], PROJECTS["other" if moved == "project id" else "default"]
        assert f"{old} at 127.0.0.1:" in str(raised.value)
        assert f"{new} at {'127.0.0.1' if moved == 'project id' else 'localhost'}:" in str(raised.value)
    assert files_below(tmp_path / "lake") == before
    assert httpx.get(f"{cloud.endpoint}/sandbox/stats").json()["requests"] == requests
    take(1, inventory="modelarts:", is_moved=True, **settings)
    assert take_inventory(day_of(2, inventory="modelarts:", **settings)).facts.is_whole
