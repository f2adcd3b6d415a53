"""Who changed an image: traces as the audit service (CTS) keeps them, of the catalogue's own record of changes.

An image that is created, changed or removed leaves one trace, at the time of the change; a few changes leave a second
one, so that nobody can say which of them it was. Traces of other kinds of resources lie between them. Nothing is
stored: a trace's id says where it stands, so that a page is found without those before it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import orjson

from pipelines.sandbox.catalogue import Catalogue
from pipelines.sandbox.images import DAY_MS, TEAMS, USERNAME, Dice, Life, at
from pipelines.sandbox.sealed_ids import SealedIds, uuid_of
from pipelines.sandbox.series import SECRET_MARK
from pipelines.sandbox.storylines import STORYLINES

KEPT_DAYS = 7
FILTERS = ("service_type", "resource_type", "resource_id", "resource_name", "trace_name", "trace_rating", "trace_id")

_NAMES = {"created": "createNotebookImage", "deleted": "deleteNotebookImage", "gone": "deleteNotebookImage"}
_NO_ONES_DOING = ("returned", "vanished", "forbidden", "readable")
_OTHERS = (
    ("ModelArts", "Notebook", "startNotebook"),
    ("SWR", "imagetag", "createImageTag"),
    ("OBS", "bucket", "putBucketPolicy"),
)
# Numbers of the traces of one slot on one day: of the image, a second one, of the image before it.
_MOST_OF_SLOT = 4


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which traces are asked for: of times from `first` to `last` (milliseconds), with the values of `filters`."""

    first: int
    last: int
    filters: tuple[tuple[str, str], ...] = ()


