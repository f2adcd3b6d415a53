"""Who uses images: what a run reads of notebooks, jobs, algorithms, models, services and workflows of a real server."""

import datetime as dt
import json

import httpx
import pyarrow.parquet as pq
import pytest

from pipelines.bodies.image_reference import parse_reference
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import outside_scope
from pipelines.sandbox.catalogue import Catalogue
from pipelines.sandbox.series import SECRET_MARK
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory
from pipelines.tables import IMAGE_REFERENCES, RESPONSES

MONDAY = dt.date(2026, 11, 16)
SIZE = 300
USAGE = "notebooks,training_jobs,algorithms,models,services,workflows"


@pytest.fixture
def cloud(start_sandbox, tmp_path, monkeypatch):
    """A sandbox with two workspaces, and its credentials in the environment."""
    sandbox = start_sandbox(size=SIZE, day=MONDAY, inventory_file=tmp_path / "inventory.csv", workspaces=2)
    for name, value in sandbox.env.items():
        monkeypatch.setenv(name, value)
    return sandbox


def steer(cloud, **faults):
    httpx.patch(f"{cloud.endpoint}/sandbox/faults", json=faults).raise_for_status()


def set_day(cloud, date):
    httpx.put(f"{cloud.endpoint}/sandbox/day", json={"day": date.isoformat()}).raise_for_status()


def requests(cloud):
    return httpx.get(f"{cloud.endpoint}/sandbox/stats").json()["requests"]


def take(date=MONDAY, usage=USAGE, **settings):
    """Take a day, and return its manifest and the rows of `image_references`."""
    moment = dt.datetime.combine(date, dt.time(12), dt.UTC)
    run = SnapshotRun(
        Partition(date, "default"), "run-1", Settings(lake="lake", usage=usage, **settings), lambda: moment
    )
    take_inventory(run)
    fetch_responses(run, lambda _: None)
    manifest = publish_snapshot(run).manifest
    with Lake("lake").table(IMAGE_REFERENCES.name, run.partition).open("rb") as file:
        return manifest, pq.read_table(file).to_pylist()


def catalogue(**options):
    return Catalogue("sandbox", SIZE, "default", 2, **options)


def named(rows):
    """What rows say, in the words of the sandbox's own record."""
    return sorted((row["kind"], row["resource_id"], said(row), strength(row), row["workspace_id"]) for row in rows)


def said(row):
    reference = row["image_reference"]
    return reference.lower() if reference is not None else row["image_id"]


def strength(row):
    # The record does not tell jobs that are over, and counts as running what has that very status alone.
    if row["strength"] == "past" or (row["status"] or "").upper() in ("CONCERNING", "DEPLOYING", "PENDING"):
        return "copied" if row["strength"] == "copied" else "required"
    return row["strength"]


def known(date, kinds=None):
    """The sandbox's own record; the built copy of a model, which is no image of the catalogue, is not in it."""
    return sorted(
        (one.kind, one.resource_id, one.reference.lower(), one.strength, one.workspace_id)
        for one in catalogue().references(date)
        if kinds is None or one.kind in kinds
    )


def is_built_copy(row):
    return "/modelarts-built/" in (row["image_reference"] or "")


def test_a_run_finds_every_reference_that_the_cloud_knows_of(cloud):
    manifest, rows = take()
    assert named(row for row in rows if not is_built_copy(row)) == known(MONDAY)
    assert {kind for kind, *_ in known(MONDAY)} == {
        "notebook",
        "training_job",
        "algorithm",
        "model",
        "service",
        "workflow",
    }
    assert {row["workspace_id"] for row in rows} == set(manifest.fetch.scope.workspaces)
    assert (manifest.fetch.scope.origin, len(manifest.fetch.scope.workspaces)) == ("asked", 2)
    assert manifest.fetch.scope.outside == []
    assert manifest.fetch.usage_is_observed
    sources = {name: manifest.fetch.sources[name] for name in manifest.fetch.usage_kinds}
    assert {name: (facts.was_read, facts.error, facts.partial) for name, facts in sources.items()} == (
        dict.fromkeys(USAGE.split(","), (True, None, None))
    )


def test_a_reference_is_taken_apart_so_that_it_can_be_matched(cloud):
    _, rows = take()
    for row in rows:
        if row["image_reference"] is not None:
            parsed = parse_reference(row["image_reference"])
            assert (row["image_path"], row["image_tag"], row["image_digest"]) == parsed[2:]
    assert {row["image_digest"] is None for row in rows} == {True, False}
    assert any(row["image_path"] and "100.125." in row["image_reference"] for row in rows)


def test_nothing_secret_of_a_definition_is_kept(cloud, tmp_path):
    take()
    written = [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]
    assert written
    assert [path for path in written if SECRET_MARK.encode() in path.read_bytes()] == []
    columns = pq.read_table(next(path for path in written if path.name == "image_references.parquet"))
    assert SECRET_MARK not in str(columns.to_pylist())


# -- how far the day looked


