"""Who serves predictions with images: models, and the services of either API, as the API shows them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pipelines.sandbox.images import DAY_MS, Life, at
from pipelines.sandbox.sealed_ids import SealedIds, uuid_of
from pipelines.sandbox.series import Address, Reference, Series, strength_of

_MODEL_STATUSES = ("published", "published", "published", "published", "failed", "abnormal")
_SERVICE_STATUSES = ("running", "running", "running", "stopped", "stopped", "concerning", "failed")
# For how many days a service keeps its status.
_STATUS_DAYS = 7
_FLAVORS = ("modelarts.vm.cpu.2u", "modelarts.vm.gpu.t4u8", "modelarts.vm.ai1.a310")


class Model(NamedTuple):
    """A model, and the image that it was made from; `address` is None where it was not made from an image."""

    id: str
    name: str
    version: str
    image: Life
    address: Address | None
    is_copy: bool


class Models(Series):
    """Models, called AI applications too; each is of one image, and another takes its place with that.

    The first was made from the giant, without a copy; the second is a copy of an image that nothing else refers to.
    Neither is among those that services run at random.
    """

    source, kind, share = "models", "model", (1, 40)

    def model(self, number: int, ordinal: int) -> Model:
        """One of them."""
        if number < 2:
            image = self.cast(("unused-giant", "copied-from")[number], ordinal)
        else:
            image = self.ordinary(self.images.dice("model image", number), ordinal)
        dice = self.images.dice("model", number, image.generation)
        is_of_image, is_copy = not dice.percent(25) or number < 2, dice.percent(75) if number > 1 else number == 1
        version = f"0.0.{1 + dice.roll(9)}"
        address = self.address(dice, image, ordinal) if is_of_image else None
        return Model(self._ids.id_of(number, image.generation), f"model-{number}", version, image, address, is_copy)

    def item(self, number: int, ordinal: int) -> dict[str, Any]:
        """A model as the list describes it: without its image."""
        model = self.model(number, ordinal)
        dice = self.images.dice("model item", number, model.image.generation)
        return {
            "model_id": model.id,
            "model_name": model.name,
            "model_version": model.version,
            "model_status": dice.pick(_MODEL_STATUSES) if number > 1 else "published",
            "model_type": "Image" if model.address else dice.pick(("PyTorch", "TensorFlow", "MindSpore")),
            "model_size": dice.roll(1 << 33),
            "description": "",
            "owner": self.user(number, dice),
            "source_type": "custom",
            "create_at": at(model.image.first, dice.roll(DAY_MS)),
            "workspace_id": self.workspace(number, ordinal),
        }

    def details(self, model_id: str, ordinal: int) -> dict[str, Any] | None:
        """A model with its image; None when there is none of this id."""
        number = self._find(model_id, ordinal)
        if number is None:
            return None
        model, secret = self.model(number, ordinal), self.secret(number)
        dice = self.images.dice("model details", number, model.image.generation)
        host = self.images.describe(model.image, ordinal)["swr_path"].partition("/")[0]
        details = self.item(number, ordinal) | {
            "source_location": model.address.text if model.address else f"https://models.invalid/{model.name}/",
            # What was built; of a model that is no copy, its source itself.
            "image_address": f"{host}/modelarts-built/{model.id}:{model.version}",
            "runtime": "python3.9",
            "execution_code": "",
            "config": {"envs": {"DB_PASSWORD": secret}},
            "initial_config": f'{{"health": {{"url": "/health"}}, "cmd": "serve --token {secret}"}}',
        }
        if model.address and not model.is_copy:
            details["image_address"] = model.address.text
        # As text, as the truth value that it is, or not at all where it is the default.
        form = 0 if number < 2 else dice.roll(3)
        if form < 2:
            details["source_copy"] = str(model.is_copy).lower() if form == 0 else model.is_copy
        elif not model.is_copy:
            details["source_copy"] = "false"
        return details

    def references(self, number: int, ordinal: int) -> Iterator[Reference]:
        """The image of a model, if it is of one."""
        model, item = self.model(number, ordinal), self.item(number, ordinal)
        if model.address:
            yield Reference(
                self.kind,
                model.id,
                model.address.image_id,
                model.address.text,
                "copied" if model.is_copy else "required",
                item["workspace_id"],
                item["owner"],
                item["model_status"],
            )

    @property
    def _ids(self) -> SealedIds:
        return SealedIds(self.images.key, "model ")

    def _find(self, model_id: str, ordinal: int) -> int | None:
        found = self._ids.find(model_id)
        if found is None or found[0] >= self.total:
            return None
        return found[0] if self.model(found[0], ordinal).id == model_id else None


class Services(Series):
    """What the services of both APIs have in common: an id for good, and from time to time another image.

    The day on which the image changes shows in the list.
    """

    kind, share = "service", (1, 200)

    def _revision(self, number: int, ordinal: int) -> tuple[int, int]:
        # Which revision it is, and since when.
        dice = self.images.dice(f"{self.source} rhythm", number)
        days = 10 + dice.roll(50)
        shift = dice.roll(days)
        revision = (ordinal + shift) // days
        return revision, revision * days - shift

    def _status(self, number: int, ordinal: int) -> tuple[str, int]:
        # The status, in lower case, and since when; the first service always runs.
        phase = ordinal - ordinal % _STATUS_DAYS
        if number == 0:
            return "running", phase
        dice = self.images.dice(f"{self.source} status", number)
        return _SERVICE_STATUSES[(dice.roll(997) + ordinal // _STATUS_DAYS) % len(_SERVICE_STATUSES)], phase

    @property
    def _ids(self) -> SealedIds:
        return SealedIds(self.images.key, f"{self.source} ")

    def _id(self, number: int) -> str:
        return self._ids.id_of(number, 0)

    def _find(self, service_id: str) -> int | None:
        found = self._ids.find(service_id)
        return found[0] if found and found[0] < self.total and found[1] == 0 else None


class ServicesV1(Services):
    """Services that run models; the first one runs the model of the giant."""

    source = "services_v1"

    def item(self, number: int, ordinal: int) -> dict[str, Any]:
        """A service as the list describes it: without its models."""
        dice = self.images.dice("v1", number)
        created, (status, status_since) = self.created_at(number), self._status(number, ordinal)
        models = [model for model, _ in self._models(number, ordinal)]
        updated_on = max(self._revision(number, ordinal)[1], *(model.image.first for model in models))
        return {
            "service_id": self._id(number),
            "service_name": f"service-{number}",
            "description": "",
            "owner": self.user(number, dice),
            "infer_type": "real-time" if number == 0 else dice.pick(("real-time", "real-time", "batch")),
            "workspace_id": self.workspace(number, ordinal),
            "status": status,
            "progress": 100,
            "invocation_times": dice.roll(100_000) + ordinal,
            "failed_times": dice.roll(100),
            "is_shared": False,
            "shared_count": 0,
            "publish_at": created,
            "update_time": max(created, at(updated_on, created % DAY_MS)),
            "transition_at": max(created, at(status_since, created % DAY_MS)),
        }

    def details(self, service_id: str, ordinal: int) -> dict[str, Any] | None:
        """A service with its models; None when there is none of this id."""
        number = self._find(service_id)
        if number is None:
            return None
        secret, models = self.secret(number), self._models(number, ordinal)
        return self.item(number, ordinal) | {
            "access_address": f"https://infer.invalid/v1/infers/{service_id}?token={secret}",
            "config": [
                {
                    "model_id": model.id,
                    "model_name": model.name,
                    "model_version": model.version,
                    "specification": _FLAVORS[number % len(_FLAVORS)],
                    "weight": weight,
                    "instance_count": 1,
                    "scaling": False,
                    "envs": {"DB_PASSWORD": secret, "LOG_LEVEL": "info"},
                }
                for model, weight in models
            ],
        }

    def references(self, number: int, ordinal: int) -> Iterator[Reference]:
        """The images of a service's models."""
        item = self.item(number, ordinal)
        for model, _ in self._models(number, ordinal):
            if model.address:
                yield Reference(
                    self.kind,
                    item["service_id"],
                    model.address.image_id,
                    model.address.text,
                    "copied" if model.is_copy else strength_of(item["status"]),
                    item["workspace_id"],
                    item["owner"],
                    item["status"],
                )

    def _models(self, number: int, ordinal: int) -> list[tuple[Model, int]]:
        # The models that it runs, each with its share of the requests.
        models, (revision, _) = Models(self.images), self._revision(number, ordinal)
        if number == 0:
            return [(models.model(0, ordinal), 100)]
        dice = self.images.dice("v1 models", number, revision)
        choices = models.total - 2
        first = dice.roll(choices)
        if not dice.percent(25):
            return [(models.model(2 + first, ordinal), 100)]
        second = (first + 1 + dice.roll(choices - 1)) % choices
        return [(models.model(2 + first, ordinal), 90), (models.model(2 + second, ordinal), 10)]


