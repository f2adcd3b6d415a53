"""The expected use of images on sandbox days, computed from the sandbox's own record of what refers to them.

Plain Python over `Catalogue`: it shares neither SQL nor matching nor counting with the product. What else is expected
of a day belongs to `golden_oracle`.
"""

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from pipelines.sandbox.catalogue import Catalogue
from pipelines.sandbox.series import Reference

# The kind of the resources of each source, in the order in which a day names the sources.
KINDS = {
    "notebooks": "notebook",
    "training_jobs": "training_job",
    "algorithms": "algorithm",
    "models": "model",
    "services": "service",
    "workflows": "workflow",
}
# What the sandbox's record calls the sources of each kind.
_RECORDED = {
    "notebooks": ("notebooks", "codelab"),
    "services": ("services_v1", "services_v2"),
}
_OVER = ("completed", "failed", "terminated")
_SERVING = ("running", "deploying", "concerning")


class Use(NamedTuple):
    """One reference to an image, as a reader of the API knows it: by the id that is stated, by an address, or by both.

    `ended_at`: when the job was over that used it, None for all others.
    """

    kind: str
    strength: str
    image_id: str | None
    address: str | None
    ended_at: dt.datetime | None = None


def noon(date: dt.date) -> dt.datetime:
    """When a day is read."""
    return dt.datetime.combine(date, dt.time(12), dt.UTC)


def uses(catalogue: Catalogue, date: dt.date, unread: Collection[str]) -> Iterator[Use]:
    """The references of a day that were read. Services that run models are unknown while models are unread.

    `unread` may name any source but the algorithms.
    """
    for source in KINDS:
        if source in unread:
            continue
        for recorded in _RECORDED.get(source, (source,)):
            if recorded == "services_v1" and "models" in unread:
                continue
            found = list(catalogue.references(date, [recorded]))
            if recorded != "services_v1":
                # What a resource says twice counts once.
                found = list(dict.fromkeys(found))
            ends = _ends_of_jobs(catalogue, date) if source == "training_jobs" else {}
            stated = _stated_ids(catalogue, date, recorded)
            for one in found:
                strength = strength_of(one)
                is_id = one.image_id is not None and one.reference.lower() == one.image_id
                states_id = is_id or recorded in ("notebooks", "codelab") or (one.resource_id, one.reference) in stated
                yield Use(
                    one.kind,
                    strength,
                    one.image_id if states_id else None,
                    None if is_id else one.reference,
                    min(ends[one.resource_id], noon(date)) if strength == "past" else None,
                )


def strength_of(reference: Reference) -> str:
    """How something that the record knows uses an image: running, required, past or copied."""
    status = (reference.status or "").lower()
    if reference.strength == "copied" or reference.kind in ("model", "algorithm"):
        return reference.strength
    if reference.kind == "training_job":
        return "past" if status in _OVER else "running"
    running = _SERVING if reference.kind == "service" else ("running",)
    return "running" if status in running else "required"


def _ends_of_jobs(catalogue: Catalogue, date: dt.date) -> dict[str, dt.datetime]:
    resources = catalogue.resources
    jobs = resources.items("training_jobs", date, 0, resources.total("training_jobs"))
    return {
        job["metadata"]["id"]: dt.datetime.fromtimestamp(0, dt.UTC)
        + dt.timedelta(milliseconds=job["status"]["start_time"] + job["status"]["duration"])
        for job in jobs
    }


def _stated_ids(catalogue: Catalogue, date: dt.date, source: str) -> set[tuple[str, str]]:
    """Of services that name images: (id of the service, address) if the id of the image stands beside the address."""
    if source != "services_v2":
        return set()
    resources = catalogue.resources
    found = set()
    for service in resources.items(source, date, 0, resources.total(source)):
        details = resources.details(source, service["id"], date)
        for group in details["version"]["instance_groups"]:
            for unit in group["unit_configs"]:
                if "id" in unit["image"] and "swr_path" in unit["image"]:
                    found.add((service["id"], unit["image"]["swr_path"]))
    return found


def images_of(use: Use, living: Mapping[str, dict[str, Any]]) -> set[str]:
    """The living images (id -> content) that a reference may mean."""
    if use.image_id in living:
        return {use.image_id}
    if use.address is None:
        return set()
    path, tag = _taken_apart(use.address)
    found = set()
    for id_, content in living.items():
        its_path, its_tag = _taken_apart(content["swr_path"])
        if path == its_path and (tag == its_tag or None in (tag, its_tag)):
            found.add(id_)
    return found


def _taken_apart(address: str) -> tuple[str, str | None]:
    """Path without host, and tag, in lower case; the tag is None where a digest alone says which image it is."""
    named, _, digest = address.lower().partition("@")
    *directories, last = named.split("/")
    if directories and ("." in directories[0] or ":" in directories[0]):
        del directories[0]
    repository, _, tag = last.partition(":")
    return "/".join([*directories, repository]), tag or (None if digest else "latest")


@dataclass(frozen=True)
class UseHistory:
    """What is known of an image's use: the observed days since it is known, and the last evidence of use.

    `seen_on`: the last day on which something ran it or needed it. `ended_at`: when the last job was over that used it.
    """

    observed: tuple[dt.date, ...] = ()
    seen_on: dt.date | None = None
    ended_at: dt.datetime | None = None

    def later(self, date: dt.date, found: Sequence[Use], *, is_observed: bool) -> "UseHistory":
        """The same with a further day."""
        seen_on = date if any(use.strength in ("running", "required") for use in found) else self.seen_on
        ends = [end for end in (self.ended_at, *(use.ended_at for use in found)) if end is not None]
        observed = (*self.observed, date) if is_observed else self.observed
        return UseHistory(observed, seen_on, max(ends, default=None))

    @property
    def last_used_date(self) -> dt.date | None:
        """The day of the last use."""
        dates = [self.seen_on, self.ended_at and self.ended_at.date()]
        return max((date for date in dates if date is not None), default=None)

    def unused_days(self, looks: Sequence[dt.date]) -> int:
        """On how many observed days nothing used it since the last use; `looks` are all observed days of the project.

        A day looks back to the noon of the observed day before, the first one to its own midnight.
        """
        since = {date: noon(before) for before, date in pairwise(looks)}
        midnight = dt.time(tzinfo=dt.UTC)
        counts = [len(self.observed)]
        if self.seen_on is not None:
            counts.append(sum(date > self.seen_on for date in looks))
        if self.ended_at is not None:
            starts = [since.get(date, dt.datetime.combine(date, midnight)) for date in looks]
            counts.append(sum(start >= self.ended_at for start in starts))
        return min(counts)
