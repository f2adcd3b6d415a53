"""Fourteen days of the sandbox, three of them faulty: the derived tables match the sandbox's own record.

On Friday 27 February two images have no response, and the day is published incomplete. On Tuesday 3 March every fourth
request meets a temporary fault, and the day ends complete. On Thursday 5 March too many images have no response:
nothing is published.
"""

import csv
import datetime as dt
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from golden_oracle import FIELDS, Oracle, PublishedPartition, as_text, content_of
from once_per_run import once_per_run

from pipelines.derive.days import derive_days
from pipelines.errors import TooManyFailuresError
from pipelines.lake.derived_manifests import read_derived_manifest
from pipelines.lake.layout import Lake, Partition
from pipelines.sandbox import Faults, SandboxOptions, running_sandbox
from pipelines.sandbox.catalogue import Catalogue, InventoryRow
from pipelines.settings import Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import fetch_responses, publish_snapshot, take_inventory
from pipelines.tables import ANALYSIS_TABLES, IMAGE_HISTORY

MONDAY = dt.date(2026, 2, 23)
DATES = [MONDAY + dt.timedelta(days=number) for number in range(14)]
INCOMPLETE, BUSY, MISSED = dt.date(2026, 2, 27), dt.date(2026, 3, 3), dt.date(2026, 3, 5)
COMPLETE = [date for date in DATES if date not in (INCOMPLETE, MISSED)]
MIDDLE = dt.date(2026, 3, 4)
CATALOGUE = Catalogue("golden-35", 72)

# An image leaves the inventory on the first of these days and is back on the second; another one changes its owner.
LEFT, BACK = dt.date(2026, 3, 1), dt.date(2026, 3, 6)
HANDED_OVER = dt.date(2026, 2, 26)

PRICES = [(dt.date(2026, 1, 1), 0.05), (dt.date(2026, 3, 2), 0.08)]
PRICE_BOOK = 'currency = "EUR"\n' + "".join(
    f"[[price]]\nvalid_from = {valid_from}\nper_gb_month = {price}\n" for valid_from, price in PRICES
)

PASSING_FAULTS = Faults(ratio_429=0.1, retry_after="0", ratio_500=0.05, ratio_reset=0.05, ratio_truncated=0.05)
# A response with an unknown code is not retried: the id fails at once.
REFUSED = {"status": 418, "body": {"error_code": "ModelArts.9999", "error_msg": "no"}}
LOCKED = {"status": 403, "body": {"error_code": "ModelArts.0108", "error_msg": "no"}}


def story(name, date):
    return CATALOGUE.storylines(date)[name]


def lasting_images():
    """Ordinary images of users that are registered and described on all days, by id, each with its events meanwhile."""
    cast = {id_ for date in DATES for id_ in CATALOGUE.storylines(date).values()}
    ids = sorted({row.id for row in CATALOGUE.inventory(MONDAY)} - cast)
    described = {id_: [CATALOGUE.image(id_, date) for date in DATES] for id_ in ids}
    lasting = [id_ for id_, bodies in described.items() if all(body and body["type"] == "DEDICATED" for body in bodies)]
    events = list(CATALOGUE.events(LEFT, BACK))
    return {id_: {event.kind for event in events if event.id == id_} for id_ in lasting}


LASTING = lasting_images()
UNREGISTERED_FOR_A_WHILE = next(id_ for id_, kinds in LASTING.items() if "re_pushed" in kinds)
CHANGING_HANDS = next(id_ for id_, kinds in LASTING.items() if not kinds)


def locked_on(date):
    """An image that became public on the day before cannot be read for a day."""
    return {story("narrowed", date)} if date == dt.date(2026, 3, 7) else set()


def register_of(date):
    """The inventory of a day: the catalogue's, except for two images that people change."""
    register = {row.id: row for row in CATALOGUE.inventory(date)}
    if LEFT <= date < BACK:
        del register[UNREGISTERED_FOR_A_WHILE]
    if date >= HANDED_OVER:
        register[CHANGING_HANDS] = register[CHANGING_HANDS]._replace(owner="n.newman", cost_center="CC-9999")
    return register


