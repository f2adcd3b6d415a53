"""Who changed an image: traces of a real server, and the actor of each change that one of them explains."""

import datetime as dt
import json
import shutil
from pathlib import Path

import httpx
import orjson
import pyarrow.parquet as pq
import pytest
from sandbox_faults import set_faults
from scripted_server import client, http, replies, serving

from pipelines.derive.days import derive_days
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.local_storage import LocalPath
from pipelines.lake.manifests import SourceFacts, published
from pipelines.sandbox import SandboxOptions
from pipelines.sandbox.catalogue import Catalogue
from pipelines.sandbox.series import SECRET_MARK
from pipelines.sandbox.traces import Traces, Wanted
from pipelines.settings import Settings
from pipelines.snapshot.checkpoint import open_checkpoint
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.sources.traces import read_traces
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory
from pipelines.tables import IMAGE_CHANGES, IMAGE_TRACES

MONDAY = dt.date(2026, 11, 16)
SIZE = 300


@pytest.fixture(scope="module")
def started(command_server, tmp_path_factory):
    inventory = tmp_path_factory.mktemp("inventory") / "inventory.csv"
    with command_server.sandbox(SandboxOptions(size=SIZE, day=MONDAY, inventory_file=inventory)) as sandbox:
        yield sandbox


@pytest.fixture
def cloud(started, monkeypatch):
    """A running sandbox without faults, and its credentials in the environment."""
    for name, value in started.env.items():
        monkeypatch.setenv(name, value)
    set_faults(started, method="PUT")
    return started


@pytest.fixture(scope="module")
def first_day(started, tmp_path_factory):
    """A lake of the first day."""
    root = tmp_path_factory.mktemp("first-day")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(root)
        for name, value in started.env.items():
            monkeypatch.setenv(name, value)
        take(started, MONDAY)
    return root / "lake"


@pytest.fixture
def lake(first_day, tmp_path):
    """That lake; `take` adds days."""
    return Path(shutil.copytree(first_day, tmp_path / "lake"))


def steer(cloud, **faults):
    httpx.patch(f"{cloud.endpoint}/sandbox/faults", json=faults).raise_for_status()


def take(cloud, date, **settings):
    """Take and derive a day at its first minute, and return its manifest."""
    httpx.put(f"{cloud.endpoint}/sandbox/day", json={"day": date.isoformat()}).raise_for_status()
    moment = dt.datetime.combine(date, dt.time(0, 30), dt.UTC)
    settings = Settings(**{"lake": "lake", "usage": "none", "traces": "true"} | settings)
    run = SnapshotRun(Partition(date, "default"), "run-1", settings, lambda: moment)
    take_inventory(run)
    fetch_responses(run, lambda _: None)
    manifest = publish_snapshot(run).manifest
    derive_days(run)
    return manifest


def rows(date, table=IMAGE_TRACES):
    with Lake("lake").table(table.name, Partition(date, "default")).open("rb") as file:
        return pq.read_table(file).to_pylist()


def day(number):
    return MONDAY + dt.timedelta(days=number)


def recorded(date, first, last):
    """The sandbox's own traces of images between two times, by id."""
    wanted = Wanted(milliseconds(first), milliseconds(last))
    page, _ = Traces(Catalogue("sandbox", SIZE)).page(date, wanted, 100_000)
    return {one["trace_id"]: one for one in page if one["resource_type"] == "NotebookImage"}


def user_of(trace):
    """The user as an object, or as the text of one."""
    user = trace["user"]
    return (orjson.loads(user) if isinstance(user, str) else user)["name"]


def milliseconds(moment):
    return round(moment.timestamp() * 1000)


def midnight(date):
    return dt.datetime.combine(date, dt.time(), dt.UTC)


def test_a_first_day_reads_the_traces_of_seven_days(lake):
    facts = published(Lake("lake"), Partition(MONDAY, "default")).fetch.sources["traces"]
    found = rows(MONDAY)
    expected = recorded(MONDAY, midnight(day(-7)) + dt.timedelta(minutes=30), midnight(MONDAY))
    assert [row["trace_id"] for row in found] == sorted(expected)
    assert len(found) > 20
    for row in found:
        trace = expected[row["trace_id"]]
        assert milliseconds(row["time"]) == trace["time"]
        assert (row["name"], row["resource_id"], row["resource_name"]) == (
            trace["trace_name"],
            trace["resource_id"],
            trace["resource_name"],
        )
        assert (row["user"], row["source_ip"], row["rating"]) == (
            user_of(trace),
            trace["source_ip"],
            trace["trace_rating"],
        )
    assert (facts.wanted, facts.was_read, facts.partial) == (True, True, None)
    # Other resources leave traces, too, and pages show some twice.
    assert facts.items > len(found)


