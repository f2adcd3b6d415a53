"""The tables of images built by another process beside the fetch: the same as without it, whatever happens to it."""

import datetime as dt
import json
import logging
import os
import signal
import subprocess
import sys

import httpx
import pyarrow as pa
import pytest

from pipelines.errors import StorageError
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import read_attempt, write_attempt
from pipelines.lake.parquet_files import read_batches
from pipelines.maintenance.verify import verify
from pipelines.settings import ROOT, Settings
from pipelines.snapshot import gathering, steps
from pipelines.snapshot.build_process import BuildProcess
from pipelines.snapshot.publish import BUILT_TABLES, build_tables
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory
from pipelines.tables import IMAGES, RESPONSES

DATE = dt.date(2026, 11, 23)
NOON = dt.datetime.combine(DATE, dt.time(12), dt.UTC)
PARTITION = Partition(DATE, "default")


@pytest.fixture
def start_day(start_sandbox, tmp_path, monkeypatch):
    """A function that returns a run over 20 images, one of which has an unknown field and an odd size."""
    monkeypatch.setattr(gathering, "_MANY_IMAGES", 1)
    sandbox = start_sandbox(size=20, inventory_file=tmp_path / "inventory.csv", day=DATE)
    for name, value in sandbox.env.items():
        monkeypatch.setenv(name, value)
    id_ = (tmp_path / "inventory.csv").read_text().splitlines()[1].split(",")[0].lower()
    odd = {"id": id_, "visibility": "SHARED", "accelerator": "npu", "size": "12"}
    httpx.put(f"{sandbox.endpoint}/sandbox/faults", json={"answers": {id_: {"body": odd}}}).raise_for_status()

    def start(lake=tmp_path / "lake", run_id="run-1"):
        settings = Settings(lake=str(lake), inventory=str(tmp_path / "inventory.csv"))
        return SnapshotRun(PARTITION, run_id, settings, lambda: NOON)

    return start


def take(day):
    take_inventory(day)
    fetch_responses(day, lambda progress: None)
    return read_attempt(day.lake, PARTITION)


@pytest.fixture
def no_building(monkeypatch):
    """A function after whose call the tables must have been built before."""

    def forbid():
        monkeypatch.setattr(steps, "build_tables", None)

    return forbid


def run_of(path):
    return pa.parquet.read_schema(path).metadata[b"image_snapshots.run_id"].decode()


@pytest.mark.parametrize("place", ["disk", "object store"])
def test_early_tables_are_those_that_the_responses_give(start_day, no_building, s3, tmp_path, place):
    day = start_day(tmp_path / "lake" if place == "disk" else s3.make_bucket("early-bucket") + "/lake")
    early = take(day).early
    found = build_tables(day.lake, day.staged(RESPONSES.name), day.lake.staging(PARTITION), "run-1")
    assert early.found == found
    assert found.unknown_fields == {"accelerator": 1}
    assert found.unknown_values["visibility=SHARED"] == 1
    assert "size:number_as_text" in found.anomalies
    contents = {table.name: day.staged(table.name).read_bytes() for table in BUILT_TABLES}
    directory = day.lake.early_tables(PARTITION) / early.directory
    assert {name: (directory / f"{name}.parquet").read_bytes() for name in contents} == contents

    no_building()
    publication = publish_snapshot(day)
    assert publication.built == found
    ids = sorted(
        row["id"]
        for batch in read_batches(day.lake.table(IMAGES.name, PARTITION), 100, ["id"])
        for row in batch.to_pylist()
    )
    assert [row["id"] for row in publication.preview] == ids[:5]
    assert {name: day.lake.table(name, PARTITION).read_bytes() for name in contents} == contents
    assert verify(day.lake, [PARTITION]) == []
    assert not list(day.lake.staging(PARTITION).all_files())


@pytest.mark.parametrize(("many", "is_early"), [(20, True), (21, False)])
def test_few_images_need_no_process(start_day, monkeypatch, many, is_early):
    monkeypatch.setattr(gathering, "_MANY_IMAGES", many)
    attempt = take(start_day())
    assert attempt.inventory.ids == 20
    assert (attempt.early is not None) is is_early


def test_process_that_was_killed_costs_only_a_warning(start_day, monkeypatch, caplog):
    enter = BuildProcess.__enter__

    def enter_and_be_killed(process):
        entered = enter(process)
        os.kill(process.pid, signal.SIGKILL)
        return entered

    monkeypatch.setattr(BuildProcess, "__enter__", enter_and_be_killed)
    day = start_day()
    assert take(day).early is None
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.getMessage() == (
        "The tables of images could not be built beside the fetch: the process ended (signal SIGKILL). They are built "
        "at publication."
    )
    publication = publish_snapshot(day)
    assert publication.built.unknown_fields == {"accelerator": 1}
    assert verify(day.lake, [PARTITION]) == []


