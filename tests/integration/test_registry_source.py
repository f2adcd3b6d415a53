"""What the registry stores: what a run reads of a real server, in both versions of its API, and derives from it."""

import datetime as dt
import json

import httpx
import pyarrow.parquet as pq
import pytest

from pipelines.derive.days import derive_days
from pipelines.lake.derived_manifests import read_derived_manifest
from pipelines.lake.layout import Lake, Partition
from pipelines.sandbox.catalogue import Catalogue
from pipelines.sandbox.registry import FORBIDDEN, Registry
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory
from pipelines.tables import IMAGE_STORAGE, REGISTRY_LAYERS, REGISTRY_PAGES, REGISTRY_TAGS

MONDAY = dt.date(2026, 11, 16)
SIZE = 120
RECORD = Registry(Catalogue("sandbox", SIZE))


@pytest.fixture
def cloud(start_sandbox, tmp_path, monkeypatch):
    sandbox = start_sandbox(size=SIZE, day=MONDAY, inventory_file=tmp_path / "inventory.csv")
    for name, value in sandbox.env.items():
        monkeypatch.setenv(name, value)
    return sandbox


def steer(cloud, **faults):
    httpx.patch(f"{cloud.endpoint}/sandbox/faults", json=faults).raise_for_status()


def requests(cloud):
    return httpx.get(f"{cloud.endpoint}/sandbox/stats").json()["requests"]


def take(date=MONDAY, *, derives=False, **settings):
    """Take a day, and return its manifest."""
    moment = dt.datetime.combine(date, dt.time(12), dt.UTC)
    stated = {"lake": "lake", "usage": "none", "traces": "false", "registry": "true", "reconcile": False}
    run = SnapshotRun(Partition(date, "default"), "run-1", Settings(**stated | settings), lambda: moment)
    take_inventory(run)
    fetch_responses(run, lambda _: None)
    manifest = publish_snapshot(run).manifest
    if derives:
        derive_days(run)
    return manifest


def rows(table, date=MONDAY):
    with Lake("lake").table(table.name, Partition(date, "default")).open("rb") as file:
        return pq.read_table(file).drop_columns(["snapshot_date", "project_id"]).to_pylist()


def named(tag):
    return tag.tag or f"@{tag.manifest.digest}"


def milliseconds(moment):
    return round(moment.timestamp() * 1000)


def readable(namespaces):
    """The tags of the record that a run can read, by key."""
    return {
        (tag.namespace, tag.repository, named(tag)): tag
        for tag in RECORD.all_tags(MONDAY)
        if tag.namespace in namespaces and (tag.namespace, tag.repository) != FORBIDDEN
    }


@pytest.mark.parametrize(("missing", "version"), [([], 2), (["registry_v2"], 3)])
def test_a_run_reads_every_tag_and_layer_in_either_version(cloud, monkeypatch, missing, version):
    # Large pages are refused, and small ones are many.
    monkeypatch.setattr("pipelines.cloud.registry.PAGE_SIZES", (1000, 2))
    steer(cloud, sources_missing=missing, max_page=2)
    manifest = take()
    facts, scope = manifest.fetch.sources["registry"], manifest.fetch.registry
    expected = readable(scope.namespaces)
    found = {(row["namespace"], row["repository"], row["tag"]): row for row in rows(REGISTRY_TAGS)}
    assert found.keys() == expected.keys()
    layers = {}
    for row in rows(REGISTRY_LAYERS):
        layers.setdefault(row["digest"], {})[row["layer_digest"]] = row["size_bytes"]
    for key, row in found.items():
        tag = expected[key]
        assert (row["digest"], row["size_bytes"], row["tag_type"]) == (tag.manifest.digest, tag.size, tag.tag_type)
        assert (milliseconds(row["created"]), milliseconds(row["updated"])) == (max(tag.created, 0), tag.updated)
        assert row["downloads"] == RECORD.downloads(MONDAY, *key[:2])
        assert layers[row["digest"]] == dict(tag.manifest.layers)
        assert row["layers"] == len(tag.manifest.layers)
        assert (row["config_digest"] is None) == (row["tag_type"] == 1)
    assert {row["tag_type"] for row in found.values()} == {0, 1}
    assert any(tag.startswith("@") for _, _, tag in found)
    # Two tags of one manifest have its layers once.
    assert len(layers) == len({tag.manifest.digest for tag in expected.values()}) < len(expected)
    assert (facts.was_read, facts.error, facts.items) == (True, None, len(expected))
    assert [(one.namespace, one.repository) for one in scope.unread] == [FORBIDDEN]
    assert "/".join(FORBIDDEN) in facts.partial
    kinds = [row["kind"] for row in rows(REGISTRY_PAGES)]
    assert set(kinds) == {"repositories", "tags", "manifest"}
    assert facts.requests >= len(kinds) + 2
    assert json.loads(rows(REGISTRY_PAGES)[0]["body"]) is not None
    assert version == (3 if b"nextMarker" in rows(REGISTRY_PAGES)[0]["body"] else 2)


@pytest.mark.parametrize(
    ("faults", "status"),
    [
        ({"sources_forbidden": ["registry"]}, "HTTP 403 SVCSTG.SWR.4030000"),
        ({"sources_missing": ["registry"]}, "HTTP 404 APIG.0101"),
        ({"sources_broken": ["registry"]}, "HTTP 500 SVCSTG.SWR.5000000"),
    ],
    ids=["forbidden", "missing", "broken"],
)
def test_registry_that_shows_nothing_is_not_an_empty_one(cloud, faults, status):
    steer(cloud, **faults)
    manifest = take(derives=True)
    facts, scope = manifest.fetch.sources["registry"], manifest.fetch.registry
    assert (facts.was_read, facts.items, facts.partial) == (False, 0, None)
    assert status in facts.error
    assert (scope.namespaces, scope.unread) == ([], [])
    assert rows(REGISTRY_TAGS) == rows(REGISTRY_LAYERS) == rows(REGISTRY_PAGES) == []
    states = {row["state"] for row in rows(IMAGE_STORAGE)}
    assert states == {"unread", "elsewhere"}
    summary = read_derived_manifest(Lake("lake"), Partition(MONDAY, "default")).summary.registry
    assert (summary.tags, summary.stored_bytes, summary.only_tags) == (None, None, None)