def test_every_change_has_the_actor_that_one_trace_names(lake, cloud):
    for number in range(1, 4):
        take(cloud, day(number))
    seen = set()
    for number in range(1, 4):
        traces = recorded(day(number), midnight(day(number - 1)), midnight(day(number)))
        by_image = {}
        for trace in traces.values():
            if trace["trace_rating"] == "normal":
                by_image.setdefault(trace["resource_id"], []).append(trace)
        for change in rows(day(number), IMAGE_CHANGES):
            found = by_image.get(change["id"], [])
            known = (change["actor"], change["actor_source_ip"], change["trace_id"], change["actor_unknown"])
            if len(found) == 1:
                (trace,) = found
                assert known == (user_of(trace), trace["source_ip"], trace["trace_id"], None)
            else:
                assert known == (None, None, None, "several_traces" if found else "no_trace")
            seen.add(known[3])
    assert seen == {None, "several_traces", "no_trace"}


def test_an_incomplete_day_in_between_loses_no_actor(lake, cloud):
    victim = next(Catalogue("sandbox", SIZE).ids(day(1)))
    steer(cloud, answers={victim: {"status": 400, "body": "broken"}})
    assert not take(cloud, day(1), max_failed_ratio=0.5).is_complete
    steer(cloud, answers={})
    take(cloud, day(2))
    traces = recorded(day(2), midnight(day(0)), midnight(day(2)))
    changes = rows(day(2), IMAGE_CHANGES)
    assert {change["compared_with"] for change in changes} == {day(0)}
    named = {change["trace_id"] for change in changes} - {None}
    assert named <= traces.keys()
    assert {traces[one]["time"] < milliseconds(midnight(day(1))) for one in named} == {True, False}


@pytest.mark.parametrize("fault", ["sources_forbidden", "sources_missing", "sources_broken"])
def test_traces_that_cannot_be_read_stop_nothing_and_name_nobody(lake, cloud, fault):
    steer(cloud, **{fault: ["traces"]})
    manifest = take(cloud, day(1))
    facts = manifest.fetch.sources["traces"]
    assert manifest.is_complete
    assert (facts.wanted, facts.was_read) == (True, False)
    assert "The trace list of 127.0.0.1" in facts.error
    assert rows(day(1)) == []
    assert {(change["actor"], change["actor_unknown"]) for change in rows(day(1), IMAGE_CHANGES)} == {
        (None, "traces_not_read")
    }


def test_a_gap_of_more_than_seven_days_is_said(lake, cloud):
    facts = take(cloud, day(9)).fetch.sources["traces"]
    assert facts.was_read
    assert facts.partial == "the last complete day was taken 9 days ago, and the audit service keeps seven days"
    assert {change["actor_unknown"] for change in rows(day(9), IMAGE_CHANGES)} == {"traces_not_read"}


def test_traces_are_read_of_the_sandbox_or_when_that_is_stated(cloud):
    assert Settings(endpoint="sandbox").reads_traces
    assert not Settings(endpoint="https://modelarts.example.com").reads_traces
    assert Settings(endpoint="https://modelarts.example.com", traces="true").reads_traces
    assert take(cloud, MONDAY, traces="false").fetch.sources["traces"] == SourceFacts(wanted=False)
    assert rows(MONDAY) == []


def test_no_request_or_response_of_a_trace_is_kept(cloud, tmp_path):
    take(cloud, MONDAY, parquet_compression="none")
    written = [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]
    assert b"NotebookImage" in b"".join(path.read_bytes() for path in written if path.name == "image_traces.parquet")
    assert [path for path in written if SECRET_MARK.encode() in path.read_bytes()] == []


IMAGE_TRACE = {"trace_id": "b", "service_type": "ModelArts", "resource_type": "NotebookImage", "resource_id": "i"}


@pytest.mark.parametrize(
    ("odd", "partial"),
    [
        ({"trace_id": None}, "1 of its items have no id"),
        (IMAGE_TRACE | {"time": "soon"}, "1 traces of images have no time that can be read"),
        (IMAGE_TRACE | {"time": 1_795_924_675_868}, None),
        ({"trace_id": "b", "resource_type": "bucket", "time": "soon"}, None),
    ],
)
async def test_a_trace_without_id_or_time_may_be_a_second_one_so_not_all_are_known(tmp_path, odd, partial):
    page = http(200, json.dumps({"traces": [{"trace_id": "a"}, odd], "meta_data": {"marker": None}}).encode())
    async with serving(replies(page)) as server:
        store = open_checkpoint(LocalPath(tmp_path), "subject")
        facts = await read_traces(lambda: client(server), store, midnight(MONDAY), None)
        store.close()
    assert (facts.was_read, facts.partial) == (True, partial)
    assert facts.is_whole == (partial is None)
