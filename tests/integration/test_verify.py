"""A published lake that somebody changed: `verify` reports what and where."""

import datetime as dt
import json
import shutil
from contextlib import nullcontext

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from proved_days import forge_record, problems

from assets.embedded_sandbox import connect
from pipelines.errors import ConfigurationError, EndpointUnreachableError, StorageError
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import published
from pipelines.maintenance.status import day_statuses
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, start_over, take_inventory
from pipelines.tables import IMAGES, RESPONSES, TABLES

FIRST = dt.date(2026, 11, 21)
PARTITIONS = [Partition(FIRST + dt.timedelta(days=n), "default") for n in range(3)]


def take(lake, partition, hour=12, run_id="run", **settings):
    """Take a day's snapshot at noon of that day."""
    moment = dt.datetime.combine(partition.date, dt.time(hour), dt.UTC)
    settings = Settings(lake=str(lake), **settings)
    # One sandbox for both steps.
    with connect(settings, partition) as connection:
        day = SnapshotRun(partition, run_id, settings, lambda: moment, connect=lambda *_: nullcontext(connection))
        take_inventory(day)
        fetch_responses(day, lambda _: None)
        return publish_snapshot(day).manifest


@pytest.fixture(scope="module")
def three_days(tmp_path_factory):
    """A lake with three days, the second taken twice."""
    root = tmp_path_factory.mktemp("three") / "lake"
    for partition in PARTITIONS:
        take(root, partition, run_id=f"run-{partition.date}")
    # Published last, because publication times rise.
    later = dt.datetime.combine(PARTITIONS[2].date, dt.time(13), dt.UTC)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(SnapshotRun, "publication_time", lambda _: later)
        take(root, PARTITIONS[1], hour=13, run_id="again")
    return root


@pytest.fixture
def lake(three_days, tmp_path):
    shutil.copytree(three_days, tmp_path / "lake")
    return Lake(str(tmp_path / "lake"))


def test_untouched_lake_has_no_problems(lake):
    assert lake.contents.partitions() == PARTITIONS
    assert problems(lake) == []


def test_chain_follows_the_order_of_publication(lake):
    first, second, third = (lake.manifest(partition) for partition in PARTITIONS)
    (kept,) = lake.superseded_manifests("default").glob("*.json")
    read = {path: json.loads(path.read_text()) for path in (first, second, third, kept)}
    assert read[first]["previous_manifest_sha256"] is None
    assert read[kept]["previous_manifest_sha256"] == first.sha256()
    assert read[third]["previous_manifest_sha256"] == kept.sha256()
    assert read[second]["previous_manifest_sha256"] == third.sha256()
    assert (read[second]["run_id"], read[kept]["run_id"]) == ("again", "run-2026-11-22")


def test_each_changed_table_is_reported(lake):
    for name in TABLES:
        path = lake.table(name, PARTITIONS[0])
        pq.write_table(pq.read_table(path).slice(1), path)
    found = problems(lake)
    assert sorted(where for where, _ in found) == [
        f"{name}/dt=2026-11-21/project=default/{name}.parquet" for name in sorted(TABLES)
    ]
    assert {sentence[: len("The file was changed")] for _, sentence in found} == {"The file was changed"}


def test_changed_table_is_the_only_problem(lake):
    path = lake.table(RESPONSES.name, PARTITIONS[0])
    pq.write_table(pq.read_table(path).slice(1), path)
    ((where, sentence),) = problems(lake)
    assert where == "responses/dt=2026-11-21/project=default/responses.parquet"
    assert sentence.startswith("The file was changed")


def test_missing_table_is_reported(lake):
    lake.table("images", PARTITIONS[2]).unlink()
    assert problems(lake) == [("images/dt=2026-11-23/project=default/images.parquet", "The file is missing.")]


