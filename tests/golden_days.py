"""Days of a sandbox with faults, and what people do to its register, taken as the daily run takes them.

What the tables of these days must hold belongs to `golden_oracle`.
"""

import csv
import datetime as dt
import json
import os
import shutil
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from golden_oracle import Oracle, PublishedPartition
from golden_storage import StorageOracle
from golden_usage import strength_of

from pipelines.derive import costs, storage, usage
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
# The second workspace appears on a Monday.
APPEARS = dt.date(2026, 3, 2)
CATALOGUE = Catalogue("golden-35", 72, workspaces=2, second_workspace_since=APPEARS)
# On the day after the incomplete one, models and traces cannot be read.
UNREAD_ON = dt.date(2026, 2, 28)
UNREAD = frozenset({"models", "traces"})
# And on the next day the registry.
REGISTRY_UNREAD_ON = dt.date(2026, 3, 1)
# Fewer days than in the product, so that images become unused within the fortnight.
UNUSED_AFTER = 5

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

    @cached_property
    def storage(self):
        return StorageOracle(self.oracle, UNUSED_AFTER)

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


def unread_on(date):
    """The sources that cannot be read on a day."""
    return UNREAD if date == UNREAD_ON else frozenset({"registry"} if date == REGISTRY_UNREAD_ON else ())


def make_unused_sooner(monkeypatch):
    for module in (usage, storage, costs):
        monkeypatch.setattr(module, "UNUSED_AFTER_DAYS", UNUSED_AFTER)


def take_days(root, dates, faults, unread, **changed):
    """Take days with the faults of each, of which those `unread` are what they mean for sources of evidence."""
    register, prices = root / "register.csv", root / "prices.toml"
    prices.write_text(PRICE_BOOK)
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in list(os.environ):
            if name.startswith(("IMAGE_SNAPSHOTS_", "OS_")):
                monkeypatch.delenv(name)
        make_unused_sooner(monkeypatch)
        options = SandboxOptions(
            seed=str(CATALOGUE.seed),
            size=CATALOGUE.size,
            day=dates[0],
            workspaces=CATALOGUE.workspaces,
            second_workspace_since=CATALOGUE.second_workspace_since,
        )
        with running_sandbox(options) as sandbox:
            for name, value in sandbox.env.items():
                monkeypatch.setenv(name, value)
            stated = {
                "lake": str(root / "lake"),
                "inventory": str(register),
                "price_book": prices,
                "usage": "all",
                "traces": "true",
                "registry": "true",
                "bills": "otc-dashboard:",
                "max_failed_ratio": 0.05,
            }
            taken = Fortnight(Settings(**stated | changed), sandbox.project_id, Oracle(CATALOGUE, [], PRICES), {})
            for date in dates:
                registered = register_of(date)
                with register.open("w", newline="", encoding="utf-8") as stream:
                    csv.writer(stream).writerows([InventoryRow._fields, *registered.values()])
                steer(sandbox, "day", {"day": date.isoformat()})
                steer(sandbox, "faults", faults(date).model_dump(mode="json"))
                before = stats(sandbox)
                if run(taken.day(date)):
                    failed, locked = frozenset(failing_on(date)), frozenset(locked_on(date))
                    taken.oracle.days.append(PublishedPartition(date, registered, failed, locked, unread(date)))
                if date == BUSY:
                    taken.busy.update({kind: count - before.get(kind, 0) for kind, count in stats(sandbox).items()})
    return taken


def make_golden(root):
    """All days, with the faults of each."""

    def faults(date):
        if date == BUSY:
            return PASSING_FAULTS
        answers = dict.fromkeys(failing_on(date), REFUSED) | dict.fromkeys(locked_on(date), LOCKED)
        unread = unread_on(date)
        return Faults(answers=answers, sources_broken=unread - {"registry"}, sources_forbidden=unread & {"registry"})

    return take_days(root, DATES, faults, unread_on)


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


def manifest_of(golden, date):
    return json.loads(golden.lake.manifest(Partition(date, "default")).read_bytes())


def by_id(rows):
    keyed = {row["id"]: row for row in rows}
    assert len(keyed) == len(rows)
    return keyed


def needed_on(date):
    """The images that anything uses on a day, in any workspace, whether or not it was read."""
    return {one.image_id for one in CATALOGUE.references(date) if strength_of(one) in ("running", "required")}


def check_needed_images(taken, date):
    needed = needed_on(date)
    rows = by_id(taken.rows("image_usage", date))
    earlier = [published for published in taken.oracle.knowledge if published < date]
    before = by_id(taken.rows("image_usage", max(earlier))) if earlier else {}
    for id_ in needed & rows.keys():
        unused_days = before[id_]["unused_days"] if id_ in before else 0
        assert rows[id_]["unused_days"] <= (0 if rows[id_]["is_observed"] else unused_days), id_
    rules = ("unused_30_days", "unused_90_days", "large_and_unused")
    found = {row["id"] for row in taken.rows("audit_findings", date) if row["rule"] in rules and row["state"] == "new"}
    assert needed.isdisjoint(found)
