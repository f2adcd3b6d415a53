"""Incremental days against a sandbox that changes: few requests, the same table, evidence for each row."""

import datetime as dt
import shutil

import httpx
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from proved_days import forge_record

from pipelines.errors import AccessDeniedError, StorageError
from pipelines.lake.layout import Lake, Partition
from pipelines.maintenance.verify import verify
from pipelines.settings import Settings
from pipelines.snapshot.image_list import confirms
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory
from pipelines.tables import IMAGES, LIST_PAGES, RESPONSES

MONDAY = dt.date(2026, 11, 16)
CONTENT = [column.name for column in IMAGES.columns if column.origin != "provenance"] + ["content_hash", "anomalies"]


@pytest.fixture
def cloud(start_sandbox, tmp_path, monkeypatch):
    """A running sandbox whose day can be set, with credentials in the environment."""
    sandbox = start_sandbox(size=400, day=MONDAY, inventory_file=tmp_path / "inventory.csv")
    for name, value in sandbox.env.items():
        monkeypatch.setenv(name, value)
    return sandbox


def set_day(cloud, date):
    httpx.put(f"{cloud.endpoint}/sandbox/day", json={"day": date.isoformat()}).raise_for_status()


def take(root, date, mode, **settings):
    moment = dt.datetime.combine(date, dt.time(12), dt.UTC)
    day = SnapshotRun(
        Partition(date, "default"), f"{mode}-{date}", Settings(lake=str(root), mode=mode, **settings), lambda: moment
    )
    take_inventory(day)
    fetch_responses(day, lambda _: None)
    return publish_snapshot(day).manifest


def rows(root, date, table, columns=None):
    return pq.read_table(Lake(str(root)).table(table, Partition(date, "default")), columns=columns)


def fake_clock(root, date):
    """Set `fetched_at` to noon of the test's day, because responses carry the machine's clock."""
    lake, partition = Lake(str(root)), Partition(date, "default")
    path = lake.table(RESPONSES.name, partition)
    table = pq.read_table(path)
    noon = pa.scalar(dt.datetime.combine(date, dt.time(12), dt.UTC), pa.timestamp("us", "UTC"))
    index = table.schema.get_field_index("fetched_at")
    is_null = table["fetched_at"].is_null()

    pq.write_table(table.set_column(index, table.schema.field(index), pc.if_else(is_null, None, noon)), path)
    manifest = orjson.loads(lake.manifest(partition).read_bytes())
    manifest["files"][RESPONSES.name]["sha256"] = path.sha256()
    lake.manifest(partition).write_bytes(orjson.dumps(manifest))


def test_incremental_day_equals_the_full_day_with_few_requests(cloud, tmp_path):
    take(tmp_path / "full", MONDAY, "full")
    shutil.copytree(tmp_path / "full", tmp_path / "changed")
    for days in (1, 2, 3):
        date = MONDAY + dt.timedelta(days=days)
        set_day(cloud, date)
        full = take(tmp_path / "full", date, "full")
        changed = take(tmp_path / "changed", date, "changed")
        assert changed.fetch.outcomes == full.fetch.outcomes
        left, right = (rows(tmp_path / name, date, "images", CONTENT) for name in ("full", "changed"))
        assert left.equals(right)
        for name in ("image_values", "image_tags"):
            assert rows(tmp_path / "full", date, name).equals(rows(tmp_path / "changed", date, name))

        answers = rows(tmp_path / "changed", date, RESPONSES.name).to_pylist()
        carried = [row for row in answers if row["confirmed_at"] is not None]
        assert len(carried) == changed.fetch.carried > 300
        pages = rows(tmp_path / "changed", date, LIST_PAGES.name).to_pylist()
        fetched = len(answers) - len(carried)
        # The sandbox answers 400 to a page past the end.
        assert changed.fetch.requests <= fetched + len(pages) + 1 < full.fetch.requests / 3
        assert changed.fetch.list_was_read
        assert full.fetch.list_was_read
        for row in carried:
            assert (row["attempts"], row["observed_at"]) == (0, row["confirmed_at"])
            assert row["fetched_at"] < row["confirmed_at"]
            assert row["confirmed_at"] in {page["observed_at"] for page in pages}
        # Both have read the whole list, once.
        listed = rows(tmp_path / "full", date, LIST_PAGES.name)
        assert listed["body"].to_pylist() == [page["body"] for page in pages]
    lake = Lake(str(tmp_path / "changed"))
    assert verify(lake, lake.contents.partitions()) == []


def test_changed_images_are_requested(cloud, tmp_path):
    take(tmp_path / "lake", MONDAY, "full")
    tuesday = MONDAY + dt.timedelta(days=1)
    set_day(cloud, tuesday)
    before = httpx.get(f"{cloud.endpoint}/sandbox/requested").json()
    take(tmp_path / "lake", tuesday, "changed")
    after = httpx.get(f"{cloud.endpoint}/sandbox/requested").json()
    asked = {id_ for id_, count in after.items() if count != before.get(id_, 0)}
    hashes = [
        dict(zip(table["id"].to_pylist(), table["content_hash"].to_pylist(), strict=True))
        for table in (rows(tmp_path / "lake", date, "images", ["id", "content_hash"]) for date in (MONDAY, tuesday))
    ]
    really_changed = {id_ for id_, digest in hashes[1].items() if hashes[0].get(id_) != digest}
    assert really_changed
    assert really_changed <= asked
    not_described = {
        row["id"]
        for row in rows(tmp_path / "lake", tuesday, RESPONSES.name).to_pylist()
        if row["outcome"] not in ("ok", "deleted", "invalid_id")
    }
    assert not_described <= asked


