"""What all users of images have in common: how they are numbered, and how they refer to an image.

Each kind of user is a `Series` in `sandbox.workloads` or `sandbox.serving`; `sandbox.resources` has all of them.
"""

from collections.abc import Iterator
from datetime import date
from typing import Any, ClassVar, Literal, NamedTuple

from pipelines.sandbox.images import TEAMS, USERNAME, Dice, Life, at
from pipelines.sandbox.slots import Slots
from pipelines.sandbox.storylines import STORYLINES

# Part of everything that must never be kept: environment values, command lines, tokens in addresses.
SECRET_MARK = "sandbox-secret-"  # noqa: S105 - invented ones, to be searched for

Strength = Literal["running", "required", "copied"]

# Since when users of images exist that stay while their images come and go.
_LONG_AGO = date(2010, 1, 1).toordinal()
_SLOTS = {story.name: slot for slot, story in enumerate(STORYLINES)}


class Reference(NamedTuple):
    """One image that something refers to, as whoever reads all answers would know it.

    `kind`       notebook, training_job, algorithm, model, service (of either API) or workflow
    `image_id`   the image that is meant; None when it is none of the catalogue. Other images may have the same path,
                 and a digest without a tag does not say which image of the repository it means.
    `reference`  the registry address as sent; the id as sent where no address is. Of a service that names a model and
                 of a job that names an algorithm: the address that these state.
    `strength`   copied: a model took a copy of it (`source_copy`), or a service runs that copy. Otherwise running while
                 the status of notebook, job, service or workflow is `running`, in whatever case; else required, because
                 it could not be started, run again or deployed without the image.
    `user`       whose it is, as sent
    `status`     as sent; None where the answer has none
    """

    kind: str
    resource_id: str
    image_id: str | None
    reference: str
    strength: Strength
    workspace_id: str
    user: str
    status: str | None


class Address(NamedTuple):
    """A registry address, and the image it means; None when it means none of the catalogue."""

    text: str
    image_id: str | None


def strength_of(status: str | None) -> Strength:
    """The strength of a reference that is no copy."""
    return "running" if status is not None and status.lower() == "running" else "required"


class Series:
    """Users of images of one kind, numbered from 0 on; the first ones play the stories of the cast."""

    source: ClassVar[str]
    kind: ClassVar[str]
    # So many for so many images, and no fewer than that.
    share: ClassVar[tuple[int, int]]
    fewest: ClassVar[int] = 6

    def __init__(self, images: Slots) -> None:
        self.images = images

    @property
    def total(self) -> int:
        """How many there are, on any day; none without ordinary images."""
        if self.images.ordinary_count == 0:
            return 0
        users, images = self.share
        return max(self.fewest, self.images.size * users // images)

    def item(self, number: int, ordinal: int) -> dict[str, Any]:
        """What the list says of one."""
        raise NotImplementedError

    def references(self, number: int, ordinal: int) -> Iterator[Reference]:
        """The images that one refers to."""
        raise NotImplementedError

    # -- for all kinds

    def secret(self, number: int) -> str:
        """What an answer says and nobody may keep."""
        return SECRET_MARK + self.images.hash(f"{self.source} secret", number)[:12].hex()

    def user(self, number: int, dice: Dice) -> str:
        """Whose it is: of every ten, one belongs to whoever signs in to the sandbox."""
        owner = dice.pick(TEAMS)[2]
        return USERNAME if is_of_user(number) else owner

    def workspace(self, number: int, ordinal: int) -> str:
        """Where it lives."""
        return self.images.workspace_of(number, ordinal)

    def ordinary(self, dice: Dice, ordinal: int) -> Life:
        """Some image that is not of the cast: those have the users that their stories tell of, and no others."""
        slot = len(STORYLINES) + dice.roll(self.images.ordinary_count)
        return self.images.living(slot, ordinal)

    def cast(self, name: str, ordinal: int) -> Life:
        """An image of the cast."""
        return self.images.living(_SLOTS[name], ordinal)

    def created_at(self, number: int) -> int:
        """When something that outlives its images was created."""
        dice = self.images.dice(f"{self.source} created", number)
        return at(_LONG_AGO + dice.roll(1500), dice.roll(86_400_000))

    def address(self, dice: Dice, life: Life, ordinal: int, *, hosted: bool = False) -> Address:
        """An image's registry address in one of the shapes that are met; `hosted` ones always name a host.

        Those of the cast are plain ones with an internal host, so that their stories do not depend on the dice.
        """
        image_id = self.images.id_of(life)
        path = self.images.describe(life, ordinal)["swr_path"]
        host, _, short = path.partition("/")
        repository, _, tag = short.rpartition(":")
        internal = f"100.125.{dice.roll(16)}.{dice.roll(256)}:20202"
        digest = "sha256:" + self.images.hash("digest", life.slot, life.generation)[:32].hex()
        match dice.roll(20) if life.slot >= len(STORYLINES) else 0:
            case 0 | 1 | 2 | 3:
                return Address(f"{internal}/{short}", image_id)
            case 4 | 5 | 6 | 7 if not hosted:
                return Address(short, image_id)
            case 8:
                return Address(f"{host.upper()}/{repository.upper()}:{tag}", image_id)
            case 9:
                return Address(f"{host}/{short}@{digest}", image_id)
            case 10:
                return Address(f"{internal if hosted else host}/{repository}@{digest}", image_id)
            case 11 if not hosted:
                return Address(f"{repository}@{digest}", image_id)
            case 12:
                return Address(f"{host}/unlisted/{repository.replace('/', '-')}:{tag}", None)
        return Address(path, image_id)


def is_of_user(number: int) -> bool:
    """Whether the record of this number belongs to whoever signs in to the sandbox."""
    return number % 10 == 3
