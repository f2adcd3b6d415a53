"""What each shipped rule must find, and what it must not find."""

import datetime as dt
import hashlib
import json
from dataclasses import replace

import pytest
from audited_days import SHIPPED, derive, findings_of
from published_days import PROJECT_ID, day_of, publish_snapshot, published_rows, rows_of

from pipelines.settings import ROOT, Settings
from pipelines.tables import (
    AUDIT_RULES,
    IMAGE_CHANGES,
    IMAGE_RECONCILIATION,
    IMAGE_USAGE,
    SEVERITIES,
)

TODAY = dt.date(2026, 11, 23)


def write_derived(day, table, rows):
    data = rows_of(table, rows, snapshot_date=day.partition.date, project_id=PROJECT_ID)
    with day.lake.writer(day.lake.table(table.name, day.partition), table, day.run_id) as writer:
        writer.write(data)


def days_ago(days):
    return dt.datetime(2026, 11, 23, 9, tzinfo=dt.UTC) - dt.timedelta(days=days)


def changed(id_, field, old, new):
    return {
        "id": id_,
        "change": "changed",
        "field": field,
        "old_value": old,
        "new_value": new,
        "change_class": "content",
        "compared_with": dt.date(2026, 11, 22),
    }


# Named after the rule that finds it, or after the reason why that rule does not.
IMAGES = [
    {"id": "public", "visibility": "public", "type": "Dedicated", "namespace": "ours", "description": "d"},
    {"id": "private", "visibility": "PRIVATE", "type": "DEDICATED"},
    {"id": "public-preset", "visibility": "PUBLIC", "type": "BUILD_IN", "description": "preset"},
    {"id": "public-blank", "visibility": "PUBLIC", "type": "BUILD_IN", "description": " "},
    {"id": "private-blank", "visibility": "PRIVATE", "description": ""},
    {"id": "widened", "visibility": "PUBLIC", "type": "BUILD_IN", "description": "d"},
    {"id": "narrowed", "visibility": "PRIVATE"},
    {"id": "recased", "visibility": "Public", "type": "BUILD_IN", "description": "d"},
    *({"id": id_, "swr_path": "swr.example/ours/a:1"} for id_ in ("resized", "updated", "renamed", "moved", "built")),
    {"id": "create-failed", "status": "Create_Failed", "status_message": "no space"},
    {"id": "error", "status": "ERROR"},
    {"id": "active", "status": "ACTIVE", "update_at": days_ago(9)},
    {"id": "stuck", "status": "creating", "create_at": days_ago(5), "update_at": days_ago(2)},
    {"id": "stuck-never-updated", "status": "INIT", "create_at": days_ago(2)},
    {"id": "building", "status": "CREATING", "create_at": days_ago(9), "update_at": days_ago(1)},
    {"id": "old", "create_at": days_ago(366)},
    {"id": "a-year", "create_at": days_ago(365)},
    {"id": "owned"},
    {"id": "no-owner"},
    {"id": "blank-cost-center"},
    {"id": "odd-arch", "arch": "riscv64"},
    {"id": "known-arch", "arch": "x86_64"},
    {"id": "odd-categories", "resource_categories": "CPU|FPGA|TPU", "support_res_categories": "TPU"},
    {"id": "known-categories", "resource_categories": "cpu"},
    {"id": "strange-namespace", "namespace": "theirs"},
    {"id": "used"},
    {"id": "unused-29"},
    {"id": "unused-30"},
    {"id": "unused-90"},
    {"id": "unobserved"},
    {"id": "giant", "type": "DEDICATED", "size_bytes": 100 * 2**30 + 1},
    {"id": "giant-unused-6", "type": "DEDICATED", "size_bytes": 200 * 2**30},
    {"id": "giant-preset", "type": "Build_In", "size_bytes": 200 * 2**30},
    {"id": "large", "type": "DEDICATED", "size_bytes": 100 * 2**30},
]


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """One day with cases that each rule must find, and cases that it must not."""
    lake = tmp_path_factory.mktemp("audited")
    settings = Settings(lake=str(lake), allowed_namespaces=["ours"])
    day = replace(day_of(str(TODAY)), settings=settings)
    owners = {"no-owner": {"cost_center": "cc"}, "blank-cost-center": {"owner": "o", "cost_center": " "}}
    ids = [*(image["id"] for image in IMAGES), "gone"]
    publish_snapshot(
        day,
        listed=[],
        references=[],
        inventory=[{"id": id_, **owners.get(id_, {"owner": "o", "cost_center": "cc"})} for id_ in ids],
        responses=[{"id": id_, "outcome": "not_found" if id_ == "gone" else "ok"} for id_ in ids],
        images=IMAGES,
        image_values=[
            {"id": "odd-categories", "field": "resource_categories", "position": 0, "value": "CPU"},
            {"id": "odd-categories", "field": "resource_categories", "position": 1, "value": "TPU"},
            {"id": "odd-categories", "field": "resource_categories", "position": 2, "value": "FPGA"},
            {"id": "odd-categories", "field": "support_res_categories", "position": 0, "value": "TPU"},
            {"id": "known-categories", "field": "resource_categories", "position": 0, "value": "cpu"},
            {"id": "known-categories", "field": "dev_services", "position": 0, "value": "TPU"},
        ],
    )
    write_derived(
        day,
        IMAGE_CHANGES,
        [
            changed("widened", "visibility", "PRIVATE", "PUBLIC"),
            changed("narrowed", "visibility", "PUBLIC", "PRIVATE"),
            changed("recased", "visibility", "PUBLIC", "Public"),
            changed("resized", "size", "10", "11"),
            changed("resized", "description", "a", "b"),
            changed("updated", "update_at", "2026-11-20T00:00:00.000000Z", "2026-11-22T00:00:00.000000Z"),
            changed("renamed", "update_at", "2026-11-20T00:00:00.000000Z", "2026-11-22T00:00:00.000000Z"),
            changed("renamed", "name", "a", "b"),
            changed("moved", "swr_path", "swr.example/ours/a:0", "swr.example/ours/a:1"),
            changed("moved", "size", "10", "11"),
            changed("built", "status", "CREATING", "ACTIVE"),
            changed("built", "size", "0", "11"),
        ],
    )
    write_derived(
        day,
        IMAGE_USAGE,
        [
            {"id": "used", "is_observed": True, "observed_days": 95, "unused_days": 0},
            {"id": "unused-29", "is_observed": True, "observed_days": 29, "unused_days": 29},
            {"id": "unused-30", "is_observed": True, "observed_days": 30, "unused_days": 30}
            | {"observed_kinds": "notebooks|services", "workspaces": 2},
            {"id": "unused-90", "is_observed": True, "observed_days": 95, "unused_days": 90},
            {"id": "unobserved", "is_observed": False, "observed_days": 95, "unused_days": 95},
            {"id": "giant", "is_observed": True, "observed_days": 7, "unused_days": 7},
            {"id": "giant-unused-6", "is_observed": True, "observed_days": 7, "unused_days": 6},
            {"id": "giant-preset", "is_observed": True, "observed_days": 7, "unused_days": 7},
            {"id": "large", "is_observed": True, "observed_days": 7, "unused_days": 7},
        ],
    )
    write_derived(
        day,
        IMAGE_RECONCILIATION,
        [
            {"id": "gone", "kind": "registered_but_gone", "outcome": "not_found", "name": "was-here"},
            {"id": "stray", "kind": "not_registered", "name": "who", "likely_owner": "o", "size_bytes": 1024},
        ],
    )
    return day, derive(day)


