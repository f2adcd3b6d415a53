"""Checks the clock of this machine against the lake and the API: what is refused, and what is a warning.

Times of publication rise along a project's chain of manifests, so a clock that is behind the lake may not publish. A
clock that is ahead looks like days without runs; only the API's clock, as its responses state it, shows it.
"""

import datetime as dt

from pipelines.errors import ConfigurationError, StorageError
from pipelines.lake.layout import Lake
from pipelines.lake.manifests import Manifest, chain_of_manifests, parse_manifest

# A larger difference is a wrong clock: signatures hold for a quarter of an hour, and midnight decides which day it is.
TOLERATED_SKEW_SECONDS = 300.0
# The clocks of several machines that write to one lake differ by some seconds, and are set back by less.
TOLERATED_STEP = dt.timedelta(seconds=30)


def newest_publication(lake: Lake, project: str) -> Manifest | None:
    """The manifest that a project published last, by the time it states, or None.

    Raises:
        StorageError: a manifest is damaged.
    """
    manifests = [parse_manifest(content, path) for path, content in chain_of_manifests(lake, project).items()]
    return max(manifests, key=lambda manifest: manifest.published_at, default=None)


def check_clock(lake: Lake, project: str, now: dt.datetime) -> None:
    """Refuse to publish by a clock that is behind what a project has published.

    Raises:
        ConfigurationError: names both times.
    """
    rising(lake, project, now)


def rising(lake: Lake, project: str, now: dt.datetime) -> dt.datetime:
    """The time that a project's next manifest states: `now`, or just after the newest manifest when that is later.

    Raises:
        ConfigurationError: the clock is behind by more than clocks differ; names both times.
    """
    newest = newest_publication(lake, project)
    if newest is None:
        return now
    if _is_behind(newest, now):
        raise ConfigurationError(f"{_behind(newest, now)} Nothing was published.")
    return max(now, newest.published_at + dt.timedelta(microseconds=1))


def clock_warnings(lake: Lake, project: str, now: dt.datetime) -> list[str]:
    """What is wrong with the clock, by the project's manifests, until a day is fetched by a right one."""
    manifests = []
    for path, content in chain_of_manifests(lake, project).items():
        try:
            manifests.append(parse_manifest(content, path))
        except StorageError:
            # `verify` reports it.
            continue
    warnings = []
    newest = max(manifests, key=lambda manifest: manifest.published_at, default=None)
    if newest is not None and _is_behind(newest, now):
        warnings.append(f"{_behind(newest, now)} No day of the project can be published until then.")
    measured = [manifest for manifest in manifests if manifest.fetch.clock_skew_seconds is not None]
    last = max(measured, key=lambda manifest: (manifest.published_at, manifest.snapshot_date), default=None)
    skew = last.fetch.clock_skew_seconds if last else None
    if last is not None and skew is not None and abs(skew) > TOLERATED_SKEW_SECONDS:
        warnings.append(
            f"The clock of the machine that fetched {last.snapshot_date} of project {project} was "
            f"{abs(skew) / 60:,.0f} minutes {'ahead of' if skew > 0 else 'behind'} that of "
            f"{last.fetch.endpoint_host}: set it right. This is said until a day is fetched by a right clock."
        )
    return warnings


def _is_behind(newest: Manifest, now: dt.datetime) -> bool:
    return newest.published_at - now > TOLERATED_STEP


def _behind(newest: Manifest, now: dt.datetime) -> str:
    return (
        f"The clock of this machine says {now:%Y-%m-%d %H:%M:%S} UTC, but {newest.snapshot_date} of project "
        f"{newest.project} was published at {newest.published_at:%Y-%m-%d %H:%M:%S} UTC: set the clock right, or, if "
        "the clock of that day was ahead, wait until then."
    )
