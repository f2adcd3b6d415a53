"""Retention on a real lake: removed files are recorded, and the rest stays provable, even after a kill."""

import datetime as dt
import json
import shutil
from contextlib import closing
from dataclasses import replace

import published_days
import pytest
from cut_off import was_killed
from fortnight import DAYS
from once_per_run import once_per_run
from proved_days import forge_record, problems

from pipelines.derive.days import derive_days
from pipelines.errors import ConfigurationError, StorageError
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.retention_records import Rules
from pipelines.maintenance.compaction import compact
from pipelines.maintenance.retention import apply_retention, plan_retention
from pipelines.maintenance.status import day_statuses
from pipelines.query.views import connect_lake, select
from pipelines.report.page import write_report
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import publish_snapshot
from pipelines.tables import ANALYSIS_TABLES, IMAGE_HISTORY, TABLES
from pipelines.warehouse.loading import load_project

FIRST, SECOND, THIRD, LAST = (Partition(date, "default") for date in DAYS[:4])
# Noon of the last of the four days: one day of responses stays, and two other days beside the one they continue.
NOW = dt.datetime.combine(LAST.date, dt.time(12), dt.UTC)
RULES = Rules(responses_days=1, snapshots_days=2)
REGISTRY = {"registry_pages", "registry_tags", "registry_layers"}
ANSWERS = {"billed_costs", "list_pages", "image_references", "image_traces", "responses", *REGISTRY}
ANALYSED = (TABLES.keys() | ANALYSIS_TABLES.keys()) - ANSWERS - {"image_history"}


def day(partition):
    # Later than what was published at noon.
    return SnapshotRun(
        partition, "again", Settings(lake="lake", usage="notebooks"), lambda: NOW + dt.timedelta(hours=1)
    )


@pytest.fixture(scope="module")
def four_days(fortnight, tmp_path_factory):
    """The first four days of the fortnight, with their derived tables."""

    def make(root):
        shutil.copytree(fortnight, root / "lake")
        for path in sorted(root.glob("lake/*/dt=*")):
            if path.name > f"dt={LAST.date}":
                shutil.rmtree(path)
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.chdir(root)
            derive_days(day(LAST))
        return root / "lake"

    return once_per_run(tmp_path_factory, "four-days", make)


@pytest.fixture
def lake(four_days, tmp_path):
    shutil.copytree(four_days, tmp_path / "lake")
    return Lake("lake")


def planned(lake, rules=RULES):
    """Table -> days whose files would be removed."""
    plan = plan_retention(lake, "default", rules, NOW.date())
    return {table: [found.snapshot_date for found in files] for table, files in plan.by_table().items()}


def there(lake):
    return {lake.key(path) for path in lake.root.glob("[!_]*/**/*.*")}


def seen_days(lake, table):
    with closing(connect_lake(lake)) as connection:
        return [
            found
            for (found,) in select(connection, f"SELECT DISTINCT snapshot_date FROM {table} ORDER BY 1").fetchall()
        ]


def test_plan_keeps_needed_files_and_changes_nothing(lake):
    before = there(lake)
    days = [FIRST.date, SECOND.date, THIRD.date]
    # The first kept day is compared with the day before it.
    assert planned(lake) == dict.fromkeys(ANSWERS, days) | {name: [FIRST.date] for name in ANALYSED}
    assert planned(lake, Rules(responses_days=None, snapshots_days=1)) == dict.fromkeys(ANALYSED, days[:2])
    assert planned(lake, Rules(responses_days=4, snapshots_days=3)) == {}
    # However old the last complete day is, it and all later days stay.
    later = NOW.date() + dt.timedelta(days=400)
    plan = plan_retention(lake, "default", Rules(responses_days=1, snapshots_days=1), later)
    assert {found.snapshot_date for found in plan.files} == set(days)
    assert there(lake) == before
    assert not (lake.root / "_retention").exists()
    with pytest.raises(ConfigurationError, match=r"^No retention rule is set, so everything is kept: give"):
        planned(lake, Rules(responses_days=None, snapshots_days=None))


