"""Whatever path a record states, only the right place of its own table is read, replaced or removed."""

import datetime as dt
import json

import pytest
from published_days import day_of, publish_snapshot

from pipelines.errors import StorageError
from pipelines.lake.derived_manifests import manifest_files, read_derived_manifest, readable_manifest_files
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.local_storage import LocalPath
from pipelines.lake.manifests import published, published_days
from pipelines.lake.monthly_manifests import read_monthly_manifest
from pipelines.lake.retention_records import RetentionRecords, Rules
from pipelines.maintenance.compaction import compact
from pipelines.maintenance.retention import apply_retention
from pipelines.maintenance.status import day_statuses
from pipelines.tables import IMAGE_CHANGES, IMAGES
from pipelines.warehouse.loading import load_project

DAYS = ("2026-10-20", "2026-10-21", "2026-10-22")
FIRST = Partition(dt.date.fromisoformat(DAYS[0]), "default")
NOW = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC)
RULES = Rules(responses_days=1, snapshots_days=1)


@pytest.fixture
def victim(tmp_path):
    path = LocalPath(tmp_path / "victim")
    path.write_text("not of the lake")
    return path


@pytest.fixture
def lake():
    """Three published days, the first with a derived manifest that names one table."""
    for date in DAYS:
        publish_snapshot(day_of(date))
    lake = Lake("lake")
    name_in_first(lake, lake.key(lake.table(IMAGE_CHANGES.name, FIRST)))
    return lake


def name_in_first(lake, path, name=IMAGE_CHANGES.name, sha256="0" * 64):
    summary = dict.fromkeys(("is_complete", "is_priced"), True) | dict.fromkeys(
        ("images", "new_findings", "resolved_findings", "suppressed_findings", "total_bytes", "unpriced"), 0
    )
    summary |= dict.fromkeys(
        ("compared_with", "growth_bytes", "estimated_cost", "reclaimable_bytes", "unmatched_references")
    )
    summary |= {"changes": {}, "findings": {}, "rule_errors": {}, "currency": "EUR"}
    derived_manifest = {
        "snapshot_date": str(FIRST.date),
        "project": FIRST.project,
        "run_id": "run-1",
        "derived_at": NOW.isoformat(),
        "code_version": "1",
        "schema_version": 1,
        "basis": "0",
        "manifest_sha256": "0" * 64,
        "inputs": {
            **dict.fromkeys(("audit_rules", "price_book", "tag_keys"), "0" * 64),
            **dict.fromkeys(("suppressions", "allowed_namespaces")),
            "handed_on": {},
        },
        "history": {"path": "image_history", "rows": 0, "bytes": 0, "sha256": "0" * 64},
        "previous_record_sha256": None,
        "files": {name: {"path": path, "rows": 0, "bytes": 15, "sha256": sha256}},
        "summary": summary,
    }
    lake.derived_manifest(FIRST).write_whole(json.dumps(derived_manifest).encode())


def rewritten(path, change):
    record = json.loads(path.read_bytes())
    change(record)
    path.write_whole(json.dumps(record).encode())


def odd_paths(lake, victim):
    neighbour = Partition(dt.date.fromisoformat(DAYS[1]), "default")
    return [
        "../victim",
        str(victim),
        f"{IMAGE_CHANGES.name}/dt={DAYS[0]}/project=default/../../../../victim",
        f"{IMAGE_CHANGES.name}//dt={DAYS[0]}/project=default/{IMAGE_CHANGES.name}.parquet",
        lake.key(lake.manifest(FIRST)),
        lake.key(lake.table(IMAGES.name, FIRST)),
        lake.key(lake.table(IMAGE_CHANGES.name, neighbour)),
        "",
    ]


def test_path_in_a_derived_manifest_cannot_remove_other_files(lake, victim):
    for path in odd_paths(lake, victim):
        name_in_first(lake, path, sha256=victim.sha256())
        assert read_derived_manifest(lake, FIRST) is None, path
        assert IMAGE_CHANGES.name not in readable_manifest_files(lake, "default")[FIRST]
    name_in_first(lake, "../victim", sha256=victim.sha256())
    plan = apply_retention(lake, "default", RULES, NOW)
    assert victim.read_text() == "not of the lake"
    assert {removed.file.path for removed in plan.files} <= {
        lake.key(lake.table(removed.table, Partition(removed.snapshot_date, "default"))) for removed in plan.files
    }
    assert plan.files
    # An unknown table has no place.
    for name in ("../victim", "_manifests", "victim"):
        name_in_first(lake, f"{name}/x", name=name)
        assert read_derived_manifest(lake, FIRST) is None
    name_in_first(lake, lake.key(lake.table(IMAGE_CHANGES.name, FIRST)))
    assert read_derived_manifest(lake, FIRST) is not None


