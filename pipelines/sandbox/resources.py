"""All users of images: what the API lists of each kind, what its details say, and which image each refers to.

What one of a kind says belongs to `sandbox.workloads` and `sandbox.serving`.
"""

from collections.abc import Collection, Iterator
from datetime import date
from typing import Any

from pipelines.sandbox.series import Reference, Series, is_of_user
from pipelines.sandbox.serving import Models, ServicesV1, ServicesV2
from pipelines.sandbox.slots import Slots
from pipelines.sandbox.workloads import Algorithms, CodeLab, Notebooks, TrainingJobs, Workflows

_KINDS: tuple[type[Series], ...] = (
    Notebooks,
    CodeLab,
    TrainingJobs,
    Algorithms,
    Models,
    ServicesV1,
    ServicesV2,
    Workflows,
)


class Resources:
    """The users of images.

    A `source` is notebooks, codelab, training_jobs, algorithms, models, services_v1, services_v2 or workflows.
    """

    def __init__(self, images: Slots) -> None:
        self._images = images
        self._series = {kind.source: kind(images) for kind in _KINDS}

    def total(self, source: str) -> int:
        """How many there are, on any day."""
        return self._series[source].total

    def count(self, source: str, day: date, workspace: str | None = None) -> int:
        """How many there are in a workspace; None: in any."""
        return self._images.number_count(self.total(source), day, workspace)

    def items(
        self, source: str, day: date, offset: int, limit: int, workspace: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """List items from record `offset` on, at most `limit`."""
        series, ordinal = self._series[source], day.toordinal()
        for number in self._images.numbers(series.total, ordinal, workspace, offset, limit):
            yield series.item(number, ordinal)

    def items_of_user(self, source: str, day: date, workspace: str | None = None) -> Iterator[dict[str, Any]]:
        """All list items of whoever signs in to the sandbox."""
        series, ordinal = self._series[source], day.toordinal()
        for number in self._images.numbers(series.total, ordinal, workspace):
            if is_of_user(number):
                yield series.item(number, ordinal)

    def details(self, source: str, resource_id: str, day: date) -> dict[str, Any] | None:
        """What the details call says of a model or a service; None when there is none of this id."""
        series = self._series[source]
        if not isinstance(series, Models | ServicesV1 | ServicesV2):
            raise TypeError(f"{source} have no details")
        return series.details(resource_id, day.toordinal())

    def references(self, day: date, sources: Collection[str] | None = None) -> Iterator[Reference]:
        """Everything that refers to an image on `day`, in all workspaces and of all users, by source; None: of any."""
        ordinal = day.toordinal()
        for source, series in self._series.items():
            if sources is not None and source not in sources:
                continue
            for number in range(series.total):
                yield from series.references(number, ordinal)
