"""Fourteen days of the sandbox, four of them faulty: the derived tables match the sandbox's own record.

On Friday 27 February two images have no response, and the day is published incomplete. On Saturday models and traces
cannot be read, on Sunday the registry. On Monday 2 March a second workspace appears. On Tuesday every fourth request
meets a temporary fault, and the day ends complete. On Thursday 5 March too many images have no response: nothing is
published.
"""

import datetime as dt
import json
import shutil
from dataclasses import replace

import pytest
from golden_bills import REGISTRY, charges, check_bills, expected_parts, new_statements, statements, total, weights
from golden_days import (
    APPEARS,
    BACK,
    BUSY,
    CATALOGUE,
    CHANGING_HANDS,
    COMPLETE,
    DATES,
    HANDED_OVER,
    INCOMPLETE,
    LEFT,
    MIDDLE,
    MISSED,
    REGISTRY_UNREAD_ON,
    UNREAD,
    UNREAD_ON,
    UNREGISTERED_FOR_A_WHILE,
    by_id,
    check_needed_images,
    make_golden,
    make_unused_sooner,
    manifest_of,
    needed_on,
    register_of,
    story,
)
from golden_oracle import FIELDS, as_text, content_of
from once_per_run import once_per_run

from pipelines.derive.days import derive_days
from pipelines.lake.derived_manifests import read_derived_manifest
from pipelines.lake.layout import Partition
from pipelines.lake.stored_responses import failed_ids
from pipelines.snapshot.steps import publish_snapshot
from pipelines.tables import ANALYSIS_TABLES, IMAGE_HISTORY


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    return once_per_run(tmp_path_factory, "golden", make_golden)


@pytest.fixture(autouse=True)
def unused_sooner(monkeypatch):
    make_unused_sooner(monkeypatch)


def test_days_have_their_planned_states(golden):
    """The important stories happen on the faulty days, and every kind of event in the fortnight."""
    published = golden.lake.contents.partitions()
    assert [partition.date for partition in published] == [date for date in DATES if date != MISSED]
    assert [p.date for p in published if not manifest_of(golden, p.date)["is_complete"]] == [INCOMPLETE]
    failed = {row.id for row in failed_ids(golden.lake.table("responses", Partition(INCOMPLETE, "default")))}
    assert failed == {story("narrowed", INCOMPLETE), story("failed-build", INCOMPLETE)}
    sources = {date: manifest_of(golden, date)["fetch"]["sources"] for date in golden.oracle.knowledge}
    assert {source["wanted"] for of_day in sources.values() for source in of_day.values()} == {True}
    unread = {(date, name) for date, of_day in sources.items() for name in of_day if not of_day[name]["was_read"]}
    assert unread == {(UNREAD_ON, name) for name in UNREAD} | {(REGISTRY_UNREAD_ON, "registry")}
    scopes = {date: manifest_of(golden, date)["fetch"]["scope"]["workspaces"] for date in golden.oracle.knowledge}
    assert scopes == {date: CATALOGUE.workspace_ids(date) for date in scopes}
    assert {len(workspaces) for workspaces in scopes.values()} == {1, 2}
    assert all(golden.busy.get(kind, 0) > 0 for kind in ("429", "500", "reset", "truncated"))
    assert manifest_of(golden, BUSY)["fetch"]["outcomes"].get("failed") is None

    def kinds(date, name):
        return {event.kind for event in CATALOGUE.events(date, date) if event.id == story(name, date)}

    assert kinds(INCOMPLETE, "narrowed") == {"widened", "updated"}
    assert kinds(INCOMPLETE, "vanishing") == {"vanished"}
    assert kinds(INCOMPLETE, "failed-build") == {"status", "updated"}
    assert kinds(BUSY, "re-pushed") == {"re_pushed", "updated"}
    assert kinds(MISSED, "short-lived") == {"deleted"}
    assert kinds(MISSED, "widened") == {"narrowed", "updated"}
    assert {event.kind for event in CATALOGUE.events(DATES[1], DATES[-1])} == {
        *("created", "returned", "vanished", "deleted", "gone", "forbidden", "readable"),
        *("re_pushed", "narrowed", "widened", "status", "updated"),
    }


