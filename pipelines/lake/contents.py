"""What there is in a lake: its partitions, records and files, as listings show them.

Names that are not of a day, month or project are left out; a directory that cannot be listed is an error. Where a file
lies belongs to `layout`, what a record says to the module of its kind.
"""

import datetime as dt
import re
from collections.abc import Iterable
from typing import TypeVar

from pipelines.lake.names import Partition, month_of, partition_of, project_of
from pipelines.lake.storage import LakePath

_SHA256 = re.compile(r"[0-9a-f]{64}")

_T = TypeVar("_T")


class Contents:
    """What there is below the root of one lake.

    Raises:
        ConfigurationError, StorageError: a directory or a file cannot be read.
    """

    def __init__(self, root: LakePath) -> None:
        self._root = root

    # Records, by the bytes of their files

    def manifests(self, project: str) -> dict[Partition, bytes]:
        """The manifests of a project's published days, in order."""
        return _by_record((self._root / "_manifests").contents(f"dt=*/project={project}.json").items())

    def manifests_of(self, day: dt.date) -> dict[Partition, bytes]:
        """The manifests of all projects that are published on a day."""
        return _by_record((self._root / "_manifests" / f"dt={day}").contents("project=*.json").items())

    def derived_manifests(self, project: str) -> dict[Partition, bytes]:
        """The derived manifests of a project, in order."""
        return _by_record((self._root / "_derived").contents(f"dt=*/project={project}.json").items())

    def derived_manifests_of(self, day: dt.date) -> dict[Partition, bytes]:
        """The derived manifests of all projects of a day."""
        return _by_record((self._root / "_derived" / f"dt={day}").contents("project=*.json").items())

    def superseded_manifests(self, project: str) -> dict[LakePath, bytes]:
        """The manifests that a rerun replaced."""
        found = (self._root / "_manifests" / "superseded" / f"project={project}").contents("*.json")
        return {path: content for path, content in found.items() if _SHA256.fullmatch(path.stem)}

    def superseded_derived_manifests(self, project: str) -> dict[LakePath, bytes]:
        """The derived manifests that were replaced."""
        return (self._root / "_derived" / "superseded" / f"project={project}").contents("*.json")

    def retention_records(self, project: str) -> dict[LakePath, bytes]:
        """A project's retention records, the oldest first."""
        return (self._root / "_retention" / f"project={project}").contents(f"{'[0-9]' * 6}.json")

    def monthly_manifests(self) -> list[tuple[str, str]]:
        """Month and project of each monthly manifest, in order."""
        paths = (self._root / "_monthly").matching("month=*/project=*.json")
        names = ((month_of(path.parent.name), project_of(path.stem)) for path in paths)
        return sorted((month, project) for month, project in names if month and project)

    # Partitions and files

    def partitions(self, project: str = "*") -> list[Partition]:
        """Partitions that have a manifest, of all projects or of one, in order."""
        paths = (self._root / "_manifests").matching(f"dt=*/project={project}.json")
        return sorted(_by_record((path, None) for path in paths))

    def partitions_of(self, name: str) -> list[Partition]:
        """Partitions that have a Parquet file in the directory of a table, in order."""
        return list(self._by_partition(name, "*.parquet"))

    def files_of(self, name: str) -> dict[Partition, LakePath]:
        """The published files of a table, by partition, in order."""
        return self._by_partition(name, f"{name}.parquet")

    def project_files_of(self, name: str) -> list[LakePath]:
        """The files of a table that is kept for all days of a project together, by project."""
        paths = (self._root / name).matching(f"project=*/{name}.parquet")
        return sorted(path for path in paths if project_of(path.parent.name))

    def sizes(self, name: str, project: str) -> dict[str, int]:
        """The files of a table of a project, by path relative to the root, and their sizes in bytes."""
        found = (self._root / name).stats(f"dt=*/project={project}/{name}.parquet")
        return {path.relative_to(self._root).as_posix(): stat.st_size for path, stat in found}

    def derived(self, project: str) -> dict[Partition, float]:
        """When each day of a project was derived, in seconds since the epoch, and in order."""
        found = _by_record((self._root / "_derived").stats(f"dt=*/project={project}.json"))
        return {day: stat.st_mtime for day, stat in sorted(found.items())}

    def reported(self, project: str) -> dict[Partition, float]:
        """When the report of each day of a project was written that has one, in seconds since the epoch."""
        found = (self._root / "reports").stats(f"dt=*/project={project}/report.html")
        days = ((partition_of(path.parent.parent.name, path.parent.name), stat) for path, stat in found)
        return {day: stat.st_mtime for day, stat in days if day}

    def unfinished(self) -> list[Partition]:
        """Partitions with an attempt that has not ended, in order."""
        return list(self._by_partition("_staging", "attempt.json"))

    def failures(self) -> dict[Partition, LakePath]:
        """The notes of partitions' last failures, in order."""
        return self._by_partition("_staging", "failure.json")

    def _by_partition(self, directory: str, pattern: str) -> dict[Partition, LakePath]:
        """The files that match below `dt=.../project=.../`, by partition, in order."""
        paths = (self._root / directory).matching(f"dt=*/project=*/{pattern}")
        days = ((partition_of(path.parent.parent.name, path.parent.name), path) for path in paths)
        return dict(sorted((day, path) for day, path in days if day))


def _by_record(found: Iterable[tuple[LakePath, _T]]) -> dict[Partition, _T]:
    """What is known of files `dt=.../project=....json`, by partition."""
    days = ((partition_of(path.parent.name, path.stem), known) for path, known in found)
    return {day: known for day, known in days if day}