def failing_on(date):
    """Ids without a response on a day."""
    if date == INCOMPLETE:
        return {story("narrowed", date), story("failed-build", date)}
    return set(list(LASTING)[:8]) if date == MISSED else set()


@dataclass(frozen=True)
class Fortnight:
    """The lake after all days, and the expected tables. `busy`: the sandbox's responses on the busy day."""

    settings: Settings
    project_id: str
    oracle: Oracle
    busy: dict[str, int]

    @property
    def lake(self):
        return Lake(self.settings.lake)

    def day(self, date):
        noon = dt.datetime.combine(date, dt.time(12), dt.UTC)
        return SnapshotRun(Partition(date, "default"), f"run-{date}", self.settings, lambda: noon)

    def copy_to(self, root):
        shutil.copytree(self.settings.lake, root)
        return replace(self, settings=self.settings.model_copy(update={"lake": str(root)}))

    def rows(self, name, date):
        """Rows of a derived table of a day, without the columns that all of them share."""
        with self.lake.table(name, Partition(date, "default")).open("rb") as file:
            table = pq.read_table(file)
        assert set(table["snapshot_date"].to_pylist()) <= {date}
        assert set(table["project_id"].to_pylist()) <= {self.project_id}
        return table.drop_columns(["snapshot_date", "project_id"]).to_pylist()

    def history(self):
        with self.lake.project_table(IMAGE_HISTORY.name, "default").open("rb") as file:
            rows = pq.read_table(file).to_pylist()
        return [row | {"extra": json.loads(row["extra"]) if row["extra"] else None} for row in rows]

    def changes(self, date):
        rows = self.rows("image_changes", date)
        for row in rows:
            if row["field"] == "extra":
                row |= {name: row[name] and json.loads(row[name]) for name in ("old_value", "new_value")}
        return rows

    def summaries(self):
        """The figures of each day; sums of costs to 12 digits, because each engine has its own order of adding."""
        found = {}
        for partition in self.lake.contents.partitions():
            summary = read_derived_manifest(self.lake, partition).summary
            cost = summary.estimated_cost
            found[partition] = summary.model_dump() | {"estimated_cost": cost and float(f"{cost:.12g}")}
        return found

    def tables(self):
        """All derived tables: path -> table, without the metadata that say which run wrote the file."""
        paths = [path for name in ANALYSIS_TABLES for path in sorted((self.lake.root / name).rglob("*.parquet"))]
        return {str(path.relative_to(self.lake.root)): read(path) for path in paths}


def read(path: Path) -> pa.Table:
    with path.open("rb") as file:
        return pq.read_table(file).replace_schema_metadata(None)


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    return once_per_run(tmp_path_factory, "golden", make_golden)


def make_golden(root):
    register, prices = root / "register.csv", root / "prices.toml"
    prices.write_text(PRICE_BOOK)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in list(os.environ):
            if name.startswith(("IMAGE_SNAPSHOTS_", "OS_")):
                monkeypatch.delenv(name)
        options = SandboxOptions(seed=str(CATALOGUE.seed), size=CATALOGUE.size, day=MONDAY)
        with running_sandbox(options) as sandbox:
            for name, value in sandbox.env.items():
                monkeypatch.setenv(name, value)
            settings = Settings(
                lake=str(root / "lake"),
                inventory=str(register),
                price_book=prices,
                usage="notebooks",
                max_failed_ratio=0.05,
            )
            oracle = Oracle(CATALOGUE, [], PRICES)
            golden = Fortnight(settings, sandbox.project_id, oracle, {})
            for date in DATES:
                registered = register_of(date)
                with register.open("w", newline="", encoding="utf-8") as stream:
                    csv.writer(stream).writerows([InventoryRow._fields, *registered.values()])
                steer(sandbox, "day", {"day": date.isoformat()})
                answers = dict.fromkeys(failing_on(date), REFUSED) | dict.fromkeys(locked_on(date), LOCKED)
                faults = PASSING_FAULTS if date == BUSY else Faults(answers=answers)
                steer(sandbox, "faults", faults.model_dump(mode="json"))
                before = stats(sandbox)
                if run(golden.day(date)):
                    failed, locked = frozenset(failing_on(date)), frozenset(locked_on(date))
                    oracle.days.append(PublishedPartition(date, registered, failed, locked))
                if date == BUSY:
                    golden.busy.update({kind: count - before.get(kind, 0) for kind, count in stats(sandbox).items()})
    return golden