each_published_day = pytest.mark.parametrize("date", [date for date in DATES if date != MISSED], ids=str)


@each_published_day
def test_changes_of_a_day_match_the_sandbox_record(golden, date):
    assert golden.changes(date) == golden.oracle.changes(date, golden.storage.digest_changes(date))


@each_published_day
def test_reconciliation_of_a_day_matches_the_sandbox_record(golden, date):
    assert golden.rows("image_reconciliation", date) == golden.oracle.reconciliation(date)


@each_published_day
def test_usage_of_a_day_matches_the_sandbox_record(golden, date):
    assert by_id(golden.rows("image_usage", date)) == by_id(golden.oracle.usage(date))
    if date != UNREAD_ON:
        summary = read_derived_manifest(golden.lake, Partition(date, "default")).summary
        assert summary.unmatched_references == golden.oracle.unmatched(date)


@each_published_day
def test_no_image_in_use_is_called_unused(golden, date):
    check_needed_images(golden, date)


def test_images_that_only_an_unread_source_needs_are_as_unused_as_before(golden):
    rows = by_id(golden.rows("image_usage", UNREAD_ON))
    before = by_id(golden.rows("image_usage", INCOMPLETE))
    hidden = {id_ for id_ in needed_on(UNREAD_ON) & rows.keys() if rows[id_]["running"] + rows[id_]["required"] == 0}
    assert hidden
    assert [rows[id_]["unused_days"] for id_ in hidden] == [before[id_]["unused_days"] for id_ in hidden]


def test_a_giant_that_services_need_is_never_unused(golden):
    last = DATES[-1]
    rows = by_id(golden.rows("image_usage", last))
    giant, copied = rows[story("unused-giant", last)], rows[story("copied-from", last)]
    assert (giant["notebooks"], giant["models"], giant["services"], giant["unused_days"]) == (0, 1, 2, 0)
    # A copy is no use.
    assert (copied["copied"], copied["running"] + copied["required"]) == (1, 0)
    assert copied["unused_days"] == copied["observed_days"] > 0


def test_an_image_that_nobody_registered_shows_in_the_second_workspace(golden):
    for date in (APPEARS, DATES[-1]):
        image = CATALOGUE.image(story("elsewhere", date), date)
        assert image["workspace_id"] == CATALOGUE.second_workspace
        assert by_id(golden.rows("image_reconciliation", date))[image["id"]]["kind"] == "not_registered"


@each_published_day
def test_costs_of_a_day_match_the_sandbox_record(golden, date):
    expected = by_id(golden.oracle.costs(date))
    rows = by_id(golden.rows("image_costs", date))
    assert {row.pop("currency") for row in rows.values()} == {"EUR"}
    assert {row.pop("registry") for row in rows.values()} == {"swr.eu-de.otc.t-systems.com"}
    for id_, row in rows.items():
        # Bills have a test of their own.
        for name in ("billed_date", "billed_currency", "billed_cost", "billed_registry_cost"):
            del row[name]
        cost = expected[id_]["estimated_cost"]
        assert row["estimated_cost"] == (None if cost is None else pytest.approx(cost, rel=1e-12))
        row["estimated_cost"] = cost
    by = {True: "layers", False: None}[golden.oracle.knowledge[date].day.all_was_read]
    for id_, row in expected.items():
        row |= {"reclaimable_bytes": golden.storage.reclaimable_of_image(date, id_), "reclaimable_by": by}
    assert rows == expected


@each_published_day
def test_evidence_of_the_registry_matches_the_sandbox_record(golden, date):
    tags = golden.rows("registry_tags", date)
    for row in tags:
        del row["observed_at"]
    assert tags == golden.storage.registry_tags(date)
    assert golden.rows("registry_layers", date) == golden.storage.registry_layers(date)


@each_published_day
def test_storage_of_a_day_matches_the_sandbox_record(golden, date):
    """By digest, layer and tag: of images, and of tags that are no image."""
    rows, expected = by_id(golden.rows("image_storage", date)), golden.storage.image_storage(date)
    only, expected_only = golden.rows("registry_only", date), golden.storage.registry_only(date)
    assert {row.pop("is_certain") for row in only} == ({True} if only else set())
    pairs = [(rows[id_], expected[id_] | {"id": id_}) for id_ in rows] + list(zip(only, expected_only, strict=True))
    assert rows.keys() == expected.keys()
    for row, wanted in pairs:
        share, exact = row.pop("shared_bytes_share"), wanted.pop("shared_bytes_share")
        assert share == (None if exact is None else pytest.approx(float(exact), rel=1e-12))
        assert row == wanted


