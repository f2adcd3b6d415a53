"""What an ordinary image of the catalogue says of itself, from its first day on.

Which images there are on a day belongs to `sandbox.catalogue`, what happens to the scripted ones to
`sandbox.storylines`.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any, NamedTuple, TypeVar

_T = TypeVar("_T")

DAY_MS = 86_400_000
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()

TEAMS = (
    ("vision", "CC-4100", "a.lindqvist"),
    ("nlp-platform", "CC-4110", "m.okafor"),
    ("forecasting", "CC-4120", "j.moreau"),
    ("fraud-detection", "CC-5200", "s.yilmaz"),
    ("recommendations", "CC-5210", "p.novak"),
    ("robotics", "CC-6300", "t.brandt"),
    ("genomics", "CC-6310", "l.fernandes"),
    ("speech", "CC-6320", "k.virtanen"),
    ("geo-data", "CC-7400", "d.rossi"),
    ("ml-operations", "CC-7410", "h.weber"),
)
# Who signs in to the sandbox.
USERNAME = "sandbox-user"
ENVIRONMENTS = ("dev", "dev", "test", "prod", "prod")
_DESCRIPTIONS = (
    "Training image of the team",
    "Base for notebooks, rebuilt every month",
    "Inference runtime; keep in step with the model registry",
    "Für Experimente, nicht für den Betrieb",
    "Contains the feature store client",
    "Frozen for the audit",
)

_REGISTRY = "swr.eu-de.otc.t-systems.com"

# (framework, versions, what it runs on)
_STACKS = (
    ("pytorch", ("1.8.1", "1.11.0", "2.1.0", "2.3.1"), "cuda"),
    ("tensorflow", ("2.1.0", "2.11.0", "2.15.0"), "cuda"),
    ("vllm", ("0.4.2", "0.6.3"), "cuda"),
    ("mmdetection", ("2.28.2", "3.3.0"), "cuda"),
    ("mindspore", ("1.7.0", "2.2.0", "2.3.0"), "cann"),
    ("xgboost", ("1.7.6", "2.0.3"), "cpu"),
    ("spark", ("3.1.1", "3.5.0"), "cpu"),
)
_RUNTIMES = {"cuda": ("10.2", "11.8", "12.1"), "cann": ("7.0.0", "8.0.0"), "cpu": ("",)}
_PYTHONS = ("3.7", "3.9", "3.10", "3.11")
_SYSTEMS = ("ubuntu_18.04", "ubuntu_20.04", "ubuntu_22.04", "euler_2.8.3")
_PURPOSES = (
    "defect-detection", "document-ocr", "demand-forecast", "claim-triage", "speech-to-text", "route-planning",
    "credit-scoring", "product-search", "genome-assembly", "satellite-tiles", "chat-assistant", "price-watch",
)  # fmt: skip


class Life(NamedTuple):
    """One image: seen from `first` until the day before `end` (proleptic Gregorian ordinals)."""

    slot: int
    generation: int
    first: int
    end: int


class Dice:
    """Takes reproducible choices out of one hash."""

    __slots__ = ("_value",)

    def __init__(self, digest: bytes) -> None:
        self._value = int.from_bytes(digest)

    def roll(self, sides: int) -> int:
        """A number from 0 up to `sides`, which is left out."""
        self._value, side = divmod(self._value, sides)
        return side

    def pick(self, choices: Sequence[_T]) -> _T:
        """One of the choices, each as likely."""
        self._value, side = divmod(self._value, len(choices))
        return choices[side]

    def percent(self, share: int) -> bool:
        """True for so many in a hundred."""
        self._value, side = divmod(self._value, 100)
        return side < share


def at(seen_on: int, milliseconds: int) -> int:
    """Milliseconds since the epoch, on the day before the change is seen."""
    return (seen_on - 1 - _EPOCH_ORDINAL) * DAY_MS + milliseconds


def static_fields(dice: Dice, image_id: str, life: Life) -> dict[str, Any]:
    """All documented fields, as they are when the image is created."""
    framework, versions, runs_on = dice.pick(_STACKS)
    version, runtime = dice.pick(versions), dice.pick(_RUNTIMES[runs_on])
    stack = f"{framework}_{version}{f'-{runs_on}_{runtime}' if runtime else ''}-py_{dice.pick(_PYTHONS)}"
    arm = runs_on == "cann" or dice.percent(10)
    arch = dice.pick(("AARCH64", "aarch64") if arm else ("X86_64", "X86_64", "x86_64"))
    created = at(life.first, dice.roll(DAY_MS))
    built_in = dice.percent(25)
    if built_in:
        namespace, repository, name = "atelier", f"{framework}_{version.rpartition('.')[0].replace('.', '_')}", stack
        built_on = date.fromordinal(life.first - 1).strftime("%Y%m%d")
        tag = f"{stack}-{dice.pick(_SYSTEMS)}-{arch.lower()}-{built_on}-{dice.roll(1 << 28):07x}"
    else:
        namespace, repository = dice.pick(TEAMS)[0], f"{dice.pick(_PURPOSES)}-{framework}"
        name = dice.pick((stack, repository))
        tag = dice.pick(("latest", f"v{1 + dice.roll(40)}", f"{dice.roll(4)}.{dice.roll(20)}.{dice.roll(10)}"))
    categories = {"cuda": ["GPU", "CPU"], "cann": ["ASCEND", "CPU"], "cpu": ["CPU"]}[runs_on]
    return {
        "id": image_id,
        "name": name,
        "namespace": namespace,
        "swr_path": f"{_REGISTRY}/{namespace}/{repository}:{tag}",
        "tag": tag,
        "arch": arch,
        "type": "BUILD_IN" if built_in else "DEDICATED",
        "origin": dice.pick(("CUSTOMIZE", "CUSTOMIZE", "IMAGE_SAVE")),
        "service_type": dice.pick(("COMMON", "COMMON", "TRAIN", "DEV", "INFERENCE", "UNKNOWN")),
        "status": "ACTIVE",
        "status_message": "",
        "visibility": "PUBLIC" if built_in or dice.percent(10) else "PRIVATE",
        "workspace_id": "0",
        "flavor_type": "",
        "description": dice.pick(_DESCRIPTIONS),
        "size": 900_000 + dice.roll(24_000_000),
        "create_at": created,
        "update_at": created,
        "dev_services": dice.pick((["NOTEBOOK", "SSH"], ["SSH", "NOTEBOOK"], ["NOTEBOOK"], ["SSH"], [])),
        "resource_categories": categories,
        "support_res_categories": list(categories),
    }


def touch(body: dict[str, Any], changed_on: int) -> None:
    """Set update_at, in the night before the change is seen: later than whatever the image has gone through before."""
    body["update_at"] = max(body["create_at"], at(changed_on, body["create_at"] % DAY_MS))


def re_push(body: dict[str, Any], times: int) -> None:
    """Change the size, as a push under the same tag does."""
    # Neighbouring steps differ always: 37 and 23 have no common divisor.
    body["size"] += body["size"] * (37 * times % 23) // 100


def change(dice: Dice, body: dict[str, Any], life: Life, ordinal: int) -> None:
    """Ordinary life: each kind of change has its own period in days, 0 for never."""
    age = min(ordinal, life.end - 1) - life.first
    changed_on = life.first
    pushes = dice.pick((0, 0, 0, 3 + dice.roll(20), 20 + dice.roll(100)))
    if pushes and age >= pushes:
        re_push(body, age // pushes)
        changed_on = max(changed_on, life.first + age // pushes * pushes)
    describes = dice.pick((0, 0, 0, 15 + dice.roll(120)))
    if describes and age >= describes:
        body["description"] = f"{body['description']}, revision {age // describes}"
        changed_on = max(changed_on, life.first + age // describes * describes)
    toggles = 30 + dice.roll(200) if dice.percent(4) else 0
    if toggles and age >= toggles:
        if age // toggles % 2:
            body["visibility"] = "PRIVATE" if body["visibility"] == "PUBLIC" else "PUBLIC"
        changed_on = max(changed_on, life.first + age // toggles * toggles)
    build = dice.roll(100)
    if build < 30 and age == 0:
        body["status"] = "INIT" if build < 10 else "CREATING"
    elif build < 30 and age >= 1:
        changed_on = max(changed_on, life.first + 1)
        if build < 4:
            body.update(status="CREATE_FAILED", status_message="The build ended with exit status 1.")
    elif build > 97 and age >= 5:
        changed_on = max(changed_on, life.first + 5)
        body.update(status="ERROR", status_message="The image layers cannot be read.")
    if ordinal >= life.end:
        body["status"] = "DELETED"
        changed_on = life.end
    if changed_on > life.first:
        touch(body, changed_on)


def leave_out(dice: Dice, body: dict[str, Any]) -> None:
    """Bodies as they are really met: fields that are absent, null or empty, new ones, numbers as text, new values."""
    for name, share in (
        ("flavor_type", 70), ("status_message", 60), ("support_res_categories", 20), ("origin", 15),
        ("description", 12), ("visibility", 4), ("namespace", 3), ("workspace_id", 3), ("size", 2), ("tag", 1),
    ):  # fmt: skip
        if dice.percent(share) and not (name == "status_message" and body[name]):
            del body[name]
    if dice.percent(10):
        body["description"] = dice.pick((None, ""))
    if dice.percent(5):
        body["origin"] = None
    if dice.percent(10):
        body.update(show_name=body["name"].upper(), tags=[{"key": "stage", "value": dice.pick(ENVIRONMENTS)}])
    if dice.percent(2) and "size" in body:
        body["size"] = str(body["size"])
    if dice.percent(2):
        body["dev_services"] = [*body["dev_services"], "VSCODE"]
    if dice.percent(1):
        body["service_type"] = "EDGE"