def steer(sandbox, what, body):
    httpx.put(f"{sandbox.endpoint}/sandbox/{what}", json=body).raise_for_status()


def stats(sandbox):
    return httpx.get(f"{sandbox.endpoint}/sandbox/stats").json()["answers"]


def run(day):
    """Take a day as the daily run does; False if nothing was published."""
    take_inventory(day)
    try:
        fetch_responses(day, lambda _: None)
    except TooManyFailuresError:
        return False
    publish_snapshot(day)
    derive_days(day)
    return True


def test_days_have_their_planned_states(golden):
    """The important stories happen on the faulty days, and every kind of event in the fortnight."""
    published = golden.lake.contents.partitions()
    assert [partition.date for partition in published] == [date for date in DATES if date != MISSED]
    assert [p.date for p in published if not manifest_of(golden, p.date)["is_complete"]] == [INCOMPLETE]
    failed = {row["id"] for row in manifest_of(golden, INCOMPLETE)["failed"]}
    assert failed == {story("narrowed", INCOMPLETE), story("failed-build", INCOMPLETE)}
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


def manifest_of(golden, date):
    return json.loads(golden.lake.manifest(Partition(date, "default")).read_bytes())


each_published_day = pytest.mark.parametrize("date", [date for date in DATES if date != MISSED], ids=str)


@each_published_day
def test_changes_of_a_day_match_the_sandbox_record(golden, date):
    assert golden.changes(date) == golden.oracle.changes(date)


@each_published_day
def test_reconciliation_of_a_day_matches_the_sandbox_record(golden, date):
    assert golden.rows("image_reconciliation", date) == golden.oracle.reconciliation(date)


@each_published_day
def test_usage_of_a_day_matches_the_sandbox_record(golden, date):
    assert by_id(golden.rows("image_usage", date)) == by_id(golden.oracle.usage(date))


@each_published_day
def test_costs_of_a_day_match_the_sandbox_record(golden, date):
    expected = by_id(golden.oracle.costs(date))
    rows = by_id(golden.rows("image_costs", date))
    assert {row.pop("currency") for row in rows.values()} == {"EUR"}
    # No image is unused for 30 days.
    assert {row.pop("reclaimable_bytes") for row in rows.values()} == {0}
    assert {row.pop("registry") for row in rows.values()} == {"swr.eu-de.otc.t-systems.com"}
    for id_, row in rows.items():
        cost = expected[id_]["estimated_cost"]
        assert row["estimated_cost"] == (None if cost is None else pytest.approx(cost, rel=1e-12))
        row["estimated_cost"] = cost
    assert rows == expected


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
    }
    failed = {row["rule"]: row["evidence"] for row in findings_of(golden, after, story("failed-build", after))}
    assert json.loads(failed["build_failed"]) == {
        "status": "CREATE_FAILED",
        "status_message": "The build ended with exit status 137: out of memory.",
        "update_at": as_text(content_of(CATALOGUE.image(story("failed-build", after), after), after)["update_at"]),
    }


def findings_of(golden, date, id_):
    return [row for row in golden.rows("audit_findings", date) if row["id"] == id_]


def by_id(rows):
    keyed = {row["id"]: row for row in rows}
    assert len(keyed) == len(rows)
    return keyed


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
    keys = {(row["id"], row["change"], row["field"]) for row in golden.changes(date)}
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
    assert len(before) == 1 + 6 * 13
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