def test_storage_has_every_state_and_what_is_pushed_again(golden):
    rows = [row for date in golden.oracle.knowledge for row in golden.storage.image_storage(date).values()]
    assert {row["state"] for row in rows} == {"known", "partial", "tag_gone", "unread", "elsewhere"}
    assert {row["images_of_tag"] for row in rows} == {None, 1}
    assert max(row["digest_changes"] for row in rows) > 1
    after = REGISTRY_UNREAD_ON + dt.timedelta(days=1)
    dates = {row["digest_before_date"] for row in golden.storage.image_storage(after).values()}
    assert UNREAD_ON in dates
    assert REGISTRY_UNREAD_ON not in dates


@each_published_day
def test_sets_of_unused_images_free_what_the_record_says(golden, date):
    expected = golden.storage.reclaimable(date, golden.rows("audit_findings", date))
    assert golden.rows("reclaimable", date) == expected
    if date == DATES[-1]:
        assert {row["dimension"] for row in expected} == {"all", "owner", "namespace", "rule"}
        (whole,) = [row for row in expected if row["dimension"] == "all"]
        assert 0 < whole["known_bytes"] < whole["image_bytes"]
        summary = read_derived_manifest(golden.lake, Partition(date, "default")).summary
        assert (summary.registry.known_reclaimable_bytes, summary.reclaimable_bytes) == (
            whole["known_bytes"],
            whole["reclaimable_bytes"],
        )


@each_published_day
def test_lines_of_the_bill_match_the_sandbox_record(golden, date):
    """Every line of every statement that is shown on the day, with one version for each statement."""
    known = statements(CATALOGUE, golden.project_id, date)
    rows = golden.rows("billed_costs", date)
    names = ("charge_date", "resource_id", "description", "billed_cost", "kind", "currency", "time_zone")
    found = sorted(tuple(row[name] for name in names) for row in rows)
    assert found == sorted(
        (
            day,
            one.resource_id,
            one.product,
            one.billed,
            "registry" if one.name == REGISTRY else "modelarts",
            "EUR",
            "Europe/Berlin",
        )
        for day, charged in known.items()
        for one in charged
    )
    versions = {(row["charge_date"], row["version"]) for row in rows}
    assert len(versions) == len({version for _, version in versions}) == len(known)


@each_published_day
def test_bills_of_a_day_match_the_sandbox_record(golden, date):
    """Every statement that is new or corrected on the day, divided by what the registry stored on the charge day."""
    earlier = [published for published in golden.oracle.knowledge if published < date]
    new = new_statements(CATALOGUE, golden.project_id, date, max(earlier, default=None))
    rows = golden.rows("image_bills", date)
    check_bills(rows, new, lambda day: parts_of(golden, day), tags=len(golden.storage.tags(date)))
    if date == DATES[-1]:
        assert {row["allocation"] for row in rows} >= {"image", "registry_only", "storage_unknown"}


def parts_of(golden, day):
    """The bytes by which the bill of a day is divided, or why it is not."""
    if day not in golden.oracle.knowledge:
        return "no_snapshot"
    if not golden.storage.was_read(day):
        return "registry_not_read"
    storage = golden.storage.image_storage(day)
    return dict(expected_parts(*weights(golden.oracle.costs(day), storage, golden.storage.registry_only(day))))