def test_added_file_is_reported(lake):
    source = lake.table("images", PARTITIONS[0])
    beside = source.with_name("more.parquet")
    shutil.copy(source, beside)
    stray = lake.table("images", Partition(dt.date(2026, 11, 1), "default"))
    stray.parent.mkdir(parents=True)
    shutil.copy(source, stray)
    assert [where for where, _ in problems(lake)] == [
        "images/dt=2026-11-01/project=default/images.parquet",
        "images/dt=2026-11-21/project=default/more.parquet",
    ]


def forge(lake, partition, name, change):
    """Change a table and its manifest, like somebody who knows about hashes."""
    path = lake.table(name, partition)
    table = change(pq.read_table(path))
    pq.write_table(table, path)
    facts = {"sha256": path.sha256(), "bytes": path.stat().st_size, "rows": table.num_rows}
    forge_record(lake.manifest(partition), lambda said: said["files"][name].update(facts))


def set_first(table, name, value):
    values = table[name].to_pylist()
    values[0] = value
    return table.set_column(
        table.schema.get_field_index(name), table.schema.field(name), pa.array(values, table.schema.field(name).type)
    )


def test_forged_table_differs_from_its_responses(lake):
    forge(lake, PARTITIONS[1], "images", lambda table: set_first(table, "visibility", "HIDDEN"))
    id_ = pq.read_table(lake.table("images", PARTITIONS[1]))["id"][0].as_py()
    ((where, sentence),) = problems(lake)
    assert where == "images/dt=2026-11-22/project=default/images.parquet"
    assert sentence == f"The table is not what its stored responses give: visibility of {id_} differs."


def test_forged_response_fails_its_hash(lake):
    forge(lake, PARTITIONS[1], "responses", lambda table: set_first(table, "body", b"{}"))
    found = problems(lake)
    assert found[0][0] == "responses/dt=2026-11-22/project=default/responses.parquet"
    assert found[0][1].endswith("does not have its SHA-256.")


def test_forged_list_page_fails_its_hash(lake):
    forge(lake, PARTITIONS[1], "list_pages", lambda table: set_first(table, "body", b"{}"))
    assert problems(lake) == [
        ("list_pages/dt=2026-11-22/project=default/list_pages.parquet", "Page 0 does not have its SHA-256.")
    ]


def test_forged_manifest_breaks_the_chain(lake):
    forge_record(lake.manifest(PARTITIONS[0]), lambda said: said.update(run_id="somebody-else"))
    (kept,) = lake.superseded_manifests("default").glob("*.json")
    found = dict(problems(lake))
    assert found.keys() == {
        "_manifests/dt=2026-11-21/project=default.json",
        kept.relative_to(lake.root).as_posix(),
    }
    assert "which does not exist" in found[kept.relative_to(lake.root).as_posix()]


def test_manifest_s_claim_of_completeness_is_checked(lake):
    last = PARTITIONS[1]
    outcomes = json.loads(lake.manifest(last).read_text())["fetch"]["outcomes"]
    forge_record(lake.manifest(last), lambda said: said["fetch"].update(outcomes=outcomes | {"ok": outcomes["ok"] + 1}))
    ((where, sentence),) = problems(lake)
    assert where == "_manifests/dt=2026-11-22/project=default.json"
    assert sentence.startswith("The manifest does not agree with the stored responses")


def test_removed_manifest_is_reported(lake):
    lake.manifest(PARTITIONS[0]).unlink()
    found = problems(lake)
    assert {where.split("/")[0] for where, _ in found} == {*TABLES, "_manifests"}
    assert any("which does not exist" in sentence for _, sentence in found)


def test_damaged_manifest_is_one_problem_without_traceback(lake):
    lake.manifest(PARTITIONS[2]).write_text('{"snapshot_date": 1')
    assert "_manifests/dt=2026-11-23/project=default.json" in dict(problems(lake))


def test_status_lists_the_other_days_beside_a_damaged_one(lake):
    lake.manifest(PARTITIONS[1]).write_text("{")
    states = day_statuses(lake, ["default"], FIRST, PARTITIONS[2].date)
    assert [state.state for state in states] == ["complete", "damaged", "complete"]