def test_removed_files_are_recorded_and_the_rest_stays_provable(lake):
    write_report(lake, FIRST)
    before, manifests = there(lake), {path: path.read_bytes() for path in lake.root.glob("_manifests/**/*.json")}
    apply_retention(lake, "default", RULES, NOW)
    gone = before - there(lake)
    assert gone == {
        *(
            f"{name}/dt={found.date}/project=default/{name}.parquet"
            for name in ANSWERS
            for found in (FIRST, SECOND, THIRD)
        ),
        *(f"{name}/dt={FIRST.date}/project=default/{name}.parquet" for name in ANALYSED),
        f"reports/dt={FIRST.date}/project=default/report.html",
    }
    assert not (lake.root / "responses" / f"dt={FIRST.date}").exists()
    assert {path: path.read_bytes() for path in lake.root.glob("_manifests/**/*.json")} == manifests
    (path,) = lake.contents.retention_records("default")
    assert lake.key(path) == "_retention/project=default/000001.json"
    record = json.loads(path.read_text())
    assert {name: record[name] for name in ("project", "applied_at", "rules", "previous_record_sha256")} == {
        "project": "default",
        "applied_at": f"{LAST.date}T12:00:00Z",
        "rules": {"responses_days": 1, "snapshots_days": 2},
        "previous_record_sha256": None,
    }
    assert record["newest_manifest_sha256"] == lake.manifest(LAST).sha256()
    assert {found["file"]["path"] for found in record["files"]} == gone
    manifest = json.loads(lake.manifest(SECOND).read_text())
    assert {"table": "responses", "snapshot_date": str(SECOND.date), "file": manifest["files"]["responses"]} in record[
        "files"
    ]
    assert problems(lake) == []
    assert seen_days(lake, "images") == [SECOND.date, THIRD.date, LAST.date]
    assert seen_days(lake, "responses") == [LAST.date]
    # Once is enough.
    assert apply_retention(lake, "default", RULES, NOW).files == []
    assert list(lake.contents.retention_records("default")) == [path]
    removed = {found.date: found.removed for found in day_statuses(lake, ["default"], FIRST.date, LAST.date)}
    assert removed == {
        FIRST.date: sorted(ANSWERS | ANALYSED),
        SECOND.date: sorted(ANSWERS),
        THIRD.date: sorted(ANSWERS),
        LAST.date: [],
    }


def test_tables_made_from_removed_files_are_kept(lake, tmp_path):
    apply_retention(lake, "default", RULES, NOW)
    derived_manifests = {found: lake.derived_manifest(found).read_bytes() for found in (FIRST, SECOND, THIRD)}
    derived = []
    derive_days(day(LAST), lambda found, *_: derived.append(found))
    assert derived == [LAST]
    assert {found: lake.derived_manifest(found).read_bytes() for found in derived_manifests} == derived_manifests
    with pytest.raises(ConfigurationError) as raised:
        publish_snapshot(day(THIRD))
    assert str(raised.value) == (
        "Retention removed billed_costs, image_references, image_traces, list_pages, registry_layers, registry_pages, "
        f"registry_tags, responses of {THIRD} on {LAST.date}, so the "
        f"tables of {THIRD} "
        "cannot be derived again; what was derived before stands."
    )
    with pytest.raises(ConfigurationError, match=f"^Retention removed .* of {FIRST} on .*of that day is left to"):
        write_report(lake, FIRST)
    # A new warehouse gets the days with all their files.
    loaded = load_project(lake, LAST, f"duckdb:////{tmp_path}/new.duckdb")
    assert loaded.other_days == 0
    with pytest.raises(ConfigurationError, match=f"^Retention removed .* of {SECOND} on .*loaded into the warehouse.$"):
        load_project(lake, SECOND, f"duckdb:////{tmp_path}/new.duckdb")
    # The last day can still be derived from its responses.
    publish_snapshot(day(LAST))
    derive_days(day(LAST))
    assert problems(lake) == []


def test_first_kept_day_has_the_days_that_it_continues(lake):
    apply_retention(lake, "default", Rules(responses_days=None, snapshots_days=2), NOW)
    with pytest.raises(
        ConfigurationError, match=f"^Retention removed audit_findings, .* of {FIRST} on .*derived again"
    ):
        publish_snapshot(day(SECOND))
    findings = lake.table("audit_findings", THIRD)
    before = findings.sha256()
    publish_snapshot(day(THIRD))
    derive_days(day(THIRD))
    assert findings.sha256() != before  # of another run
    states = "SELECT state, COUNT(*) FROM audit_findings WHERE snapshot_date = '{}' GROUP BY ALL ORDER BY ALL"
    with closing(connect_lake(lake)) as connection:
        assert dict(select(connection, states.format(THIRD.date)).fetchall())["open"] > 0
    assert problems(lake) == []


def test_history_that_cannot_be_derived_again_is_refused(lake):
    apply_retention(lake, "default", RULES, NOW)
    history = lake.project_table(IMAGE_HISTORY.name, "default")
    history.write_bytes(b"no Parquet")
    with pytest.raises(ConfigurationError) as raised:
        derive_days(replace(day(LAST), accepted_history=history.sha256()))
    assert str(raised.value) == (
        f"Retention removed images, responses of {FIRST} on {LAST.date}, so the history cannot be made anew from that "
        f"day on: restore {history} from a backup."
    )


def test_missing_file_without_a_record_is_a_problem(lake):
    apply_retention(lake, "default", RULES, NOW)
    lake.table("images", SECOND).unlink()
    assert problems(lake) == [(f"images/dt={SECOND.date}/project=default/images.parquet", "The file is missing.")]
    # A record does not excuse a file with other content.
    (path,) = lake.contents.retention_records("default")
    other = {
        "table": "images",
        "snapshot_date": str(SECOND.date),
        "file": json.loads(lake.manifest(SECOND).read_text())["files"]["images"] | {"sha256": "0" * 64},
    }
    forge_record(path, lambda said: said["files"].append(other))
    assert problems(lake) == [(f"images/dt={SECOND.date}/project=default/images.parquet", "The file is missing.")]