@each_published_day
def test_bill_days_show_every_known_statement_beside_the_estimate(golden, date):
    known = statements(CATALOGUE, golden.project_id, date)
    rows = {row["charge_date"]: row for row in golden.rows("bill_days", date)}
    assert {day: (row["billed_cost"], row["billed_registry_cost"]) for day, row in rows.items()} == {
        day: (total(charged), total(charged, REGISTRY)) for day, charged in known.items()
    }
    for day, row in rows.items():
        divided = [one for one in golden.rows("image_bills", row["known_since"]) if one["charge_date"] == day]
        assert row["allocated_cost"] == sum(one["billed_cost"] for one in divided if one["allocation"] == "image")
        assert row["allocated_cost"] + row["not_allocated_cost"] == row["billed_cost"]
        assert (row["allocated_cost"] > 0) == isinstance(parts_of(golden, day), dict)
        # The version that the day read, and the day that read it first.
        assert row["known_since"] == min(
            published
            for published in golden.oracle.knowledge
            if charges(CATALOGUE, golden.project_id, day, published) == known[day]
        )
        if day in golden.oracle.knowledge:
            costs = [one["estimated_cost"] for one in golden.oracle.costs(day)]
            assert float(row["estimated_cost"]) == pytest.approx(sum(cost for cost in costs if cost is not None))
    assert manifest_of(golden, date)["fetch"]["sources"]["bills"]["was_read"]


@each_published_day
def test_images_show_their_part_of_the_newest_bill(golden, date):
    newest = max(golden.rows("bill_days", date), key=lambda row: row["charge_date"])
    divided = [row for row in golden.rows("image_bills", newest["known_since"]) if row["allocation"] == "image"]
    parts = {row["id"]: row for row in divided if row["charge_date"] == newest["charge_date"]}
    for row in golden.rows("image_costs", date):
        part = parts.get(row["id"])
        assert (row["billed_date"], row["billed_currency"]) == ((part["charge_date"], "EUR") if part else (None, None))
        for name in ("billed_cost", "billed_registry_cost"):
            assert row[name] == (part[name] if part else None)


@each_published_day
def test_findings_of_a_day_match_the_sandbox_record(golden, date):
    expected = golden.oracle.findings(date)
    rules = golden.oracle.found(date).keys()
    names = ("rule", "id", "name", "state", "first_seen", "days_open", "owner", "cost_center", "environment")
    rows = [row for row in golden.rows("audit_findings", date) if row["rule"] in rules]
    assert [{name: row[name] for name in names} for row in rows] == expected
    assert {row["error"] for row in golden.rows("audit_rules", date)} == {None}
    still_found = dict.fromkeys(rules, 0)
    for row in expected:
        still_found[row["rule"]] += row["state"] != "resolved"
    counts = {row["rule"]: row["findings"] for row in golden.rows("audit_rules", date) if row["rule"] in rules}
    assert counts == still_found


def test_finding_keeps_its_id_and_shows_its_evidence(golden):
    ids = {}
    for date in DATES:
        for row in golden.rows("audit_findings", date) if date != MISSED else ():
            ids.setdefault((row["rule"], row["id"]), set()).add(row["finding_id"])
    assert {len(found) for found in ids.values()} == {1}
    assert len(set.union(*ids.values())) == len(ids)

    # The image became public on the incomplete day, on which it had no response.
    after = INCOMPLETE + dt.timedelta(days=1)
    evidence = {row["rule"]: row["evidence"] for row in findings_of(golden, after, story("narrowed", after))}
    assert json.loads(evidence["visibility_widened"]) == {
        "visibility_before": "PRIVATE",
        "visibility_now": "PUBLIC",
        "compared_with": "2026-02-26",
        "actor": None,
        "actor_source_ip": None,
        "actor_unknown": "traces_not_read",
    }
    failed = {row["rule"]: row["evidence"] for row in findings_of(golden, after, story("failed-build", after))}
    assert json.loads(failed["build_failed"]) == {
        "status": "CREATE_FAILED",
        "status_message": "The build ended with exit status 137: out of memory.",
        "update_at": as_text(content_of(CATALOGUE.image(story("failed-build", after), after), after)["update_at"]),
    }


ACTOR = ("actor", "actor_source_ip", "actor_unknown")


def test_findings_of_changes_name_the_actor(golden):
    named = {}
    for date in COMPLETE:
        actors = {row["id"]: {name: row[name] for name in ACTOR} for row in golden.oracle.changes(date)}
        for row in golden.rows("audit_findings", date):
            if (
                row["rule"] in ("visibility_widened", "tag_pushed_again")
                and row["id"] in actors
                and row["state"] == "new"
            ):
                evidence = json.loads(row["evidence"])
                assert {name: evidence[name] for name in ACTOR} == actors[row["id"]]
                named.setdefault(row["rule"], set()).add((evidence["actor"], evidence["actor_unknown"]))
    assert ("ci-pipeline", None) in named["tag_pushed_again"]
    assert {actor is None for actor, _ in named["visibility_widened"]} == {True, False}
    changes = [row for date in COMPLETE for row in golden.changes(date)]
    assert {row["actor_unknown"] for row in changes} == {None, "no_trace", "several_traces", "traces_not_read"}


