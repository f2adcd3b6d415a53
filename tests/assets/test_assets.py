"""The assets, materialised on real files against a running sandbox, and their metadata and checks."""

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
import duckdb
import httpx
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError
from published_days import day_of, publish_snapshot

from assets import build, daily_snapshot
from assets.build import DAILY_JOB, REBUILD_JOB, REPUBLISH_JOB, build_definitions
from assets.partitions import partition_key
from assets.resources import LogReporter
from pipelines.errors import EndpointUnreachableError, PartitionBusyError
from pipelines.lake.derived_manifests import read_derived_manifest
from pipelines.lake.failures import last_failures
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.locks import Locks
from pipelines.maintenance.verify import verify
from pipelines.run import utc_now
from pipelines.settings import ROOT, Settings
from pipelines.tables import ANALYSIS_TABLES, IMAGES, RESPONSE_TABLES, TABLES

TODAY = dt.datetime.now(dt.UTC).date()
PARTITION = Partition(TODAY, "default")
DELIVERED = {"warehouse_tables", "daily_report", "monthly_tables", "lake_verification"}
UPSTREAM = {"inventory_source", "modelarts_api", "registry", "bills", "price_book", "audit_rule_files"}


@pytest.fixture
def instance():
    # Kept in memory, which takes half the time of files.
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def sandbox(start_sandbox, tmp_path, monkeypatch):
    sandbox = start_sandbox(size=60, inventory_file=tmp_path / "inventory.csv")
    for name, value in sandbox.env.items():
        monkeypatch.setenv(name, value)
    return sandbox


class Attended(LogReporter):
    """A user waits: failures come at once, without retries."""

    is_attended = True


def run(instance, job=DAILY_JOB, partition=PARTITION, now=utc_now, **settings):
    definitions = build_definitions(Settings(**settings), Attended(), now)
    return definitions.resolve_job_def(job).execute_in_process(
        instance=instance, partition_key=partition_key(partition), raise_on_error=False
    )


def metadata(result, asset):
    step = "publish_images" if asset in ("images", "image_values", "image_tags") else asset
    step = "derive_tables" if asset in ANALYSIS_TABLES else step
    (event,) = [e for e in result.asset_materializations_for_node(step) if e.asset_key.path[-1] == asset]
    return event.metadata


def test_run_materialises_all_assets_with_metadata(instance, sandbox, tmp_path):
    result = run(instance)
    assert result.success
    lake = Lake("lake")
    manifest = json.loads(lake.manifest(PARTITION).read_text())
    unmaterialised = RESPONSE_TABLES.keys() - {"responses"}
    for name in TABLES.keys() - unmaterialised:
        shown = metadata(result, {"inventory": "image_inventory", "responses": "image_responses"}.get(name, name))
        path = lake.table(name, PARTITION)
        assert shown["dagster/partition_row_count"].value == pq.read_metadata(path).num_rows
        assert shown["dagster/uri"].value == f"file://{path}"
        assert shown["bytes"].value == path.stat().st_size
        assert shown["sha256"].value == manifest["files"][name]["sha256"]
    fetched = metadata(result, "image_responses")
    outcomes = {
        key.removeprefix("outcome_"): value.value for key, value in fetched.items() if key.startswith("outcome_")
    }
    assert (
        outcomes
        == manifest["fetch"]["outcomes"]
        == dict(Counter(pq.read_table(lake.table("responses", PARTITION))["outcome"].to_pylist()))
    )
    pages = manifest["files"]["list_pages"]["rows"]
    assert fetched["requests"].value == sum(outcomes.values()) + pages + 1  # the workspaces
    assert (pages, fetched["list_was_read"].value, fetched["usage_is_observed"].value) == (1, True, False)
    assert [name for name in fetched if name.endswith("_error")] == []
    assert fetched["workspaces"].value == "0"
    assert fetched["requests_per_second"].value > 0
    assert fetched["retries"].value == 0
    images = metadata(result, "images")
    rows = images["rows"].records
    assert [record.data["id"] for record in rows] == pq.read_table(lake.table("images", PARTITION))["id"].to_pylist()[
        :5
    ]
    inventory = metadata(result, "image_inventory")
    assert inventory["source"].value.endswith("inventory.csv")
    assert inventory["ids"].value == sum(outcomes.values())
    costs = pq.read_table(lake.table("image_costs", PARTITION))
    shown = metadata(result, "image_costs")
    assert shown["dagster/partition_row_count"].value == costs.num_rows > 40
    assert shown["total_bytes"].value == pc.sum(costs["size_bytes"]).as_py()
    findings = Counter(pq.read_table(lake.table("audit_findings", PARTITION))["severity"].to_pylist())
    shown = metadata(result, "audit_findings")
    assert {name: shown[f"open_{name}"].value for name in findings} == findings
    assert metadata(result, "image_history")["living_images"].value == outcomes["ok"]
    loaded = metadata(result, "warehouse_tables")
    with duckdb.connect("lake/warehouse.duckdb", read_only=True) as warehouse:
        assert warehouse.execute("SELECT COUNT(*) FROM image_costs").fetchone() == (loaded["rows_image_costs"].value,)
    assert loaded["rows_image_costs"].value == costs.num_rows
    report = metadata(result, "daily_report")
    assert report["report"].value == f"file://{lake.report(PARTITION)}"
    assert report["bytes"].value == lake.report(PARTITION).stat().st_size


