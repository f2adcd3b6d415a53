"""Lakes that earlier schema versions wrote: this code reads, verifies, rebuilds and continues each of them."""

import datetime as dt
import json
import tarfile

import pytest
from old_lake import ARCHIVES, DATES, SEEN, answers_to, playing, settings_of, take

from pipelines.lake.derived_manifests import read_derived_manifest
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import known_partitions
from pipelines.maintenance.verify import verify
from pipelines.settings import DEFAULT_PROJECT, Settings
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import publish_snapshot
from pipelines.tables import SCHEMA_VERSION

VERSIONS = sorted(ARCHIVES.glob("version-*.tar.xz"))
NEXT_DAY = DATES[-1] + dt.timedelta(days=1)


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name.removesuffix(".tar.xz"))
def directory(request, tmp_path):
    """A copy of the lake, beside the queries that its own version answered, with the rows that it found."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def known(directory):
    return json.loads((directory / "answers.json").read_text())


def found(directory):
    queries = list(known(directory))
    return dict(zip(queries, answers_to(queries, directory / "lake"), strict=True))


def test_a_lake_of_this_schema_version_is_kept():
    assert f"version-{SCHEMA_VERSION}.tar.xz" in [path.name for path in VERSIONS]


def test_queries_find_the_rows_that_they_found(directory):
    assert all(known(directory).values())
    assert found(directory) == known(directory)


@pytest.mark.slow
def test_days_are_verified_rebuilt_and_continued(directory):
    settings = Settings(lake=str(directory / "lake"))
    lake = Lake(settings.lake)
    assert verify(lake, known_partitions(lake), settings=settings, is_whole_lake=True) == []
    morning = dt.datetime.combine(NEXT_DAY, dt.time(6), dt.UTC)
    for date in DATES:
        day = SnapshotRun(Partition(date, DEFAULT_PROJECT), f"run-{date}", settings, lambda: morning)
        assert publish_snapshot(day).manifest.rebuilt
    with playing(directory) as show:
        settings = settings_of(directory)
        show(NEXT_DAY)
        # The sandbox has another port.
        take(settings, NEXT_DAY, is_moved=True)
    assert verify(lake, known_partitions(lake), settings=settings, is_whole_lake=True) == []
    assert read_derived_manifest(lake, Partition(NEXT_DAY, DEFAULT_PROJECT)).summary.compared_with == DATES[-1]
    # What was seen on the days before is known still. Later code may derive more from it, but for each day.
    now = found(directory)
    for query, rows in known(directory).items():
        if "snapshot_date, " in query:
            before = [row for row in now[query] if row["snapshot_date"] != str(NEXT_DAY)]
            assert {row["snapshot_date"] for row in before} == {row["snapshot_date"] for row in rows}, query
            assert before == rows or query not in SEEN
    assert len(SEEN & known(directory).keys()) == len(SEEN)