def findings_of(golden, date, id_):
    return [row for row in golden.rows("audit_findings", date) if row["id"] == id_]


def test_history_matches_the_sandbox_record(golden):
    names = ("id", "valid_from", "valid_to", "is_current", "is_deleted", "deleted_reason", *FIELDS, "size_bytes")
    expected = golden.oracle.history()
    assert [{name: row[name] for name in names} for row in golden.history()] == expected
    assert {row["deleted_reason"] for row in expected} == {None, "deleted", "not_found", "not_in_inventory"}


@pytest.mark.parametrize("date", COMPLETE, ids=str)
def test_history_as_of_a_day_equals_that_day(golden, date):
    """Every image that the sandbox describes on that day, with that day's content."""
    as_of = {
        row["id"]: {name: row[name] for name in FIELDS}
        for row in golden.history()
        if row["valid_from"] <= date and (row["valid_to"] is None or date < row["valid_to"]) and not row["is_deleted"]
    }
    described = {
        id_: content_of(CATALOGUE.image(id_, date), date)
        for id_ in register_of(date)
        if (CATALOGUE.image(id_, date) or {"status": "DELETED"})["status"] != "DELETED"
    }
    locked = {id_ for id_ in as_of.keys() - described.keys() if CATALOGUE.answer(id_, date).http_status == 403}
    assert {id_: content for id_, content in as_of.items() if id_ not in locked} == described
    assert locked <= {story("locked", date)}


@pytest.mark.parametrize("date", COMPLETE[1:], ids=str)
def test_events_and_change_rows_correspond(golden, date):
    """The record's events since the last complete day, compared with the change log, without looking at images."""
    since = COMPLETE[COMPLETE.index(date) - 1]
    alive = {id_ for id_, known in golden.oracle.knowledge[since].after.items() if known.reason is None}
    met = set(golden.oracle.knowledge[since].after)
    register = register_of(date).keys() - {UNREGISTERED_FOR_A_WHILE}
    events = [one for one in CATALOGUE.events(since + dt.timedelta(days=1), date) if one.id in register]
    # The registry's digests are in no event of an image.
    keys = {(row["id"], row["change"], row["field"]) for row in golden.changes(date) if row["field"] != "digest"}
    keys = {key for key in keys if key[0] != UNREGISTERED_FOR_A_WHILE}

    whole = whole_changes(events, alive, met)
    assert {key for key in keys if key[2] == "outcome"} == whole
    came = {event.id for event in events if event.kind in ("returned", "readable")}
    gone_or_new = {id_ for id_, change, _ in whole if change in ("added", "removed")}
    stated = net_values(events)
    expected = {
        (id_, "changed", name)
        for (id_, name), (old, new) in stated.items()
        if old != new and id_ in alive and id_ not in gone_or_new
    }
    explained = {key for key in keys if key[2] == "outcome" or key[0] in came}
    assert keys - explained == {key for key in expected if key[0] not in came}
    rows = {(row["id"], row["field"]): row for row in golden.changes(date)}
    for id_, _, name in expected:
        if id_ not in came and name not in ("extra", "create_at", "update_at"):
            old, new = stated[id_, name]
            assert (rows[id_, name]["old_value"], rows[id_, name]["new_value"]) == (text(old), text(new))


def whole_changes(events, alive, met):
    """The images that came and went by the events since a day with these living and known images."""
    now = set(alive)
    for event in events:
        if event.kind in ("created", "returned", "readable"):
            now.add(event.id)
        elif event.kind in ("vanished", "deleted", "gone"):
            now.discard(event.id)
    came = {(id_, "reappeared" if id_ in met else "added", "outcome") for id_ in now - alive}
    return came | {(id_, "removed", "outcome") for id_ in alive - now}