def test_manifest_that_names_another_place_is_damaged_for_all_readers(lake, victim):
    for path in odd_paths(lake, victim)[:4]:
        rewritten(lake.manifest(FIRST), lambda record, path=path: record["files"]["responses"].update(path=path))
        for use in (
            lambda: published(lake, FIRST),
            lambda: published_days(lake, "default"),
            lambda: manifest_files(lake, FIRST),
            lambda: apply_retention(lake, "default", RULES, NOW),
            lambda: compact(lake, "default", "2026-10", NOW),
            lambda: load_project(lake, FIRST, None),
        ):
            with pytest.raises(StorageError, match=r"^The manifest .* is damaged \(files\.responses\.path: not where"):
                use()
        assert FIRST not in readable_manifest_files(lake, "default")
        assert day_statuses(lake, [], FIRST.date, FIRST.date)[0].state == "damaged"
    assert victim.exists()
    assert lake.contents.retention_records("default") == {}


def test_retention_record_cannot_excuse_files_outside_the_tables(lake):
    apply_retention(lake, "default", RULES, NOW)
    (record,) = lake.contents.retention_records("default")
    RetentionRecords(lake, "default")
    for change in ({"file": {"path": "../victim", "rows": 0, "bytes": 1, "sha256": "0"}}, {"table": "../victim"}):
        rewritten(record, lambda found, change=change: found["files"][0].update(change))
        with pytest.raises(StorageError, match=r"^The retention record .* is damaged \(the path of .* is not where"):
            RetentionRecords(lake, "default")


def test_monthly_manifest_that_names_another_place_is_ignored(lake, victim):
    lake.derived_manifest(FIRST).unlink()
    compact(lake, "default", "2026-10", NOW)
    record = lake.monthly_manifest("2026-10", "default")
    whole = record.read_bytes()
    assert read_monthly_manifest(lake, "2026-10", "default") is not None
    for change in (
        lambda found: found["files"]["images"].update(path="../victim", sha256=victim.sha256()),
        lambda found: found["files"].update({"../victim": found["files"]["images"]}),
        lambda found: found.update(project="../victim"),
        lambda found: found.update(month="2026-09"),
    ):
        record.write_whole(whole)
        rewritten(record, change)
        assert read_monthly_manifest(lake, "2026-10", "default") is None
    assert not compact(lake, "default", "2026-10", NOW).was_current
    assert record.read_bytes() != whole or read_monthly_manifest(lake, "2026-10", "default") is not None


def test_retention_removes_nothing_behind_a_link_out_of_the_lake(lake, tmp_path):
    path = lake.table("responses", FIRST)
    outside = tmp_path / "outside"
    path.parent.rename(outside)
    path.parent.symlink_to(outside)
    with pytest.raises(
        StorageError, match=rf"^{path} lies outside the lake, because a link leads to {outside}, so nothi"
    ):
        apply_retention(lake, "default", RULES, NOW)
    assert (outside / "responses.parquet").exists()
    assert lake.contents.retention_records("default") == {}
    # A link within the lake, or to the lake, stays inside.
    (tmp_path / "linked").symlink_to(tmp_path / "lake")
    path.parent.unlink()
    outside.rename(path.parent)
    assert apply_retention(Lake("linked"), "default", RULES, NOW).files


def test_retention_record_is_not_overwritten_after_an_earlier_one_was_removed(lake):
    apply_retention(lake, "default", Rules(responses_days=1, snapshots_days=None), NOW)
    apply_retention(lake, "default", RULES, NOW)
    first, second = lake.contents.retention_records("default")
    kept = second.read_bytes()
    first.unlink()
    publish_snapshot(day_of("2026-10-23"))
    apply_retention(lake, "default", RULES, NOW)
    assert [path.stem for path in lake.contents.retention_records("default")] == ["000002", "000003"]
    assert second.read_bytes() == kept
