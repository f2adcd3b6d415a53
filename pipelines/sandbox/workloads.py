"""Who works with images: notebooks, CodeLab instances, training jobs, algorithms, workflows, as the API shows them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar, NamedTuple

from pipelines.sandbox.images import DAY_MS, TEAMS, Dice, Life, at
from pipelines.sandbox.sealed_ids import uuid_of
from pipelines.sandbox.series import Address, Reference, Series, strength_of

_FLAVORS = ("modelarts.vm.cpu.2u", "modelarts.vm.cpu.8u", "modelarts.vm.gpu.p100", "modelarts.bm.gpu.8v100")
_NOTEBOOK_STATUSES = ("RUNNING", "RUNNING", "STOPPED", "STOPPED", "FROZEN", "CREATING")
# For how many days a notebook keeps its status.
_STATUS_DAYS = 3
_ENGINES = (
    ("pytorch-cuda", "PyTorch", "pytorch_1.8.0-cuda_10.2-py_3.7-ubuntu_18.04-x86_64"),
    ("horovod-cuda", "Horovod", "horovod_0.20.0-tensorflow_2.1.0-cuda_10.1-py_3.7-ubuntu_18.04-x86_64"),
)
_JOB_ENDS = ("Completed", "Completed", "Completed", "Failed", "Terminated")


class Notebooks(Series):
    """Notebooks, of which none uses an image of the cast."""

    source, kind, share, fewest = "notebooks", "notebook", (1, 5), 0
    feature: ClassVar[str] = "NOTEBOOK"
    _desk: ClassVar[str] = "desk"
    _note: ClassVar[str] = "note"

    def image_of(self, number: int, ordinal: int) -> Life:
        """The image that a notebook uses."""
        return self.ordinary(self.images.dice(self._desk, number), ordinal)

    def item(self, number: int, ordinal: int) -> dict[str, Any]:
        """A notebook as the list describes it."""
        life = self.image_of(number, ordinal)
        image = self.images.describe(life, ordinal)
        dice = self.images.dice(self._note, number, life.generation)
        notebook_id, token = uuid_of(dice.roll(1 << 122)), uuid_of(dice.roll(1 << 122))
        team, _, owner = dice.pick(TEAMS)
        created = at(life.first, dice.roll(DAY_MS))
        gigabytes = 5 * (1 + dice.roll(40))
        flavor = dice.pick(_FLAVORS)
        status = _NOTEBOOK_STATUSES[(dice.roll(997) + ordinal // _STATUS_DAYS) % len(_NOTEBOOK_STATUSES)]
        user_id = uuid_of(dice.roll(1 << 122)).replace("-", "")
        category = dice.pick(("EVS", "EFS"))
        updated = max(created, at(ordinal - ordinal % _STATUS_DAYS, created % DAY_MS))
        return {
            "id": notebook_id,
            "name": f"{team}-{self.feature.lower()}-{number}",
            "description": "",
            "feature": self.feature,
            "flavor": flavor,
            "status": status,
            "image": {
                key: image[key] for key in ("id", "name", "swr_path", "tag", "type") if image.get(key) is not None
            },
            "user": {"id": user_id, "name": owner},
            "lease": {"create_at": created, "duration": 3_600_000, "enable": True, "update_at": updated},
            "volume": {
                "category": category,
                "ownership": "MANAGED",
                "mount_path": "/home/ma-user/data/",
                "capacity": gigabytes,
            },
            "workspace_id": self.workspace(number, ordinal),
            "create_at": created,
            "update_at": updated,
            "token": token,
            "url": f"https://authoring-modelarts.invalid/{notebook_id}/lab?token={token}",
        }

    def references(self, number: int, ordinal: int) -> Iterator[Reference]:
        """The image of a notebook."""
        item = self.item(number, ordinal)
        image, status = item["image"], item["status"]
        yield Reference(
            self.kind,
            item["id"],
            image["id"],
            image["swr_path"],
            strength_of(status),
            item["workspace_id"],
            item["user"]["name"],
            status,
        )


class CodeLab(Notebooks):
    """Free instances, which the list of notebooks shows only when asked for their `feature`."""

    source, share, fewest = "codelab", (1, 50), 6
    feature = "DEFAULT"
    _desk = "codelab desk"
    _note = "codelab note"

    def image_of(self, number: int, ordinal: int) -> Life:
        """The image that an instance uses; the first one has an image of its own."""
        return self.cast("codelab-only", ordinal) if number == 0 else super().image_of(number, ordinal)


class _Job(NamedTuple):
    """A training job that is listed on a day: `first` is the day on which it is first seen."""

    generation: int
    first: int
    image: Life
    dice: Dice


class TrainingJobs(Series):
    """Training jobs; each number shows one job after the other.

    The first is new every night. The second has two tasks with an image each, the third refers to an algorithm, the
    fourth runs a preset engine, without an image; so does a share of the others.
    """

    source, kind, share = "training_jobs", "training_job", (3, 20)

    def _job(self, number: int, ordinal: int) -> _Job:
        rhythm = self.images.dice("job rhythm", number)
        days = 1 if number == 0 else 3 + rhythm.roll(40)
        shift = rhythm.roll(days)
        generation = (ordinal + shift) // days
        if number == 0:
            image = self.cast("trained-with", ordinal)
        else:
            image = self.ordinary(self.images.dice("job image", number, generation), ordinal)
        # A job keeps its image: when that is replaced, another job takes its place.
        dice = self.images.dice(f"job {generation}/", number, image.generation)
        return _Job(generation, max(generation * days - shift, image.first), image, dice)

    def item(self, number: int, ordinal: int) -> dict[str, Any]:
        """A job as the search describes it."""
        return self._described(number, ordinal)[0]

    def references(self, number: int, ordinal: int) -> Iterator[Reference]:
        """The images of a job."""
        item, addresses = self._described(number, ordinal)
        metadata, phase = item["metadata"], item["status"]["phase"]
        for address in addresses:
            yield Reference(
                self.kind,
                metadata["id"],
                address.image_id,
                address.text,
                strength_of(phase),
                metadata["workspace_id"],
                metadata["user_name"],
                phase,
            )

    def _described(self, number: int, ordinal: int) -> tuple[dict[str, Any], list[Address]]:
        job = self._job(number, ordinal)
        dice = job.dice
        job_id = uuid_of(dice.roll(1 << 122))
        created = at(job.first, dice.roll(DAY_MS * 3 // 4))
        variant = number if number < 4 else dice.pick((0, 0, 0, 0, 0, 1, 2, 3))
        phase, started, duration = self._status(number, job, created, ordinal)
        user = self.user(number, dice)
        algorithm, tasks, addresses = self._images(variant, number, job, ordinal)
        item: dict[str, Any] = {
            "kind": "job",
            "metadata": {
                "id": job_id,
                "name": "nightly-training" if number == 0 else f"training-{number}-{job.generation % 1000}",
                "description": "",
                "create_time": created,
                "workspace_id": self.workspace(number, ordinal),
                "user_name": user,
                "annotations": {"job_template": "Template DL"},
            },
            "status": {
                "phase": phase,
                "secondary_phase": phase,
                "duration": duration,
                "start_time": started,
                "tasks": [f"task-{nth}" for nth in range(len(tasks) or 1)],
            },
            "algorithm": algorithm,
            "spec": {
                "resource": {"flavor_id": dice.pick(_FLAVORS), "node_count": 1 + dice.roll(4)},
                "log_export_path": {"obs_url": f"/logs/{job_id}/"},
            },
        }
        if tasks:
            item["tasks"] = tasks
        return item, addresses

    def _status(self, number: int, job: _Job, created: int, ordinal: int) -> tuple[str, int, int]:
        # Phase, start and duration.
        days = 0 if number == 0 else job.dice.pick((0, 0, 1, 3, 10))
        is_waiting = number != 0 and job.dice.percent(30)
        end, age = job.dice.pick(_JOB_ENDS), ordinal - job.first
        started = created + 90_000
        if age == 0 and is_waiting:
            return "Pending", 0, 0
        if age < days:
            return "Running", started, max(at(ordinal + 1, 0) - started, 0)
        return "Completed" if number == 0 else end, started, max(days, 1) * 14_400_000

    def _images(
        self, variant: int, number: int, job: _Job, ordinal: int
    ) -> tuple[dict[str, Any], list[dict[str, Any]], list[Address]]:
        # What a job says of its algorithm and of its tasks, and the images that follow from it.
        dice = self.images.dice(f"job images {job.generation}/", number, job.image.generation)
        secret = self.secret(number)
        code = {"code_dir": f"/code/job-{number}/", "boot_file": f"/code/job-{number}/train.py"}
        match variant:
            case 1:
                lives = [job.image, self.ordinary(dice, ordinal)]
                addresses = [self.address(dice, life, ordinal) for life in lives]
                tasks = [
                    {
                        "role": role,
                        "algorithm": code
                        | {"engine": {"image_url": address.text}, "environments": {"TASK_PASSWORD": secret}},
                        "task_resource": {"flavor_id": dice.pick(_FLAVORS), "node_count": 1},
                    }
                    for role, address in zip(("learner", "worker"), addresses, strict=True)
                ]
                return {}, tasks, addresses
            case 2:
                # The first algorithm has an image that nothing else refers to.
                algorithms = Algorithms(self.images)
                referred = 1 + dice.roll(algorithms.total - 1)
                algorithm = algorithms.item(referred, ordinal)["metadata"]
                address = algorithms.address_of(referred, ordinal)
                named = {"id": algorithm["id"], "name": algorithm["name"], "engine": {}}
                return named | {"environments": [{"DB_PASSWORD": secret}]}, [], [address] if address else []
            case 3:
                engine_id, engine_name, engine_version = dice.pick(_ENGINES)
                engine = {"engine_id": engine_id, "engine_name": engine_name, "engine_version": engine_version}
                return code | {"engine": engine, "environments": [{"DB_PASSWORD": secret}]}, [], []
        address = self.address(dice, job.image, ordinal)
        engine = {"engine_id": "", "engine_name": "", "engine_version": "", "image_url": address.text}
        if dice.percent(10):
            engine["image_repo_id"] = uuid_of(dice.roll(1 << 122))
        command = f"python train.py --registry-token {secret}"
        return code | {"engine": engine, "command": command, "environments": [{"DB_PASSWORD": secret}]}, [], [address]


class Algorithms(Series):
    """Algorithms; the first refers to an image that nothing else refers to, a share has a preset engine."""

    source, kind, share = "algorithms", "algorithm", (1, 50)

    def item(self, number: int, ordinal: int) -> dict[str, Any]:
        """An algorithm as the list describes it."""
        dice = self.images.dice("algorithm", number)
        algorithm_id, user = uuid_of(dice.roll(1 << 122)), self.user(number, dice)
        created, address = self.created_at(number), self.address_of(number, ordinal)
        engine_id, engine_name, engine_version = dice.pick(_ENGINES)
        engine = {"engine_id": engine_id, "engine_name": engine_name, "engine_version": engine_version}
        if address:
            engine = {"engine_id": "", "engine_name": "", "engine_version": "", "image_url": address.text}
        secret = self.secret(number)
        return {
            "metadata": {
                "id": algorithm_id,
                "name": f"algorithm-{number}",
                "description": "",
                "workspace_id": self.workspace(number, ordinal),
                "ai_project": "default-ai-project",
                "user_name": user,
                "domain_id": "sandbox-domain",
                "source": "custom",
                "api_version": "v2",
                "is_valid": True,
                "state": "NORMAL",
                "create_time": created,
                "update_time": max(created, at(self._image(number, ordinal).first, created % DAY_MS)),
            },
            "job_config": {
                "code_dir": f"/code/algorithm-{number}/",
                "boot_file": f"/code/algorithm-{number}/train.py",
                "command": f"python train.py --token {secret}",
                "parameters": [{"name": "api_key", "value": secret}],
                "engine": engine,
                "environments": {"DB_PASSWORD": secret},
                "parameters_customization": True,
            },
            "resource_requirements": [],
            "advanced_config": {},
        }

    def references(self, number: int, ordinal: int) -> Iterator[Reference]:
        """The image of an algorithm, if it has one."""
        address, metadata = self.address_of(number, ordinal), self.item(number, ordinal)["metadata"]
        if address:
            yield Reference(
                self.kind,
                metadata["id"],
                address.image_id,
                address.text,
                "required",
                metadata["workspace_id"],
                metadata["user_name"],
                metadata["state"],
            )

    def address_of(self, number: int, ordinal: int) -> Address | None:
        """The image of an algorithm; None where its engine is a preset one."""
        image = self._image(number, ordinal)
        dice = self.images.dice("algorithm address", number, image.generation)
        has_image = not dice.percent(20) or number == 0
        return self.address(dice, image, ordinal) if has_image else None

    def _image(self, number: int, ordinal: int) -> Life:
        if number == 0:
            return self.cast("algorithm-only", ordinal)
        return self.ordinary(self.images.dice("algorithm image", number), ordinal)


class Workflows(Series):
    """Workflows, whose steps name images somewhere in their free-form properties; the second names none."""

    source, kind, share = "workflows", "workflow", (1, 100)

    def item(self, number: int, ordinal: int) -> dict[str, Any]:
        """A workflow as the list describes it."""
        dice = self.images.dice("workflow", number)
        workflow_id, user = uuid_of(dice.roll(1 << 122)), self.user(number, dice)
        created, secret = self.created_at(number), self.secret(number)
        image, address = self._image(number, ordinal)
        updated = max(created, at(image.first, created % DAY_MS))
        status = ("running", "completed", "completed", "failed")[(dice.roll(97) + ordinal) % 4]
        executed = max(updated, at(ordinal, created % DAY_MS))
        properties: dict[str, Any] = {"created_by": user, "inputs": {"password": secret}}
        if address:
            properties |= dice.pick(
                (
                    {"algorithm": {"engine": {"image_url": address.text}}},
                    {"spec": {"containers": [{"args": ["--retries=3", f"--image={address.text}"]}]}},
                    {"note": f"runs {address.text} on two nodes"},
                )
            )
        return {
            "workflow_id": workflow_id,
            "name": f"workflow-{number}",
            "description": "",
            "created_at": _text_of(created),
            "last_modified_at": _text_of(updated),
            "user_name": user,
            "workspace_id": self.workspace(number, ordinal),
            "steps": [
                {"name": "prepare", "type": "labeling", "properties": {"dataset": f"dataset-{number}"}},
                {"name": "train", "type": "job", "depend_steps": ["prepare"], "properties": properties},
            ],
            "latest_execution": {
                "execution_id": uuid_of(dice.roll(1 << 122)),
                "created_at": _text_of(executed),
                "status": status,
                "duration": 3600,
            },
            "run_count": 1 + number,
            "param_ready": True,
        }

    def references(self, number: int, ordinal: int) -> Iterator[Reference]:
        """The image that a workflow names, if it names one."""
        item, address = self.item(number, ordinal), self._image(number, ordinal)[1]
        if address:
            status = item["latest_execution"]["status"]
            yield Reference(
                self.kind,
                item["workflow_id"],
                address.image_id,
                address.text,
                strength_of(status),
                item["workspace_id"],
                item["user_name"],
                status,
            )

    def _image(self, number: int, ordinal: int) -> tuple[Life, Address | None]:
        image = self.ordinary(self.images.dice("workflow image", number), ordinal)
        dice = self.images.dice("workflow address", number, image.generation)
        names_one = number == 0 or (number != 1 and not dice.percent(25))
        return image, self.address(dice, image, ordinal, hosted=True) if names_one else None


def _text_of(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
