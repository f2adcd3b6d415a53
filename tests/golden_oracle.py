"""The expected derived tables of sandbox days, computed from the sandbox's own record.

Plain Python over `Catalogue`: it shares neither SQL nor deriving code with the product. Rows are dictionaries by
column; timestamps are aware, and `extra` is a dictionary.
"""

import calendar
import datetime as dt
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any

from golden_usage import KINDS, Use, UseHistory, images_of, uses

from pipelines.sandbox.catalogue import Catalogue, InventoryRow
from pipelines.sandbox.traces import Traces

Row = dict[str, Any]

# The class of changes of each field.
FIELDS = {
    "name": "metadata",
    "namespace": "access",
    "swr_path": "content",
    "tag": "content",
    "arch": "content",
    "type": "metadata",
    "origin": "metadata",
    "service_type": "metadata",
    "status": "lifecycle",
    "status_message": "lifecycle",
    "visibility": "access",
    "workspace_id": "access",
    "flavor_type": "metadata",
    "description": "metadata",
    "size": "content",
    "create_at": "lifecycle",
    "update_at": "content",
    "dev_services": "metadata",
    "resource_categories": "metadata",
    "support_res_categories": "metadata",
    "show_name": "metadata",
    "show_tag": "metadata",
    "swr_instance_id": "metadata",
    "tags": "metadata",
    "extra": "metadata",
}
LISTS = ("dev_services", "resource_categories", "support_res_categories")
TIMES = ("create_at", "update_at")
GB = 1024**3


@dataclass(frozen=True)
class PublishedPartition:
    """A published day: its inventory by id, the ids without a response, the ids that were forbidden on that day.

    `unread`: the sources of evidence that could not be read.
    """

    date: dt.date
    register: dict[str, InventoryRow]
    failed: frozenset[str]
    locked: frozenset[str]
    unread: frozenset[str] = frozenset()

    @property
    def is_complete(self) -> bool:
        return not self.failed

    @property
    def all_was_read(self) -> bool:
        """Whether every source of usage was read."""
        return self.unread.isdisjoint(KINDS)

    @property
    def is_observed(self) -> bool:
        """Whether what was not seen in use is not in use."""
        return self.is_complete and self.all_was_read


@dataclass(frozen=True)
class Known:
    """An image as it is known: its last content, and why it is gone (None while it exists)."""

    content: Row
    reason: str | None = None


@dataclass
class Knowledge:
    """What is known after a published day, and the last complete day before it."""

    day: PublishedPartition
    previous: "Knowledge | None"
    after: dict[str, Known]
    current: dict[str, tuple[Row, bool]] = field(default_factory=dict)


def content_of(body: Row, day: dt.date) -> Row:
    """The columns of a described image: typed, and null for invalid values."""
    content: Row = dict.fromkeys(FIELDS)
    for name in FIELDS.keys() - {"extra"}:
        value = body.get(name)
        if value is None:
            continue
        if name in LISTS:
            content[name] = "|".join(sorted(set(value)))
        elif name == "tags":
            tags = {tag["key"]: tag["value"] for tag in sorted(value, key=lambda tag: tag["key"])}
            content[name] = json.dumps(tags, ensure_ascii=False, separators=(",", ":"))
        elif name in TIMES:
            end_of_day = calendar.timegm((day + dt.timedelta(days=1)).timetuple()) * 1000
            if calendar.timegm((2000, 1, 1, 0, 0, 0)) * 1000 <= value < end_of_day:
                content[name] = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=value)
        else:
            content[name] = int(value) if name == "size" else value
    content["extra"] = {name: value for name, value in body.items() if name not in FIELDS and name != "id"} or None
    return content


def size_bytes(content: Row) -> int | None:
    return None if content["size"] is None else content["size"] * 1024


