"""A seeded catalogue of images that changes from day to day, and the record of its changes.

Nothing is stored: what an image is on a day is computed from (seed, slot, day), so that a million images cost no memory
and any day can be asked for. The catalogue has `size` slots; in each, images follow one another, one generation after
the other, each with an id of its own. The first slots belong to a scripted cast (`STORYLINES`) whose stories repeat
every seven days: any 14 consecutive days show each of them whole. A change carries a time of the day before the one
on which it is first seen, so that no timestamp lies in the future of a request made on that day. Days before 1990 are
not meant to be asked for. HTTP does not belong here.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple

from pipelines.sandbox.images import DAY_MS, ENVIRONMENTS, TEAMS, Dice, Life, at, change, leave_out, static_fields
from pipelines.sandbox.storylines import STORYLINES, WEEK, State, Storyline, play, scripted_state

# How long an image that is gone stays registered in the inventory; longer than it answers with status DELETED.
_STILL_REGISTERED_DAYS = 12
_MAX_DELETED_DAYS = 6
_SHORTEST_LIFE_DAYS = 20

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_GENERATION_BITS = 22
_SLOT_BITS = 34
_SEAL_BITS = 122 - _SLOT_BITS - _GENERATION_BITS

_FLAVORS = ("modelarts.vm.cpu.2u", "modelarts.vm.cpu.8u", "modelarts.vm.gpu.p100", "modelarts.bm.gpu.8v100")
_NOTEBOOK_STATUSES = ("RUNNING", "RUNNING", "STOPPED", "STOPPED", "FROZEN", "CREATING")


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
class Catalogue:
    """`size` slots of images of one `project`; equal arguments give equal catalogues, everywhere and always."""

    seed: int | str
    size: int
    project: str = "default"
    _key: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.size < 1 << _SLOT_BITS:
            raise ValueError(f"size must be from 0 to {(1 << _SLOT_BITS) - 1}")
        object.__setattr__(self, "_key", hashlib.sha256(f"{self.seed}/{self.project}".encode()).digest())

    # -- what the API would say

    def answer(self, image_id: str, day: date) -> Answer:
        """What the details call answers on `day`: the image, or the error of one that is not there or not readable."""
        life = self._find(image_id)
        if life is not None:
            state, body = self._state(life, image_id, day.toordinal())
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

    def count(self, day: date) -> int:
        """How many images the list call has on `day`."""
        return len(self._listed_cast(day.toordinal())) + max(self.size - len(STORYLINES), 0)

    def page(self, day: date, offset: int, limit: int) -> list[dict[str, Any]]:
        """List items from record `offset` on, at most `limit`; forbidden images are listed, deleted ones are not."""
        ordinal = day.toordinal()
        lives = self._listed(ordinal, offset, limit)
        items = [self._describe(life, self._id(life), ordinal) for life in lives]
        for item in items:
            item.pop("support_res_categories", None)
        return items

    def ids(self, day: date) -> Iterator[str]:
        """The ids of the list call on `day`, in its order."""
        for life in self._listed(day.toordinal(), 0, self.size):
            yield self._id(life)

    def storylines(self, day: date) -> dict[str, str]:
        """The ids that play the storylines on `day`, by name."""
        ordinal = day.toordinal()
        return {story.name: self._id(self._life(slot, ordinal)) for slot, story in enumerate(self._cast())}

    def notebook_count(self) -> int:
        """How many notebooks there are, on any day."""
        return max(self.size - len(STORYLINES), 0) // 5

    def notebooks(self, day: date, offset: int = 0, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Notebooks as the API describes them, `token` and `url` included."""
        count = self.notebook_count()
        for number in range(offset, count if limit is None else min(offset + limit, count)):
            yield self._notebook(number, day.toordinal())

    # -- what is known about it otherwise

    def events(self, first_day: date, last_day: date) -> Iterator[Event]:
        """The record of changes seen from `first_day` to `last_day`, by day; looks at every image for each day."""
        for ordinal in range(first_day.toordinal(), last_day.toordinal() + 1):
            for slot in range(self.size):
                life = self._life(slot, ordinal)
                lives = [life]
                if ordinal - life.first <= _MAX_DELETED_DAYS + 1:
                    lives.insert(0, self._generation(slot, life.generation - 1))
                for one in lives:
                    yield from self._events_of(one, ordinal)

    def inventory(self, day: date) -> Iterator[InventoryRow]:
        """The register kept by people: it lacks a few images and still holds a few that are gone."""
        ordinal = day.toordinal()
        for slot in range(self.size):
            life = self._life(slot, ordinal)
            if life.first > ordinal - _STILL_REGISTERED_DAYS:
                yield from self._registered(self._generation(slot, life.generation - 1))
            yield from self._registered(life)

    # -- slots, generations, ids

    def _hash(self, purpose: str, number: int, generation: int = 0) -> bytes:
        data = f"{purpose}{number}/{generation}"
        return hashlib.blake2b(data.encode(), key=self._key, digest_size=64).digest()

    def _cast(self) -> tuple[Storyline, ...]:
        return STORYLINES[: self.size]

    def _rhythm(self, slot: int) -> tuple[int, int]:
        # Length of a generation in days, and by how many days its beginning is shifted.
        if slot < len(STORYLINES):
            days = STORYLINES[slot].days
            return days, (slot % WEEK + WEEK * 17 * slot) % days
        dice = Dice(self._hash("slot", slot))
        shortest, longest = dice.pick(((_SHORTEST_LIFE_DAYS, 60), (60, 400), (60, 400), (400, 2000), (400, 2000)))
        days = shortest + dice.roll(longest - shortest)
        return days, dice.roll(days)

    def _life(self, slot: int, ordinal: int) -> Life:
        days, shift = self._rhythm(slot)
        generation = (ordinal + shift) // days
        first = generation * days - shift
        return Life(slot, generation, first, first + days)

    def _generation(self, slot: int, generation: int) -> Life:
        days, shift = self._rhythm(slot)
        first = generation * days - shift
        return Life(slot, generation, first, first + days)

    def _id(self, life: Life) -> str:
        # The id holds slot and generation, enciphered, and a seal: so it can be looked up without an index.
        number = life.slot << _GENERATION_BITS | (life.generation & (1 << _GENERATION_BITS) - 1)
        seal = self._seal(number)
        return _uuid((number ^ self._mask(seal)) << _SEAL_BITS | seal)

    def _find(self, image_id: str) -> Life | None:
        if not _UUID.fullmatch(image_id):
            return None
        bits = _uuid_bits(image_id)
        seal = bits & (1 << _SEAL_BITS) - 1
        number = bits >> _SEAL_BITS ^ self._mask(seal)
        slot = number >> _GENERATION_BITS
        if slot >= self.size or self._seal(number) != seal:
            return None
        return self._generation(slot, number & (1 << _GENERATION_BITS) - 1)

    def _seal(self, number: int) -> int:
        return int.from_bytes(self._hash("seal", number)[:16]) & (1 << _SEAL_BITS) - 1

    def _mask(self, seal: int) -> int:
        digest = self._hash("mask", seal)
        return int.from_bytes(digest[:8]) & (1 << _SLOT_BITS + _GENERATION_BITS) - 1

    # -- the state of one image on one day

    def _state(self, life: Life, image_id: str, ordinal: int) -> tuple[State, dict[str, Any]]:
        # The body comes with "ok" and "deleted"; it is empty otherwise.
        state = self._state_only(life, ordinal)
        return state, self._describe(life, image_id, ordinal) if state in ("ok", "deleted") else {}

    def _state_only(self, life: Life, ordinal: int) -> State:
        if ordinal < life.first:
            return "absent"
        if life.slot < len(STORYLINES):
            return scripted_state(STORYLINES[life.slot].name, ordinal - life.first, ordinal >= life.end)
        if ordinal >= life.end:
            return "deleted" if ordinal < life.end + self._deleted_days(life) else "absent"
        return "forbidden" if self._hash("lock", life.slot)[0] < 3 else "ok"

    def _deleted_days(self, life: Life) -> int:
        return self._hash("gone", life.slot, life.generation)[0] % (_MAX_DELETED_DAYS + 1)

    def _listed_cast(self, ordinal: int) -> list[Life]:
        lives = [self._life(slot, ordinal) for slot in range(len(self._cast()))]
        return [life for life in lives if self._state_only(life, ordinal) in ("ok", "forbidden")]

    def _listed(self, ordinal: int, offset: int, limit: int) -> Iterator[Life]:
        cast = self._listed_cast(ordinal)
        yield from cast[offset : offset + limit]
        # Behind the cast every slot has exactly one living image, so a record's number leads straight to its slot.
        start = len(STORYLINES) + max(offset - len(cast), 0)
        taken = len(cast[offset : offset + limit])
        for slot in range(start, min(start + limit - taken, self.size)):
            yield self._life(slot, ordinal)

    def _describe(self, life: Life, image_id: str, ordinal: int) -> dict[str, Any]:
        dice = Dice(self._hash("body", life.slot, life.generation))
        body = static_fields(dice, image_id, life)
        if life.slot < len(STORYLINES):
            play(STORYLINES[life.slot].name, body, life, ordinal)
        else:
            change(dice, body, life, ordinal)
            leave_out(dice, body)
        return body

    def _events_of(self, life: Life, ordinal: int) -> Iterator[Event]:
        day, image_id = date.fromordinal(ordinal), self._id(life)
        before, old = self._state(life, image_id, ordinal - 1)
        after, new = self._state(life, image_id, ordinal)
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
        dice = Dice(self._hash("team", life.slot))
        unregistered = dice.roll(40) == 0
        if life.slot < len(STORYLINES):
            unregistered = STORYLINES[life.slot].name == "unregistered"
        if unregistered:
            return
        team, cost_center, owner = dice.pick(TEAMS)
        yield InventoryRow(
            self._id(life),
            self.project,
            "" if dice.percent(5) else owner,
            "" if dice.percent(5) else cost_center,
            dice.pick(ENVIRONMENTS),
            f"{team}@example.com",
        )

    def _notebook(self, number: int, ordinal: int) -> dict[str, Any]:
        # Never one of the cast: nobody uses the giant.
        dice = Dice(self._hash("desk", number))
        life = self._life(len(STORYLINES) + dice.roll(self.size - len(STORYLINES)), ordinal)
        image = self._describe(life, self._id(life), ordinal)
        dice = Dice(self._hash("note", number, life.generation))
        notebook_id, token = _uuid(dice.roll(1 << 122)), _uuid(dice.roll(1 << 122))
        team, _, owner = dice.pick(TEAMS)
        created = at(life.first, dice.roll(DAY_MS))
        gigabytes = 5 * (1 + dice.roll(40))
        return {
            "id": notebook_id,
            "name": f"{team}-notebook-{number}",
            "description": "",
            "feature": "NOTEBOOK",
            "flavor": dice.pick(_FLAVORS),
            "status": _NOTEBOOK_STATUSES[(dice.roll(997) + ordinal // 3) % len(_NOTEBOOK_STATUSES)],
            "image": {
                key: image[key] for key in ("id", "name", "swr_path", "tag", "type") if image.get(key) is not None
            },
            "user": {"id": _uuid(dice.roll(1 << 122)).replace("-", ""), "name": owner},
            "lease": {"create_at": created, "duration": 3_600_000, "enable": True, "update_at": created},
            "volume": {
                "category": dice.pick(("EVS", "EFS")),
                "ownership": "MANAGED",
                "mount_path": "/home/ma-user/data/",
                "capacity": gigabytes,
            },
            "workspace_id": "0",
            "token": token,
            "url": f"https://authoring-modelarts.invalid/{notebook_id}/lab?token={token}",
        }


def _uuid(bits: int) -> str:
    # 122 free bits around the version and the variant of RFC 4122.
    text = f"{bits >> 74:012x}4{bits >> 62 & 0xFFF:03x}{2 << 62 | bits & (1 << 62) - 1:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _uuid_bits(text: str) -> int:
    digits = text.replace("-", "")
    return int(digits[:12], 16) << 74 | int(digits[13:16], 16) << 62 | int(digits[16:], 16) & (1 << 62) - 1


def _kind_of_change(name: str, new: Any) -> str:
    match name:
        case "size":
            return "re_pushed"
        case "visibility":
            return "widened" if new == "PUBLIC" else "narrowed"
        case "status":
            return "status"
    return "updated"
