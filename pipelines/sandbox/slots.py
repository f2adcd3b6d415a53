"""What an image of the catalogue is on a day: slots, generations, ids, workspaces, and whom each belongs to.

Nothing is stored: what an image is on a day is computed from (seed, slot, day), so that a million images cost no memory
and any day can be asked for. There are `size` slots; in each, images follow one another, one generation after the
other, each with an id of its own. The first slots belong to a scripted cast (`STORYLINES`). A change carries a time of
the day before the one on which it is first seen, so that no timestamp lies in the future of a request made on that day.
What the API and the register make of the images belongs to `sandbox.catalogue`, who uses them to `sandbox.resources`.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple

from pipelines.sandbox.images import DAY_MS, ENVIRONMENTS, TEAMS, Dice, Life, at, change, leave_out, static_fields
from pipelines.sandbox.sealed_ids import SLOT_BITS, SealedIds, keyed_hash, uuid_of
from pipelines.sandbox.storylines import STORYLINES, WEEK, State, Storyline, play, scripted_state
from pipelines.sandbox.workspaces import DEFAULT_WORKSPACE, is_in_second, number_of, share_of

# How long, at most, an image that is gone answers with status DELETED.
MAX_DELETED_DAYS = 6
_SHORTEST_LIFE_DAYS = 20


class Team(NamedTuple):
    """Whom the images of a slot belong to, and what the register says of that: `registered_` is empty for nothing."""

    name: str
    cost_center: str
    owner: str
    is_registered: bool
    registered_owner: str
    registered_cost_center: str
    environment: str


@dataclass(frozen=True, slots=True)
class Slots:
    """`size` slots of images of one `project`; equal arguments give equal images, everywhere and always.

    Of two `workspaces`, the second holds every eighth image and user of images, and a member of the cast. Before the
    day `second_workspace_since`, when one is stated, it does not exist, and what it will hold is in workspace 0.
    """

    seed: int | str
    size: int
    project: str = "default"
    workspaces: int = 1
    second_workspace_since: date | None = None
    key: bytes = field(init=False, repr=False)
    _ids: SealedIds = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.size < 1 << SLOT_BITS:
            raise ValueError(f"size must be from 0 to {(1 << SLOT_BITS) - 1}")
        if self.workspaces not in (1, 2):
            raise ValueError("workspaces must be 1 or 2")
        object.__setattr__(self, "key", hashlib.sha256(f"{self.seed}/{self.project}".encode()).digest())
        object.__setattr__(self, "_ids", SealedIds(self.key))

    # -- slots, generations, ids

    @property
    def ordinary_count(self) -> int:
        """How many slots there are behind the cast."""
        return max(self.size - len(STORYLINES), 0)

    def hash(self, purpose: str, number: int, generation: int = 0) -> bytes:
        """64 bytes that follow from catalogue and arguments."""
        return keyed_hash(self.key, purpose, number, generation)

    def dice(self, purpose: str, number: int, generation: int = 0) -> Dice:
        """Choices that follow from catalogue and arguments."""
        return Dice(self.hash(purpose, number, generation))

    def cast(self) -> tuple[Storyline, ...]:
        """The cast, each in the slot of its place; of a small catalogue the first ones."""
        return STORYLINES[: self.size]

    def _rhythm(self, slot: int) -> tuple[int, int]:
        # Length of a generation in days, and by how many days its beginning is shifted.
        if slot < len(STORYLINES):
            days = STORYLINES[slot].days
            return days, (slot % WEEK + WEEK * 17 * slot) % days
        dice = self.dice("slot", slot)
        shortest, longest = dice.pick(((_SHORTEST_LIFE_DAYS, 60), (60, 400), (60, 400), (400, 2000), (400, 2000)))
        days = shortest + dice.roll(longest - shortest)
        return days, dice.roll(days)

    def living(self, slot: int, ordinal: int) -> Life:
        """The image that lives in a slot on a day."""
        days, shift = self._rhythm(slot)
        generation = (ordinal + shift) // days
        first = generation * days - shift
        return Life(slot, generation, first, first + days)

    def before(self, life: Life) -> Life:
        """The image that lived in the slot before this one."""
        return self._generation(life.slot, life.generation - 1)

    def _generation(self, slot: int, generation: int) -> Life:
        days, shift = self._rhythm(slot)
        first = generation * days - shift
        return Life(slot, generation, first, first + days)

    def id_of(self, life: Life) -> str:
        """The id of an image."""
        return self._ids.id_of(life.slot, life.generation)

    def find(self, image_id: str) -> Life | None:
        """The image of an id; None when it is none of these."""
        found = self._ids.find(image_id)
        return self._generation(*found) if found and found[0] < self.size else None

    def team(self, slot: int) -> Team:
        """Whom the images of a slot belong to."""
        dice = self.dice("team", slot)
        is_registered = dice.roll(40) != 0
        if slot < len(STORYLINES):
            is_registered = STORYLINES[slot].name not in ("unregistered", "elsewhere")
        name, cost_center, owner = dice.pick(TEAMS)
        registered_owner = "" if dice.percent(5) else owner
        registered_cost_center = "" if dice.percent(5) else cost_center
        environment = dice.pick(ENVIRONMENTS)
        return Team(name, cost_center, owner, is_registered, registered_owner, registered_cost_center, environment)

    # -- workspaces

    @property
    def second_workspace(self) -> str:
        """The id of the second workspace, whether there is one or not."""
        return self.hash("workspace", 1)[:16].hex()

    def workspace_ids(self, day: date) -> list[str]:
        """The workspaces that there are on `day`."""
        return [DEFAULT_WORKSPACE, *([self.second_workspace] if self._has_second(day.toordinal()) else [])]

    def workspace_of(self, number: int, ordinal: int) -> str:
        """The workspace of an ordinary image, or of a user of images, by its number among its like."""
        is_second = is_in_second(number) and self._has_second(ordinal)
        return self.second_workspace if is_second else DEFAULT_WORKSPACE

    def numbers(
        self, count: int, ordinal: int, workspace: str | None, offset: int = 0, limit: int | None = None
    ) -> Iterator[int]:
        """The numbers of those of `count` records that live in a workspace (None: in any), from the `offset`th on."""
        share = self._share(count, workspace, ordinal)
        end = share if limit is None else min(offset + limit, share)
        if workspace is None or not self._has_second(ordinal):
            yield from range(offset, end)
        else:
            second = workspace == self.second_workspace
            for nth in range(offset, end):
                yield number_of(nth, second=second)

    def number_count(self, count: int, day: date, workspace: str | None) -> int:
        """How many of `count` records live in a workspace; None: in any."""
        return self._share(count, workspace, day.toordinal())

    def _has_second(self, ordinal: int) -> bool:
        since = self.second_workspace_since
        return self.workspaces == 2 and (since is None or ordinal >= since.toordinal())

    def _share(self, count: int, workspace: str | None, ordinal: int) -> int:
        has_second = self._has_second(ordinal)
        if workspace is None or (workspace == DEFAULT_WORKSPACE and not has_second):
            return count
        if workspace == DEFAULT_WORKSPACE or (has_second and workspace == self.second_workspace):
            return share_of(count, second=workspace != DEFAULT_WORKSPACE)
        return 0

    def workspace_of_slot(self, slot: int, ordinal: int) -> str:
        """The workspace of an image."""
        if slot >= len(STORYLINES):
            return self.workspace_of(slot - len(STORYLINES), ordinal)
        is_second = STORYLINES[slot].name == "elsewhere" and self._has_second(ordinal)
        return self.second_workspace if is_second else DEFAULT_WORKSPACE

    # -- the state of one image on one day

    def state(self, life: Life, ordinal: int, image_id: str | None = None) -> tuple[State, dict[str, Any]]:
        """What became of an image, and what it says of itself; that is empty unless it is "ok" or "deleted".

        Who knows the id saves working it out.
        """
        state = self.state_only(life, ordinal)
        return state, self.describe(life, ordinal, image_id) if state in ("ok", "deleted") else {}

    def state_only(self, life: Life, ordinal: int) -> State:
        """What became of an image."""
        if ordinal < life.first:
            return "absent"
        if life.slot < len(STORYLINES):
            return scripted_state(STORYLINES[life.slot].name, ordinal - life.first, ordinal >= life.end)
        if ordinal >= life.end:
            return "deleted" if ordinal < life.end + self._deleted_days(life) else "absent"
        return "forbidden" if self.hash("lock", life.slot)[0] < 3 else "ok"

    def _deleted_days(self, life: Life) -> int:
        return self.hash("gone", life.slot, life.generation)[0] % (MAX_DELETED_DAYS + 1)

    def describe(self, life: Life, ordinal: int, image_id: str | None = None) -> dict[str, Any]:
        """What an image says of itself on a day on which it is there."""
        dice = self.dice("body", life.slot, life.generation)
        body = static_fields(dice, image_id or self.id_of(life), life)
        if life.slot < len(STORYLINES):
            play(STORYLINES[life.slot].name, body, life, ordinal)
        else:
            change(dice, body, life, ordinal)
            leave_out(dice, body)
            self._label(dice, body, life)
        self._settle(body, life, ordinal)
        return body

    def _label(self, dice: Dice, body: dict[str, Any], life: Life) -> None:
        # Tags and names as newer answers have them; more often where the register does not name an owner.
        luck = dice.roll(100)
        if luck < 40 and "tags" not in body:
            own = self.team(life.slot)
            is_owned = own.is_registered and own.registered_owner and own.registered_cost_center
            if luck < 12 or not is_owned:
                # A tag may contradict the register.
                team, cost_center, owner = dice.pick(TEAMS) if dice.percent(20) else own[:3]
                tags = {"owner": owner, "cost_center": cost_center}
                tags |= {"environment": dice.pick(ENVIRONMENTS), "team": team}
                left_out = dice.pick(("owner", "cost_center", "environment", "team", ""))
                body["tags"] = [{"key": key, "value": value} for key, value in tags.items() if key != left_out]
        if body["type"] == "BUILD_IN" and dice.percent(20):
            body.update(show_name=body["name"].upper(), show_tag=body.get("tag", "latest"))
        elif body["type"] == "DEDICATED" and dice.percent(5):
            body["swr_instance_id"] = uuid_of(dice.roll(1 << 122))

    def _settle(self, body: dict[str, Any], life: Life, ordinal: int) -> None:
        # Put an image into its workspace, and note the move on the day that the second one appears.
        workspace = self.workspace_of_slot(life.slot, ordinal)
        if workspace == DEFAULT_WORKSPACE:
            return
        if "workspace_id" in body:
            body["workspace_id"] = workspace
        since = self.second_workspace_since
        if since is not None and life.first < since.toordinal() < life.end and "workspace_id" in body:
            moved_at = at(since.toordinal(), body["create_at"] % DAY_MS)
            body["update_at"] = max(body["update_at"], moved_at)