def test_retention_records_form_a_chain(lake):
    apply_retention(lake, "default", Rules(responses_days=3, snapshots_days=None), NOW)
    apply_retention(lake, "default", Rules(responses_days=2, snapshots_days=None), NOW)
    first, second = lake.contents.retention_records("default")
    assert json.loads(second.read_text())["previous_record_sha256"] == first.sha256()
    assert problems(lake) == []
    forge_record(first, lambda said: said["rules"].update(responses_days=2))
    assert problems(lake) == [
        (lake.key(second), "It does not follow the retention record before it: that one was changed or removed.")
    ]


def test_changed_file_is_not_removed(lake):
    path = lake.table("responses", FIRST)
    path.write_bytes(path.read_bytes()[:-10])
    before = there(lake)
    with pytest.raises(
        StorageError, match=rf"^{path} is not the file that the manifest names for .*, so nothing was removed"
    ):
        apply_retention(lake, "default", RULES, NOW)
    assert there(lake) == before
    assert lake.contents.retention_records("default") == {}


def test_monthly_files_of_removed_days_are_removed(lake):
    later = dt.datetime(2026, 12, 2, tzinfo=dt.UTC)
    compact(lake, "default", "2026-11", later)
    apply_retention(lake, "default", RULES, NOW)
    assert list((lake.root / "_monthly").glob("**/*.*")) == []
    assert seen_days(lake, "images") == [SECOND.date, THIRD.date, LAST.date]
    assert compact(lake, "default", "2026-11", later).days == 3
    assert seen_days(lake, "images") == [SECOND.date, THIRD.date, LAST.date]
    assert problems(lake) == []
    # The monthly files for analysis keep their rows when responses are removed.
    apply_retention(lake, "default", Rules(responses_days=1, snapshots_days=None), NOW)
    assert compact(lake, "default", "2026-11", later).was_current


# Before and after the record appears, among the sixteen monthly files, and among the daily ones: each gets further; and
# how many files are gone after each.
CHOSEN_KILLS = ((0, 1, 2, 20, 1000), [0, 0, 0, 6, 39])
ALL_KILLS = (range(12), [0, 0, 0, 0, 0, 0, 4, 11, 19, 28, 38, 39])


@pytest.mark.parametrize(
    ("kills", "expected"), [CHOSEN_KILLS, pytest.param(*ALL_KILLS, marks=pytest.mark.slow)], ids=["chosen", "all"]
)
def test_killed_retention_leaves_a_provable_lake_and_is_finished_by_the_next(lake, kills, expected):
    compact(lake, "default", "2026-11", dt.datetime(2026, 12, 2, tzinfo=dt.UTC))
    before, states = there(lake), []
    for operations in kills:
        was_cut_off = was_killed(operations, lambda: apply_retention(lake, "default", RULES, NOW))
        assert was_cut_off == (operations != kills[-1])
        states.append(len(before - there(lake)))
        assert problems(lake) == [], operations
    assert states == expected
    (_,) = lake.contents.retention_records("default")
    assert plan_retention(lake, "default", RULES, NOW.date()).files == []


def test_retention_command_lists_first_and_removes_with_apply(image_snapshots):
    days = ["2025-11-01", "2025-11-02", "2025-11-03"]
    for date in days:
        published_days.publish_snapshot(published_days.day_of(date), responses=[{"id": "0", "outcome": "not_found"}])
    lake = Lake("lake")
    rule = {"IMAGE_SNAPSHOTS_RETENTION_RESPONSES_DAYS": "1"}
    before = there(lake)
    first = image_snapshots("retention", env=rule)
    assert first.returncode == 0, first.stderr
    lines = first.stdout.splitlines()
    assert lines[0] == "project\ttable\tfrom\tto\tfiles\tbytes"
    assert [line.split("\t")[:5] for line in lines[1:9]] == [
        ["default", name, days[0], days[1], "2"] for name in sorted(ANSWERS)
    ]
    assert lines[9].startswith("16 files, ")
    assert lines[9].endswith(" KiB, would be removed with --apply. Nothing was changed.")
    assert there(lake) == before
    second = image_snapshots("retention", "--apply", "--json", env=rule)
    assert second.returncode == 0, second.stderr
    (plan,) = json.loads(second.stdout)
    assert {found["file"]["path"] for found in plan["files"]} == before - there(lake)
    assert (plan["applied"], plan["unfinished"], len(plan["files"])) == (True, 0, 16)
    nothing = image_snapshots("retention")
    assert nothing.returncode == 2
    assert nothing.stderr.startswith("Error: No retention rule is set, so everything is kept: give --responses")