@pytest.mark.parametrize(
    ("rule", "ids"),
    [
        ("build_failed", {"create-failed", "error"}),
        ("build_stuck", {"stuck", "stuck-never-updated"}),
        ("large_and_unused", {"giant"}),
        ("namespace_not_allowed", {"strange-namespace"}),
        ("not_registered", {"stray"}),
        ("older_than_a_year", {"old"}),
        ("owner_missing", {"no-owner", "blank-cost-center"}),
        ("public_dedicated_image", {"public"}),
        ("public_without_description", {"public-blank"}),
        ("registered_but_gone", {"gone"}),
        ("tag_pushed_again", {"resized", "updated"}),
        ("unknown_architecture", {"odd-arch"}),
        ("unknown_category", {"odd-categories"}),
        ("unused_30_days", {"unused-30", "unused-90"}),
        ("unused_90_days", {"unused-90"}),
        ("visibility_widened", {"widened"}),
    ],
)
def test_shipped_rule_finds_its_case_and_no_near_miss(audited, rule, ids):
    found = findings_of(audited[0], rule)
    assert found.keys() == ids
    assert {finding["severity"] for finding in found.values()} == {SHIPPED[rule]}


def test_every_shipped_rule_is_run_and_counted(audited):
    day, result = audited
    rows = {row["rule"]: row for row in published_rows(day, AUDIT_RULES)}
    assert {name: row["severity"] for name, row in rows.items()} == SHIPPED
    assert {name: row["error"] for name, row in rows.items()} == dict.fromkeys(SHIPPED)
    assert rows["owner_missing"] == {
        "rule": "owner_missing",
        "title": "No owner or no cost centre",
        "severity": "medium",
        "why": "Without an owner nobody is responsible for the image, and without a cost centre nobody pays for it.",
        "what_to_do": "State both in the inventory, or as cloud tags of the image.",
        "findings": 2,
        "error": None,
        "sql_sha256": hashlib.sha256((ROOT / "sql/audit/owner_missing.sql").read_bytes()).hexdigest(),
    }
    assert rows["visibility_widened"]["why"] == (
        "Since the last complete day somebody has opened the image to everyone who knows its id. The finding appears "
        "only on the day of the change."
    )
    assert result.open_by_severity == {"critical": 0, "high": 3, "medium": 12, "low": 6, "info": 0}
    assert (result.new, result.resolved, result.suppressed, result.rule_errors) == (21, 0, 0, {})
    assert [(file.path.partition("/")[0], file.rows) for file in result.files] == [
        ("audit_rules", 19),
        ("audit_findings", 21),
    ]