def test_rebuild_of_a_middle_day_corrects_all_later_results(instance, tmp_path):
    days = [TODAY - dt.timedelta(days=back) for back in (2, 1, 0)]
    lake = Lake("lake")

    def at_noon_of(day):
        return lambda: dt.datetime.combine(day, dt.time(12), dt.UTC)

    for day in days:
        assert run(instance, partition=Partition(day, "default"), now=at_noon_of(day)).success

    def derived():
        derived_manifests = (read_derived_manifest(lake, Partition(day, "default")) for day in days)
        return [(derived_manifest.run_id, derived_manifest.summary) for derived_manifest in derived_manifests]

    before = derived()
    result = run(instance, REBUILD_JOB, Partition(days[1], "default"), now=at_noon_of(days[2]))
    assert result.success
    after = derived()
    # The same responses give the same figures in the rebuilt tables.
    assert [summary for _, summary in after] == [summary for _, summary in before]
    assert [run_id == result.run_id for run_id, _ in after] == [False, True, True]
    assert metadata(result, "warehouse_tables")["other_days_loaded"].value == 1
    assert metadata(result, "daily_report")["other_reports_written"].value == 1
    assert verify(lake, lake.contents.partitions()) == []


def test_checks_are_evaluated_inside_the_assets(instance, sandbox, tmp_path):
    id_ = pq_ids(tmp_path)[0]
    image = {"id": id_, "name": "n", "visibility": "SHARED", "accelerator": "npu", "size": "12"}
    httpx.put(f"{sandbox.endpoint}/sandbox/faults", json={"answers": {id_: {"body": image}}}).raise_for_status()
    result = run(instance)
    checks = {(e.asset_key.path[-1], e.check_name): e for e in result.get_asset_check_evaluations()}
    assert {key for key, check in checks.items() if check.passed} >= {
        ("image_inventory", "source_is_fresh"),
        ("image_responses", "is_complete"),
        ("image_responses", "list_was_read"),
        ("image_responses", "usage_is_observed"),
        ("images", "ids_are_unique"),
        ("images", "scope_is_whole"),
    }
    for name, found in {
        "no_new_fields": "accelerator",
        "no_new_values": "visibility=SHARED",
        "no_anomalies": "size:number_as_text",
    }.items():
        check = checks["images", name]
        assert not check.passed
        assert check.severity == dg.AssetCheckSeverity.WARN
        assert found in {record.data["name"] for record in check.metadata["found"].records}


def pq_ids(tmp_path):
    return [line.split(",")[0].lower() for line in (tmp_path / "inventory.csv").read_text().splitlines()[1:]]