def test_rebuild_refuses_changed_evidence(lake):
    path = lake.table(RESPONSES.name, PARTITIONS[0])
    pq.write_table(pq.read_table(path).slice(1), path)
    day = SnapshotRun(PARTITIONS[0], "r", Settings(lake=str(lake.root)))
    with pytest.raises(StorageError, match="the evidence was changed"):
        publish_snapshot(day)


def test_rebuild_gives_the_same_rows_and_extends_the_chain(lake):
    before = pq.read_table(lake.table(IMAGES.name, PARTITIONS[0]))
    manifest = publish_snapshot(SnapshotRun(PARTITIONS[0], "rebuild", Settings(lake=str(lake.root)))).manifest
    assert (manifest.rebuilt, manifest.run_id) == (True, "rebuild")
    assert pq.read_table(lake.table(IMAGES.name, PARTITIONS[0])).equals(before)
    assert problems(lake) == []
    assert not list((lake.root / "_staging").rglob("*.parquet"))


def test_kill_between_two_replacements_is_repaired_by_the_next_run(lake, monkeypatch):
    """The process ends after the first table of the day was replaced; each table is still whole for readers."""
    partition = Partition(dt.date(2026, 11, 24), "default")
    replaced = []
    original = Lake.replace

    class KilledError(BaseException):
        pass

    def replace_one(self, source, target):
        if replaced:
            raise KilledError
        replaced.append(target)
        original(self, source, target)

    monkeypatch.setattr(Lake, "replace", replace_one)
    with pytest.raises(KilledError):
        take(lake.root, partition)
    monkeypatch.undo()
    assert published(lake, partition) is None
    assert len(problems(lake)) == 1
    take(lake.root, partition, hour=14)
    assert problems(lake) == []
    assert lake.contents.unfinished() == []


def test_finished_attempt_that_was_not_removed_is_not_resumed(lake, monkeypatch):
    """The process ends between the manifest and the removal of the attempt: the next run fetches again."""
    partition = Partition(dt.date(2026, 11, 24), "default")
    monkeypatch.setattr("pipelines.snapshot.steps.start_over", lambda day: None)
    ended = take(lake.root, partition)
    monkeypatch.undo()
    assert lake.contents.unfinished() == [partition]
    again = take(lake.root, partition, hour=14)
    assert (again.fetch.kept, again.fetch.requests) == (0, ended.fetch.requests)
    assert again.previous_manifest_sha256 is not None
    assert lake.contents.unfinished() == []


def test_status_shows_every_state(lake):
    unfinished = Partition(dt.date(2026, 11, 25), "default")
    with pytest.raises(EndpointUnreachableError):
        # No connection can be made so fast.
        take(lake.root, unfinished, timeout_seconds=0.001)
    states = day_statuses(lake, ["default"], FIRST - dt.timedelta(days=5), unfinished.date)
    assert [(str(state.date), state.state, state.has_open_attempt) for state in states] == [
        ("2026-11-21", "complete", False),
        ("2026-11-22", "complete", False),
        ("2026-11-23", "complete", False),
        ("2026-11-24", "missing", False),
        ("2026-11-25", "unfinished", True),
    ]


def test_fresh_start_discards_the_attempt_and_keeps_the_published_day(lake):
    partition = PARTITIONS[2]
    moment = dt.datetime.combine(partition.date, dt.time(15), dt.UTC)
    day = SnapshotRun(partition, "r", Settings(lake=str(lake.root)), lambda: moment, connect=connect)
    take_inventory(day)
    assert lake.contents.unfinished() == [partition]
    start_over(day)
    assert lake.contents.unfinished() == []
    assert problems(lake) == []


def test_fetch_without_an_inventory_is_refused(lake):
    partition = Partition(dt.date(2026, 11, 26), "default")
    moment = dt.datetime.combine(partition.date, dt.time(15), dt.UTC)
    with pytest.raises(ConfigurationError, match="No inventory was taken"):
        fetch_responses(SnapshotRun(partition, "r", Settings(lake=str(lake.root)), lambda: moment), lambda _: None)