def test_workspaces_that_the_api_does_not_list_are_found_in_what_images_state(cloud):
    steer(cloud, sources_missing=["workspaces"])
    manifest, rows = take()
    scope = manifest.fetch.scope
    assert (scope.origin, scope.outside) == ("assumed", [])
    assert sorted(scope.workspaces) == sorted(catalogue().workspace_ids(MONDAY))
    assert "workspace list" in scope.error
    assert named(row for row in rows if not is_built_copy(row)) == known(MONDAY)
    assert manifest.fetch.usage_is_observed


def test_a_list_of_workspaces_that_fails_stops_nothing_and_observes_nothing(cloud):
    steer(cloud, sources_broken=["workspaces"])
    manifest, rows = take()
    scope = manifest.fetch.scope
    assert manifest.is_complete
    assert (scope.origin, sorted(scope.workspaces)) == ("unread", sorted(catalogue().workspace_ids(MONDAY)))
    assert "The workspace list of 127.0.0.1" in scope.error
    assert named(row for row in rows if not is_built_copy(row)) == known(MONDAY)
    assert not manifest.fetch.usage_is_observed
    assert outside_scope(manifest.fetch) == f"{scope.error} So there may be workspaces that were not read."


def test_a_stated_workspace_is_all_that_is_read_and_the_others_are_named(cloud):
    second = next(one for one in catalogue().workspace_ids(MONDAY) if one != "0")
    manifest, rows = take(workspaces="0")
    scope = manifest.fetch.scope
    assert (scope.workspaces, scope.origin, scope.outside) == (["0"], "stated", [second])
    # The list of workflows has no workspaces.
    assert {row["kind"] for row in rows if row["workspace_id"] == second} <= {"workflow"}
    assert not manifest.fetch.usage_is_observed


def test_an_api_that_ignores_the_workspace_shows_each_resource_once(cloud):
    steer(cloud, lists_ignore_workspace=True)
    manifest, rows = take()
    assert named(row for row in rows if not is_built_copy(row)) == known(MONDAY)
    assert manifest.fetch.usage_is_observed


def test_an_inventory_of_the_api_has_the_images_of_all_workspaces(cloud):
    manifest, _ = take(usage="none", inventory="modelarts:")
    assert manifest.inventory.ids == sum(1 for _ in catalogue().ids(MONDAY))
    assert manifest.inventory.shortfall == 0


def test_an_incremental_day_confirms_images_of_all_workspaces(cloud):
    take(usage="none")
    tuesday = MONDAY + dt.timedelta(days=1)
    set_day(cloud, tuesday)
    before = requests(cloud)["image"]
    manifest, _ = take(tuesday, usage="none", mode="changed")
    asked = requests(cloud)["image"] - before
    assert manifest.fetch.carried + asked + manifest.fetch.outcomes.get("invalid_id", 0) == manifest.inventory.ids
    path = Lake("lake").table(RESPONSES.name, Partition(tuesday, "default"))
    with path.open("rb") as file:
        rows = pq.read_table(file, columns=["confirmed_at", "body"]).to_pylist()
    carried = [json.loads(row["body"]) for row in rows if row["confirmed_at"] is not None]
    # Some images do not state theirs.
    assert {one.get("workspace_id") for one in carried} - {None} == set(manifest.fetch.scope.workspaces)
    assert asked < manifest.inventory.ids / 4


def test_a_workspace_that_appears_is_read_from_its_first_day_on(start_sandbox, tmp_path, monkeypatch):
    tuesday = MONDAY + dt.timedelta(days=1)
    options = {"size": SIZE, "day": MONDAY, "workspaces": 2, "inventory_file": tmp_path / "inventory.csv"}
    cloud = start_sandbox(**options, second_workspace_since=tuesday)
    for name, value in cloud.env.items():
        monkeypatch.setenv(name, value)
    before, _ = take()
    set_day(cloud, tuesday)
    after, rows = take(tuesday)
    assert before.fetch.scope.workspaces == ["0"]
    assert len(after.fetch.scope.workspaces) == 2
    assert {row["workspace_id"] for row in rows} == set(after.fetch.scope.workspaces)


# -- sources that cannot be read


@pytest.mark.parametrize("fault", ["sources_forbidden", "sources_missing", "sources_broken"])
@pytest.mark.parametrize("source", ["notebooks", "training_jobs", "algorithms", "models", "workflows"])
def test_a_source_that_cannot_be_read_is_the_only_one_that_is_lost(cloud, source, fault):
    steer(cloud, **{fault: [source]})
    manifest, rows = take()
    facts = manifest.fetch.sources
    kind = source.removesuffix("s")
    assert (facts[source].wanted, facts[source].was_read) == (True, False)
    assert "cannot be read (HTTP " in facts[source].error
    assert not manifest.fetch.usage_is_observed
    assert [row for row in rows if row["kind"] == kind] == []
    # Services and jobs that use an image by what could not be read say so.
    blind = {"models": "services", "algorithms": "training_jobs"}.get(source)
    for name in set(manifest.fetch.usage_kinds) - {source}:
        assert facts[name].was_read
        assert (facts[name].partial is not None) == (name == blind), name
    others = {one for one in KINDS if one not in (kind, blind and blind.removesuffix("s"))}
    assert named(row for row in rows if row["kind"] in others and not is_built_copy(row)) == known(MONDAY, others)