class Traces:
    """The traces of a catalogue's images."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._ids = SealedIds(catalogue.key, "trace ")

    def page(
        self, day: date, wanted: Wanted, limit: int, marker: str | None = None
    ) -> tuple[list[dict[str, Any]], str | None]:
        """At most `limit` traces behind `marker`, and the marker of the next page; None when there was none.

        Of what changed on the seven days before `day`, the last day first, in no order within a day. One page in four
        begins with the trace that the page before ended with. An unknown marker has no page.
        """
        ordinal, slot, sub = day.toordinal(), 0, -1
        if marker is not None:
            found = self._ids.find(marker)
            if found is None:
                return [], None
            slot, (ordinal, sub) = found[0], divmod(found[1], _MOST_OF_SLOT)
            if limit > 1 and self._catalogue.dice("marker", slot, found[1]).roll(4) == 0:
                sub -= 1
        page: list[dict[str, Any]] = []
        while ordinal > day.toordinal() - KEPT_DAYS and len(page) < limit:
            if at(ordinal, 0) <= wanted.last and at(ordinal, DAY_MS) > wanted.first:
                for trace in self._of_day(ordinal, slot, sub):
                    if wanted.first <= trace["time"] <= wanted.last and all(
                        trace[name] == value for name, value in wanted.filters
                    ):
                        page.append(trace)
                        if len(page) == limit:
                            break
            ordinal, slot, sub = ordinal - 1, 0, -1
        if marker is not None and [trace["trace_id"] for trace in page] == [marker]:
            page = []
        return page, page[-1]["trace_id"] if page else None

    def seen_on(self, day: date) -> Iterator[dict[str, Any]]:
        """The traces of what is first seen on a day, and so was done on the day before."""
        return self._of_day(day.toordinal(), 0, -1)

    def _of_day(self, ordinal: int, slot: int, sub: int) -> Iterator[dict[str, Any]]:
        # Those behind the `sub`th of a slot.
        for each in range(slot, self._catalogue.size + len(_OTHERS)):
            for number, trace in self._of_slot(each, ordinal):
                if each > slot or number > sub:
                    yield trace

    def _of_slot(self, slot: int, ordinal: int) -> Iterator[tuple[int, dict[str, Any]]]:
        catalogue = self._catalogue
        if slot >= catalogue.size:
            yield 0, self._of_another(slot, ordinal)
            return
        life = catalogue.living(slot, ordinal)
        if self._may_have_changed(life, ordinal):
            yield from self._of_image(life, ordinal, 0)
        if life.first == ordinal:
            yield from self._of_image(catalogue.before(life), ordinal, 2)

    def _may_have_changed(self, life: Life, ordinal: int) -> bool:
        # Ordinary images say when they changed, which saves comparing two days.
        if life.slot < len(STORYLINES) or life.first == ordinal:
            return True
        return bool(self._catalogue.describe(life, ordinal)["update_at"] >= at(ordinal, 0))

    def _of_image(self, life: Life, ordinal: int, sub: int) -> Iterator[tuple[int, dict[str, Any]]]:
        catalogue = self._catalogue
        kinds = {event.kind for event in catalogue.events_of(life, ordinal)} - set(_NO_ONES_DOING)
        was_deleted_before = kinds == {"gone"} and catalogue.state_only(life, ordinal - 1) == "deleted"
        if not kinds or was_deleted_before:
            return
        body = catalogue.describe(life, ordinal)
        name = next((_NAMES[kind] for kind in kinds if kind in _NAMES), "updateNotebookImage")
        dice = catalogue.dice(f"trace {ordinal}/", life.slot, life.generation)
        stated = body["create_at"] if name == "createNotebookImage" else body["update_at"]
        fallback = at(ordinal, dice.roll(DAY_MS))
        time = stated if at(ordinal, 0) <= stated < at(ordinal, DAY_MS) else fallback
        image = ("ModelArts", "NotebookImage", name), catalogue.id_of(life), body["name"]
        user = "ci-pipeline" if body["name"] == "re-pushed" else dice.pick((catalogue.team(life.slot).owner, USERNAME))
        yield sub, self._trace(*image, user, time, self._id(life.slot, ordinal, sub), dice)
        if life.slot >= len(STORYLINES) and name == "updateNotebookImage" and dice.roll(12) == 0:
            later = min(time + 1 + dice.roll(60_000), at(ordinal, DAY_MS) - 1)
            other = f"{dice.pick(TEAMS)[2]}-admin"
            yield sub + 1, self._trace(*image, other, later, self._id(life.slot, ordinal, sub + 1), dice)

    def _of_another(self, slot: int, ordinal: int) -> dict[str, Any]:
        kind = _OTHERS[slot - self._catalogue.size]
        dice = self._catalogue.dice("other trace", slot, ordinal)
        resource_id, time = uuid_of(dice.roll(1 << 122)), at(ordinal, dice.roll(DAY_MS))
        user = dice.pick(TEAMS)[2]
        return self._trace(
            kind, resource_id, f"{kind[1].lower()}-{ordinal}", user, time, self._id(slot, ordinal, 0), dice
        )

    def _id(self, slot: int, ordinal: int, sub: int) -> str:
        return self._ids.id_of(slot, ordinal * _MOST_OF_SLOT + sub)

    def _trace(
        self, kind: tuple[str, str, str], resource_id: str, name: str, user: str, time: int, trace_id: str, dice: Dice
    ) -> dict[str, Any]:
        service, resource_type, trace_name = kind
        secret = SECRET_MARK + uuid_of(dice.roll(1 << 122))
        described = {
            "id": self._catalogue.hash(f"user {user}", 0)[:16].hex(),
            "name": user,
            "user_name": user,
            "domain": {"id": "sandbox-domain", "name": "sandbox-domain"},
        }
        return {
            "trace_id": trace_id,
            "trace_name": trace_name,
            "trace_rating": "normal",
            "trace_type": "ApiCall",
            "service_type": service,
            "resource_type": resource_type,
            "resource_id": resource_id,
            "resource_name": name,
            # As an object or, as it once was, as text.
            "user": described if dice.percent(70) else orjson.dumps(described).decode(),
            "source_ip": f"10.{dice.roll(256)}.{dice.roll(256)}.{1 + dice.roll(254)}",
            "time": time,
            "record_time": time + 1 + dice.roll(60_000),
            "code": "200",
            "api_version": "v1",
            "request": orjson.dumps({"name": name, "password": secret}).decode(),
            "response": orjson.dumps({"id": resource_id, "token": secret}).decode(),
        }
