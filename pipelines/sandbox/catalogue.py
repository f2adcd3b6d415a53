"""A seeded catalogue of images that changes from day to day, and the record of its changes.

It is what the API answers about the images of `sandbox.slots`, and what is known of them otherwise: the register kept
by people, and the record of what changed. The stories of the cast repeat every seven days: any 14 consecutive days show
each of them whole. Days before 2015 are not meant to be asked for. Who uses the images belongs to `sandbox.resources`,
who changed them to `sandbox.traces`. HTTP does not belong here.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

from pipelines.sandbox.images import Life
from pipelines.sandbox.resources import Resources
from pipelines.sandbox.series import Reference
from pipelines.sandbox.slots import MAX_DELETED_DAYS, Slots
from pipelines.sandbox.storylines import STORYLINES

# How long an image that is gone stays registered in the inventory.
_STILL_REGISTERED_DAYS = 12


class Answer(NamedTuple):
    """What the details call says of an image: `body` is the JSON object, None for an empty body."""

    http_status: int
    body: dict[str, Any] | None


class Event(NamedTuple):
    """One change: seen on `day` and not on the day before.

    `kind` is created, returned, vanished, deleted (answers with status DELETED), gone (no longer found), forbidden,
    readable, or for a changed field: re_pushed, narrowed, widened, status, updated. `field`, `old` and `new` are None
    where the whole image came or went; a field that is absent from the answer has the value None.
    """

    day: date
    id: str
    kind: str
    field: str | None
    old: Any
    new: Any


class InventoryRow(NamedTuple):
    """One registered image, as text; empty where the register says nothing."""

    id: str
    project: str
    owner: str
    cost_center: str
    environment: str
    team_email: str


@dataclass(frozen=True, slots=True)
class Catalogue(Slots):
    """What a cloud and a register say of the images of `Slots`; equal arguments give equal catalogues."""

    # -- what the API would say

    def answer(self, image_id: str, day: date) -> Answer:
        """What the details call answers on `day`: the image, or the error of one that is not there or not readable."""
        life = self.find(image_id)
        if life is not None:
            state, body = self.state(life, day.toordinal(), image_id)
            if state in ("ok", "deleted"):
                return Answer(200, body)
            if state == "forbidden":
                message = "You do not have the permission to access this image."
                return Answer(403, {"error_code": "ModelArts.0108", "error_msg": message})
        # Each of the ways to say it is met: by id, so that one image is always answered in the same way.
        error = {"error_code": "ModelArts.6404", "error_msg": f"The image {image_id} does not exist."}
        return (Answer(400, error), Answer(400, error), Answer(404, error), Answer(404, None))[
            sum(image_id.encode()) % 4
        ]

    def image(self, image_id: str, day: date) -> dict[str, Any] | None:
        """The image as the details call describes it on `day`; None when it does not (not found or forbidden)."""
        answer = self.answer(image_id, day)
        return answer.body if answer.http_status == 200 else None

    def count(self, day: date, workspace: str | None = None) -> int:
        """How many images the list call has on `day`, of one workspace or of all."""
        ordinal = day.toordinal()
        ordinary = self.number_count(self.ordinary_count, day, workspace)
        return len(self._listed_cast(ordinal, workspace)) + ordinary

    def page(self, day: date, offset: int, limit: int, workspace: str | None = None) -> list[dict[str, Any]]:
        """List items from record `offset` on, at most `limit`; forbidden images are listed, deleted ones are not."""
        ordinal = day.toordinal()
        items = [self.describe(life, ordinal) for life in self._listed(ordinal, offset, limit, workspace)]
        for item in items:
            item.pop("support_res_categories", None)
        return items

    def ids(self, day: date, workspace: str | None = None) -> Iterator[str]:
        """The ids of the list call on `day`, in its order."""
        for life in self._listed(day.toordinal(), 0, self.size, workspace):
            yield self.id_of(life)

    def storylines(self, day: date) -> dict[str, str]:
        """The ids that play the storylines on `day`, by name."""
        ordinal = day.toordinal()
        return {story.name: self.id_of(self.living(slot, ordinal)) for slot, story in enumerate(self.cast())}

    @property
    def resources(self) -> Resources:
        """The users of images: notebooks, training jobs, algorithms, models, services, workflows."""
        return Resources(self)

    def notebook_count(self) -> int:
        """How many notebooks there are, CodeLab instances left out, on any day."""
        return self.resources.total("notebooks")

    def notebooks(self, day: date, offset: int = 0, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Notebooks as the API describes them, `token` and `url` included, CodeLab instances left out."""
        yield from self.resources.items("notebooks", day, offset, self.size if limit is None else limit)

    def _listed_cast(self, ordinal: int, workspace: str | None) -> list[Life]:
        lives = [self.living(slot, ordinal) for slot in range(len(self.cast()))]
        return [
            life
            for life in lives
            if workspace in (None, self.workspace_of_slot(life.slot, ordinal))
            and self.state_only(life, ordinal) in ("ok", "forbidden")
        ]

    def _listed(self, ordinal: int, offset: int, limit: int, workspace: str | None) -> Iterator[Life]:
        cast = self._listed_cast(ordinal, workspace)
        taken = cast[offset : offset + limit]
        yield from taken
        # Behind the cast every slot has exactly one living image, so a record's number leads straight to its slot.
        start = max(offset - len(cast), 0)
        for number in self.numbers(self.ordinary_count, ordinal, workspace, start, limit - len(taken)):
            yield self.living(len(STORYLINES) + number, ordinal)

    # -- what is known about it otherwise

    def events(self, first_day: date, last_day: date) -> Iterator[Event]:
        """The record of changes seen from `first_day` to `last_day`, by day; looks at every image for each day."""
        for ordinal in range(first_day.toordinal(), last_day.toordinal() + 1):
            for slot in range(self.size):
                life = self.living(slot, ordinal)
                if ordinal - life.first <= MAX_DELETED_DAYS + 1:
                    yield from self.events_of(self.before(life), ordinal)
                yield from self.events_of(life, ordinal)

    def references(self, day: date, sources: Collection[str] | None = None) -> Iterator[Reference]:
        """Everything that refers to an image on `day`, in all workspaces and of all users, one by one.

        `sources` are those of `Resources`, for who does not read all of them.
        """
        return self.resources.references(day, sources)

    def inventory(self, day: date) -> Iterator[InventoryRow]:
        """The register kept by people: it lacks a few images and still holds a few that are gone."""
        ordinal = day.toordinal()
        for slot in range(self.size):
            life = self.living(slot, ordinal)
            if life.first > ordinal - _STILL_REGISTERED_DAYS:
                yield from self._registered(self.before(life))
            yield from self._registered(life)

    def events_of(self, life: Life, ordinal: int) -> Iterator[Event]:
        """The changes of one image that are first seen on a day."""
        day, image_id = date.fromordinal(ordinal), self.id_of(life)
        before, old = self.state(life, ordinal - 1, image_id)
        after, new = self.state(life, ordinal, image_id)
        if before == after == "ok":
            for name in sorted(old.keys() | new.keys()):
                if old.get(name) != new.get(name):
                    kind = _kind_of_change(name, new.get(name))
                    yield Event(day, image_id, kind, name, old.get(name), new.get(name))
        elif after == "deleted" and before != "deleted":
            yield Event(day, image_id, "deleted", "status", old.get("status"), "DELETED")
        elif before != after:
            if after == "ok":
                kind = {"absent": "created" if life.first == ordinal else "returned"}.get(before, "readable")
            elif after == "forbidden":
                kind = "forbidden"
            else:
                kind = "gone" if before == "deleted" or ordinal >= life.end else "vanished"
            yield Event(day, image_id, kind, None, None, None)

    def _registered(self, life: Life) -> Iterator[InventoryRow]:
        team = self.team(life.slot)
        if team.is_registered:
            yield InventoryRow(
                self.id_of(life),
                self.project,
                team.registered_owner,
                team.registered_cost_center,
                team.environment,
                f"{team.name}@example.com",
            )


def _kind_of_change(name: str, new: Any) -> str:
    match name:
        case "size":
            return "re_pushed"
        case "visibility":
            return "widened" if new == "PUBLIC" else "narrowed"
        case "status":
            return "status"
    return "updated"