def test_incomplete_day_succeeds_with_a_failed_check(instance, sandbox, tmp_path):
    broken = {"answers": {pq_ids(tmp_path)[0]: {"status": 400, "body": "broken"}}}
    httpx.put(f"{sandbox.endpoint}/sandbox/faults", json=broken).raise_for_status()
    result = run(instance, max_failed_ratio=0.1)
    assert result.success
    (check,) = [e for e in result.get_asset_check_evaluations() if e.check_name == "is_complete"]
    assert (check.passed, check.metadata["failed"].value) == (False, 1)


def test_unreadable_lists_fail_only_their_own_checks(instance, sandbox):
    httpx.put(f"{sandbox.endpoint}/sandbox/faults", json={"lists_forbidden": True}).raise_for_status()
    result = run(instance, usage="notebooks")
    assert result.success
    sentences = {
        name: f"The {what} list of {sandbox.endpoint.removeprefix('http://')} cannot be read (HTTP 403 ModelArts.0108)."
        for name, what in (("list", "image"), ("notebooks", "notebook"))
    }
    evaluations = [e for e in result.get_asset_check_evaluations() if "error" in e.metadata]
    failed = {e.check_name: e.metadata["error"].value for e in evaluations if not e.passed}
    assert (
        failed.items()
        >= {
            "list_was_read": sentences["list"],
            "usage_is_observed": f"notebooks: {sentences['notebooks']}",
        }.items()
    )
    shown = metadata(result, "image_responses")
    assert (shown["list_error"].value, shown["notebooks_error"].value) == (sentences["list"], sentences["notebooks"])
    assert (shown["list_was_read"].value, shown["usage_is_observed"].value) == (False, False)


def test_old_inventory_file_fails_only_its_check(instance, sandbox, tmp_path):
    old = dt.datetime.now(dt.UTC).timestamp() - 3 * 86_400
    (tmp_path / "old.csv").write_bytes((tmp_path / "inventory.csv").read_bytes())
    os.utime(tmp_path / "old.csv", (old, old))
    result = run(instance, inventory="old.csv")
    assert result.success
    (check,) = [e for e in result.get_asset_check_evaluations() if e.check_name == "source_is_fresh"]
    assert not check.passed


def test_failure_is_one_sentence_and_is_not_retried(instance, sandbox, monkeypatch):
    monkeypatch.setenv("OS_SECRET_KEY", "wrong")
    # Nobody waits, so the steps have a retry policy.
    job = build_definitions(Settings()).resolve_job_def(DAILY_JOB)
    result = job.execute_in_process(instance=instance, partition_key=partition_key(PARTITION), raise_on_error=False)
    assert not result.success
    (event,) = result.get_step_failure_events()
    failure = event.step_failure_data.user_failure_data
    assert "OS_SECRET_KEY" in failure.description
    assert failure.metadata["exit_status"].value == 2
    assert [e for e in result.all_events if e.event_type_value == "STEP_UP_FOR_RETRY"] == []
    assert instance.get_latest_materialization_event(dg.AssetKey("images")) is None


def test_failure_that_is_tried_again_is_noted_as_such(instance, sandbox, monkeypatch):
    monkeypatch.setattr(build, "_RETRY", dg.RetryPolicy(max_retries=2, delay=0.01))
    noted = []

    def fail(run):
        noted.extend(failure.is_tried_again for failure in last_failures(run.lake).values())
        raise EndpointUnreachableError("It cannot be reached.")

    monkeypatch.setattr(daily_snapshot, "take_inventory", fail)
    job = build_definitions(Settings()).resolve_job_def(DAILY_JOB)
    result = job.execute_in_process(instance=instance, partition_key=partition_key(PARTITION), raise_on_error=False)
    assert not result.success
    assert [*noted, last_failures(Lake("lake"))[PARTITION].is_tried_again] == [True, True, False]