def as_text(value: Any) -> Any:
    """A value as it appears in the change log; `extra` stays a dictionary."""
    if isinstance(value, dt.datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return str(value) if isinstance(value, int) else value


def once_for_each_date(method: Callable[["Oracle", dt.date], list[Row]]) -> Callable[["Oracle", dt.date], list[Row]]:
    """Keep the rows that a method has computed for a date; each caller has copies of its own."""

    @wraps(method)
    def rows(self: "Oracle", date: dt.date) -> list[Row]:
        kept = self.rows.setdefault(method.__name__, {})
        if date not in kept:
            kept[date] = method(self, date)
        return [dict(row) for row in kept[date]]

    return rows


@dataclass(frozen=True)
class Oracle:
    """The sandbox's catalogue, and its published days in order."""

    catalogue: Catalogue
    days: list[PublishedPartition]
    prices: list[tuple[dt.date, float]]
    rows: dict[str, dict[dt.date, list[Row]]] = field(default_factory=dict)

    def outcome(self, day: PublishedPartition, id_: str) -> str:
        """The outcome of a registered id."""
        if id_ in day.failed:
            return "failed"
        if id_ in day.locked:
            return "forbidden"
        answer = self.catalogue.answer(id_, day.date)
        if answer.http_status == 200:
            return "deleted" if answer.body["status"] == "DELETED" else "ok"
        return "forbidden" if answer.http_status == 403 else "not_found"

    def content(self, day: PublishedPartition, id_: str) -> Row:
        return content_of(self.catalogue.image(id_, day.date), day.date)

    @cached_property
    def knowledge(self) -> dict[dt.date, Knowledge]:
        """What is known after each day. Only complete days add to it permanently."""
        found: dict[dt.date, Knowledge] = {}
        last: Knowledge | None = None
        for day in self.days:
            before = last.after if last else {}
            one = Knowledge(day, last, self._learnt(day, before) if day.is_complete else before)
            one.current = self._current(one)
            found[day.date] = one
            if day.is_complete:
                last = one
        return found

    def _learnt(self, day: PublishedPartition, before: dict[str, Known]) -> dict[str, Known]:
        after = dict(before)
        for id_ in day.register:
            known = before.get(id_)
            lives = known is not None and known.reason is None
            match self.outcome(day, id_):
                case "ok":
                    after[id_] = Known(self.content(day, id_))
                case "deleted" if known is None or lives:
                    after[id_] = Known(self.content(day, id_), "deleted")
                case "not_found" if lives:
                    after[id_] = Known(known.content, "not_found")
        for id_, known in before.items():
            if id_ not in day.register and known.reason is None:
                after[id_] = Known(known.content, "not_in_inventory")
        return after

    def _current(self, knowledge: Knowledge) -> dict[str, tuple[Row, bool]]:
        """Living images: id -> (content, whether it comes from an earlier day)."""
        day, current = knowledge.day, {}
        for id_, known in knowledge.after.items():
            outcome = self.outcome(day, id_) if id_ in day.register else "failed"
            if known.reason is None and outcome in ("failed", "forbidden"):
                current[id_] = (known.content, True)
        for id_ in day.register:
            if self.outcome(day, id_) == "ok":
                current[id_] = (self.content(day, id_), False)
        return current

    def owners(self, knowledge: Knowledge, id_: str) -> Row:
        """What the register says of an id, or else a tag of what is known of the image."""
        day, tags = knowledge.day, None
        if id_ in day.register and self.outcome(day, id_) in ("ok", "deleted"):
            tags = self.content(day, id_)["tags"]
        elif id_ in knowledge.after:
            tags = knowledge.after[id_].content["tags"]
        tagged = {key.lower(): value for key, value in json.loads(tags or "{}").items()}
        return {name: said or tagged.get(name) for name, said in _registered(day, id_).items()}

    # -- image_history

    def history(self) -> list[Row]:
        """All versions, by id and `valid_from`."""
        versions: dict[str, list[Row]] = {}
        for knowledge in self.complete():
            date = knowledge.day.date
            before = knowledge.previous.after if knowledge.previous else {}
            for id_, known in knowledge.after.items():
                if before.get(id_) == known:
                    continue
                earlier = versions.setdefault(id_, [])
                if earlier:
                    earlier[-1] |= {"valid_to": date, "is_current": False}
                version = {"id": id_, "valid_from": date, "valid_to": None, "is_current": True}
                gone = {"is_deleted": known.reason is not None, "deleted_reason": known.reason}
                earlier.append(version | gone | known.content | {"size_bytes": size_bytes(known.content)})
        return [version for id_ in sorted(versions) for version in versions[id_]]

    def complete(self) -> list[Knowledge]:
        return [knowledge for knowledge in self.knowledge.values() if knowledge.day.is_complete]

    # -- image_changes

    def changes(self, date: dt.date, digests: Iterable[tuple[str, str, str]] = ()) -> list[Row]:
        """The change log of a published day, by id, change and field; `digests`: id, digest before, digest now."""
        knowledge = self.knowledge[date]
        if not knowledge.day.is_complete or knowledge.previous is None:
            return []
        rows = [_changed(id_, "digest", before, now, "content") for id_, before, now in digests]
        compared = {"compared_with": knowledge.previous.day.date}
        for id_, known in knowledge.after.items():
            before = knowledge.previous.after.get(id_)
            if before is None and known.reason is None:
                rows.append(_whole(id_, "added", None, "ok"))
            elif before is not None and before.reason is None and known.reason is not None:
                rows.append(_whole(id_, "removed", "ok", known.reason))
            elif before is not None and before.reason is not None and known.reason is None:
                rows.append(_whole(id_, "reappeared", before.reason, "ok"))
            if before is not None and known.reason is None:
                rows += [
                    _changed(id_, name, as_text(before.content[name]), as_text(known.content[name]), change_class)
                    for name, change_class in FIELDS.items()
                    if before.content[name] != known.content[name]
                ]
        rows.sort(key=lambda row: (row["id"], row["change"], row["field"]))
        return [
            row
            | compared
            | {"name": knowledge.after[row["id"]].content["name"]}
            | self.owners(knowledge, row["id"])
            | self._actor(knowledge, row["id"])
            for row in rows
        ]

    def _actor(self, knowledge: Knowledge, id_: str) -> Row:
        """Who changed an image since the last complete day, where one trace says so; else why it is not known."""
        row = dict.fromkeys(("actor", "actor_source_ip", "trace_id", "actor_unknown"))
        if "traces" in knowledge.day.unread:
            return row | {"actor_unknown": "traces_not_read"}
        traces = self._traces[knowledge.day.date].get(id_, [])
        if len(traces) != 1:
            return row | {"actor_unknown": "several_traces" if traces else "no_trace"}
        (trace,) = traces
        user = trace["user"] if isinstance(trace["user"], dict) else json.loads(trace["user"])
        return row | {"actor": user["name"], "actor_source_ip": trace["source_ip"], "trace_id": trace["trace_id"]}

    @cached_property
    def _traces(self) -> dict[dt.date, dict[str, list[Row]]]:
        """The traces of images since the complete day before each day, by image."""
        recorded, found = Traces(self.catalogue), {}
        for date, knowledge in self.knowledge.items():
            of_day: dict[str, list[Row]] = {}
            days = (date - knowledge.previous.day.date).days if knowledge.previous else 0
            for ago in range(days):
                for trace in recorded.seen_on(date - dt.timedelta(days=ago)):
                    if trace["resource_type"] == "NotebookImage":
                        of_day.setdefault(trace["resource_id"], []).append(trace)
            found[date] = of_day
        return found

    # -- image_reconciliation

    def reconciliation(self, date: dt.date) -> list[Row]:
        """The inventory compared with the list, by id; nobody registers preset images."""
        knowledge = self.knowledge[date]
        day = knowledge.day
        rows = [
            _reconciled(body["id"], "not_registered", None, content_of(body, date), self.owners(knowledge, body["id"]))
            for body in self.catalogue.page(date, 0, self.catalogue.size)
            if body["id"] not in day.register and body["type"] != "BUILD_IN"
        ]
        owners: dict[str, set[str]] = {}
        for id_, (content, _) in knowledge.current.items():
            owners.setdefault(content["namespace"], set()).add(self.owners(knowledge, id_)["owner"])
        for id_ in day.register:
            registered, outcome = self.owners(knowledge, id_), self.outcome(day, id_)
            if outcome not in ("deleted", "not_found"):
                continue
            content: Row = dict.fromkeys(FIELDS)
            if outcome == "deleted":
                content = self.content(day, id_)
            if id_ in knowledge.after:
                last = knowledge.after[id_].content
                content = {name: last[name] if content[name] is None else content[name] for name in FIELDS}
            rows.append(_reconciled(id_, "registered_but_gone", outcome, content, registered))
            owners.setdefault(content["namespace"], set()).add(registered["owner"])
        for row in rows:
            named = owners.get(row["namespace"], set()) - {None} if row["namespace"] else set()
            row["likely_owner"] = next(iter(named)) if row["owner"] is None and len(named) == 1 else None
        return sorted(rows, key=lambda row: row["id"])

    # -- image_usage

    @cached_property
    def uses(self) -> dict[dt.date, dict[str | None, list[Use]]]:
        """The references that were read on each day, by the living images that they may mean; None: by none of them."""
        found: dict[dt.date, dict[str | None, list[Use]]] = {}
        for date, knowledge in self.knowledge.items():
            living = {id_: content for id_, (content, _) in knowledge.current.items()}
            by_image = found[date] = {}
            for use in uses(self.catalogue, date, knowledge.day.unread):
                for id_ in images_of(use, living) or {None}:
                    by_image.setdefault(id_, []).append(use)
        return found

    @cached_property
    def use_histories(self) -> dict[dt.date, dict[str, UseHistory]]:
        """What is known of the use of each living image after each day.

        It goes on from the last published day, else from the last complete one; an image that neither knows is new.
        """
        found: dict[dt.date, dict[str, UseHistory]] = {}
        last: dict[str, UseHistory] = {}
        for date, knowledge in self.knowledge.items():
            before = (found[knowledge.previous.day.date] if knowledge.previous else {}) | last
            last = found[date] = {
                id_: before.get(id_, UseHistory()).later(
                    date, self.uses[date].get(id_, []), is_observed=knowledge.day.is_observed
                )
                for id_ in knowledge.current
            }
        return found

    def unmatched(self, date: dt.date) -> int:
        """How many references mean no living image. Models that are copies name the copy as well, which is none."""
        copies = sum(one.strength == "copied" for one in self.catalogue.references(date))
        return copies + len(self.uses[date].get(None, []))

    @once_for_each_date
    def usage(self, date: dt.date) -> list[Row]:
        """Who uses each living image, by id."""
        day = self.knowledge[date].day
        looks = [one for one, known in self.knowledge.items() if known.day.is_observed and one <= date]
        kinds, workspaces = "|".join(KINDS), len(self.catalogue.workspace_ids(date))
        rows = []
        for id_, history in sorted(self.use_histories[date].items()):
            found = self.uses[date].get(id_, [])
            row: Row = {"id": id_}
            for source, kind in KINDS.items():
                row[source] = None if source in day.unread else sum(use.kind == kind for use in found)
            for strength in ("running", "required", "copied"):
                row[strength] = sum(use.strength == strength for use in found)
            row |= {
                "is_observed": day.is_observed,
                "observed_kinds": kinds if day.is_observed else None,
                "workspaces": workspaces if day.is_observed else None,
                "last_used_date": history.last_used_date,
                "observed_days": len(history.observed),
                "unused_days": history.unused_days(looks),
            }
            rows.append(row)
        return rows

    # -- audit_findings

    def found(self, date: dt.date) -> dict[str, set[str]]:
        """What the rules find on a published day: rule -> ids."""
        knowledge = self.knowledge[date]
        contents = {id_: content for id_, (content, _) in knowledge.current.items()}
        kinds: dict[str, set[str]] = {"not_registered": set(), "registered_but_gone": set()}
        for row in self.reconciliation(date):
            kinds[row["kind"]].add(row["id"])
        return kinds | {
            "public_dedicated_image": {
                id_ for id_, one in contents.items() if (one["visibility"], one["type"]) == ("PUBLIC", "DEDICATED")
            },
            "visibility_widened": {
                row["id"]
                for row in self.changes(date)
                if row["field"] == "visibility" and row["new_value"] == "PUBLIC" and row["change"] == "changed"
            },
            "build_failed": {id_ for id_, one in contents.items() if one["status"] in ("CREATE_FAILED", "ERROR")},
            "owner_missing": {
                id_
                for id_ in knowledge.day.register
                if id_ in contents and None in [self.owners(knowledge, id_)[name] for name in ("owner", "cost_center")]
            },
            "unused_30_days": {row["id"] for row in self.usage(date) if row["unused_days"] >= 30},
            "large_and_unused": {
                row["id"]
                for row in self.usage(date)
                if row["is_observed"]
                and row["unused_days"] >= 7
                and (size_bytes(contents[row["id"]]) or 0) > 100 * GB
                and contents[row["id"]]["type"] != "BUILD_IN"
            },
        }

    @once_for_each_date
    def findings(self, date: dt.date) -> list[Row]:
        """The findings of a published day, by rule and id: today's, and the result of the last day's.

        An incomplete day resolves nothing, nor does an image without a response.
        """
        knowledge = self.knowledge[date]
        earlier = [published for published in self.knowledge if published < date]
        before = self.findings(max(earlier)) if earlier else []
        still_open = {(row["rule"], row["id"]): row["first_seen"] for row in before if row["state"] != "resolved"}
        found = {(rule, id_) for rule, ids in self.found(date).items() for id_ in ids}
        names = {row["id"]: row["name"] for row in (*before, *self.reconciliation(date))}
        names |= {id_: content["name"] for id_, (content, _) in knowledge.current.items()}
        rows = []
        for rule, id_ in sorted(found | still_open.keys()):
            first_seen = still_open.get((rule, id_), date)
            state = "open" if (rule, id_) in still_open else "new"
            if (rule, id_) not in found and knowledge.day.is_complete:
                is_carried = id_ in knowledge.current and knowledge.current[id_][1]
                state = "open" if is_carried else "resolved"
            life = {"state": state, "first_seen": first_seen, "days_open": (date - first_seen).days}
            rows.append({"rule": rule, "id": id_, "name": names[id_]} | life | self.owners(knowledge, id_))
        return rows

    # -- image_costs

    @once_for_each_date
    def costs(self, date: dt.date) -> list[Row]:
        """Bytes and estimated cost of each living image, by id."""
        knowledge = self.knowledge[date]
        before = None
        if knowledge.previous:
            before = {id_: size_bytes(content) for id_, (content, _) in knowledge.previous.current.items()}
        valid_from, price = max(entry for entry in self.prices if entry[0] <= date)
        month_days = calendar.monthrange(date.year, date.month)[1]
        unused = {row["id"]: row["unused_days"] for row in self.usage(date)}
        rows = []
        for id_, (content, is_carried) in sorted(knowledge.current.items()):
            size = size_bytes(content)
            growth = None
            if before is not None and size is not None:
                earlier = before.get(id_, 0)
                growth = None if earlier is None else size - earlier
            row = {
                "id": id_,
                "size_bytes": size,
                "growth_bytes": growth,
                "is_carried": is_carried,
                "unit_price": price,
                "price_valid_from": valid_from,
                "estimated_cost": None if size is None else size / GB * price / month_days,
                "unused_days": unused[id_],
                # Nothing is unused for 30 days.
                "reclaimable_bytes": 0 if knowledge.day.all_was_read else None,
                "observed_kinds": "|".join(KINDS) if knowledge.day.all_was_read else None,
            }
            names = {name: content[name] for name in ("name", "namespace", "type")}
            owners = self.owners(knowledge, id_)
            is_registered = _registered(knowledge.day, id_)["owner"] is not None
            source = "inventory" if is_registered else "tag" if owners["owner"] else "none"
            by = "size" if knowledge.day.all_was_read else None
            rows.append(row | names | owners | {"owner_source": source, "reclaimable_by": by})
        return rows


def _changed(id_: str, name: str, old: Any, new: Any, change_class: str) -> Row:
    values = {"old_value": old, "new_value": new, "change_class": change_class}
    return {"id": id_, "change": "changed", "field": name} | values


def _whole(id_: str, change: str, old: str | None, new: str) -> Row:
    values = {"old_value": old, "new_value": new, "change_class": "lifecycle"}
    return {"id": id_, "change": change, "field": "outcome"} | values


def _registered(day: PublishedPartition, id_: str) -> Row:
    """The inventory's columns for an id; an empty cell becomes null."""
    registered = day.register.get(id_)
    names = ("owner", "cost_center", "environment")
    return {name: (getattr(registered, name) or None) if registered else None for name in names}


def _reconciled(id_: str, kind: str, outcome: str | None, content: Row, registered: Row) -> Row:
    return {
        "id": id_,
        "kind": kind,
        "outcome": outcome,
        **{name: content[name] for name in ("name", "namespace", "swr_path", "visibility")},
        "size_bytes": size_bytes(content),
        **registered,
    }