def test_evidence_has_the_rule_s_columns_in_order(audited):
    day, _ = audited

    def evidence(rule, id_):
        return findings_of(day, rule)[id_]["evidence"]

    assert evidence("public_dedicated_image", "public") == (
        '{"visibility":"public","type":"Dedicated","namespace":"ours","swr_path":null}'
    )
    assert evidence("older_than_a_year", "old") == (
        '{"create_at":"2025-11-22T09:00:00.000000Z","update_at":null,"age_days":366}'
    )
    assert evidence("visibility_widened", "widened") == (
        '{"visibility_before":"PRIVATE","visibility_now":"PUBLIC","compared_with":"2026-11-22","actor":null,'
        '"actor_source_ip":null,"actor_unknown":null}'
    )
    assert json.loads(evidence("tag_pushed_again", "updated")) == {
        "swr_path": "swr.example/ours/a:1",
        "found_by": "size and time",
        "digest_before": None,
        "digest_now": None,
        "size_before": None,
        "size_now": None,
        "update_at_before": "2026-11-20T00:00:00.000000Z",
        "update_at_now": "2026-11-22T00:00:00.000000Z",
        "compared_with": "2026-11-22",
        "actor": None,
        "actor_source_ip": None,
        "actor_unknown": None,
    }
    assert json.loads(evidence("unknown_category", "odd-categories")) == {
        "unknown_value": "FPGA",
        "unknown_values": 2,
        "resource_categories": "CPU|FPGA|TPU",
        "support_res_categories": "TPU",
    }
    assert evidence("unused_30_days", "unused-30") == (
        '{"unused_days":30,"observed_days":30,"last_used_date":null,"observed_kinds":"notebooks|services",'
        '"workspaces":2}'
    )


def test_finding_names_the_owner_of_the_image(audited):
    day, _ = audited
    finding = findings_of(day, "registered_but_gone")["gone"]
    assert (finding["name"], finding["owner"], finding["cost_center"]) == ("was-here", "o", "cc")
    assert findings_of(day, "not_registered")["stray"]["name"] == "who"
    assert finding["finding_id"] == hashlib.sha256(b"p1/registered_but_gone/gone").hexdigest()[:32]


def test_unset_allow_list_allows_every_namespace():
    day = day_of("2026-11-23")
    publish_snapshot(day, responses=[{"id": "a", "outcome": "ok"}], images=[{"id": "a", "namespace": "theirs"}])
    assert derive(day).open_by_severity == dict.fromkeys(SEVERITIES, 0)