def net_values(events):
    """(id, column) -> the value before the first event on that field, and after the last."""
    found = {}
    for event in events:
        if event.field is not None and event.kind != "deleted":
            key = (event.id, event.field if event.field in FIELDS else "extra")
            found[key] = (found[key][0] if key in found else event.old, event.new)
    return found


def text(value):
    return None if value is None else str(value)


def test_changes_of_the_inventory_are_visible(golden):
    """An image that left the inventory is gone for that reason only, and comes back with its changes meanwhile."""
    left = [row for row in golden.changes(LEFT) if row["id"] == UNREGISTERED_FOR_A_WHILE]
    assert [(row["change"], row["field"], row["old_value"], row["new_value"]) for row in left] == [
        ("removed", "outcome", "ok", "not_in_inventory")
    ]
    back = [row for row in golden.changes(BACK) if row["id"] == UNREGISTERED_FOR_A_WHILE]
    assert [(row["change"], row["field"]) for row in back] == [
        ("changed", "size"),
        ("changed", "update_at"),
        ("reappeared", "outcome"),
    ]
    assert (back[2]["old_value"], back[2]["new_value"]) == ("not_in_inventory", "ok")
    listed = {row["id"]: row["kind"] for row in golden.rows("image_reconciliation", LEFT)}
    assert listed[UNREGISTERED_FOR_A_WHILE] == "not_registered"
    owners = {
        date: by_id(golden.rows("image_costs", date))[CHANGING_HANDS]["owner"] for date in (DATES[2], HANDED_OVER)
    }
    assert owners[HANDED_OVER] == "n.newman" != owners[DATES[2]]


# The incomplete day, the day that corrects it, and the last one.
CHOSEN = (INCOMPLETE, INCOMPLETE + dt.timedelta(days=1), DATES[-1])


def lose(copy, dates):
    """Remove the history and all derived tables, and derive these days."""
    shutil.rmtree(copy.lake.root / IMAGE_HISTORY.name)
    for date in dates:
        for name in (*(ANALYSIS_TABLES.keys() - {IMAGE_HISTORY.name}), "_derived"):
            shutil.rmtree(copy.lake.root / name / f"dt={date}")


@pytest.mark.parametrize(
    "dates",
    [
        pytest.param(CHOSEN, id="three days"),
        pytest.param([date for date in DATES if date != MISSED], id="all days", marks=pytest.mark.slow),
    ],
)
def test_deriving_from_nothing_gives_the_same_tables(golden, tmp_path, dates):
    copy = golden.copy_to(tmp_path / "lake")
    before = copy.tables()
    assert len(before) == 1 + 11 * 13
    lose(copy, dates)
    derive_days(copy.day(DATES[-1]))
    assert_same(copy.tables(), before)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_spark_derives_the_same_tables(golden, tmp_path, spark_master):
    """The history of all days and each table of two, floats to the last bit: no float of a table is a sum."""
    copy = golden.copy_to(tmp_path / "lake")
    before, derived_manifests = copy.tables(), copy.summaries()
    lose(copy, (INCOMPLETE, DATES[-1]))
    settings = copy.settings.model_copy(update={"engine": "spark", "spark_master": spark_master})
    derive_days(replace(copy, settings=settings).day(DATES[-1]))
    assert_same(copy.tables(), before)
    assert copy.summaries() == derived_manifests


def test_rerun_of_a_middle_day_corrects_later_days(golden, tmp_path):
    """With the history removed, and with a rerun of a day that others depend on."""
    copy = golden.copy_to(tmp_path / "lake")
    before = copy.tables()
    middle = copy.day(MIDDLE)
    path = copy.lake.project_table(IMAGE_HISTORY.name, "default")
    path.unlink()
    derive_days(middle)
    assert_same(copy.tables(), before)

    # On the last day, because times of publication rise.
    publish_snapshot(replace(middle, now=copy.day(DATES[-1]).now))
    derived = []
    derive_days(middle, lambda partition, *_: derived.append(partition.date))
    assert derived == [date for date in DATES if date >= MIDDLE and date != MISSED]
    assert_same(copy.tables(), before)


def assert_same(tables, expected):
    assert tables.keys() == expected.keys()
    assert [path for path, table in tables.items() if not table.equals(expected[path])] == []