def test_run_waits_for_a_locked_partition(instance, sandbox, monkeypatch):
    monkeypatch.setattr(build, "_RETRY", dg.RetryPolicy(max_retries=3, delay=0.01))
    definitions = build_definitions(Settings())

    def retries(result):
        return [e.step_key for e in result.all_events if e.event_type_value == "STEP_UP_FOR_RETRY"]

    def sentence(result):
        (event,) = result.get_step_failure_events()
        return event.step_failure_data.user_failure_data.description

    def unattended(job, *assets, release=True):
        take = Locks.partition

        @contextmanager
        def released_by_a_refusal(*arguments):
            try:
                with take(*arguments):
                    yield
            except PartitionBusyError:
                if release:
                    held.close()
                raise

        with ExitStack() as held, pytest.MonkeyPatch.context() as patch:
            held.enter_context(Lake("lake").locks.partition(PARTITION, "killed"))
            patch.setattr(Locks, "partition", released_by_a_refusal)
            return definitions.resolve_job_def(job).execute_in_process(
                instance=instance,
                partition_key=partition_key(PARTITION),
                asset_selection=[dg.AssetKey(name) for name in assets],
                raise_on_error=False,
            )

    waited = unattended(DAILY_JOB, "image_inventory")
    assert waited.success
    assert retries(waited) == ["image_inventory"]
    # A step without its own policy.
    held = unattended(REPUBLISH_JOB, "images", "image_values", "image_tags", release=False)
    assert retries(held) == ["publish_images"] * 3
    assert "is held by run killed" in sentence(held)
    released = unattended(REPUBLISH_JOB, "images", "image_values", "image_tags")
    assert retries(released) == ["publish_images"]
    assert sentence(released).startswith(f"Nothing is published for {PARTITION}")


def test_past_day_is_not_fetched_but_can_be_rebuilt(instance, sandbox):
    yesterday = Partition(TODAY - dt.timedelta(days=1), "default")
    noon = dt.datetime.combine(yesterday.date, dt.time(12), dt.UTC)
    assert run(instance, partition=yesterday, now=lambda: noon).success
    before = pq.read_table(Lake("lake").table("images", yesterday))
    refused = run(instance, partition=yesterday)
    assert not refused.success
    description = refused.get_step_failure_events()[0].step_failure_data.user_failure_data.description
    assert description.startswith(f"{yesterday.date} is over")
    assert run(instance, REBUILD_JOB, yesterday).success
    assert pq.read_table(Lake("lake").table("images", yesterday)).equals(before)


def test_run_may_end_some_hours_after_midnight(instance, sandbox):
    noon = dt.datetime.combine(TODAY, dt.time(12), dt.UTC)
    clock = [noon]
    definitions = build_definitions(Settings(late_fetch_hours=6), Attended(), lambda: clock[0])
    job = definitions.resolve_job_def(DAILY_JOB)

    def ends(moment, *assets):
        clock[0] = moment
        return job.execute_in_process(
            instance=instance,
            partition_key=partition_key(PARTITION),
            asset_selection=[dg.AssetKey(name) for name in assets],
            raise_on_error=False,
        ).success

    assert ends(noon, "image_inventory")
    assert not ends(noon + dt.timedelta(hours=18, minutes=1), "image_responses")
    assert ends(noon + dt.timedelta(hours=17, minutes=59), "image_responses")
    assert ends(noon + dt.timedelta(hours=30), "images", "image_values", "image_tags")


def test_schedule_requests_one_run_per_project():
    settings = Settings(projects={"alpha": "a" * 32, "beta": "b" * 32}, first_day=dt.date(2026, 11, 1))
    definitions = build_definitions(settings)
    schedule = definitions.resolve_schedule_def("daily_snapshot_schedule")
    assert schedule.cron_schedule == "17 2 * * *"
    assert schedule.execution_timezone == "UTC"
    context = dg.build_schedule_context(
        scheduled_execution_time=dt.datetime(2026, 11, 23, 2, 17, tzinfo=dt.UTC),
        repository_def=definitions.get_repository_def(),
    )
    requests = schedule.evaluate_tick(context).run_requests
    assert [request.partition_key.keys_by_dimension for request in requests] == [
        {"date": "2026-11-23", "project": "alpha"},
        {"date": "2026-11-23", "project": "beta"},
    ]
    assert len({request.run_key for request in requests}) == 2