def test_process_that_cannot_write_says_why(start_day, tmp_path, caplog):
    day = start_day()
    take(day)
    target = Lake(str(tmp_path / "other"))
    with BuildProcess(target, PARTITION, "run-1", is_sandbox=True) as process:
        # A file where its directory would be.
        (tmp_path / "other/_staging").mkdir(parents=True)
        (tmp_path / f"other/_staging/dt={DATE}").write_text("")
        for batch in read_batches(day.staged(RESPONSES.name), 5):
            process.add(batch)
        assert process.end() is None
    assert f"The lake cannot be used: Not a directory at {tmp_path}/other/_staging" in caplog.messages[-1]


def test_process_whose_run_was_killed_writes_nothing(start_day, tmp_path):
    day = start_day()
    take(day)
    task = {
        "root": str(tmp_path / "other"),
        "compression": "zstd",
        "directory": "here",
        "run_id": "r",
        "is_sandbox": True,
    }
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, RESPONSES.schema) as stream:
        for batch in read_batches(day.staged(RESPONSES.name), 5):
            stream.write_batch(batch)
    sent = json.dumps(task).encode() + b"\n" + sink.getvalue().to_pybytes()
    start = "from pipelines.snapshot.build_process import serve; serve()"
    for end, is_built in ((b"", False), (b'{"rows": 3}\n', False), (b'{"rows": 20}\n', True)):
        result = subprocess.run([sys.executable, "-c", start], input=sent + end, capture_output=True, cwd=ROOT)
        assert ("error" not in json.loads(result.stdout)) is is_built
        assert sorted(path.name for path in tmp_path.glob("other/here/*")) == (
            sorted(f"{table.name}.parquet" for table in BUILT_TABLES) if is_built else []
        )


def test_early_tables_that_changed_are_built_again(start_day, caplog):
    day = start_day()
    early = take(day).early
    path = day.lake.early_tables(PARTITION) / early.directory / "images.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    publish_snapshot(day)
    assert "are not as they were written: they are built again" in caplog.messages[-1]
    assert verify(day.lake, [PARTITION]) == []


def test_early_tables_lie_in_their_place_alone(start_day):
    day = start_day()
    early = take(day).early
    path = day.lake.staging(PARTITION) / "attempt.json"
    content = path.read_bytes()
    assert content.count(early.directory.encode()) == 1
    path.write_bytes(content.replace(early.directory.encode(), b"../../../../elsewhere"))
    with pytest.raises(StorageError, match=r"attempt\.json is damaged .*\(early\.directory: "):
        publish_snapshot(day)
    assert day.lake.contents.partitions() == []


def test_early_tables_must_all_be_recorded(start_day, caplog):
    day = start_day()
    attempt = take(day)
    (day.lake.early_tables(PARTITION) / attempt.early.directory / "images.parquet").write_bytes(b"other")
    files = {name: file for name, file in attempt.early.files.items() if name != "images"}
    write_attempt(
        day.lake, PARTITION, attempt.model_copy(update={"early": attempt.early.model_copy(update={"files": files})})
    )
    publish_snapshot(day)
    assert "are not as they were written: they are built again" in caplog.messages[-1]
    assert verify(day.lake, [PARTITION]) == []


def test_another_run_builds_its_own_tables(start_day):
    first = start_day()
    take(first)
    second = start_day(run_id="run-2")
    publish_snapshot(second)
    assert run_of(second.lake.table(IMAGES.name, PARTITION)) == "run-2"
    assert verify(second.lake, [PARTITION]) == []


def test_other_code_builds_its_own_tables(start_day, monkeypatch):
    day = start_day()
    take(day)
    built = []
    monkeypatch.setattr(steps, "code_version", lambda: "other")
    monkeypatch.setattr(steps, "build_tables", lambda *given: built.append(1) or build_tables(*given))
    publish_snapshot(day)
    assert built == [1]


def test_damaged_responses_are_built_once_more(start_day, monkeypatch):
    """What the first process got lacks a response, so its tables do not count."""
    day = start_day()
    write, calls = gathering.write_responses, []

    def write_and_find_damage(staging, store, beside):
        damaged = write(staging, store, beside)
        calls.append(beside)
        return damaged or ([next(iter(store_ids(staging)))] if len(calls) == 1 else [])

    def store_ids(staging):
        for batch in read_batches(staging.directory / "responses.parquet", 100, ["id"]):
            yield from batch["id"].to_pylist()

    monkeypatch.setattr(gathering, "write_responses", write_and_find_damage)
    early = take(day).early
    assert len(calls) == 2
    assert early.found.unknown_fields == {"accelerator": 1}
    assert [path.parent.name for path in day.lake.early_tables(PARTITION).all_files()] == [early.directory] * 3