def test_old_details_are_refreshed(cloud, tmp_path):
    take(tmp_path / "lake", MONDAY, "full")
    fake_clock(tmp_path / "lake", MONDAY)
    tuesday = MONDAY + dt.timedelta(days=1)
    set_day(cloud, tuesday)
    assert take(tmp_path / "lake", tuesday, "changed", full_refresh_days=1).fetch.carried == 0
    assert take(tmp_path / "lake", tuesday, "changed", full_refresh_days=2).fetch.carried > 300


def test_no_complete_day_before_means_a_full_fetch(cloud, tmp_path):
    manifest = take(tmp_path / "lake", MONDAY, "changed")
    assert (manifest.fetch.carried, manifest.fetch.mode, manifest.is_complete) == (0, "changed", True)
    assert manifest.fetch.list_was_read
    assert rows(tmp_path / "lake", MONDAY, LIST_PAGES.name).num_rows == 2


def test_unreadable_list_fails_an_incremental_run(cloud, tmp_path):
    take(tmp_path / "lake", MONDAY, "full")
    tuesday = MONDAY + dt.timedelta(days=1)
    set_day(cloud, tuesday)
    httpx.put(f"{cloud.endpoint}/sandbox/faults", json={"lists_forbidden": True}).raise_for_status()
    with pytest.raises(AccessDeniedError, match=r"The image list of .* cannot be read \(HTTP 403 ModelArts\.0108\)"):
        take(tmp_path / "lake", tuesday, "changed")
    assert Lake(str(tmp_path / "lake")).contents.partitions() == [Partition(MONDAY, "default")]


def test_resumed_run_carries_over_only_what_its_own_list_confirms(cloud, tmp_path):
    take(tmp_path / "lake", MONDAY, "full")
    tuesday = MONDAY + dt.timedelta(days=1)
    set_day(cloud, tuesday)
    noon = dt.datetime.combine(tuesday, dt.time(12), dt.UTC)
    settings = Settings(lake=str(tmp_path / "lake"), mode="changed")
    day = SnapshotRun(Partition(tuesday, "default"), "ended early", settings, lambda: noon)
    take_inventory(day)
    carried = []

    class EndedError(Exception):
        pass

    def end(progress):
        carried.append(progress.outcomes["ok"])
        raise EndedError

    with pytest.raises(EndedError):
        fetch_responses(day, end)
    assert take(tmp_path / "lake", tuesday, "changed").fetch.carried >= carried[0] > 300
    lake = Lake(str(tmp_path / "lake"))
    assert verify(lake, lake.contents.partitions()) == []


def test_changed_evidence_is_not_carried_over(cloud, tmp_path):
    take(tmp_path / "lake", MONDAY, "full")
    path = Lake(str(tmp_path / "lake")).table(RESPONSES.name, Partition(MONDAY, "default"))
    pq.write_table(pq.read_table(path).slice(1), path)
    tuesday = MONDAY + dt.timedelta(days=1)
    set_day(cloud, tuesday)
    with pytest.raises(StorageError, match="nothing can be carried forward"):
        take(tmp_path / "lake", tuesday, "changed")


def test_incremental_day_can_be_rebuilt_and_rerun_in_full(cloud, tmp_path):
    take(tmp_path / "lake", MONDAY, "full")
    tuesday = MONDAY + dt.timedelta(days=1)
    set_day(cloud, tuesday)
    take(tmp_path / "lake", tuesday, "changed")
    lake, partition = Lake(str(tmp_path / "lake")), Partition(tuesday, "default")
    before = pq.read_table(lake.table("images", partition))
    noon = dt.datetime.combine(tuesday, dt.time(12), dt.UTC)
    publish_snapshot(SnapshotRun(partition, "rebuild", Settings(lake=str(lake.root)), lambda: noon))
    assert pq.read_table(lake.table("images", partition)).equals(before)
    assert verify(lake, lake.contents.partitions()) == []
    assert take(tmp_path / "lake", tuesday, "full", reconcile=False).fetch.carried == 0
    assert rows(tmp_path / "lake", tuesday, LIST_PAGES.name).num_rows == 0
    assert verify(lake, lake.contents.partitions()) == []


def test_carried_response_without_its_page_is_a_problem(cloud, tmp_path):
    take(tmp_path / "lake", MONDAY, "full")
    tuesday = MONDAY + dt.timedelta(days=1)
    set_day(cloud, tuesday)
    manifest = take(tmp_path / "lake", tuesday, "changed")
    lake, partition = Lake(str(tmp_path / "lake")), Partition(tuesday, "default")
    path = lake.table(LIST_PAGES.name, partition)
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    facts = {"sha256": path.sha256(), "rows": 0}
    forge_record(lake.manifest(partition), lambda said: said["files"][LIST_PAGES.name].update(facts))
    problems = verify(lake, [partition])
    assert len(problems) == manifest.fetch.carried
    assert problems[0].sentence.startswith("No page of the list confirms the carried response for ")


DETAILS = {"id": "A", "name": "n", "size": 1, "dev_services": ["SSH", "NOTEBOOK"], "support_res_categories": ["CPU"]}
ITEM = {"id": "a", "name": "n", "size": 1, "dev_services": ["NOTEBOOK", "SSH"]}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"name": "other"}, False),
        ({"size": True}, False),
        ({"size": "1"}, False),
        ({"dev_services": ["SSH"]}, False),
        ({"dev_services": None}, False),
        ({"update_at": 5}, False),
        ({"name": ...}, False),
    ],
)
def test_list_item_confirms_only_equal_fields(change, expected):
    item = {name: value for name, value in (ITEM | change).items() if value is not ...}
    assert confirms(item, orjson.dumps(DETAILS)) is expected
