"""Usage of a real server's images, day by day, beside the sandbox's own record of who uses them."""

import datetime as dt
from collections import Counter

import httpx
import pyarrow.parquet as pq

from pipelines.derive.days import derive_days
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import published
from pipelines.sandbox.catalogue import Catalogue
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory
from pipelines.tables import USAGE_SOURCES

SIZE = 60
DAYS = [dt.date(2026, 11, 16) + dt.timedelta(days=number) for number in range(6)]
SECOND_SINCE = DAYS[3]
# What is not read on a day, though it was to be.
UNREAD = {DAYS[2]: "services", DAYS[4]: "training_jobs"}


def take(date):
    moment = dt.datetime.combine(date, dt.time(12), dt.UTC)
    day = SnapshotRun(Partition(date, "default"), "run-1", Settings(lake="lake", usage="all"), lambda: moment)
    take_inventory(day)
    fetch_responses(day, lambda _: None)
    publish_snapshot(day)
    return derive_days(day)


def table(name, date):
    with Lake("lake").table(name, Partition(date, "default")).open("rb") as file:
        return {row["id"]: row for row in pq.read_table(file).to_pylist()}


def test_no_image_that_the_cloud_knows_to_be_used_is_called_unused(start_sandbox, tmp_path, monkeypatch):
    sandbox = start_sandbox(
        size=SIZE,
        day=DAYS[0],
        inventory_file=tmp_path / "inventory.csv",
        workspaces=2,
        second_workspace_since=SECOND_SINCE,
    )
    for name, value in sandbox.env.items():
        monkeypatch.setenv(name, value)
    catalogue = Catalogue("sandbox", SIZE, "default", 2, second_workspace_since=SECOND_SINCE)
    before, used_once = {}, Counter()
    for date in DAYS:
        httpx.put(f"{sandbox.endpoint}/sandbox/day", json={"day": date.isoformat()}).raise_for_status()
        forbidden = [UNREAD[date]] if date in UNREAD else []
        httpx.patch(f"{sandbox.endpoint}/sandbox/faults", json={"sources_forbidden": forbidden}).raise_for_status()
        result = take(date)
        usage, costs = table("image_usage", date), table("image_costs", date)
        read = USAGE_SOURCES.keys() - set(forbidden)
        references = [one for one in catalogue.references(date) if one.image_id in usage]
        counts = Counter((one.image_id, one.kind) for one in references)
        # What became of a job that is over is not in the record.
        users = {
            one.image_id
            for one in references
            if one.strength == "running" or (one.strength == "required" and one.kind != "training_job")
        }
        seen = {one.image_id for one in references if one.image_id in users and _source(one.kind) in read}
        assert (result.usage.used is None) == (date in UNREAD)
        scope = published(Lake("lake"), Partition(date, "default")).fetch.scope
        assert len(scope.workspaces) == (2 if date >= SECOND_SINCE else 1)
        for id_, row in usage.items():
            assert row["is_observed"] == (date not in UNREAD)
            for source, kind in USAGE_SOURCES.items():
                # An address may mean several images.
                assert row[source] is None if source in forbidden else row[source] >= counts[id_, kind], (date, id_)
            was = before.get(id_, {"unused_days": 0, "observed_days": 0})
            if row["is_observed"]:
                assert row["observed_days"] == was["observed_days"] + 1
                assert row["unused_days"] in (0, was["unused_days"] + 1)
                assert row["unused_days"] == 0 or id_ not in users, (date, id_)
            else:
                assert row["unused_days"] in (0, was["unused_days"]), (date, id_)
                assert costs[id_]["reclaimable_bytes"] is None
        assert {usage[id_]["last_used_date"] for id_ in seen} == {date}
        assert {usage[id_]["unused_days"] for id_ in seen} == {0}
        used_once.update(seen)
        before = usage
    assert max(row["unused_days"] for row in before.values()) >= 3
    assert 0 < len(used_once) < len(before)


def _source(kind):
    return next(source for source, one in USAGE_SOURCES.items() if one == kind)