class _Unit(NamedTuple):
    """A part of a service: what it says of its image, and whether it names one at all."""

    image: dict[str, str]
    address: Address | None
    life: Life


class ServicesV2(Services):
    """Services that run images; the first one runs the giant."""

    source = "services_v2"

    def item(self, number: int, ordinal: int) -> dict[str, Any]:
        """A service as the list describes it: without its images."""
        dice = self.images.dice("v2", number)
        created, (status, _) = self.created_at(number), self._status(number, ordinal)
        revision, revised_on = self._revision(number, ordinal)
        updated_on = max(revised_on, *(unit.life.first for unit in self._units(number, ordinal)))
        return {
            "id": self._id(number),
            "name": f"inference-{number}",
            "status": status.upper(),
            "version": f"1.0.{revision % 90}",
            "version_count": 1 + revision % 5,
            "description": "",
            "type": "REAL_TIME",
            "deploy_type": "SINGLE",
            "user_name": self.user(number, dice),
            "workspace_id": self.workspace(number, ordinal),
            "create_at": created,
            "update_at": max(created, at(updated_on, created % DAY_MS)),
            "auth_type": "TOKEN",
            "tags": [],
        }

    def details(self, service_id: str, ordinal: int) -> dict[str, Any] | None:
        """A service with its images; None when there is none of this id."""
        number = self._find(service_id)
        if number is None:
            return None
        item, secret = self.item(number, ordinal), self.secret(number)
        units = self._units(number, ordinal)
        last_used = at(ordinal, item["create_at"] % DAY_MS)
        groups = [
            {
                "id": uuid_of(int.from_bytes(self.images.hash("v2 group", number, nth)[:15])),
                "name": f"group-{nth}",
                "framework": "COMMON",
                "count": 1,
                "status": item["status"],
                "last_used_time": last_used,
                "unit_configs": [
                    {
                        "name": "unit",
                        "role": "COMMON",
                        "flavor": _FLAVORS[number % len(_FLAVORS)],
                        "count": 1,
                        "image": unit.image,
                        "cmd": f"serve --api-key {secret}",
                        "envs": {"DB_PASSWORD": secret},
                        "port": 8080,
                    }
                ],
            }
            for nth, unit in enumerate(units)
        ]
        kept = ("id", "name", "workspace_id", "type", "deploy_type", "status", "user_name", "tags")
        return {key: item[key] for key in kept} | {
            "version": {
                "id": uuid_of(int.from_bytes(self.images.hash("v2 version", number)[:15])),
                "version": item["version"],
                "instance_groups": groups,
            },
            "predict_url": [{"type": "INTRANET", "urls": [f"https://infer.invalid/v2/{service_id}?token={secret}"]}],
            "create_at": str(item["create_at"]),
            "update_at": str(item["update_at"]),
        }

    def references(self, number: int, ordinal: int) -> Iterator[Reference]:
        """The images of a service."""
        item = self.item(number, ordinal)
        for unit in self._units(number, ordinal):
            if unit.address:
                yield Reference(
                    self.kind,
                    item["id"],
                    unit.address.image_id,
                    unit.address.text,
                    strength_of(item["status"]),
                    item["workspace_id"],
                    item["user_name"],
                    item["status"],
                )

    def _units(self, number: int, ordinal: int) -> list[_Unit]:
        revision, _ = self._revision(number, ordinal)
        dice = self.images.dice("v2 units", number, revision)
        if number == 0:
            return [self._unit(number, 0, self.cast("unused-giant", ordinal), ordinal)]
        count = 2 if dice.percent(25) else 1
        return [self._unit(number, nth, self.ordinary(dice, ordinal), ordinal) for nth in range(count)]

    def _unit(self, number: int, nth: int, life: Life, ordinal: int) -> _Unit:
        dice = self.images.dice(f"v2 unit {nth}/", number, life.generation)
        image_id, path = self.images.id_of(life), self.images.describe(life, ordinal)["swr_path"]
        match number if number == 0 else dice.roll(8):
            case 5:
                # An id alone.
                return _Unit({"id": image_id.upper(), "source": "MODELARTS"}, Address(image_id.upper(), image_id), life)
            case 6:
                address = self.address(dice, life, ordinal)
                return _Unit({"source": "SWR", "swr_path": address.text}, address, life)
            case 7:
                return _Unit({}, None, life)
        return _Unit({"id": image_id, "source": "SWR", "swr_path": path}, Address(path, image_id), life)