def test_partitions_follow_the_projects_file_when_the_definitions_are_loaded_again(monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGE_SNAPSHOTS_PROJECTS", "projects.toml")
    monkeypatch.setenv("IMAGE_SNAPSHOTS_FIRST_DAY", str(TODAY - dt.timedelta(days=40)))

    def partitions(text):
        (tmp_path / "projects.toml").write_text(text)
        definitions = build_definitions(Settings.load())
        grids = [definitions.resolve_job_def(name).partitions_def for name in (DAILY_JOB, "compact_months")]
        return [sorted({key.keys_by_dimension["project"] for key in grid.get_partition_keys()}) for grid in grids]

    prod, lab = "[prod]\nproject_id = 'p1'\n", "[lab]\nproject_id = 'p2'\nusage = 'notebooks'\n"
    assert partitions(prod) == [["prod"]] * 2
    assert partitions(prod + lab) == [["lab", "prod"]] * 2
    assert partitions(lab) == [["lab"]] * 2


@pytest.mark.parametrize(("endpoint", "status"), [(None, "STOPPED"), ("https://modelarts.example.com", "RUNNING")])
def test_schedule_is_on_by_default_with_a_real_endpoint(endpoint, status):
    schedule = build_definitions(Settings(endpoint=endpoint)).resolve_schedule_def("daily_snapshot_schedule")
    assert schedule.default_status.value == status


def test_past_month_is_compacted_by_its_own_job(instance):
    last = TODAY.replace(day=1) - dt.timedelta(days=1)
    publish_snapshot(day_of(str(last)), images=[{"id": "0", "name": "a"}])
    settings = Settings(lake="lake", first_day=last)
    definitions = build_definitions(settings)
    schedule = definitions.resolve_schedule_def("compact_months_schedule")
    assert schedule.default_status.value == "STOPPED"
    context = dg.build_schedule_context(
        scheduled_execution_time=dt.datetime.combine(TODAY.replace(day=2), dt.time(7, 47), dt.UTC),
        repository_def=definitions.get_repository_def(),
    )
    (request,) = schedule.evaluate_tick(context).run_requests
    assert request.partition_key.keys_by_dimension == {"month": str(last.replace(day=1)), "project": "default"}

    def compacts():
        result = definitions.resolve_job_def("compact_months").execute_in_process(
            instance=instance, partition_key=request.partition_key, raise_on_error=False
        )
        return result.success and metadata(result, "monthly_tables")

    shown = compacts()
    assert shown["dagster/partition_row_count"].value == 1
    assert (shown["days"].value, shown["daily_files"].value, shown["was_current"].value) == (1, 4, False)
    Lake("lake").table("images", Partition(last, "default")).write_bytes(b"changed")
    shutil.rmtree("lake/_monthly")
    assert not compacts()


def test_partitions_end_with_today():
    (assets, *_) = build_definitions(Settings()).assets
    days = assets.partitions_def.get_partitions_def_for_dimension("date")
    assert days.get_last_partition_key() == str(TODAY)
    assert days.get_first_partition_key() == "2026-01-01"


def test_every_asset_has_description_and_metadata():
    definitions = build_definitions(Settings())
    specs = {spec.key.path[-1]: spec for spec in definitions.resolve_all_asset_specs()}
    snapshot = {"image_inventory", "image_responses", "images", "image_values", "image_tags"}
    assert set(specs) == {*snapshot, *ANALYSIS_TABLES, *DELIVERED, *UPSTREAM, "project_days"}
    for name, spec in specs.items():
        assert spec.description
        assert spec.kinds
        assert spec.owners == ([] if name in UPSTREAM else ["team:platform"])
        made = name not in {*UPSTREAM, "project_days"}
        assert ("parquet" in spec.kinds) == (made and name not in DELIVERED - {"monthly_tables", "lake_verification"})
    columns = specs["images"].metadata["dagster/column_schema"].columns
    assert [column.name for column in columns] == IMAGES.schema.names
    assert all(column.description for column in columns)
    assert {key.path[-1] for key in (dep.asset_key for dep in specs["images"].deps)} == {"image_responses"}
    assert {dep.asset_key.path[-1] for dep in specs["image_changes"].deps} == {"image_history", "image_storage"}
    without_usage = build_definitions(Settings(usage="none")).resolve_all_asset_specs()
    assert {spec.key.path[-1] for spec in without_usage} == set(specs) - {"image_usage"}
    without_registry = build_definitions(Settings(registry="false")).resolve_all_asset_specs()
    of_it = {"image_storage", "registry_only", "reclaimable"}
    assert {spec.key.path[-1] for spec in without_registry} == set(specs) - of_it


def look_after_runs(definitions, instance, cursor=None):
    """Evaluate the sensor as the daemon does; returns the next cursor and what it says."""
    (sensor,) = [one for one in definitions.sensors if one.name == "after_runs"]
    with dg.build_sensor_context(instance=instance, cursor=cursor, sensor_name=sensor.name) as context:
        skipped = sensor(context)
        return context.cursor, skipped.skip_message


def test_sensor_tells_failed_and_killed_runs_once(instance, sandbox, webhook, monkeypatch):
    definitions = build_definitions(Settings(notify=webhook.url), Attended())
    cursor, _ = look_after_runs(definitions, instance)
    monkeypatch.setenv("OS_SECRET_KEY", "wrong")
    result = definitions.resolve_job_def(DAILY_JOB).execute_in_process(
        instance=instance, partition_key=partition_key(PARTITION), raise_on_error=False
    )
    job = definitions.resolve_job_def(DAILY_JOB)
    tags = instance.get_run_by_id(result.run_id).tags
    killed, retried = (
        instance.create_run_for_job(job, tags=tags | more) for more in ({}, {"dagster/will_retry": "true"})
    )
    for run_ in (killed, retried):
        instance.report_run_failed(run_)
    webhook.requests.clear()
    cursor, says = look_after_runs(definitions, instance, cursor)
    assert says == "What is new was told and measured."
    failed = webhook.taken()["failed"]
    by_run = {item["run_id"]: item for item in failed["items"]}
    assert by_run.keys() == {result.run_id, killed.run_id}
    assert by_run[result.run_id]["project"] == "default"
    assert by_run[result.run_id]["date"] == str(TODAY)
    assert "OS_SECRET_KEY" in by_run[result.run_id]["reason"]
    assert by_run[killed.run_id]["reason"] == "The process of the run ended without saying why."
    assert failed["text"].startswith(f"image-snapshots: 2 runs failed\n\u2022 default, {TODAY}: ")
    _, says = look_after_runs(definitions, instance, cursor)
    assert says == "No run has ended, and the lake was looked at some minutes ago."
    assert webhook.requests == []


def test_sensor_tells_that_a_run_was_stopped(instance, webhook, monkeypatch):
    definitions = build_definitions(Settings(notify=webhook.url), Attended())
    cursor, _ = look_after_runs(definitions, instance)

    def stop(_):
        raise DagsterExecutionInterruptedError

    monkeypatch.setattr(daily_snapshot, "take_inventory", stop)
    with pytest.raises(DagsterExecutionInterruptedError):
        definitions.resolve_job_def(DAILY_JOB).execute_in_process(
            instance=instance, partition_key=partition_key(PARTITION)
        )
    webhook.requests.clear()
    look_after_runs(definitions, instance, cursor)
    (item,) = webhook.taken()["failed"]["items"]
    assert item["reason"] == "The process of the run was told to stop during image_inventory."


def test_nobody_to_tell_means_no_sensor():
    assert [sensor.name for sensor in build_definitions(Settings()).sensors] == ["project_freshness_sensor"]


def test_dg_loads_the_definitions(tmp_path):
    dg_command = Path(sys.executable).with_name("dg")
    result = subprocess.run([str(dg_command), "list", "defs", "--json"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    listed = json.loads(result.stdout)
    assert {asset["asset_key"] for asset in listed["assets"]} == {
        "image_inventory",
        "image_responses",
        "images",
        "image_values",
        "image_tags",
        *ANALYSIS_TABLES,
        *DELIVERED,
        *UPSTREAM,
        "project_days",
    }
