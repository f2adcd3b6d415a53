"""The machine's clock compared with the lake's and the API's: publication times rise, and a skew is reported."""

import asyncio
import datetime as dt
from email.utils import format_datetime

import pytest
from published_days import day_of, publish_snapshot

from assets.embedded_sandbox import connect
from pipelines.cloud.sender import Stats
from pipelines.errors import ConfigurationError
from pipelines.lake.clock import clock_warnings, newest_publication
from pipelines.lake.layout import Lake, Partition
from pipelines.lake.manifests import chain_head, published, write_manifest
from pipelines.maintenance.status import day_statuses
from pipelines.settings import Settings
from pipelines.snapshot.publish import publish
from pipelines.snapshot.snapshot_run import SnapshotRun
from pipelines.snapshot.steps import publish_snapshot as publish_stored
from pipelines.snapshot.steps import take_inventory

NOON = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)
BEHIND = (
    r"^The clock of this machine says 2026-11-23 09:30:00 UTC, but 2026-11-25 of project default was published at "
    r"2026-11-25 12:00:00 UTC: set the clock right, or, if the clock of that day was ahead, wait until then\. "
    r"Nothing was published\.$"
)


@pytest.fixture
def lake():
    """A lake with a day that was published at noon of the 25th."""
    publish_snapshot(day_of("2026-11-25"))
    return Lake("lake")


def day_at(now, date="2026-11-23", **options):
    return SnapshotRun(
        Partition(dt.date.fromisoformat(date), "default"), "run-2", Settings(lake="lake"), lambda: now, **options
    )


def test_run_with_a_clock_behind_the_lake_is_refused_before_any_request(lake):
    early = dt.datetime(2026, 11, 23, 9, 30, tzinfo=dt.UTC)
    with pytest.raises(ConfigurationError, match=BEHIND):
        take_inventory(day_at(early))
    assert lake.contents.unfinished() == []
    with pytest.raises(ConfigurationError, match=BEHIND):
        publish_stored(day_at(early, "2026-11-25"))
    assert newest_publication(lake, "default").published_at == NOON
    # Each project has its own chain.
    other = SnapshotRun(Partition(early.date(), "other"), "run-2", Settings(lake="lake"), lambda: early)
    other.check_clock()


def test_clock_that_goes_back_during_a_run_prevents_the_manifest(lake):
    partition = Partition(NOON.date(), "default")
    manifest, before = published(lake, partition), chain_head(lake, "default")
    with pytest.raises(ConfigurationError, match="published at 2026-11-25 12:00:00 UTC: set the clock right"):
        publish(
            lake,
            partition,
            {name: lake.table(name, partition) for name in manifest.files},
            run_id="run-2",
            started_at=NOON,
            published_at=NOON - 31 * SECOND,
            rebuilt=True,
            inventory=manifest.inventory,
            fetch=manifest.fetch,
        )
    assert chain_head(lake, "default") == before


@pytest.mark.parametrize("behind", [0, 20])
def test_publication_times_rise_even_if_the_clock_stands_still(lake, behind):
    day = day_at(NOON - behind * SECOND, "2026-11-25")
    times = [NOON, *(publish_stored(day).manifest.published_at for _ in range(3))]
    assert times == sorted(set(times))
    assert times[-1] - NOON < SECOND


def test_played_day_is_published_by_the_wall_clock(lake):
    played = day_at(dt.datetime(2020, 1, 2, 9, tzinfo=dt.UTC), "2020-01-02", is_played=True)
    before = dt.datetime.now(dt.UTC)
    assert before <= played.publication_time() <= dt.datetime.now(dt.UTC)
    assert day_at(NOON).publication_time() == NOON


def test_publication_in_the_future_is_reported_until_that_time(lake):
    early = dt.datetime(2026, 11, 23, 9, 30, tzinfo=dt.UTC)
    (warning,) = clock_warnings(lake, "default", early)
    assert "says 2026-11-23 09:30:00 UTC, but 2026-11-25 of project default was published at" in warning
    assert warning.endswith("No day of the project can be published until then.")
    assert clock_warnings(lake, "default", NOON) == []
    assert clock_warnings(lake, "nobody", early) == []


def fetched_with(lake, date, skew):
    """Publish a day whose responses came from a clock that was this far ahead."""
    day = day_of(date)
    manifest = publish_snapshot(day)
    fetch = manifest.fetch.model_copy(update={"clock_skew_seconds": skew})
    write_manifest(lake, day.partition, manifest.model_copy(update={"fetch": fetch}))


def test_clock_skew_is_reported_until_a_day_with_a_right_clock(lake):
    later = NOON + dt.timedelta(days=30)
    fetched_with(lake, "2026-11-26", 299.0)
    assert clock_warnings(lake, "default", later) == []
    fetched_with(lake, "2026-11-27", 7_200.4)
    (warning,) = clock_warnings(lake, "default", later)
    assert warning == (
        "The clock of the machine that fetched 2026-11-27 of project default was 120 minutes ahead of that of "
        "127.0.0.1: set it right. This is said until a day is fetched by a right clock."
    )
    (status,) = day_statuses(lake, ["default"], dt.date(2026, 11, 27), dt.date(2026, 11, 27))
    assert status.as_json()["clock_skew_seconds"] == 7_200.4
    # A day without response dates says nothing about the skew.
    fetched_with(lake, "2026-11-28", None)
    assert clock_warnings(lake, "default", later) == [warning]
    fetched_with(lake, "2026-11-29", -600.0)
    assert "was 10 minutes behind that of" in clock_warnings(lake, "default", later)[0]
    fetched_with(lake, "2026-11-30", 0.2)
    assert clock_warnings(lake, "default", later) == []


def test_damaged_manifest_does_not_hide_the_clock_skew(lake):
    fetched_with(lake, "2026-11-26", 3_600.0)
    lake.manifest(Partition(dt.date(2026, 11, 25), "default")).write_text("{")
    assert len(clock_warnings(lake, "default", NOON + dt.timedelta(days=2))) == 1


def test_smallest_skew_of_all_responses_is_kept():
    stats = Stats()
    for header in ("", "yesterday", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"):
        stats.note_date(header, NOON.timestamp())
    assert stats.clock_skew_seconds is None
    # From a cache, late, at once, late.
    for minutes in (90, 60.5, 60, 61):
        stats.note_date(format_datetime(NOON - dt.timedelta(minutes=minutes), usegmt=True), NOON.timestamp())
    assert stats.clock_skew_seconds == 3_600.0
    stats.note_date("Wed, 25 Nov 2026 12:00:02 -0000", NOON.timestamp())
    assert stats.clock_skew_seconds == -2.0


def test_api_clock_is_read_from_response_dates(start_sandbox, monkeypatch):
    sandbox = start_sandbox(size=1)
    for name, value in sandbox.env.items():
        monkeypatch.setenv(name, value)

    async def skew():
        with connect(Settings(), Partition(NOON.date(), "default")) as connection:
            async with connection.client() as client:
                async for _ in client.list_images(["0"]):
                    pass
                return client.stats.clock_skew_seconds

    # Both clocks are this machine's; only the API's has no fractions.
    assert -1 < asyncio.run(skew()) < 60