KINDS = ("notebook", "training_job", "algorithm", "model", "service", "workflow")


@pytest.mark.parametrize("missing", ["services_v1", "services_v2"])
def test_a_cloud_has_one_api_of_services_or_the_other(cloud, missing):
    steer(cloud, sources_missing=[missing])
    manifest, rows = take()
    assert manifest.fetch.usage_is_observed
    services = [row for row in rows if row["kind"] == "service"]
    assert services
    assert {row["via_id"] is None for row in services} == {missing == "services_v1"}


def test_an_api_of_services_that_is_forbidden_is_not_one_that_is_not_there(cloud):
    steer(cloud, sources_missing=["services_v1"], sources_forbidden=["services_v2"])
    manifest, _ = take()
    assert manifest.fetch.sources["services"].error is not None
    steer(cloud, sources_missing=["services_v1", "services_v2"], sources_forbidden=[])
    manifest, rows = take()
    assert manifest.fetch.sources["services"].error is not None
    assert [row for row in rows if row["kind"] == "service"] == []


def test_jobs_of_the_current_user_alone_are_not_all_jobs(cloud):
    steer(cloud, jobs_of_user_only=True)
    manifest, rows = take()
    jobs = manifest.fetch.sources["training_jobs"]
    assert jobs.was_read
    assert "the current user alone" in jobs.partial
    assert len({row["user"] for row in rows if row["kind"] == "training_job"}) <= 1
    assert not manifest.fetch.usage_is_observed


def test_a_narrower_usage_asks_for_nothing_else(cloud):
    manifest, rows = take(usage="notebooks")
    assert {row["kind"] for row in rows} == {"notebook"}
    assert manifest.fetch.usage_is_observed
    assert manifest.fetch.usage_kinds == ["notebooks"]
    assert not {"training_jobs", "algorithms", "models", "services_v1", "workflows"} & requests(cloud).keys()


def test_services_without_their_models_are_known_in_part(cloud):
    manifest, rows = take(usage="services")
    assert "that were not read" in manifest.fetch.sources["services"].partial
    unknown = [row for row in rows if row["image_reference"] is None and row["image_id"] is None]
    assert len(unknown) == manifest.fetch.sources["services"].unresolved > 0


# -- requests


def test_pages_become_smaller_where_a_cloud_refuses_their_size(cloud):
    steer(cloud, max_page=20)
    manifest, rows = take()
    assert named(row for row in rows if not is_built_copy(row)) == known(MONDAY)
    assert manifest.fetch.usage_is_observed
    assert manifest.fetch.list_was_read


def test_details_are_asked_for_again_only_of_what_changed(cloud):
    take()
    first = requests(cloud)
    tuesday = MONDAY + dt.timedelta(days=1)
    set_day(cloud, tuesday)
    manifest, rows = take(tuesday)
    second = {name: count - first[name] for name, count in requests(cloud).items()}
    services = sum(1 for _ in catalogue().references(tuesday) if _.kind == "service")
    assert 0 <= second.get("service_v1", 0) + second.get("service_v2", 0) < services
    assert second["service_v1"] < first["service_v1"]
    assert named(row for row in rows if not is_built_copy(row)) == known(tuesday)
    assert manifest.fetch.sources["services"].requests < 10


def test_a_service_that_stops_no_longer_runs_its_images(cloud):
    """Its list shows the status and no update, so its details are not asked for again."""
    saturday, sunday = MONDAY + dt.timedelta(days=5), MONDAY + dt.timedelta(days=6)
    set_day(cloud, saturday)
    _, before = take(saturday)
    set_day(cloud, sunday)
    _, after = take(sunday)
    assert named(row for row in after if not is_built_copy(row)) == known(sunday)
    of_images = {row["resource_id"]: row for row in before if row["kind"] == "service" and row["via_id"] is None}
    changed = [row for row in after if row["resource_id"] in of_images]
    assert {(of_images[row["resource_id"]]["strength"], row["strength"]) for row in changed} >= {
        ("running", "required"),
        ("required", "running"),
    }


def test_what_a_source_showed_before_it_failed_is_kept(start_sandbox, tmp_path, monkeypatch):
    """The second API of services fails after the first was read: its uses count, and the source is not whole."""
    cloud = start_sandbox(size=SIZE, day=MONDAY, inventory_file=tmp_path / "inventory.csv")
    for name, value in cloud.env.items():
        monkeypatch.setenv(name, value)
    steer(cloud, sources_broken=["services_v2"])
    manifest, rows = take()
    services = manifest.fetch.sources["services"]
    assert (services.was_read, "cannot be read (HTTP 500" in services.error) == (False, True)
    kept = [row for row in rows if row["kind"] == "service"]
    assert kept
    assert {row["via_id"] is None for row in kept} == {False}
    assert not manifest.fetch.usage_is_observed
